"""Steps of the `pixel-rnn` recipe: each step of the net reads the pixel before, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.harness.step import Step, build_trainer, scan_products
from minigen.train.pixel_rnn import PixelRNN

SHAPE = (1, 28, 28)


def pixel_step(cell: Literal["rnn", "gru", "lstm"]) -> Step:
    trainer = build_trainer(PixelRNN(cell=cell, hidden=128, context=0), SHAPE)
    return Step(trainer.step, {"model": trainer.model}, {"model": trainer.opt}, lambda: _multiply_adds(trainer), trainer)


def _multiply_adds(trainer: Any) -> int:
    model, batch = trainer.model, trainer.config.batch_size
    scan, out = scan_products(model.rnn, model.steps, batch), model.steps * batch * model.out.weight.size
    return 3 * (scan.all + out) - scan.first  # there, dw, dx; but not that of the pixels
