"""GRU over a sequence, reset gate after the product, batch 64. What is counted, and what PyTorch's side includes:
`harness/scan.py`."""

from __future__ import annotations

from benchmarks.harness import scan
from benchmarks.harness.case import Case


def cases() -> list[Case]:
    return scan.cases(scan.Cell("gru", gates=3, biases=4, states=1, saved=4, layer="GRU"))
