"""Gradients against finite differences, to any order.

The check of order 1 compares, for phi(x) = <v, f(x)> with a random cotangent v, the computed gradient with

    d phi / d x_i  ~  (4 D(h) - D(2h)) / 3,    D(h) = (phi(x + h e_i) - phi(x - h e_i)) / 2h,    h = 1e-3 max(1, |x_i|)

in float64 (Richardson's extrapolation: the error is h^4 + 1e-16 / h, some 1e-12), one entry at a time, so that the worst
entry can be named; or, for large inputs, along one random direction. The check of order 2 is the same routine applied to the
gradient itself, as a function of the inputs *and* of v; and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minigen.autograd import enable_grad, grad
from minigen.tensor import Tensor

TOLERANCE = 1e-6
STEP = 1e-3
ELEMENTWISE_LIMIT = 400  # larger inputs are checked along one random direction


class Finding(NamedTuple):
    """The worst disagreement at one order. `where` names the input and entry."""

    order: int
    error: float
    where: str
    computed: float
    expected: float

    @property
    def ok(self) -> bool:
        return bool(self.error <= TOLERANCE)


class GradcheckError(AssertionError):
    """A gradient disagrees with finite differences."""


def gradcheck(f: Callable[..., Any], *inputs: Any, order: int = 2, seed: int = 0, device: str = "cpu") -> list[Finding]:
    """Check the gradients of f(*inputs) -> Tensor or tuple of Tensors up to `order`.

    Inputs (Tensors or arrays) are taken in float64. Returns the worst Finding of each order; raises GradcheckError that
    names the entry if one exceeds 1e-6 of the largest entry of its gradient.
    """
    findings = measure(f, *inputs, order=order, seed=seed, device=device)
    for finding in findings:
        if not finding.ok:
            raise GradcheckError(
                f"order {finding.order}, {finding.where}: computed {finding.computed:.6g}, finite difference "
                f"{finding.expected:.6g}, relative error {finding.error:.1e}"
            )
    return findings


def measure(f: Callable[..., Any], *inputs: Any, order: int = 2, seed: int = 0, device: str = "cpu") -> list[Finding]:
    """As `gradcheck`, but returns the findings without judging them. f is called with Tensors on `device`."""
    if device != "cpu":
        f = _on(device, f)
    rng = np.random.default_rng([seed, 1])  # not the caller's stream: a cotangent equal to the input would hide errors
    arrays = [_float64(x) for x in inputs]
    findings = []
    function, names = f, [f"input {i}" for i in range(len(arrays))]
    for n in range(1, order + 1):
        with enable_grad():
            outs = _tuple(function(*[Tensor(a, True) for a in arrays]))
        cotangents = [rng.standard_normal(o.shape) for o in outs]
        findings.append(_first_order(function, arrays, cotangents, names, n, rng))
        if n < order:
            function = _gradient_of(function, len(arrays))
            arrays = arrays + cotangents
            names = names + [f"cotangent {i}" if len(cotangents) > 1 else "cotangent" for i in range(len(cotangents))]
    return findings


def _float64(x: Any) -> Any:
    x = x._data if isinstance(x, Tensor) else np.asarray(x)
    return x if x.dtype == np.float64 else x.astype(np.float64)


def _on(device: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """f, computed on a device for Tensors of the CPU."""
    return lambda *xs: tuple(y.to("cpu") for y in _tuple(f(*[x.to(device) for x in xs])))


def _tuple(y: Any) -> tuple[Any, ...]:
    return tuple(y) if isinstance(y, (tuple, list)) else (y,)


def _gradient_of(f: Callable[..., Any], n: int) -> Callable[..., Any]:
    """(x_1..x_n, v...) -> the gradient of <v, f(x)> with respect to x, as a differentiable function."""

    def gradient(*args: Tensor) -> tuple[Tensor, ...]:
        xs, vs = args[:n], args[n:]
        outs = _tuple(f(*xs))
        found = grad(outs, xs, vs, create_graph=True, allow_unused=True)
        # An input that does not matter has gradient zero; added up with v * 0 so that it stays part of the graph.
        return tuple(x * 0.0 if g is None else _keep(g, xs[0]) for g, x in zip(found, xs, strict=True))

    return gradient


def _keep(g: Tensor, x: Tensor) -> Tensor:
    """A gradient that is constant has no graph; tie it to an input so that its derivative is zero, not an error."""
    return g if g.requires_grad else g + x.sum() * 0.0


def _first_order(
    f: Callable[..., Any], arrays: list[Any], vs: list[Any], names: list[str], order: int, rng: np.random.Generator
) -> Finding:
    def phi(xs: list[Any]) -> float:
        with enable_grad():
            outs = _tuple(f(*[Tensor(x, True) for x in xs]))
        return sum(float(np.sum(v * o._data)) for v, o in zip(vs, outs, strict=True))

    with enable_grad():
        leaves = [Tensor(a, True) for a in arrays]
        outs = _tuple(f(*leaves))
        computed = grad(outs, leaves, [Tensor(v) for v in vs], allow_unused=True)
    worst = Finding(order, 0.0, "-", 0.0, 0.0)
    for i, (x, g) in enumerate(zip(arrays, computed, strict=True)):
        analytic = np.zeros_like(x) if g is None else g._data
        if x.size <= ELEMENTWISE_LIMIT:
            numeric = np.empty(x.shape)
            for at in np.ndindex(*x.shape):
                numeric[at] = _slope(phi, arrays, i, *_unit(x, at))
            found = _compare(analytic, numeric, f"{names[i]}")
        else:
            u = rng.standard_normal(x.shape)
            u /= np.linalg.norm(u)
            numeric = np.array(_slope(phi, arrays, i, u, STEP * max(1.0, float(np.abs(x).max()))))
            found = _compare(np.array(np.sum(analytic * u)), numeric, f"{names[i]}, a random direction")
        if not found[0] <= worst.error:  # written so that NaN counts as worse
            worst = Finding(order, *found)
    return worst


def _unit(x: Any, at: tuple[int, ...]) -> tuple[Any, float]:
    u = np.zeros(x.shape)
    u[at] = 1.0
    return u, STEP * max(1.0, abs(float(x[at])))


def _slope(phi: Callable[[list[Any]], float], arrays: list[Any], i: int, u: Any, h: float) -> float:
    """The derivative of phi in input i along u, by central differences at two widths."""

    def at(t: float) -> float:
        return phi([np.asarray(x + t * u) if j == i else x for j, x in enumerate(arrays)])  # a number too stays an array

    near, far = (at(h) - at(-h)) / (2 * h), (at(2 * h) - at(-2 * h)) / (4 * h)
    return (4 * near - far) / 3


def _compare(computed: Any, expected: Any, name: str) -> tuple[float, str, float, float]:
    scale = max(float(np.abs(expected).max(initial=0.0)), float(np.abs(computed).max(initial=0.0)), 1e-2)
    error = np.abs(computed - expected) / scale
    if error.size == 0:
        return 0.0, name, 0.0, 0.0
    at = np.unravel_index(int(np.argmax(error)), error.shape)
    entry = f"{name}[{', '.join(str(int(k)) for k in at)}]" if at else name
    return float(error[at]), entry, float(computed[at]), float(expected[at])
