"""LSTM over a sequence, batch 64. What is counted, and what PyTorch's side includes: `harness/scan.py`."""

from __future__ import annotations

from benchmarks.harness import scan
from benchmarks.harness.case import Case


def cases() -> list[Case]:
    return scan.cases(scan.Cell("lstm", gates=4, biases=4, states=2, saved=4, layer="LSTM"))
