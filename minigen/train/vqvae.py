"""VQ-VAE: an image as a grid of codes (van den Oord et al. 2017).

    z = E(x),   q = the nearest codes to z,   x' = D(q)
    L = |x - x'|^2 + L_q                               means over all values; L_q is the quantiser's loss, `minigen/nn/vq.py`

The reconstruction term trains D, and E through what stands in for the gradient of the choice; L_q keeps z and its code
together. The three quantisers of `--quantizer` differ in how the codebook learns and in what E gets back.

A codebook dies in silence: the loss falls while a handful of codes do all the work. So each line of metrics says, over the
last whole epoch (over the epoch so far, until the first ends), how many codes were used and how many were dead, i.e. not used
once; how many were revived; the perplexity of the codes, and the PSNR of the reconstructions as they were seen in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from minigen import nn, ops
from minigen.autograd import grad, no_grad
from minigen.data import Loader, to_float, to_uint8
from minigen.device import feed, place, to_host
from minigen.errors import UserError
from minigen.metrics.reconstruction import psnr, psnr_of
from minigen.models.vqvae import VQVAE as Model
from minigen.nn.vq import perplexity
from minigen.optim import SCHEDULES, Adam
from minigen.tensor import Tensor
from minigen.train.config import DataInfo, Recipe, chosen
from minigen.train.trainer import Trainer, pieces

AT_ONCE = 256  # images judged at a time
TO_BYTES = 127.5**2  # a squared error of values in [-1, 1] -> of bytes
Array = np.ndarray[Any, Any]
Quantizer = Literal["vq", "ema", "rotation"]


class VQVAETrainer(Trainer):
    def __init__(self, config: VQVAE, info: DataInfo, data: Any) -> None:
        super().__init__(config, info)
        c = config
        options = {"beta": c.beta, "init": c.init, "revive_after": c.revive_after}
        self.model = Model(info.shape, c.num_codes, c.dim, c.quantizer, **options)
        self.params = nn.parameters(self.model)
        self.opt = Adam(self.params, c.lr)
        self.opt.schedule = SCHEDULES[c.lr_schedule](c.steps or 1)
        self.epoch = Epoch(c.num_codes)
        self.parts = {"model": self.model, "opt": self.opt, "epoch": self.epoch}
        self._chosen: Any = None  # the codes of the last batch
        self.shown: Any = None  # images that sample() reconstructs
        if data is not None:
            self.loader = self.parts["loader"] = Loader(data.images, data.labels, c.batch_size or 1, c.seed)
            shown = data.test_images if len(data.test_images) else data.images
            self.shown = to_float(shown[:: max(1, len(shown) // AT_ONCE)])  # a folder begins with one class: not its first ones

    def update(self) -> dict[str, Tensor]:
        x = Tensor(feed(lambda: self.loader.next()[0]))
        y, codes = self.model(x)
        mse = ops.mse(y, x)
        self.opt.step(grad(mse + codes.loss, self.params))
        self._chosen = codes.indices
        return {"mse": mse, "quantizer": codes.loss}

    def finish(self, losses: dict[str, float]) -> dict[str, float]:
        chosen, revived = to_host(self._chosen), self.model.quantizer.revived
        self.epoch.count(self.loader.epoch, chosen, losses["mse"] * TO_BYTES, revived)
        return losses | self.epoch.figures()

    # --- looking at it ------------------------------------------------------------------------------------------------

    def encode(self, images: Array) -> Array:
        """uint8 (N, c, H, W) -> codes (N, H/4, W/4)"""
        with self.looking(self.model), no_grad():
            parts = [to_host(self.model.encode(Tensor(place(to_float(images[p]))))) for p in pieces(len(images), AT_ONCE)]
        return np.concatenate(parts)

    def decode(self, indices: Array) -> Array:
        """Codes (N, h, w) -> uint8 (N, c, 4h, 4w)"""
        with self.looking(self.model), no_grad():
            parts = [to_uint8(to_host(self.model.decode(indices[p]).data)) for p in pieces(len(indices), AT_ONCE)]
        return np.concatenate(parts)

    def sample(self, count: int, seed: int | None = None, label: int | None = None) -> Array:
        """Reconstructions: rows of eight images of `shown`, each row above the row of what they became."""
        if label is not None:
            raise UserError("a vqvae reconstructs images and takes no label; vq-prior draws new ones")
        columns, step = 8, max(1, 2 * len(self.shown) // count)
        images = to_uint8(self.shown[::step][: max(count // 2, 1)])
        both = [images, self.decode(self.encode(images))]
        rows = [part[i : i + columns] for i in range(0, len(images), columns) for part in both]
        return to_float(np.concatenate(rows))

    def evaluate(self, x: Array, labels: Any) -> dict[str, Any]:
        """Reconstructions of x (N, c, H, W) in [-1, 1], rounded to bytes, and the use of the codes over all of x."""
        images = to_uint8(x)
        indices = self.encode(images)
        counts = np.bincount(indices.reshape(-1), minlength=self.config.num_codes)
        bits = indices[0].size * np.log2(self.config.num_codes) / images[0, 0].size
        return {
            "psnr": psnr(images, self.decode(indices)),
            "codes_used": int((counts > 0).sum()), "num_codes": len(counts), "perplexity": perplexity(counts),
            "nominal_bits_per_pixel": float(bits),
        }  # fmt: skip


class Epoch:
    """What the codes did over an epoch: `counts` (K,) so far, and sums; `last` holds the figures of the epoch before."""

    NAMES = ("perplexity", "codes_used", "codes_dead", "codes_revived", "psnr")

    def __init__(self, num_codes: int) -> None:
        self.counts = np.zeros(num_codes, np.int64)
        self.sums = np.zeros(3)  # batches, squared error, revived codes
        self.number = np.zeros((), np.int64)
        self.last = np.full(len(self.NAMES), np.nan)

    def count(self, epoch: int, indices: Array, mse: float, revived: int) -> None:
        """Add a batch of the epoch of this number."""
        if epoch != self.number:
            self.last[:], self.number[...] = self._now(), epoch
            self.counts[:], self.sums[:] = 0, 0
        self.counts += np.bincount(indices.reshape(-1), minlength=len(self.counts))
        self.sums += 1, mse, revived

    def figures(self) -> dict[str, float]:
        found = self._now() if np.isnan(self.last).any() else self.last
        return dict(zip(self.NAMES, map(float, found), strict=True))

    def _now(self) -> tuple[float, ...]:
        used, (batches, error, revived) = int((self.counts > 0).sum()), self.sums
        return perplexity(self.counts), used, len(self.counts) - used, revived, psnr_of(error / batches)


@dataclass
class VQVAE(Recipe):
    """Train a VQ-VAE: images as grids of codes (van den Oord et al. 2017)."""

    name: ClassVar[str] = "vqvae"
    shows_data: ClassVar[bool] = True

    num_codes: int = 512
    """K, the size of the codebook."""
    dim: int = 64
    """D, the length of a code."""
    quantizer: Quantizer = "ema"
    """How the codebook learns: vq by its gradient; ema by running means; rotation by them too, with the rotation trick."""
    init: Literal["kmeans++", "uniform"] = "kmeans++"
    """The first codes: kmeans++ takes them from the first batch; uniform draws them from a small cube around zero."""
    beta: float = 0.25
    """The weight of the commitment loss."""
    revive_after: int = 100
    """Batches after which a code that was never chosen becomes a vector of the batch. (0: never)"""
    lr: float = 3e-4
    """Adam's learning rate at the start."""
    lr_schedule: Annotated[Literal["constant", "linear", "cosine"], chosen("{constant,linear,cosine}")] = "constant"
    """How the learning rate falls to zero over --steps, if it does. (default: constant)"""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.require_images(info)
        self.steps = self.steps or (1_000 if info.shape[-1] < 16 else 5_000)
        self.require_at_least(1, "num_codes", "dim")
        self.require_at_least(0, "revive_after")
        self.require_above_zero("beta", "lr")

    def build(self, info: DataInfo, data: Any) -> VQVAETrainer:
        return VQVAETrainer(self, info, data)
