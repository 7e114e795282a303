"""Adam's update, in place, of all parameters at once: not differentiable, but a kernel like the others.

    g: gradient, m, v: running means of g and g^2, t: steps taken, counted from 1     (Kingma and Ba 2015, algorithm 1)

    p <- p - lr * decay * p                                     AdamW: decay outside the adaptive step
    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2    (Loshchilov and Hutter 2019, algorithm 2)
    p <- p - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

What changes from step to step, lr and t, comes in three numbers for each parameter:

    keep = 1 - lr * decay           rate = lr / (1 - b1^t)      root = 1 / sqrt(1 - b2^t)
    p <- keep * p - rate * m / (sqrt(v) * root + eps)

so that on a device they can be read from memory, by a step that was captured once (`kernels/graph.py`).
"""

from __future__ import annotations

import numpy as np

from minigen.dispatch import kernel


def adam_rates(lr, beta1, beta2, weight_decay, steps_n):
    """The numbers (n, 3) float64 of n parameters that have taken so many steps, this one included: rate, keep, root."""
    rate, root = lr / (1 - beta1**steps_n), 1 / np.sqrt(1 - beta2**steps_n)
    return np.stack([rate, np.full_like(rate, 1 - lr * weight_decay), root], 1)


@kernel("adam")
def adam_update(p, m, v, g, rates_3, beta1, beta2, eps):
    """Move p, m, v (arrays of one shape) by one step along the gradient g. rates_3: rate, keep, root."""
    rate, keep, root = rates_3.tolist()
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    p[...] = keep * p - rate * m / (np.sqrt(v) * root + eps)


def adam_update_many(params, m, v, grads, rates_n3, beta1, beta2, eps):
    """The same for lists of n arrays: on a device in one launch, or few."""
    if not isinstance(params[0], np.ndarray):
        from minigen.kernels.adam import update_many

        update_many(params, m, v, grads, rates_n3, beta1, beta2, eps)
        return
    for arrays in zip(params, m, v, grads, rates_n3, strict=True):
        adam_update(*arrays, beta1, beta2, eps)
