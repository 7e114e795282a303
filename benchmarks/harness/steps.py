"""`python -m benchmarks steps`: whole training steps, beside their floor and beside PyTorch.

The floor is the time of the matrix products alone, if all of them ran at the speed of one large product. A step is timed
beside PyTorch only if the first step of both, from the same weights on the same data and noise, gives the same losses and
gradients and moves the weights by the same amounts.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from types import ModuleType

from benchmarks.harness import ceilings, clock, profile, registry, report
from benchmarks.harness.agree import Disagreement, verified
from benchmarks.harness.worker import Worker
from minigen import device

Entry = dict[str, float]


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0, or 1 if a step disagreed with its twin (the others are timed all the same)."""
    modules = registry.load("benchmarks.steps", "step", options.names)
    report.say_machine(options.device)
    limits = ceilings.measure(min(0.5, options.seconds), options.device)
    found: dict[str, Entry] = {}
    failed = 0
    for name in modules:
        try:
            found[name] = _measure(name, options)
        except Disagreement as e:
            print(f"{name} disagrees with PyTorch and is not timed: {e}", file=sys.stderr)
            failed += 1
            continue
        limits = limits.raised(ceilings.measure(min(0.5, options.seconds), options.device))
    for name, entry in found.items():
        entry["floor_ms"] = 1e3 * limits.seconds(2 * modules[name].build().multiply_adds())
    if found:
        _show(found, limits)
    report.write_json(options.json, {"device": options.device, "steps": found, "ceilings": vars(limits)})
    return 1 if failed else 0


class MinigenStep:
    """The step, in its own process, all of it on the device."""

    def __init__(self, name: str, where: str) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(device.on(where))
        step = _load(name).build()
        self.run = lambda: (step.run(), device.synchronize(where))
        self.block = clock.block(self.run)

    def profile(self, seconds: float) -> profile.Profile:
        return profile.measure(self.run, seconds)


class TorchStep:
    """The twin, in its own process. minigen's step is built there for its weights, but no kernel runs."""

    def __init__(self, name: str) -> None:
        module = _load(name)
        self.block = clock.block(module.twin(module.build()).run)


class FirstSteps:
    """Both, in one process: to compare them, not to time them."""

    def __init__(self, name: str) -> None:
        self.module = _load(name)

    def compare(self) -> dict[str, float]:
        return verified(self.module.build, self.module.twin)


def _load(name: str) -> ModuleType:
    return registry.load("benchmarks.steps", "step", [name])[name]


def _measure(name: str, options: argparse.Namespace) -> Entry:
    """minigen's step, and with --torch its twin, in turns, after comparing their first steps. Raises Disagreement."""
    entry: Entry = {}
    if options.torch:
        with Worker(FirstSteps, name) as both:
            entry |= both.call("compare")
    with ExitStack() as stack:
        workers = {"minigen": stack.enter_context(Worker(MinigenStep, name, options.device))}
        if options.torch:
            workers["torch"] = stack.enter_context(Worker(TorchStep, name, own_heap=True))
        for worker in workers.values():
            worker.block(0)  # compiles
        times = clock.alternate({library: worker.block for library, worker in workers.items()}, options.seconds)
        if options.profile:
            profile.show(name, workers["minigen"].call("profile", options.seconds))
    entry |= times["minigen"].milliseconds()
    if options.torch:
        entry |= times["torch"].milliseconds("torch_")
        entry["ratio"] = entry["torch_median_ms"] / entry["median_ms"]
    return entry


def _show(found: dict[str, Entry], limits: ceilings.Ceilings) -> None:
    torch = any("ratio" in e for e in found.values())
    columns = ["step", "median ms", "quartiles", "floor ms"] + (["torch ms", "torch/minigen"] if torch else [])
    rows = []
    for name, e in found.items():
        row = [name, f"{e['median_ms']:.2f}", f"{e['q1_ms']:.2f}-{e['q3_ms']:.2f}", f"{e['floor_ms']:.2f}"]
        rows.append(row + ([f"{e['torch_median_ms']:.2f}", f"{e['ratio']:.2f}"] if torch else []))
    report.print_table("Training steps, batch 64, float32", columns, rows)
    report.say(f"Floor: the step's matrix products alone at {limits.gflops:.0f} GFLOP/s, the speed of one large product.")
    if torch:
        report.say("torch/minigen: above 1, minigen is faster. The first steps of both agree:")
        for name, e in found.items():
            report.say(f"  {name}: losses to {e['loss_error']:.0e}, gradients to {e['gradient_error']:.0e}")
