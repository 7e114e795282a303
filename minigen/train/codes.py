"""What the recipes share that learn the codes of a trained VQ-VAE: its codes as data, its decoder for pictures, the updates.

The VQ-VAE is trained before and stays as it is; its weights are kept in this run's checkpoint too, so the run samples alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from minigen import nn
from minigen.autograd import grad
from minigen.data import Loader
from minigen.device import feed
from minigen.errors import UserError
from minigen.models.code_prior import CodePrior
from minigen.nn.vq import perplexity
from minigen.optim import SCHEDULES, Adam, clip_grad_norm
from minigen.tensor import Tensor
from minigen.train import run
from minigen.train.config import ChosenInt, ChosenText, DataInfo, Recipe
from minigen.train.trainer import Trainer, pieces
from minigen.train.vqvae import AT_ONCE, VQVAE, Quantizer, VQVAETrainer

Array = np.ndarray[Any, Any]
GUIDANCE = 1.0  # of what a net is told, in samples: p(k | told) wanders off over many codes, p(k | told)^2 / p(k) less
HIDDEN = 0.2  # of what a net is told in training, labels or captions, that share is withheld: it learns p(k) too


class CodesTrainer(Trainer):
    """A subclass says what the `network` is, and what it is `told` of a batch."""

    def __init__(self, config: CodesRecipe, info: DataInfo, data: Any) -> None:
        super().__init__(config, info)
        c = config
        assert c.num_codes is not None and c.dim is not None and c.quantizer is not None
        theirs = VQVAE(num_codes=c.num_codes, dim=c.dim, quantizer=c.quantizer, steps=1)
        self.vqvae = VQVAETrainer(theirs, info, None)
        self.model = self.network((info.shape[1] // 4, info.shape[2] // 4))
        self.params = nn.parameters(self.model)
        self.opt = Adam(self.params, c.lr)
        self.opt.schedule = SCHEDULES[c.lr_schedule](c.steps or 1)
        self.parts = {"model": self.model, "opt": self.opt, "vqvae": self.vqvae.model}
        if data is not None:
            assert c.vqvae is not None
            theirs, their_info = c.source()
            trained = theirs.build(their_info, None)
            run.restore(Path(c.vqvae), theirs, trained)
            nn.load_state_dict(self.vqvae.model, nn.state_dict(trained.model))
            codes = self.vqvae.encode(data.images)
            self.loader = self.parts["loader"] = Loader(codes, data.labels, c.batch_size or 1, c.seed)

    def network(self, grid: tuple[int, int]) -> CodePrior:
        """The net that is trained."""
        raise NotImplementedError(f"{type(self).__name__} has no network")

    def told(self, labels: Any) -> Any:
        """What the net is told of a batch with these labels, in training."""
        raise NotImplementedError(f"{type(self).__name__} tells nothing")

    def update(self) -> dict[str, Tensor]:
        """nll in nats for each code, of the batch before the update."""
        loss = self.model.loss_of(*feed(self._batch))
        grads, _ = clip_grad_norm(grad(loss, self.params), self.config.clip)
        self.opt.step(grads)
        return {"nll": loss}

    def _batch(self) -> Any:
        codes, labels = self.loader.next()
        return self.model.prepared(codes[:, None], self.told(labels))

    def log_prob(self, codes: Array, told: Any) -> Array:
        """log p of codes (N, h, w), in nats: (N,)."""
        return self.model.log_prob(codes[:, None], told)

    def bits(self, codes: Array, told: Any = None) -> float:
        """-log2 p of codes (N, h, w), the mean for each code."""
        parts = pieces(len(codes), AT_ONCE)
        total = sum(self.log_prob(codes[p], None if told is None else told[p]).sum() for p in parts)
        return float(-total / codes.size / math.log(2))


def entropy(codes: Array) -> float:
    """Zeroth-order, in bits: what a code costs if only its frequency among these codes is known."""
    return math.log2(perplexity(np.bincount(codes.reshape(-1))))


@dataclass
class CodesRecipe(Recipe):
    """Options of the recipes that learn codes."""

    lr_schedule: ClassVar[str] = "cosine"

    data: ChosenText = None  # type: ignore[assignment]
    """What to encode and learn. (default: what the vqvae run was trained on)"""
    vqvae: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """The folder of the vqvae run whose codes to learn."""
    hidden: int = 256
    """Units of the recurrent layer that writes codes."""
    embedding: int = 32
    """Numbers for each code read."""
    context: int = 2
    """A step reads the codes seen within so many rows and columns; 0: the one before."""
    lr: float = 2e-3
    """Adam's learning rate at the start; it falls to zero along a cosine."""
    clip: float = 1.0
    """The largest joint norm of the gradient."""
    num_codes: Annotated[ChosenInt, tyro.conf.Suppress] = None
    dim: Annotated[ChosenInt, tyro.conf.Suppress] = None
    quantizer: Annotated[Quantizer | None, tyro.conf.Suppress] = None

    def source(self) -> tuple[Any, DataInfo]:
        """The vqvae run's configuration, and what its data were. Raises UserError."""
        if self.vqvae is None:
            raise UserError("--vqvae RUN: the vqvae run whose codes to learn; minigen train vqvae makes one")
        theirs, info = run.read_config(Path(self.vqvae), {VQVAE.name: VQVAE})
        return theirs, info

    def load(self, source: str | None = None) -> Any:
        if self.num_codes is None:  # a new run; later everything is in this one's configuration
            theirs, _ = self.source()
            self.vqvae = str(Path(self.vqvae or "").expanduser().absolute())
            self.num_codes, self.dim, self.quantizer = theirs.num_codes, theirs.dim, theirs.quantizer
            self.size = self.size or theirs.size
            self.data = self.data or theirs.data
        return super().load(source)

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        _, theirs = self.source()
        if info.shape != theirs.shape:
            raise UserError(f"the vqvae run was trained on images of shape {theirs.shape}; {info.name} is {info.shape}")
        self.steps = self.steps or (1_000 if info.shape[-1] < 16 else 4_000)
        self.require_at_least(1, "hidden", "embedding")
        self.require_at_least(0, "context")
        self.require_above_zero("lr", "clip")

    def free(self) -> set[str]:
        return super().free() | {"vqvae"}
