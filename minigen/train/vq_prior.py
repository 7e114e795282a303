"""The prior of a VQ-VAE: a recurrent net over its codes, to draw new images (van den Oord et al. 2017, section 3.3).

    p(k) = prod_t p(k_t | k_1 .. k_{t-1}, label)      over the raster of codes; `minigen/models/code_prior.py`
    L    = -1/S sum_t log p(k_t | ..)                 in nats for each of the S codes

The codes, and that the VQ-VAE is kept with the run: `codes.py`. In training a fifth of the labels are hidden: the net gives
both p(k | label), to draw a chosen class, and p(k), to compress. Samples lean towards their label more than p(k | label) does,
`generate` in `minigen/models/pixel.py` says how.

`evaluate` encodes the held-out images and gives -log2 p, exactly, for each code (bits_per_code) and for each value of the
image (bits_per_dim: of the codes, not of the image, which they do not hold in full). It stands beside the zeroth-order entropy,
what a code costs if only its frequency in the same held-out codes is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from minigen.data import to_float, to_uint8
from minigen.models.code_prior import CodePrior
from minigen.random import generator
from minigen.train.codes import GUIDANCE, HIDDEN, CodesRecipe, CodesTrainer, entropy
from minigen.train.config import DataInfo
from minigen.train.trainer import labels_for

Array = np.ndarray[Any, Any]


class VQPriorTrainer(CodesTrainer):
    compresses = True  # `minigen eval` adds what the codec makes of the held-out images

    def network(self, grid: tuple[int, int]) -> CodePrior:
        c = self.config
        self.classes = len(self.info.classes) if c.labels else 0
        return CodePrior(grid, c.num_codes, c.cell, c.hidden, c.embedding, c.context, self.classes)

    def told(self, labels: Any) -> Any:
        if not self.classes:
            return None
        return np.where(generator().random(len(labels)) < HIDDEN, -1, labels)

    def evaluate(self, x: Array, labels: Any) -> dict[str, Any]:
        codes = self.vqvae.encode(to_uint8(x))
        bits, zeroth = self.bits(codes), entropy(codes)
        given = {"bits_per_code_given_label": self.bits(codes, labels)} if self.classes else {}
        return {
            "protocol": "codes of the held-out images, each once; exact",
            "bits_per_code": bits, **given, "zeroth_order_entropy": zeroth, "saving": 1 - bits / zeroth,
            "bits_per_dim": bits * codes[0].size / math.prod(self.info.shape),
        }  # fmt: skip

    def sample(self, count: int, seed: int | None = None, label: int | None = None) -> Array:
        """`count` images (count, c, H, W) in [-1, 1]: codes drawn from the prior, decoded. Labels in turn, or one."""
        labels = labels_for(count, self.classes, label)
        codes, _ = self.model.generate(self.config.sample_rng(seed), count, labels, guidance=GUIDANCE if self.classes else 0.0)
        return to_float(self.vqvae.decode(codes[:, 0]))


@dataclass
class VQPrior(CodesRecipe):
    """Train a recurrent prior over a VQ-VAE's codes (van den Oord et al. 2017)."""

    name: ClassVar[str] = "vq-prior"

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell: gru or lstm."""
    labels: bool = True
    """Condition on the data's class labels, if they have any."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.labels = self.labels and bool(info.classes)

    def build(self, info: DataInfo, data: Any) -> VQPriorTrainer:
        return VQPriorTrainer(self, info, data)
