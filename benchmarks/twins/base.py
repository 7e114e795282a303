"""What all twins share: copies of minigen's weights, the same noise, and a step in two parts.

    batch()         what the host prepares: the loader's next batch, noise, the learning rate
    step(*batch)    all work of the device, the optimisers' included, from tensors to tensors. Nothing in it asks the device for
                    a value, so that a CUDA graph can hold it (`graphed.py`)
    figures(found)  the losses as numbers

Noise comes from NumPy on both sides, seeded alike, so both cost the same and the first step must agree. On a GPU minigen draws
by Philox, and so does the twin in that comparison; when it is timed there, PyTorch draws on the device, as its users would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from minigen.kernels import threads
from torch import nn

from benchmarks.harness.step import Step
from minigen.nn import state_dict
from minigen.ops.philox import philox_normal, philox_uniform

Tensors = dict[str, torch.Tensor]


class Base:
    """Modules whose parameters are named as in `step.models`. A twin writes `batch` and `step`, and fills `optimisers`."""

    step: Callable[..., Tensors]

    def __init__(self, step: Step, modules: dict[str, nn.Module], device: str = "cpu") -> None:
        torch.set_num_threads(threads.get_num_threads())
        self.config, self.device, self.modules = step.trainer.config, device, modules
        for name, module in modules.items():
            module.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(step.models[name]).items()})
            module.to(device)
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.rng: Any = np.random.default_rng(0) if device == "cpu" else None

    def seed(self, noise_seed: int) -> None:
        """Draw the noise that minigen draws after `minigen.seed(noise_seed)`."""
        self.rng = np.random.Generator(np.random.PCG64(noise_seed)) if self.device == "cpu" else _Philox(noise_seed)

    def batch(self) -> tuple[torch.Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no batch")

    def figures(self, found: Tensors) -> dict[str, float]:
        return {k: v.item() for k, v in found.items()}

    def run(self) -> dict[str, float]:
        return self.figures(self.step(*(t.to(self.device) for t in self.batch())))

    def compile(self) -> None:
        """Let torch.compile compile the networks that `step` calls, in its default mode; `modules` keeps them as they are."""
        torch.compiler.reset()  # how often a function may be compiled anew is limited, and twins before this one counted
        for name, value in list(vars(self).items()):
            if isinstance(value, nn.Module):
                setattr(self, name, torch.compile(value))

    def changed(self) -> list[torch.Tensor]:
        """What `step` changes in place, beside the optimisers' state."""
        return [t for module in self.modules.values() for t in module.state_dict().values()]

    def normal(self, *shape: int) -> torch.Tensor:
        if self.rng is None:
            return torch.randn(shape, device=self.device)
        return torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32)).to(self.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        if self.rng is None:
            return torch.rand(shape, device=self.device)
        return torch.from_numpy(self.rng.random(shape, dtype=np.float32)).to(self.device)


class _Philox:
    """What minigen draws on a device, drawn by its reference."""

    def __init__(self, seed: int) -> None:
        self.state = np.array([seed, 0], np.int64)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return philox_normal(self.state, shape, dtype)  # type: ignore[no-any-return]

    def random(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return philox_uniform(self.state, shape, dtype)  # type: ignore[no-any-return]


class Single(Base):
    """A twin with one network and one optimiser, whose learning rate follows minigen's schedule."""

    def __init__(self, step: Step, net: nn.Module, rate: Callable[[int], float], device: str = "cpu") -> None:
        super().__init__(step, {"model": net}, device)
        self.net, self.rate, self.steps = net, rate, 0
        self.params = list(net.parameters())
        self.opt = torch.optim.Adam(self.params, rate(0))
        self.optimisers = {"model": self.opt}

    def next_rate(self) -> None:
        """Set the learning rate of the step to come. In a graph it is a tensor: numbers are frozen there."""
        group, rate = self.opt.param_groups[0], self.rate(self.steps)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
        self.steps += 1

    def update(self, loss: torch.Tensor, clip: float | None = None) -> torch.Tensor | None:
        """One step down `loss`. Returns the norm of the gradient, if that is clipped."""
        self.opt.zero_grad()
        loss.backward()
        norm = None if clip is None else nn.utils.clip_grad_norm_(self.params, clip)
        self.opt.step()
        return norm
