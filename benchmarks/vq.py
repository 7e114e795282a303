"""The nearest of K codes of 64 numbers, for the vectors of 64 images of 28x28, of 128 of 32x32, and of 256.

PyTorch has no such function; two ways to write it stand beside each shape: `cdist` computes the distances |z - e|, and
`square` the squares z^2 - 2 z e + e^2. Both then look for the least. The distance to it is the kernel's second result, not
theirs.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness.case import Case, normal

D = 64
COUNTS, CODES = (3136, 8192, 16384), (512, 1024)


def cases() -> list[Case]:
    made = []
    for n in COUNTS:
        for k in CODES:
            for name, peer in (("cdist", _cdist), ("square", _square)):
                flops, nbytes = 2 * n * k * D, 4 * (n * D + k * D + n) + 8 * n
                made.append(
                    Case("vq_forward", f"{n}x{k} {name}", normal((n, D), (k, D)), flops, nbytes, peer, torch_part=_index)
                )  # fmt: skip
    return made


def _cdist(z: Any, codes: Any) -> Any:
    import torch

    return torch.cdist(z, codes).argmin(1)


def _square(z: Any, codes: Any) -> Any:
    return (z.square().sum(1, keepdim=True) - 2 * z @ codes.T + codes.square().sum(1)).argmin(1)


def _index(results: list[Any]) -> list[Any]:
    return results[:1]
