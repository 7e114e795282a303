"""The prior over the 8x8 codes of 32x32 images: a GRU of 256 units that reads the twelve codes before the next one, which it
predicts, out of 512; as in minigen/train/vq_prior.py, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.step import DATA_SEED, IMAGES, WEIGHT_SEED, Step, Twin, scan_products
from minigen import random
from minigen.data import Loader
from minigen.train.config import DataInfo
from minigen.train.vq_prior import VQPrior

GRID = (8, 8)


def build() -> Step:
    config = VQPrior(num_codes=512, dim=64, quantizer="ema", labels=False, steps=4000, batch_size=64)
    random.seed(WEIGHT_SEED)
    trainer = config.build(DataInfo("random", (3, 32, 32), (), IMAGES, 0), None)
    codes = np.random.default_rng(DATA_SEED).integers(0, 512, (IMAGES, *GRID))
    trainer.loader = Loader(codes, None, 64)
    model, steps = trainer.model, GRID[0] * GRID[1]
    return Step(trainer.step, {"model": model}, {"model": trainer.opt}, lambda: _multiply_adds(model, steps), trainer)


def _multiply_adds(model: Any, steps: int) -> int:
    return 3 * (scan_products(model.rnn, steps, 64).all + steps * 64 * model.out.weight.size)


def twin(step: Step, device: str = "cpu") -> Twin:
    from benchmarks.twins import vq_prior

    return vq_prior.VQPrior(step, device)
