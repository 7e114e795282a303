"""`python -m benchmarks kernels`: single kernels, beside the hardware's ceilings and beside PyTorch.

A ceiling is the best of many runs, and so is a kernel's time here: both say what the hardware allows. (Medians are in the
JSON file, where noise shows.) The share is what the ceiling alone would take, over what the kernel takes: the ceiling of
products (gemm) or that of copies from memory (copy), whichever takes longer for the case's operations and bytes. It passes
100 % where the data came from a cache. A kernel that disagrees with its reference is not timed.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import Any

import numpy as np
from minigen.kernels import threads

from benchmarks.harness import ceilings, clock, registry, report
from benchmarks.harness.agree import Disagreement
from benchmarks.harness.case import (
    Case,
    copies,
    copy,
    dispatched,
    is_compiled,
    moved,
    on_device,
    rotating,
    torch_args,
    verify,
    verify_torch,
)
from benchmarks.harness.worker import Worker
from minigen.device import synchronize

Entry = dict[str, Any]
SEED = 0


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0, or 1 if a kernel disagreed (the others are timed all the same)."""
    modules = registry.load("benchmarks", "stem", options.names)
    report.say_machine(options.device)
    limits = ceilings.measure(min(0.5, options.seconds), options.device)
    found: dict[str, dict[str, Entry]] = {}
    failed = 0
    with ExitStack() as stack:
        torch = stack.enter_context(Worker(TorchKernels, own_heap=True)) if options.torch else None
        for stem, module in modules.items():
            here: dict[str, dict[str, Entry]] = {}
            for i, case in enumerate(module.cases()):
                try:
                    peer = torch if case.torch else None
                    if peer:
                        peer.call("prepare", stem, i)
                    entry = measure(case, options.seconds, peer, options.device)
                except Disagreement as e:
                    print(f"{case.kernel} ({case.shape}) disagrees and is not timed: {e}", file=sys.stderr)
                    failed += 1
                    continue
                here.setdefault(case.kernel, {})[case.shape] = entry
            # The machine was busy, before or now.
            limits = limits.raised(ceilings.measure(min(0.5, options.seconds), options.device))
            report.say(f"\nCeilings: gemm {limits.gflops:.0f} GFLOP/s, copy {limits.gbs:.0f} GB/s. Float32, best of many.")
            for entries in here.values():
                for entry in entries.values():
                    entry |= _share(entry, limits)
            _show(here, options.torch)
            found |= here
    report.write_json(options.json, {"device": options.device, "kernels": found, "ceilings": vars(limits)})
    return 1 if failed else 0


class TorchKernels:
    """PyTorch's side of one case after another, in its own process."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(threads.get_num_threads())
        self.block: clock.Block | None = None

    def prepare(self, stem: str, i: int) -> None:
        """Take up case `i` of the stem. Raises Disagreement if PyTorch does not compute what the reference does."""
        case: Case = registry.load("benchmarks", "stem", [stem])[stem].cases()[i]
        assert case.torch is not None
        verify_torch(case, SEED)
        self.block = None  # its arrays are no longer needed
        count = copies(case.args(np.random.default_rng(SEED)))
        self.block = clock.block(rotating(case.torch, [torch_args(case, SEED) for _ in range(count)]))


def measure(case: Case, seconds: float, torch: Worker | None = None, device: str = "cpu") -> Entry:
    """Verify (which also compiles), then time; in turns with `torch`, which has prepared the same case."""
    args, kernel = case.args(np.random.default_rng(SEED)), dispatched(case.kernel)
    error = verify(case, args, on_device(kernel, device, case.changes))
    call = rotating(kernel, [moved(copy(args), device) for _ in range(copies(args))])
    blocks = {"minigen": clock.block(lambda: (call(), synchronize(device)))}
    if torch:
        blocks["torch"] = torch.block
    times = clock.alternate(blocks, seconds)
    took = times["minigen"].best
    entry: Entry = times["minigen"].milliseconds() | {
        "gflops": case.flops / took / 1e9,
        "gbs": case.nbytes / took / 1e9,
        "error": error,
        "implementation": "cuda" if device != "cpu" else "numba" if is_compiled(case.kernel) else "numpy reference",
    }
    if torch:
        entry |= times["torch"].milliseconds("torch_")
        entry["ratio"] = entry["torch_best_ms"] / entry["best_ms"]
    return entry


def _share(entry: Entry, limits: ceilings.Ceilings) -> Entry:
    """How much of the nearer ceiling that is, and which one it is."""
    gemm, copy = entry["gflops"] / limits.gflops, entry["gbs"] / limits.gbs
    return {"share": max(gemm, copy), "ceiling": "gemm" if gemm >= copy else "copy"}


def _show(found: dict[str, dict[str, Entry]], torch: bool) -> None:
    columns = ["", "best ms", "GFLOP/s", "GB/s", "share of", "error"] + (["torch ms", "ratio"] if torch else [])
    for kernel, entries in found.items():
        rows = []
        for shape, e in entries.items():
            row = [shape, f"{e['best_ms']:.3f}", f"{e['gflops']:.1f}", f"{e['gbs']:.1f}"]
            row += [f"{e['share']:.0%} {e['ceiling']}", f"{e['error']:.0e}"]
            peer = [f"{e['torch_best_ms']:.3f}", f"{e['ratio']:.2f}"] if "ratio" in e else ["-", "-"]
            rows.append(row + (peer if torch else []))
        compiled = next(iter(entries.values()))["implementation"] != "numpy reference"
        title = kernel if compiled else f"{kernel}: no compiled version, this is the NumPy reference"
        report.print_table(title, columns, rows, (17, 8, 7, 5, 9, 5, 8, 5))
