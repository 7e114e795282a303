"""Pictures of what a caption says: characters are read by one GRU, the codes of a VQ-VAE written by another, and decoded.

    p(k | caption) = prod_t p(k_t | k_1 .. k_{t-1}, caption)       over the raster of codes; `minigen/models/seq2seq.py`
    L              = -1/S sum_t log p(k_t | ..)                    teacher forcing: the k before t are the image's own

(Cho et al. 2014, section 2.2, equation 4; Sutskever et al. 2014, section 2, equation 1.) The codes, and that the VQ-VAE is kept
with the run: `codes.py`. Captions are made of the names of the classes, `minigen/data/captions.py`: each image of a batch gets
one of its class, drawn anew each time, some of them misspelled; a fifth are hidden.

`evaluate` gives -log2 p of the held-out images' codes, exactly, for each code: without a caption; with the plain caption of the
image's class; with that one misspelled once. Beside them stands the zeroth-order entropy, what a code costs if only its
frequency in the same held-out codes is known. `saving` and `bits_per_dim`, for each value of the image, are with the caption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minigen.data import to_float, to_uint8
from minigen.data.captions import Captions
from minigen.errors import UserError
from minigen.models.seq2seq import Seq2Seq as Model
from minigen.random import generator
from minigen.train.codes import GUIDANCE, HIDDEN, CodesRecipe, CodesTrainer, entropy
from minigen.train.config import DataInfo
from minigen.train.trainer import labels_for

Array = np.ndarray[Any, Any]


class Seq2SeqTrainer(CodesTrainer):
    def network(self, grid: tuple[int, int]) -> Model:
        c = self.config
        self.captions = Captions(self.info.classes)
        known = len(self.captions.vocabulary)
        return Model(grid, c.num_codes, known, c.hidden, c.embedding, c.context, c.read, c.attention)

    def told(self, labels: Any) -> Any:
        rng = generator()
        texts = self.captions.draw(rng, labels, self.config.misspelled)
        hidden = rng.random(len(labels)) < HIDDEN
        least = self.captions.longest if self.config.device == "cuda" else 1  # there batches have one shape, for graph.py
        return self.captions.encode(["" if h else text for h, text in zip(hidden, texts, strict=True)], least)

    def log_prob(self, codes: Array, told: Any) -> Array:
        """log p of codes (N, h, w), in nats: (N,). told: a text for each, or None."""
        return super().log_prob(codes, None if told is None else self.captions.encode(told))

    def evaluate(self, x: Array, labels: Any) -> dict[str, Any]:
        codes = self.vqvae.encode(to_uint8(x))
        plain, rng = self.captions.plain(labels), self.config.sample_rng(None)
        slips = [self.captions.slip(rng, label, text) for label, text in zip(labels, plain, strict=True)]
        zeroth, given = entropy(codes), self.bits(codes, plain)
        return {
            "protocol": "codes of the held-out images, each once, captions of their class; exact",
            "bits_per_code": self.bits(codes), "bits_per_code_given_caption": given,
            "bits_per_code_misspelled": self.bits(codes, slips), "zeroth_order_entropy": zeroth, "saving": 1 - given / zeroth,
            "bits_per_dim": given * codes[0].size / math.prod(self.info.shape),
        }  # fmt: skip

    def sample(self, count: int, seed: int | None = None, label: int | None = None, caption: str | None = None) -> Array:
        """`count` images (count, c, H, W) in [-1, 1]: of one caption, or of the plain ones of each class in turn, or of one."""
        if caption is not None and label is not None:
            raise UserError("--caption says what to draw, and so does --label: give one of them")
        labels = labels_for(count, len(self.info.classes), label)
        told = self.captions.encode(self.captions.plain(labels) if caption is None else [caption] * count)
        codes, _ = self.model.generate(self.config.sample_rng(seed), count, told, guidance=GUIDANCE)
        return to_float(self.vqvae.decode(codes[:, 0]))


@dataclass
class Seq2Seq(CodesRecipe):
    """Train a net that reads a caption and writes the codes of its picture."""

    name: ClassVar[str] = "seq2seq"

    read: int = 128
    """Units of the recurrent layer that reads captions."""
    attention: bool = False
    """Each code looks over the whole caption (Luong et al. 2015), not at what was kept of it at its end alone."""
    misspelled: float = 0.2
    """The share of the captions with a slip: a letter dropped, doubled, replaced or swapped."""

    def resolve(self, info: DataInfo) -> None:
        if info.shape[-1:] < (16,):  # so few codes of so few images are soon learned by heart
            self.steps = self.steps or 500
        super().resolve(info)
        if not info.classes:
            raise UserError(f"{self.name} makes captions from the names of classes, and the data {info.name} have no labels")
        Captions(info.classes)
        self.require_at_least(1, "read")
        if not 0 <= self.misspelled <= 1:
            raise UserError(f"--misspelled must be in 0..1, not {self.misspelled}")

    def build(self, info: DataInfo, data: Any) -> Seq2SeqTrainer:
        return Seq2SeqTrainer(self, info, data)
