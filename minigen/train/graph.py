"""A step of training, captured once and replayed: `--graph`.

A small network's step is hundreds of kernels of a few microseconds each, and what takes the time is Python, which launches
them. A CUDA graph launches all of them at once. What has to hold for that, and how it is checked: `kernels/graph.py`. What the
host does in each step all the same, the next batch and the learning rate: `feed` in `minigen/device.py`.

    step 1      as always: what is made once (the optimiser's memory, constants, a codebook's first codes) is made here
    step 2      as always, and its launches are noted
    step 3      captured: the same launches as in step 2, or it is refused; then replayed, as are all others

The losses are those of a training without it, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from minigen.device import Feeder
from minigen.errors import UserError

Losses = dict[str, Any]


class StepGraph:
    """`update` as a graph. Where steps differ (a recipe with several phases), each `phase` has a graph of its own."""

    def __init__(self, update: Callable[[], Losses]) -> None:
        self.update = update
        self._phases: dict[Hashable, _Phase] = {}

    def __call__(self, phase: Hashable) -> Losses:
        """One update: what `update` returns, Tensors that the next call writes anew."""
        from minigen.kernels.cuda import DeviceError

        if phase not in self._phases:
            self._phases = {phase: _Phase(self.update)}  # a phase does not come back, and its graph holds memory
            return self.update()
        try:
            return self._phases[phase].step()
        except DeviceError as e:
            raise UserError(f"--graph: {e}") from e


class _Phase:
    def __init__(self, update: Callable[[], Losses]) -> None:
        from minigen.kernels.graph import Graph

        self.update, self.graph, self.feeder = update, Graph(), Feeder()
        self.noted = False
        self.losses: Losses | None = None

    def step(self) -> Losses:
        if not self.noted:
            with self.feeder.collecting(hold=False), self.graph.noting():
                losses = self.update()
            self.noted = True
            return losses
        if self.losses is None:
            with self.feeder.collecting(hold=True), self.graph.capturing():
                self.losses = self.update()
        else:
            self.feeder.prepare()
        self.feeder.fill()
        self.graph.replay()
        return self.losses
