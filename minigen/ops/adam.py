"""Adam's update, in place: not differentiable, but a kernel like the others.

    g: gradient, m, v: running means of g and g^2, t: steps taken, counted from 1     (Kingma and Ba 2015, algorithm 1)

    p <- p - lr * decay * p                                     AdamW: decay outside the adaptive step
    m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2    (Loshchilov and Hutter 2019, algorithm 2)
    p <- p - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
"""

from __future__ import annotations

import numpy as np

from minigen.dispatch import kernel


@kernel("adam")
def adam_update(p, m, v, g, lr, beta1, beta2, eps, weight_decay, step):
    """Move p, m, v (arrays of one shape) by one step along the gradient g."""
    p -= lr * weight_decay * p
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    p -= (lr / (1 - beta1**step)) * m / (np.sqrt(v / (1 - beta2**step)) + eps)
