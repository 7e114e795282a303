"""`python -m benchmarks kernels`: single kernels, beside the hardware's ceilings and beside PyTorch.

A ceiling is the best of many runs, and so is a kernel's time here: both say what the hardware allows. (Medians are in the
JSON file, where noise shows.) The share is what the ceiling alone would take, over what the kernel takes: the ceiling of
products (gemm) or that of copies from memory (copy), whichever takes longer for the case's operations and bytes. It passes
100 % where the data came from a cache. What disagrees with the reference, a kernel or PyTorch, is not timed.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from minigen.kernels import threads

from benchmarks.harness import ceilings, clock, peers, registry, report
from benchmarks.harness.agree import Disagreement, Refusal, Unable
from benchmarks.harness.case import (
    Args,
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
    wanted,
)
from benchmarks.harness.peers import Variant
from benchmarks.harness.worker import Worker
from minigen.device import synchronize

Entry = dict[str, Any]
SEED = 0


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0, or 1 if a kernel disagreed (the others are timed all the same)."""
    modules = registry.load("benchmarks", "stem", options.names)
    report.say_machine(options.device)
    variants = peers.of_kernels(options)
    limits = ceilings.measure(min(0.5, options.seconds), options.device)
    found: dict[str, dict[str, Entry]] = {}
    failed = 0
    with ExitStack() as stack:
        torch = Worker(TorchKernels, variants, options.device, own_heap=True) if variants else None
        if torch:
            stack.enter_context(torch)
        for stem, module in modules.items():
            here: dict[str, dict[str, Entry]] = {}
            for i, case in enumerate(module.cases()):
                entry, refused = _measure(case, options, variants, torch, stem, i)
                for what, e in refused.items():
                    print(f"{case.kernel} ({case.shape}) {what} and is not timed: {e}", file=sys.stderr)
                    failed += isinstance(e, Disagreement)
                if entry:
                    here.setdefault(case.kernel, {})[case.shape] = entry
            # The machine was busy, before or now.
            limits = limits.raised(ceilings.measure(min(0.5, options.seconds), options.device))
            report.say(f"\nCeilings: gemm {limits.gflops:.0f} GFLOP/s, copy {limits.gbs:.0f} GB/s. Float32, best of many.")
            for entries in here.values():
                for entry in entries.values():
                    entry |= _share(entry, limits)
            _show(here, variants)
            found |= here
            # Now and not at the end, so that what was found stays if the rest is stopped.
            content = {"device": options.device, "kernels": found, "ceilings": vars(limits)}
            report.write_json(options.json, content, options.device)
    return 1 if failed else 0


class TorchKernels:
    """PyTorch's side of one case after another, in its own process."""

    def __init__(self, variants: list[Variant], device: str) -> None:
        import torch

        torch.set_num_threads(threads.get_num_threads())
        self.variants, self.device = variants, device
        self.blocks: dict[Variant, clock.Block] = {}

    def prepare(self, stem: str, i: int) -> dict[Variant, Refusal]:
        """Take up case `i` of the stem. Returns why variants cannot be timed: they do not compute what the reference does."""
        case: Case = registry.load("benchmarks", "stem", [stem])[stem].cases()[i]
        args = case.args(np.random.default_rng(SEED))
        right = wanted(case, args)
        self.blocks.clear()  # the arrays of the case before are no longer needed
        refused: dict[Variant, Refusal] = {}
        for variant in self.variants:
            variant.set_tf32()  # when arguments are made, too: some are what a forward pass saved
            try:
                verify_torch(case, torch_args(case, args, SEED, self.device), right, variant.tf32)
                sets = [torch_args(case, args, SEED, self.device) for _ in range(copies(args))]
                self.blocks[variant] = self._block(case, sets)
            except Refusal as e:
                refused[variant] = e
            except Exception as e:
                refused[variant] = peers.unable(e)
        return refused

    def _block(self, case: Case, sets: list[Args]) -> clock.Block:
        assert case.torch is not None
        call = rotating(case.torch, sets)
        return clock.block(call if self.device == "cpu" else lambda: (call(), peers.wait()))

    def block(self, variant: Variant, seconds: float) -> list[float]:
        variant.set_tf32()
        return self.blocks[variant](seconds)


