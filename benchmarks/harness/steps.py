"""`python -m benchmarks steps`: whole training steps, beside their floor and beside PyTorch.

The floor is the time of the matrix products alone, if all of them ran at the speed of one large product. A step is timed
beside PyTorch only if the first step of both, from the same weights on the same data and noise, gives the same losses and
gradients and moves the weights by the same amounts. What runs with TF32 is not compared: it is what was compared without.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from benchmarks.harness import ceilings, clock, peers, profile, registry, report
from benchmarks.harness.agree import Disagreement, Refusal, verified
from benchmarks.harness.peers import Variant
from benchmarks.harness.step import Step
from benchmarks.harness.worker import Worker
from minigen import device

Entry = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0, or 1 if a step failed, or a twin disagreed with it (the others are timed all the same)."""
    modules = registry.load("benchmarks.steps", "step", options.names)
    report.say_machine(options.device)
    variants = peers.of_steps(options)
    limits = ceilings.measure(min(0.5, options.seconds), options.device)
    found: dict[str, Entry] = {}
    flops = {}
    failed = 0
    for name, module in modules.items():
        try:
            found[name], disagreed, profiled = _measure(name, options, variants)
        except RuntimeError as e:
            print(f"{name}: {e}", file=sys.stderr)
            failed += 1
            continue
        failed += disagreed
        flops[name] = 2 * module.build().multiply_adds()
        limits = limits.raised(ceilings.measure(min(0.5, options.seconds), options.device))
        for each, entry in found.items():
            entry["floor_ms"] = 1e3 * limits.seconds(flops[each])
        if profiled:
            profile.show(name, profiled, limits, flops[name])
        # Now and not at the end, so that what was found stays if the rest is stopped.
        report.write_json(options.json, {"device": options.device, "steps": found, "ceilings": vars(limits)}, options.device)
    _show(found, limits, variants)
    return 1 if failed else 0


class MinigenStep:
    """The step, in its own process, all of it on the device."""

    def __init__(self, name: str, where: str, graph: bool = False) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(device.on(where))
        step = _load(name).build()
        if graph:
            step.trainer.capture()
            for _ in range(3):
                step.run()
        self.run = lambda: (step.run(), device.synchronize(where))
        self.block = clock.block(self.run)

    def profile(self, seconds: float) -> profile.Profile:
        return profile.measure(self.run, seconds)


class TorchStep:
    """A twin, in its own process. minigen's step is built there for its weights, but none of its kernels is timed."""

    def __init__(self, name: str, where: str, variant: Variant) -> None:
        self.module, self.where, self.variant = _load(name), where, variant
        self.block: clock.Block | None = None

    def prepare(self) -> None:
        """Run it once, which captures or compiles. Raises Unable if PyTorch does."""
        try:
            twin = _twin(self.module, self.module.build(), self.where, self.variant)
            twin.run()
        except Exception as e:
            raise peers.unable(e) from e
        self.block = clock.block(twin.run if self.where == "cpu" else lambda: (twin.run(), peers.wait()))


class FirstSteps:
    """Both, in one process: to compare them, not to time them."""

    def __init__(self, name: str, where: str) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(device.on(where))
        self.module, self.where = _load(name), where

    def compare(self, variant: Variant) -> dict[str, float]:
        """How closely they agree. Raises Disagreement, or Unable if PyTorch cannot run this variant."""
        try:
            return verified(self.module.build, lambda step: _twin(self.module, step, self.where, variant))
        except Refusal:
            raise
        except Exception as e:
            raise peers.unable(e) from e


def _load(name: str) -> ModuleType:
    return registry.load("benchmarks.steps", "step", [name])[name]


def _twin(module: ModuleType, step: Step, where: str, variant: Variant) -> Any:
    from benchmarks.twins.graphed import Graphed

    variant.set_tf32()
    twin = module.twin(step, where)
    if variant.compiled:
        twin.compile()
    return Graphed(twin) if variant.graph else twin


