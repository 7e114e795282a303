"""A recurrent net that writes an image value by value, with an exact likelihood (van den Oord et al. 2016, section 2).

    p(x) = prod_t p(x_t | x_1 .. x_{t-1})                the chain rule: any distribution of images has this form
    L    = -1/S sum_t log p(x_t | x_1 .. x_{t-1})        over the S values of an image, in nats: what is minimised

The model is in `minigen/models/pixel.py`: an RNN, GRU or LSTM reads what stands before x_t and gives the distribution of x_t,
Bernoulli (2 levels) or a softmax over the levels. In training all of x is known, so all T steps run at once; a sample is drawn
step by step, each value fed back. The net is trained like any long recurrent one: Adam, the gradient's joint norm clipped
(Pascanu et al. 2013), a learning rate that falls.

`evaluate` needs no bound: it gives -log p(x) itself, summed over the values and averaged over the held-out images, in nats per
image; divided by S log 2 it is bits per dimension. What x is belongs to the number, so the protocol is printed with it:

    --levels 2 --binarize draw        x is 1 with probability grey / 255: one draw for each pixel, the same in every run. NADE,
                                      DRAW and PixelRNN are measured on such a draw, though not on this one
    --levels 2 --binarize threshold   x is 1 where the grey level is 128 or more: easier, for the edges do not flicker
    --levels L                        x is floor(grey L / 256); 256 keeps the image as it is
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from minigen import nn
from minigen.autograd import grad
from minigen.data import Loader, to_uint8
from minigen.device import feed
from minigen.errors import UserError
from minigen.metrics.likelihood import bits_per_dim
from minigen.models.pixel import PixelRNN as Model
from minigen.optim import SCHEDULES, Adam, clip_grad_norm
from minigen.tensor import Tensor
from minigen.train.config import ChosenInt, DataInfo, Recipe, chosen
from minigen.train.trainer import Trainer, labels_for

Array = np.ndarray[Any, Any]
Binarize = Literal["threshold", "draw"]
BINARIZE_SEED = 0  # of the data, not of the run: every run sees the same draw
TRAINING, HELD_OUT = 0, 1
AT_ONCE = 50_000  # values judged at a time: 64 images of 28x28


def quantize(images: Array, levels: int, binarize: Binarize | None = "draw", split: int = TRAINING) -> Array:
    """uint8 0..255 -> uint8 0..levels-1, by the table above; `split` gives each part of the data its own draw."""
    if levels == 2 and binarize == "draw":
        rng = np.random.default_rng([BINARIZE_SEED, split])
        draws = (rng.random(x.shape, np.float32) * 255 < x for x in images)  # one image at a time: no large temporary
        return np.fromiter(draws, np.dtype((np.bool_, images.shape[1:])), len(images)).astype(np.uint8)
    if levels == 256:
        return images
    return (images.astype(np.uint16) * levels // 256).astype(np.uint8)


class PixelRNNTrainer(Trainer):
    def __init__(self, config: PixelRNN, info: DataInfo, data: Any) -> None:
        super().__init__(config, info)
        c = config
        assert c.levels is not None and c.context is not None and c.batch_size is not None and c.steps is not None
        classes = len(info.classes) if c.labels else 0
        self.model = Model(info.shape, c.cell, c.hidden, c.by, c.context, c.levels, classes)
        self.params = nn.parameters(self.model)
        self.opt = Adam(self.params, c.lr)
        self.opt.schedule = SCHEDULES[c.lr_schedule](c.steps)
        self.parts = {"model": self.model, "opt": self.opt}
        self.keep_average(self.params, c.average)
        self.loader = None
        if data is not None:
            images = quantize(data.images, c.levels, c.binarize, TRAINING)
            self.loader = self.parts["loader"] = Loader(images, data.labels, c.batch_size, c.seed)

    def update(self) -> dict[str, Tensor]:
        """nll in nats per image, of the batch before the update; grad_norm before clipping."""
        loss = self.model.loss_of(*feed(self._batch))
        grads, norm = clip_grad_norm(grad(loss, self.params), self.config.clip)
        self.opt.step(grads)
        if self.average is not None:
            self.average.update()
        return {"nll": loss * self.model.values, "grad_norm": norm}

    def _batch(self) -> Any:
        assert self.loader is not None
        x, labels = self.loader.next()
        return self.model.prepared(to_uint8(x), labels)  # the loader scales bytes to [-1, 1], and this is its inverse

    def evaluate(self, x: Array, labels: Any) -> dict[str, Any]:
        """The exact likelihood of images x (N, c, H, W) in [-1, 1], and what was done to them."""
        c, values = self.config, self.model.values
        assert c.levels is not None
        q, size = quantize(to_uint8(x), c.levels, c.binarize, HELD_OUT), max(1, AT_ONCE // values)
        total = 0.0
        with self.looking():
            for i in range(0, len(q), size):
                total -= self.model.log_prob(q[i : i + size], labels[i : i + size] if c.labels else None).sum()
        nats = float(total) / len(q)
        return {"protocol": c.protocol(), "nll": nats, "bits_per_dim": bits_per_dim(nats, values)}

    def sample(self, count: int, seed: int | None = None, label: int | None = None) -> Array:
        """`count` images (count, c, H, W) in [-1, 1], a function of the weights and the seed. Labels in turn, or one."""
        labels = labels_for(count, self.model.classes, label)
        with self.looking():
            drawn, _ = self.model.generate(self.config.sample_rng(seed), count, labels)
        return self.model.scaled(drawn)

    def complete(self, x: Array, labels: Any, count: int, seed: int | None = None) -> Array:
        """Images x (N, c, H, W) in [-1, 1] -> (N, 2 + count, c, H, W): each original, its upper half, `count` endings of it."""
        c = self.config
        assert c.levels is not None
        q, rows = quantize(to_uint8(x), c.levels, c.binarize, HELD_OUT), x.shape[2] // 2
        labels = labels[: len(x)].repeat(count) if c.labels else None
        with self.looking():
            drawn, _ = self.model.generate(self.config.sample_rng(seed), len(q) * count, labels, q.repeat(count, 0), rows)
        original = self.model.scaled(q)[:, None]
        half = original.copy()
        half[..., rows:, :] = 0.0
        return np.concatenate([original, half, self.model.scaled(drawn).reshape(len(q), count, *q.shape[1:])], 1)


@dataclass
class PixelRNN(Recipe):
    """Train a recurrent net that writes images pixel by pixel (van den Oord 2016)."""

    name: ClassVar[str] = "pixel-rnn"

    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    """The recurrent cell: rnn, gru or lstm."""
    hidden: int = 128
    """Units of the recurrent layer."""
    by: Literal["pixel", "row"] = "pixel"
    """What one step writes: a value; or a whole row, its values independent given the rows above (faster, weaker)."""
    context: ChosenInt = None
    """K: a step reads the pixels seen within K rows and columns, and its position; 0: the one before. (default: 4; 2 by row)"""
    levels: ChosenInt = None
    """Values of a pixel: 2 is black and white, 256 all grey levels. (default: 2 for grey images, 256 for colour)"""
    binarize: Annotated[Binarize | None, chosen("{draw,threshold}")] = None
    """How 2 levels are made: draw once, with the grey level as the probability, or threshold at half. (default: draw)"""
    labels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Condition on the data's class labels."""
    lr: float = 5e-3
    """Adam's learning rate at the start."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls to zero over --steps, if it does: constant, linear or cosine."""
    clip: float = 1.0
    """The largest joint norm of the gradient of the loss, which is in nats for each value."""
    average: float = 0.0
    """Judge and sample a running average of the weights with this decay. (0: the weights themselves)"""

    def resolve(self, info: DataInfo) -> None:
        if self.batch_size is None and self.by == "pixel" and info.shape[0] == 3:
            self.batch_size = 16  # three times the steps, and a softmax at each: memory
        super().resolve(info)
        self.require_images(info)
        self.context = (4 if self.by == "pixel" else 2) if self.context is None else self.context
        self.levels = (2 if info.shape[0] == 1 else 256) if self.levels is None else self.levels
        self.steps = self.steps or (500 if info.shape[-1] < 16 else 4_000)
        self.require_at_least(1, "hidden")
        self.require_at_least(0, "context")
        if not 2 <= self.levels <= 256:
            raise UserError(f"--levels must be in 2..256, not {self.levels}")
        if self.binarize and self.levels != 2:
            raise UserError(f"--binarize makes 2 levels, not {self.levels}")
        self.binarize = self.binarize or "draw"
        self.require_above_zero("clip")
        if not 0 <= self.average < 1:
            raise UserError(f"--average must be in [0, 1), not {self.average}")
        if self.labels and not info.classes:
            raise UserError(f"--labels: the data {info.name} have no labels")

    def protocol(self) -> str:
        """What a likelihood of this run is a likelihood of."""
        data = f"{self.levels} levels"
        if self.levels == 2:
            data = "binarised at 0.5" if self.binarize == "threshold" else "binarised by one draw for each pixel, fixed seed"
        given = ", conditional on the label" if self.labels else ""
        return f"{data}{given}; exact, by {self.by}, each image once"

    def build(self, info: DataInfo, data: Any) -> PixelRNNTrainer:
        return PixelRNNTrainer(self, info, data)