def _measure(
    case: Case, options: argparse.Namespace, variants: list[Variant], torch: Worker | None, stem: str, i: int
) -> tuple[Entry | None, dict[str, Refusal]]:
    """Verify (which also compiles), then time, in turns with PyTorch. Also returns who was refused, and why."""
    peer, device = torch if case.torch else None, options.device
    if peer:
        peer.ask("prepare", stem, i)  # references take long, so both sides compute theirs at once
    args, kernel = case.args(np.random.default_rng(SEED)), dispatched(case.kernel)
    refused: dict[str, Refusal] = {}
    try:
        error = verify(case, args, on_device(kernel, device, case.changes))
    except Disagreement as disagreement:
        refused["disagrees"] = disagreement
    theirs = _answer(peer, variants) if peer else {}
    for v, e in theirs.items():
        refused[f"{'disagrees' if isinstance(e, Disagreement) else 'fails'} in PyTorch ({v.label})"] = e
    if "disagrees" in refused:
        return None, refused
    call = rotating(kernel, [moved(copy(args), device) for _ in range(copies(args))])
    blocks: dict[str, clock.Block] = {"minigen": clock.block(lambda: (call(), synchronize(device)))}
    for v in variants:
        if peer and v not in theirs:
            blocks[v.key] = partial(peer.call, "block", v)
    times = clock.alternate(blocks, options.seconds)
    took = times["minigen"].best
    entry: Entry = times["minigen"].milliseconds() | {
        "gflops": case.flops / took / 1e9,
        "gbs": case.nbytes / took / 1e9,
        "error": error,
        "implementation": "cuda" if device != "cpu" else "numba" if is_compiled(case.kernel) else "numpy reference",
    }
    for v in variants:
        if v.key in times:
            entry |= times[v.key].milliseconds(f"{v.key}_")
            entry[v.ratio] = entry[f"{v.key}_best_ms"] / entry["best_ms"]
    return entry, refused


def _answer(torch: Worker, variants: list[Variant]) -> dict[Variant, Refusal]:
    """What `prepare` returned; if its process ended, that is why nothing of PyTorch's can be timed."""
    try:
        return torch.answer()  # type: ignore[no-any-return]
    except RuntimeError as e:
        return dict.fromkeys(variants, Unable(str(e)))


def _share(entry: Entry, limits: ceilings.Ceilings) -> Entry:
    """How much of the nearer ceiling that is, and which one it is."""
    gemm, copy = entry["gflops"] / limits.gflops, entry["gbs"] / limits.gbs
    return {"share": max(gemm, copy), "ceiling": "gemm" if gemm >= copy else "copy"}


def _show(found: dict[str, dict[str, Entry]], variants: list[Variant]) -> None:
    columns, widths = ["", "best ms", "GFLOP/s", "GB/s", "share of", "error"], [17, 8, 7, 5, 9, 5]
    theirs: list[tuple[str, int]] = []  # figures of PyTorch's, and their digits
    if variants:
        columns, widths = [*columns, "torch ms", "ratio"], [*widths, 8, 5]
        theirs += [("torch_best_ms", 3), ("ratio", 2)]
    if peers.EAGER_TF32 in variants:
        columns, widths = [*columns, "torch\nTF32 ms"], [*widths, 7]
        theirs += [("torch_tf32_best_ms", 3)]
    for kernel, entries in found.items():
        rows = []
        for shape, e in entries.items():
            row = [shape, f"{e['best_ms']:.3f}", f"{e['gflops']:.1f}", f"{e['gbs']:.1f}"]
            row += [f"{e['share']:.0%} {e['ceiling']}", f"{e['error']:.0e}"]
            rows.append(row + [f"{e[key]:.{digits}f}" if key in e else "-" for key, digits in theirs])
        compiled = next(iter(entries.values()))["implementation"] != "numpy reference"
        title = kernel if compiled else f"{kernel}: no compiled version, this is the NumPy reference"
        report.print_table(title, columns, rows, widths, dense=len(variants) > 1)
