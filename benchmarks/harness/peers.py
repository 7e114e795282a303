"""PyTorch's side: in which ways it runs here, and on what.

    on a CPU    eager; with --compile, also its networks through torch.compile
    on a GPU    eager and as a CUDA graph, each with TF32 off (as minigen computes) and on

TF32 keeps ten bits of the factors of a product. PyTorch's own choice is to use it in convolutions and not in products; here
both are told, so that a column says what it is.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from benchmarks.harness import report
from benchmarks.harness.agree import Unable


@dataclass(frozen=True)
class Variant:
    key: str  # begins the names of its figures in the JSON file
    label: str  # above its column
    tf32: bool = False
    graph: bool = False
    compiled: bool = False

    @property
    def limit(self) -> float | None:
        """Seconds that its first step may take: torch.compile unrolls a GRU over 784 steps for many minutes, into 8 GB."""
        return 180.0 if self.compiled else None

    @property
    def ratio(self) -> str:
        """The name of its time over minigen's: "ratio" is eager PyTorch's."""
        return f"{self.key}_ratio".removeprefix("torch_")

    def set_tf32(self) -> None:
        """For all of this process."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32


EAGER, EAGER_TF32 = Variant("torch", "torch"), Variant("torch_tf32", "torch TF32", tf32=True)
COMPILED = Variant("torch_compile", "compile", compiled=True)
GRAPH = Variant("torch_graph", "graph", graph=True)
GRAPH_TF32 = Variant("torch_graph_tf32", "graph TF32", tf32=True, graph=True)


def of_steps(options: argparse.Namespace) -> list[Variant]:
    """Those asked for; none, after a line that says why, if PyTorch cannot use the device."""
    if not available(options):
        return []
    if options.device == "cpu":
        return [EAGER, COMPILED] if options.compile else [EAGER]
    return [EAGER, EAGER_TF32, GRAPH, GRAPH_TF32]


def of_kernels(options: argparse.Namespace) -> list[Variant]:
    if not available(options):
        return []
    return [EAGER] if options.device == "cpu" else [EAGER, EAGER_TF32]


def available(options: argparse.Namespace) -> bool:
    if not options.torch:
        return False
    if options.device != "cpu" and not report.torch_facts()["sees_gpu"]:
        report.say("PyTorch has no CUDA here: minigen is measured alone")
        return False
    return True


def wait() -> None:
    """Until the GPU has done all that PyTorch gave it."""
    import torch

    torch.cuda.synchronize()


def unable(error: Exception) -> Unable:
    """What PyTorch raised, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Unable(f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300])
