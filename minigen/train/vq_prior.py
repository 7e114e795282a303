"""The prior of a VQ-VAE: a recurrent net over its codes, to draw new images (van den Oord et al. 2017, section 3.3).

    p(k) = prod_t p(k_t | k_1 .. k_{t-1}, label)      over the raster of codes; `minigen/models/code_prior.py`
    L    = -1/S sum_t log p(k_t | ..)                 in nats for each of the S codes

The VQ-VAE is trained before and stays as it is; its weights are kept in this run's checkpoint too, so the run samples alone. In
training a fifth of the labels are hidden: the net gives both p(k | label), to draw a chosen class, and p(k), to compress.

`evaluate` encodes the held-out images and gives -log2 p, exactly, for each code (bits_per_code) and for each value of the
image (bits_per_dim: of the codes, not of the image, which they do not hold in full). It stands beside the zeroth-order entropy,
what a code costs if only its frequency in the same held-out codes is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from minigen import nn
from minigen.autograd import grad
from minigen.data import Loader, to_float, to_uint8
from minigen.errors import UserError
from minigen.models.code_prior import CodePrior
from minigen.nn.vq import perplexity
from minigen.optim import SCHEDULES, Adam, clip_grad_norm
from minigen.random import generator
from minigen.train import run
from minigen.train.config import ChosenInt, ChosenText, DataInfo, Recipe
from minigen.train.trainer import Trainer, labels_for
from minigen.train.vqvae import VQVAE, Quantizer, VQVAETrainer

Array = np.ndarray[Any, Any]
HIDDEN_LABELS = 0.2


class VQPriorTrainer(Trainer):
    def __init__(self, config: VQPrior, info: DataInfo, data: Any) -> None:
        super().__init__(config, info)
        c = config
        assert c.num_codes is not None and c.dim is not None and c.quantizer is not None
        theirs = VQVAE(num_codes=c.num_codes, dim=c.dim, quantizer=c.quantizer, steps=1)
        self.vqvae = VQVAETrainer(theirs, info, None)
        self.classes = len(info.classes) if c.labels else 0
        grid = info.shape[1] // 4, info.shape[2] // 4
        self.model = CodePrior(grid, c.num_codes, c.cell, c.hidden, c.embedding, c.context, self.classes)
        self.params = nn.parameters(self.model)
        self.opt = Adam(self.params, c.lr)
        self.factor = SCHEDULES["cosine"](c.steps or 1)
        self.parts = {"model": self.model, "opt": self.opt, "vqvae": self.vqvae.model}
        if data is not None:
            assert c.vqvae is not None
            theirs, their_info = c.source()
            trained = theirs.build(their_info, None)
            run.restore(Path(c.vqvae), theirs, trained)
            nn.load_state_dict(self.vqvae.model, nn.state_dict(trained.model))
            codes = self.vqvae.encode(data.images)
            self.loader = self.parts["loader"] = Loader(codes, data.labels, c.batch_size or 1, c.seed)

    def step(self) -> dict[str, float]:
        """One update. nll in nats for each code, of the batch before it."""
        codes, labels = self.loader.next()
        loss = self.model.loss(codes[:, None], self._some_hidden(labels))
        grads, _ = clip_grad_norm(grad(loss, self.params), self.config.clip)
        self.opt.lr = self.config.lr * self.factor(self.opt.t)
        self.opt.step(grads)
        return {"nll": loss.item()}

    def _some_hidden(self, labels: Any) -> Any:
        if not self.classes:
            return None
        return np.where(generator().random(len(labels)) < HIDDEN_LABELS, -1, labels)

    def bits(self, codes: Array, labels: Any = None) -> float:
        """-log2 p of codes (N, h, w), the mean for each code."""
        parts = range(0, len(codes), 256)
        told = [None if labels is None else labels[i : i + 256] for i in parts]
        total = sum(self.model.log_prob(codes[i : i + 256, None], y).sum() for i, y in zip(parts, told, strict=True))
        return float(-total / codes.size / math.log(2))

    def evaluate(self, x: Array, labels: Any) -> dict[str, Any]:
        codes = self.vqvae.encode(to_uint8(x))
        bits = self.bits(codes)
        entropy = math.log2(perplexity(np.bincount(codes.reshape(-1))))
        given = {"bits_per_code_given_label": self.bits(codes, labels)} if self.classes else {}
        return {
            "protocol": "codes of the held-out images, each once; exact",
            "bits_per_code": bits, **given, "zeroth_order_entropy": entropy, "saving": 1 - bits / entropy,
            "bits_per_dim": bits * codes[0].size / math.prod(self.info.shape),
        }  # fmt: skip

    def sample(self, count: int, seed: int | None = None, label: int | None = None) -> Array:
        """`count` images (count, c, H, W) in [-1, 1]: codes drawn from the prior, decoded. Labels in turn, or one."""
        labels = labels_for(count, self.classes, label)
        codes, _ = self.model.generate(self.config.sample_rng(seed), count, labels)
        return to_float(self.vqvae.decode(codes[:, 0]))


@dataclass
class VQPrior(Recipe):
    """Train a recurrent prior over a VQ-VAE's codes, to draw new images and to compress (van den Oord 2017)."""

    name: ClassVar[str] = "vq-prior"

    data: ChosenText = None  # type: ignore[assignment]
    """What to encode and learn. (default: what the vqvae run was trained on)"""
    vqvae: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """The folder of the vqvae run whose codes to learn."""
    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell: gru or lstm."""
    hidden: int = 256
    """Units of the recurrent layer."""
    embedding: int = 32
    """Numbers for each code read."""
    context: int = 2
    """A step reads the codes seen within so many rows and columns; 0: the one before."""
    labels: bool = True
    """Condition on the data's class labels, if they have any."""
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
        self.labels = self.labels and bool(info.classes)
        self.steps = self.steps or (1_000 if info.shape[-1] < 16 else 4_000)
        for name, low in (("hidden", 1), ("embedding", 1), ("context", 0)):
            if getattr(self, name) < low:
                raise UserError(f"--{name} must be at least {low}, not {getattr(self, name)}")
        for name in ("lr", "clip"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} must be above 0, not {getattr(self, name)}")

    def free(self) -> set[str]:
        return (super().free() | {"vqvae"}) - {"steps"}

    def build(self, info: DataInfo, data: Any) -> VQPriorTrainer:
        return VQPriorTrainer(self, info, data)
