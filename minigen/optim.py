"""Optimisers, gradient clipping, learning-rate schedules, weight averaging.

An optimiser updates its parameters in place, from gradients passed to `step(grads)` (as `mg.grad` returns them) or, without
an argument, from each parameter's `.grad`. In-place updates bump the parameters' versions: backward through a graph that
was built before the step raises. `state_dict()` is arrays only, by name, ready for a safetensors file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minigen.device import feed, to_host
from minigen.ops.adam import adam_rates, adam_update_many
from minigen.tensor import Tensor


class Optimizer:
    """Parameters, their running statistics (`slots`: name -> one array for each parameter), and the count of steps."""

    def __init__(self, params: Sequence[Tensor], lr: float, slots: Sequence[str] = ()) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("an optimiser needs at least one parameter")
        self.lr = lr
        self.schedule = constant()  # a factor of lr, from the steps taken
        self.steps = np.zeros(len(self.params), np.int64)  # for each parameter: one may get its first gradient late
        self.slots = {name: [np.zeros_like(p.data) for p in self.params] for name in slots}

    @property
    def t(self) -> int:
        """Steps taken."""
        return int(self.steps.max())

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.lr * self.schedule(self.t)

    def step(self, grads: Sequence[Tensor] | None = None) -> None:
        """Move every parameter once. A parameter without a gradient (None) stays where it is."""
        found = [p.grad for p in self.params] if grads is None else list(grads)
        if len(found) != len(self.params):
            raise ValueError(f"{len(found)} gradients for {len(self.params)} parameters")
        there = [i for i, g in enumerate(found) if g is not None]
        self.update(there, [self.params[i].data for i in there], [g.data for g in found if g is not None])
        for i in there:
            self.params[i].bump()

    def count(self, there: Sequence[int]) -> None:
        """Count a step of these parameters: the host's part of it, and so to be fed."""
        self.steps[there] += 1

    def update(self, there: Sequence[int], params: Sequence[Any], grads: Sequence[Any]) -> None:
        """Move these parameters, by their numbers, along their gradients: arrays."""
        lr = self.rate
        feed(lambda: self.count(there))
        for i, p, g in zip(there, params, grads, strict=True):
            self.move(p, g, lr, int(self.steps[i]), *(slot[i] for slot in self.slots.values()))

    def move(self, p: Any, g: Any, lr: float, t: int, *slots: Any) -> None:
        """Move the array p along its gradient g, for the t-th time, counted from 1."""
        raise NotImplementedError("an optimiser writes move(p, g, lr, t, *slots)")

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"steps": self.steps.copy(), "lr": np.array(self.lr, np.float64)}
        slots = {f"{name}.{i}": a for name, arrays in self.slots.items() for i, a in enumerate(arrays)}
        return state | {name: np.array(to_host(a)) for name, a in slots.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError, before anything is changed, if `state` belongs to another optimiser or model."""
        own = self.state_dict()
        if set(own) != set(state) or any(np.shape(state[k]) != own[k].shape for k in own):
            raise ValueError("optimiser state does not fit: another optimiser, or another model")
        self.steps[...] = state["steps"]
        self.lr = float(state["lr"])
        for name, arrays in self.slots.items():
            for i, a in enumerate(arrays):
                a[...] = state[f"{name}.{i}"]


class SGD(Optimizer):
    """p <- p - lr b, b <- momentum b + g + decay p. PyTorch's form: the learning rate outside the momentum."""

    def __init__(self, params: Sequence[Tensor], lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, ["momentum"] if momentum else [])
        self.momentum, self.weight_decay = momentum, weight_decay

    def move(self, p: Any, g: Any, lr: float, t: int, *slots: Any) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p
        if slots:
            slots[0][...] = g if t == 1 else self.momentum * slots[0] + g
            g = slots[0]
        p -= lr * g


class RMSprop(Optimizer):
    """v <- alpha v + (1 - alpha) g^2;  p <- p - lr g / (sqrt(v) + eps)   (Hinton's lecture 6e)."""

    def __init__(self, params: Sequence[Tensor], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(params, lr, ["v"])
        self.alpha, self.eps = alpha, eps

    def move(self, p: Any, g: Any, lr: float, t: int, *slots: Any) -> None:
        (v,) = slots
        v += (1 - self.alpha) * (g * g - v)
        p -= lr * g / (np.sqrt(v) + self.eps)


class Adagrad(Optimizer):
    """v <- v + g^2;  p <- p - lr g / (sqrt(v) + eps)   (Duchi et al. 2011)."""

    def __init__(self, params: Sequence[Tensor], lr: float = 1e-2, eps: float = 1e-10) -> None:
        super().__init__(params, lr, ["v"])
        self.eps = eps

    def move(self, p: Any, g: Any, lr: float, t: int, *slots: Any) -> None:
        (v,) = slots
        v += g * g
        p -= lr * g / (np.sqrt(v) + self.eps)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); equations in minigen/ops/adam.py."""

    def __init__(
        self, params: Sequence[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, ["m", "v"])
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, there: Sequence[int], params: Sequence[Any], grads: Sequence[Any]) -> None:
        def rates() -> Any:
            lr = self.rate
            self.count(there)
            return adam_rates(lr, *self.betas, self.weight_decay, self.steps[there])

        rates_n3 = feed(rates)
        m, v = ([slot[i] for i in there] for slot in self.slots.values())
        adam_update_many(params, m, v, grads, rates_n3, *self.betas, self.eps)


class Adam(AdamW):
    """Adam (Kingma and Ba 2015)."""

    def __init__(
        self, params: Sequence[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, lr, betas, eps, 0.0)


def clip_grad_norm(grads: Sequence[Tensor], max_norm: float) -> tuple[list[Tensor], Tensor]:
    """Gradients scaled so that their joint Euclidean norm is at most `max_norm`, and the norm before, a scalar.

    New Tensors: a gradient's array may be shared, so it is never written to.
    """
    squares = [np.vdot(g.data, g.data) for g in grads]
    if all(g.device == "cpu" for g in grads):
        norm = math.sqrt(sum(map(float, squares)))
        if not norm <= max_norm:
            grads = [Tensor(g.data * g.dtype.type(max_norm / norm)) for g in grads]
        return list(grads), Tensor(np.array(norm))
    there = np.sqrt(sum(squares[1:], squares[0]))  # stays on the device: the host does not wait for it
    scale = max_norm / np.maximum(there, max_norm)
    return [Tensor(g.data * scale) for g in grads], Tensor(there)


def constant() -> Callable[[int], float]:
    """A schedule is a function from the step, counted from 0, to a factor of the learning rate."""
    return lambda step: 1.0


def linear_decay(steps: int, final: float = 0.0) -> Callable[[int], float]:
    """From 1 down to `final` over `steps`, in a straight line."""
    return lambda step: 1.0 + (final - 1.0) * min(step / steps, 1.0)


def cosine(steps: int, warmup: int = 0, final: float = 0.0) -> Callable[[int], float]:
    """From 0 to 1 over `warmup` steps, then down to `final` along half a cosine (Loshchilov and Hutter 2017)."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


# By name: a function of the number of steps in all.
SCHEDULES: dict[str, Callable[[int], Callable[[int], float]]] = {
    "constant": lambda steps: constant(),
    "linear": linear_decay,
    "cosine": cosine,
}


class WeightAverage:
    """An exponential moving average of parameters: a <- decay a + (1 - decay) p. Often samples better than p itself."""

    def __init__(self, params: Sequence[Tensor], decay: float = 0.999) -> None:
        self.params, self.decay = list(params), decay
        self.average = [p.data.copy() for p in self.params]

    def update(self) -> None:
        for a, p in zip(self.average, self.params, strict=True):
            a += (1 - self.decay) * (p.data - a)

    def swap(self) -> None:
        """Exchange the averages with the parameters; call it again to undo."""
        for a, p in zip(self.average, self.params, strict=True):
            kept = p.data.copy()
            p.assign(a)
            a[...] = kept
