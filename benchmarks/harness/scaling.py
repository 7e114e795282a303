"""`python -m benchmarks scaling`: how a step's time and memory grow with what is trained, beside PyTorch's.

Four sizes are changed, one at a time: the batch and the images of the DCGAN, the units and the sequence of the character GRU.
Each point is a process for either library, and they take turns, as `python -m benchmarks steps` has it.

    growth     p in time ~ size^p, between a point and the one before. 1 is linear: for the batch, for the sequence, and for
               images against their number of pixels. A GRU's products grow with the square of its units.
    memory     the most that the process held while it trained, beyond what it held before the model was made; by then both
               libraries are loaded and have taken a step of a size that is smaller still.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import clock, report
from benchmarks.harness.gan import gan_step
from benchmarks.harness.step import Step, build_text_trainer
from benchmarks.harness.worker import Worker
from minigen.errors import UserError
from minigen.train.char_rnn import CharRNN
from minigen.train.gan import GAN

VOCABULARY = 90
STEPS = 5  # while memory is watched


@dataclass(frozen=True)
class Sweep:
    """`build(size)` makes a step, `twin(step)` the same in PyTorch; `work(size)` is what the time should be proportional to."""

    title: str
    smaller: int  # than all sizes: for a step before memory counts
    sizes: tuple[int, ...]
    build: Callable[[int], Step]
    twin: Callable[[Step], Any]
    work: Callable[[int], float]


def _dcgan(batch: int, size: int) -> Step:
    return gan_step(GAN(net="dcgan", batch_size=batch), (1, size, size))


def _dcgan_twin(step: Step) -> Any:
    from benchmarks.twins import gan, networks

    shape = step.trainer.info.shape
    return gan.GAN(step, networks.dcgan_generator(shape), networks.dcgan_discriminator(shape, norm=True))


def _char(hidden: int, length: int) -> Step:
    trainer = build_text_trainer(CharRNN(hidden=hidden, seq_length=length), VOCABULARY)
    return Step(trainer.step, {"model": trainer.model}, {"model": trainer.opt}, lambda: 0, trainer)


def _char_twin(step: Step) -> Any:
    from benchmarks.twins import char

    return char.CharRNN(step)


def _char_work(hidden: int) -> float:
    """Products of a time step: embedding of 256, the state, the vocabulary."""
    return hidden * (3 * 256 + 3 * hidden + VOCABULARY)


SWEEPS = {
    "batch": Sweep("batch, DCGAN 28x28", 2, (16, 32, 64, 128, 256), lambda n: _dcgan(n, 28), _dcgan_twin, float),
    "image": Sweep("image, DCGAN, batch 64", 8, (16, 32, 48, 64), lambda n: _dcgan(64, n), _dcgan_twin, lambda n: n * n),
    "hidden": Sweep("units, char GRU, T = 100", 16, (128, 256, 512, 1024), lambda n: _char(n, 100), _char_twin, _char_work),
    "length": Sweep("length, character GRU 256", 5, (50, 100, 200, 400), lambda n: _char(256, n), _char_twin, float),
}


class Point:
    """A step of one library in a process of its own."""

    def __init__(self, name: str, size: int, torch: bool) -> None:
        self._make(name, SWEEPS[name].smaller, torch)()  # libraries are loaded and kernels compiled before memory counts
        before = _resident()
        run = self._make(name, size, torch)
        _forget_peak()
        for _ in range(STEPS):
            run()
        self._megabytes = (_peak() - before) / 1e6
        self.block = clock.block(run)

    @staticmethod
    def _make(name: str, size: int, torch: bool) -> Callable[[], Any]:
        sweep = SWEEPS[name]
        step = sweep.build(size)
        return sweep.twin(step).run if torch else step.run  # type: ignore[no-any-return]

    def megabytes(self) -> float:
        return self._megabytes


def _status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise UserError(f"scaling: this system does not tell {field}, the memory of a process")


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _forget_peak() -> None:
    """Let the peak begin from here."""
    Path("/proc/self/clear_refs").write_text("5")


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0."""
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("scaling: the memory of a process is read as Linux gives it")
    unknown = [name for name in options.names if name not in SWEEPS]
    if unknown:
        raise UserError(f"scaling: unknown {unknown[0]!r}; choose from {', '.join(SWEEPS)}")
    report.say_machine()
    found = {name: _sweep(name, options) for name in options.names or SWEEPS}
    report.write_json(options.json, {"scaling": found})
    if options.plot:
        _plot(options.plot, found)
        report.say(f"\n{options.plot}")
    return 0


def _sweep(name: str, options: argparse.Namespace) -> list[dict[str, float]]:
    points: list[dict[str, float]] = []
    for size in SWEEPS[name].sizes:
        with ExitStack() as stack:
            workers = {"": stack.enter_context(Worker(Point, name, size, False))}
            if options.torch:
                workers["torch_"] = stack.enter_context(Worker(Point, name, size, True, own_heap=True))
            for worker in workers.values():
                worker.block(0)  # the other is not timed while one is still being made
            times = clock.alternate({prefix: w.block for prefix, w in workers.items()}, options.seconds)
            point: dict[str, float] = {"size": size}
            for prefix, worker in workers.items():
                point |= times[prefix].milliseconds(prefix) | {f"{prefix}mb": worker.call("megabytes")}
        points.append(point)
    _show(name, points)
    return points


def _growth(sweep: Sweep, points: list[dict[str, float]], i: int) -> str:
    if not i:
        return ""
    work = [sweep.work(int(points[k]["size"])) for k in (i - 1, i)]
    return f"{math.log(points[i]['median_ms'] / points[i - 1]['median_ms']) / math.log(work[1] / work[0]):.2f}"


def _show(name: str, points: list[dict[str, float]]) -> None:
    sweep, torch = SWEEPS[name], "torch_mb" in points[0]
    columns = ["size", "ms", "growth", "MB"] + (["torch ms", "torch/minigen", "torch MB"] if torch else [])
    rows = []
    for i, p in enumerate(points):
        row = [f"{p['size']}", f"{p['median_ms']:.1f}", _growth(sweep, points, i), f"{p['mb']:.0f}"]
        if torch:
            row += [f"{p['torch_median_ms']:.1f}", f"{p['torch_median_ms'] / p['median_ms']:.2f}", f"{p['torch_mb']:.0f}"]
        rows.append(row)
    report.print_table(sweep.title, columns, rows)


def _plot(path: Path, found: dict[str, list[dict[str, float]]]) -> None:
    """Time and memory against each size, on logarithmic axes, with the slope that the work has."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(found), figsize=(3.4 * len(found), 6), layout="constrained", squeeze=False)
    for column, (name, points) in enumerate(found.items()):
        sweep, sizes = SWEEPS[name], [p["size"] for p in points]
        for row, (what, label) in enumerate((("median_ms", "ms a step"), ("mb", "peak memory, MB"))):
            ax = axes[row, column]
            ax.plot(sizes, [p[what] for p in points], "o-", label="minigen")
            if f"torch_{what}" in points[0]:
                ax.plot(sizes, [p[f"torch_{what}"] for p in points], "s--", label="PyTorch")
            if what == "median_ms":
                last = points[-1]["median_ms"] / sweep.work(int(sizes[-1]))
                ax.plot(sizes, [last * sweep.work(int(s)) for s in sizes], ":", color="gray", label="as the work grows")
            ax.set(xscale="log", yscale="log", ylabel="" if column else label)
            ax.set_xticks(sizes, [f"{s:g}" for s in sizes])
            ax.minorticks_off()
            if not row:
                ax.set_title(sweep.title, fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
