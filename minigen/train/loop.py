"""The training loop: what all recipes share around their `step()`."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minigen import random
from minigen.device import on
from minigen.errors import UserError
from minigen.train import pictures, run
from minigen.train.config import BaseRecipe, DataInfo
from minigen.train.progress import Progress
from minigen.train.warm import Compiling

GRID = 64  # samples in a grid; points are drawn by the thousand


class Interrupt:
    """Ctrl-C (and SIGTERM) ask the loop to stop after the step in hand; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def train(config: BaseRecipe, say: Callable[[str], None] = print) -> Path:
    """Train from the start, or from the last checkpoint with config.resume. Returns the run's folder.

    Raises UserError for bad input and for losses that stop being numbers; the last checkpoint stays valid.
    """
    if config.resume and config.out is None:
        raise UserError("--resume needs --out: the run to go on with")
    with on(config.device):
        return _train(config, say)


def _train(config: BaseRecipe, say: Callable[[str], None]) -> Path:
    data = config.load()
    for notice in data.notices:
        say(notice)
    info = run.data_info(data)
    config.resolve(info)
    random.seed(config.seed)
    trainer = config.build(info, data)
    folder, start = _open(config, info, trainer, say)
    _record_loop(folder, config, trainer, data, start, say)
    return folder


def _open(config: BaseRecipe, info: DataInfo, trainer: Any, say: Callable[[str], None]) -> tuple[Path, int]:
    """Create the run folder, or take up the one in --out. Returns it and the step to go on from."""
    if not config.resume:
        folder = run.new_folder(config.out, config.name, info.name)
        run.write_config(folder, config, info)
        return folder, 0
    assert config.out is not None
    folder = Path(config.out).expanduser()
    if not (folder / run.CONFIG).exists():
        # Killed before it wrote anything, or never begun: the same command with --resume simply starts.
        folder = run.new_folder(config.out, config.name, info.name)
        run.write_config(folder, config, info)
        return folder, 0
    saved, saved_info = run.read_config(folder, {config.name: type(config)})
    run.check_resume(folder, config, saved, info, saved_info)
    start = run.restore(folder, config, trainer) if (folder / run.checkpoint.FILE).exists() else 0
    run.trim_metrics(folder, start)
    (folder / "samples").mkdir(exist_ok=True)
    say(f"going on from step {start}")
    return folder, start


def _record_loop(
    folder: Path, config: BaseRecipe, trainer: Any, data: Any, start: int, say: Callable[[str], None]
) -> None:
    assert config.steps is not None
    step, losses = start, {}
    with Interrupt() as interrupt, Progress(start, config.steps) as progress, open(folder / run.METRICS, "ab") as metrics:
        progress.say(f"writing to {folder}")
        while step < config.steps and not interrupt.asked:
            first = Compiling(folder, progress.compiling) if step == start and config.device == "cpu" else nullcontext()
            with first, np.errstate(all="ignore"):  # overflow shows in the losses, which are checked
                losses = trainer.step()
            step += 1
            _check(losses, step, folder)
            if step % config.log_every == 0:
                _append(metrics, {"step": step} | losses, folder)
            if step % config.sample_every == 0:
                draw_samples(folder, trainer, data, step)
            if step % config.checkpoint_every == 0:
                run.save(folder, config, trainer, step)
            progress.update(step, losses)
    run.save(folder, config, trainer, step)
    draw_samples(folder, trainer, data, step)
    pictures.save_curves(folder / "curves.png", run.read_metrics(folder))
    if interrupt.asked:
        say(f"stopped at step {step}; minigen train {config.name} --out {folder} --resume goes on")


def _check(losses: dict[str, float], step: int, folder: Path) -> None:
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        kept = "its last checkpoint is kept" if (folder / run.checkpoint.FILE).exists() else "nothing was saved yet"
        raise UserError(f"step {step}: the {bad[0]} loss is {losses[bad[0]]}; training in {folder} stopped, {kept}")


def _append(metrics: Any, record: dict[str, float], folder: Path) -> None:
    try:
        metrics.write((json.dumps(record) + "\n").encode())
        metrics.flush()
    except OSError as e:
        raise UserError(f"cannot write {folder / run.METRICS}: {e.strerror or e}; the last checkpoint is kept") from e


def draw_samples(folder: Path, trainer: Any, data: Any, step: int) -> None:
    """samples/STEP.png: 64 images, or 2000 points over the data; samples/STEP.txt of a text."""
    if trainer.info.is_text:
        trainer.save_samples(folder / "samples" / f"{step:06d}.txt")
        return
    points = trainer.info.is_points
    x = trainer.sample(2000 if points else GRID)
    pictures.save_samples(folder / "samples" / f"{step:06d}.png", x, np.asarray(data.images) if points else None)
