"""GRU over a sequence, reset gate before the product, batch 64. What is counted: `harness/scan.py`. PyTorch has no such
layer."""

from __future__ import annotations

from benchmarks.harness import scan
from benchmarks.harness.case import Case


def cases() -> list[Case]:
    return scan.cases(scan.Cell("gru_cho", gates=3, biases=3, states=1, saved=3, layer=None))