def _measure(
    name: str, options: argparse.Namespace, variants: list[Variant]
) -> tuple[Entry, bool, profile.Profile | None]:
    """minigen's step, and those of PyTorch that agree with it, in turns; whether one disagreed; where minigen's time goes."""
    entry: Entry = {}
    refused: dict[str, Exception] = {}
    with ExitStack() as stack:
        workers = {"minigen": stack.enter_context(Worker(MinigenStep, name, options.device))}
        if options.device != "cpu":
            workers["graph"] = stack.enter_context(Worker(MinigenStep, name, options.device, True))
        for v in variants:  # all of them begin to load
            workers[v.key] = stack.enter_context(Worker(TorchStep, name, options.device, v, own_heap=True))
        if variants:
            _compare(name, options.device, variants, entry, refused)
        if "graph" in workers:
            try:
                workers["graph"].block(0)
            except RuntimeError as e:
                print(f"{name} is not timed as a graph: {e}", file=sys.stderr)
                refused["graph"] = e
        for v in variants:
            try:
                if v.key not in refused:
                    workers[v.key].call("prepare", limit=v.limit)
            except (Refusal, RuntimeError) as e:
                refused[v.key] = e
        blocks = {library: worker.block for library, worker in workers.items() if library not in refused}
        for block in blocks.values():
            block(0)  # minigen compiles
        times = clock.alternate(blocks, options.seconds)
        profiled = workers["minigen"].call("profile", options.seconds) if options.profile else None
    entry |= times["minigen"].milliseconds()
    if "graph" in times:
        entry |= times["graph"].milliseconds("graph_")
    for v in variants:
        if v.key in times:
            entry |= times[v.key].milliseconds(f"{v.key}_")
            entry[v.ratio] = entry[f"{v.key}_median_ms"] / entry["median_ms"]
    if refused:
        entry["refused"] = {key: str(e) for key, e in refused.items()}
    return entry, any(isinstance(e, Disagreement) for e in refused.values()), profiled


def _compare(name: str, where: str, variants: list[Variant], entry: Entry, refused: dict[str, Exception]) -> None:
    """Enter in `entry` how closely first steps agree, and in `refused` why what cannot be timed cannot."""
    with Worker(FirstSteps, name, where) as both:
        for v in variants:
            if not v.tf32:
                try:
                    errors = both.call("compare", v, limit=v.limit)
                    entry |= errors if v == peers.EAGER else {f"{v.key}_{what}": e for what, e in errors.items()}
                except (Refusal, RuntimeError) as e:
                    refused[v.key] = e
    for v in variants:  # the same with TF32
        without = v.key.removesuffix("_tf32")
        if without in refused:
            refused[v.key] = refused[without]


def _show(found: dict[str, Entry], limits: ceilings.Ceilings, variants: list[Variant]) -> None:
    rows = [
        [name, f"{e['median_ms']:.2f}", f"{e['q1_ms']:.2f}-{e['q3_ms']:.2f}", f"{e['floor_ms']:.2f}"]
        for name, e in found.items()
    ]
    table = [["step", "median ms", "quartiles", "floor ms"], *rows]
    if any("graph_median_ms" in e for e in found.values()):
        times = [f"{e['graph_median_ms']:.2f}" if "graph_median_ms" in e else "-" for e in found.values()]
        cells = ["as a graph", *times]
        table = [[*row, cell] for row, cell in zip(table, cells, strict=True)]
    beside = [_heads(variants), *([cell for v in variants for cell in _cells(e, v)] for e in found.values())]
    if len(variants) < 2:
        table = [row + more for row, more in zip(table, beside, strict=True)]
    report.print_table("Training steps, batch 64, float32", table[0], table[1:])
    if len(variants) >= 2:  # too wide for one
        beside = [row[:1] + more for row, more in zip(table, beside, strict=True)]
        report.print_table("The same in PyTorch", beside[0], beside[1:])
    report.say(f"Floor: the step's matrix products alone at {limits.gflops:.0f} GFLOP/s, the speed of one large product.")
    if variants:
        _say_agreement(found, variants)


def _heads(variants: list[Variant]) -> list[str]:
    if len(variants) > 2:  # narrow, for many columns
        return [head for v in variants for head in (f"{v.label} ms".replace(" ", "\n"), "ratio")]
    return [head for v in variants for head in (f"{v.label} ms", f"{v.label}/minigen")]


def _cells(entry: Entry, v: Variant) -> list[str]:
    return [f"{entry[f'{v.key}_median_ms']:.2f}", f"{entry[v.ratio]:.2f}"] if v.ratio in entry else ["-", "-"]


def _say_agreement(found: dict[str, Entry], variants: list[Variant]) -> None:
    report.say("Ratios are PyTorch's time over minigen's: above 1, minigen is faster. The first steps of both agree:")
    for name, e in found.items():
        if "loss_error" in e:
            report.say(f"  {name}: losses to {e['loss_error']:.0e}, gradients to {e['gradient_error']:.0e}")
    for name, e in found.items():
        for v in variants:
            if v.key in e.get("refused", {}):
                report.say(f"Not timed: {name}, {v.label}: {e['refused'][v.key]}")
