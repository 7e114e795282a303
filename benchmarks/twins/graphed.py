"""A twin's step as a CUDA graph: captured once, then replayed, so that PyTorch's Python and its launches cost nothing.

What a graph holds is frozen, addresses and numbers alike. So a batch is copied to where the first one lay, and the learning
rate and Adam's count of steps are on the device (`capturable`). Before the capture some steps run on a stream of their own, as
PyTorch's documentation asks: libraries set themselves up in their first calls. What those steps changed is put back, so that
the first replay is the first step.

Without CUDA the same is done but for the capture, and a replay is a call: so that all else can be tested anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.twins.base import Base, Tensors

WARM_UP = 3  # steps


class Graphed:
    def __init__(self, twin: Base) -> None:
        self.twin, self.modules, self.optimisers, self.seed = twin, twin.modules, twin.optimisers, twin.seed
        self.held: list[torch.Tensor] = []
        self.found: Tensors = {}
        self.replay: Callable[[], Any] | None = None
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=twin.device)
                group["capturable"] = twin.device != "cpu"

    def run(self) -> dict[str, float]:
        batch = self.twin.batch()
        if self.replay is None:
            self.replay = self._captured(batch)
        for held, new in zip(self.held, batch, strict=True):
            held.copy_(new)
        self.replay()
        return self.twin.figures(self.found)

    def _captured(self, batch: tuple[torch.Tensor, ...]) -> Callable[[], Any]:
        """Capture a step. Only now, not when the twin is made: options of the optimisers may still change until the first."""
        self.held = [t.to(self.twin.device, copy=True) for t in batch]
        changed = self.twin.changed()
        before = [t.clone() for t in changed]
        if self.twin.device == "cpu":
            self._warm_up()
        else:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self._warm_up()
            torch.cuda.current_stream().wait_stream(aside)
        with torch.no_grad():
            for t, b in zip(changed, before, strict=True):
                t.copy_(b)
            for optimiser in self.optimisers.values():
                optimiser.zero_grad()
                for state in optimiser.state.values():  # Adam's begins with zeros
                    for t in state.values():
                        t.zero_()
        if self.twin.device == "cpu":
            return self._step
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay

    def _warm_up(self) -> None:
        for _ in range(WARM_UP):
            self._step()

    def _step(self) -> None:
        # Detached: nothing of the warm-up's autograd graph may live on into the capture, for it remembers the other stream.
        self.found = {k: v.detach() for k, v in self.twin.step(*self.held).items()}
