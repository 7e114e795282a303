"""Comparing results: both benchmarks refuse to time what disagrees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness.step import Step, Twin
from minigen import nn, random
from minigen.device import to_host


class Refusal(Exception):
    """Why something is not timed."""


class Disagreement(Refusal):
    """Two implementations gave different results; the message says which result, and by how much."""


class Unable(Refusal):
    """PyTorch cannot do this, or not here; the message is its own."""


def host(array: Any) -> Any:
    """An array or a PyTorch tensor, wherever it is, as one of NumPy's."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else to_host(array)


def error(found: Any, wanted: Any, scale: float = 0.0) -> float:
    """|found - wanted| / max(|wanted|, scale) in Euclidean norm over the whole array; inf where shapes differ, nan for nan."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), scale, 1e-30)


def check(what: str, found: Any, wanted: Any, tolerance: float, scale: float = 0.0) -> float:
    """The error, after raising Disagreement if it is above the tolerance or not a number."""
    e = error(found, wanted, scale)
    if not e <= tolerance:
        shapes = np.shape(found), np.shape(wanted)
        detail = f"shapes {shapes[0]} and {shapes[1]}" if shapes[0] != shapes[1] else f"relative error {e:.1e}"
        raise Disagreement(f"{what}: {detail}, at most {tolerance:.0e} allowed")
    return e


# Float32 rounds to 6e-8; sums of thousands of products, and those in another order, lose a digit or two.
LOSS_TOLERANCE, GRADIENT_TOLERANCE, UPDATE_TOLERANCE = 2e-6, 1e-4, 1e-3
# Adam's first update is lr g / (|g| + eps), nearly the gradient's sign: where a gradient is all rounding, so is the update,
# and the loss after it. With an eps above rounding, on both sides, it is not.
EPS = 1e-5
SEEDS = range(1, 13)


def verified(build: Callable[[], Step], twin_of: Callable[[Step], Twin]) -> dict[str, float]:
    """How closely the first steps of a step and its twin agree. Raises Disagreement if they do not.

    An activation so close to a ReLU's kink that the last digit decides on its side changes all gradients before it. So if
    there is disagreement, other noise and other data are tried, rather than a wider tolerance.
    """
    for seed in SEEDS:
        step = build()
        try:
            return first_steps(step, twin_of(step), seed)
        except Disagreement as e:
            last = e
    raise last


def first_steps(step: Step, twin: Twin, noise_seed: int) -> dict[str, float]:
    """Run the first step of both. Returns the largest errors of losses, gradients and updates; raises Disagreement."""
    before = {name: nn.state_dict(model) for name, model in step.models.items()}
    for part, optimiser in step.optimisers.items():
        optimiser.eps = EPS
        twin.optimisers[part].param_groups[0]["eps"] = EPS
    random.seed(noise_seed)
    step.seed(noise_seed)
    twin.seed(noise_seed)
    losses, wanted = step.run(), twin.run()
    if set(losses) != set(wanted):
        raise Disagreement(f"losses {sorted(losses)}, in PyTorch {sorted(wanted)}")
    errors = {"loss_error": 0.0, "gradient_error": 0.0, "update_error": 0.0}

    def compare(what: str, name: str, mine: Any, theirs: Any, tolerance: float, scale: float = 0.0) -> None:
        key = f"{what}_error"
        errors[key] = max(errors[key], check(f"{what} {name}", mine, theirs, tolerance, scale))

    for k in losses:
        compare("loss", k, losses[k], wanted[k], LOSS_TOLERANCE, scale=1.0)  # a loss may be a difference near zero
    for part, model in step.models.items():
        module, ours, theirs = twin.modules[part], step.optimisers[part], twin.optimisers[part]
        for m, (k, p) in zip(ours.slots["m"], module.named_parameters(), strict=True):  # after one step: (1 - beta1) g
            compare("gradient", f"{part}.{k}", host(m), host(theirs.state[p]["exp_avg"]), GRADIENT_TOLERANCE)
        moved = module.state_dict()
        for k, after in nn.state_dict(model).items():
            old = before[part][k]
            compare("update", f"{part}.{k}", after - old, host(moved[k]) - old, UPDATE_TOLERANCE)
    return errors
