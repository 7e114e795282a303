"""Elman's net over a sequence, batch 64. What is counted, and what PyTorch's side includes: `harness/scan.py`."""

from __future__ import annotations

from benchmarks.harness import scan
from benchmarks.harness.case import Case


def cases() -> list[Case]:
    return scan.cases(scan.Cell("rnn", gates=1, biases=1, states=1, saved=0, layer="RNN"))
