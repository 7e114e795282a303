"""A GRU of 128 units that reads 28x28 black and white images pixel by pixel, 784 steps, and predicts the next one; as in
minigen/train/pixel_rnn.py with --context 0."""

from __future__ import annotations

from benchmarks.harness.pixel import pixel_step
from benchmarks.harness.step import Step, Twin


def build() -> Step:
    return pixel_step("gru")


def twin(step: Step, device: str = "cpu") -> Twin:
    from benchmarks.twins import pixel

    return pixel.PixelRNN(step, "GRU", device)
