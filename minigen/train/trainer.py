"""What every recipe trains with: an update, what to look at, and a state that can be saved.

`parts` names what a checkpoint holds, and nothing else is saved: networks (any object; its attributes are walked), arrays that
change in place, and objects that say their state themselves (optimisers, the loader). Each part's arrays are stored under its
name: "generator.body.0.weight", "opt_g.step", "loader.position".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minigen import nn
from minigen.errors import UserError
from minigen.optim import WeightAverage
from minigen.tensor import Tensor
from minigen.train.graph import StepGraph


class Trainer:
    """A recipe subclasses it and writes `update()`. `config` is resolved: no option is None any more."""

    def __init__(self, config: Any, info: Any) -> None:
        self.config, self.info = config, info
        self.parts: dict[str, Any] = {}
        self.average: WeightAverage | None = None
        self._graph: StepGraph | None = None
        if config.graph:
            self.capture()

    def step(self) -> dict[str, float]:
        """One update of everything that is trained. Returns the named losses."""
        found = self.update() if self._graph is None else self._graph(self.phase())
        return self.finish({name: float(loss.item()) for name, loss in found.items()})

    def capture(self) -> None:
        """From now on steps are captured, and replayed."""
        self._graph = StepGraph(self.update)

    def update(self) -> dict[str, Tensor]:
        """All of a step but reading its losses, which are scalars. With --graph it is captured: see `graph.py`."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def phase(self) -> Any:
        """What tells steps apart that are not made of the same launches."""
        return None

    def finish(self, losses: dict[str, float]) -> dict[str, float]:
        """What else the host does when an update is over, and what it makes of the losses."""
        return losses

    def keep_average(self, params: Any, decay: float) -> None:
        """From now on keep a running average of `params` (none with a decay of 0). `step()` has to call its update()."""
        if decay:
            self.average = WeightAverage(params, decay)
            self.parts["average"] = self.average.average

    @contextlib.contextmanager
    def looking(self, *networks: Any) -> Iterator[None]:
        """The networks in evaluation mode, and the averaged weights, if there are any, in place of the weights."""
        for network in networks:
            nn.set_training(network, False)
        if self.average is not None:
            self.average.swap()
        try:
            yield
        finally:
            if self.average is not None:
                self.average.swap()
            for network in networks:
                nn.set_training(network, True)

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Everything `step()` depends on beside the random generator: named copies."""
        return {f"{name}.{k}": v for name, part in self.parts.items() for k, v in _state_of(part).items()}

    def load_state(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Raises ValueError, or KeyError, if the state belongs to other networks."""
        for name, part in self.parts.items():
            prefix = name + "."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            part.load_state_dict(own) if _says_its_state(part) else nn.load_state_dict(part, own)


def _says_its_state(part: Any) -> bool:
    return hasattr(part, "state_dict")


def _state_of(part: Any) -> dict[str, Any]:
    return part.state_dict() if _says_its_state(part) else nn.state_dict(part)


def pieces(count: int, most: int) -> list[slice]:
    """0 .. count in pieces of `most`, the last one shorter."""
    return [slice(i, i + most) for i in range(0, count, most)]


def labels_in_turn(n: int, classes: int) -> Any:
    """0, 1, .. classes - 1, 0, 1, ..: the labels (n,) of conditional samples; None without classes."""
    return np.arange(n) % classes if classes else None


def labels_for(count: int, classes: int, label: int | None) -> Any:
    """The labels (count,) of samples: all of one class, or of each in turn; None without classes. Raises UserError."""
    if label is None:
        return labels_in_turn(count, classes)
    if not classes:
        raise UserError("this run was trained without --labels")
    if not 0 <= label < classes:
        raise UserError(f"label {label} is not in 0..{classes - 1}")
    return np.full(count, label)
