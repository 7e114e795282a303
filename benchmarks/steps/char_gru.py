"""A GRU of 512 units on 100 characters of 64 streams, embeddings of 256, a vocabulary of 90; the state is carried on. As in
minigen/train/char_rnn.py, dropout included."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.step import Step, Twin, build_text_trainer, scan_products
from minigen.train.char_rnn import CharRNN

VOCABULARY = 90


def build() -> Step:
    trainer = build_text_trainer(CharRNN(), VOCABULARY)
    return Step(trainer.step, {"model": trainer.model}, {"model": trainer.opt}, lambda: _multiply_adds(trainer), trainer)


def _multiply_adds(trainer: Any) -> int:
    model, steps, batch = trainer.model, trainer.config.seq_length, trainer.config.batch_size
    return 3 * (scan_products(model.rnn, steps, batch).all + steps * batch * model.head.weight.size)  # there, dw, dx


def twin(step: Step, device: str = "cpu") -> Twin:
    from benchmarks.twins import char

    return char.CharRNN(step, device)
