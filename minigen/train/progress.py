"""Telling how a run goes: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any

PLAIN_EVERY = 5.0  # seconds
WINDOW = 20.0  # seconds over which the speed is measured: what is left should not count the first step's compiling


class Progress:
    """`update(step, losses)` after every step; `say(text)` for a line that stays."""

    def __init__(self, start: int, total: int) -> None:
        from rich.console import Console

        self.total, self.start = total, start
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._shown = time.perf_counter()
        self._marks: deque[tuple[float, int]] = deque([(self._shown, start)])  # when which step was shown
        self._bar: Any = None
        self._task: Any = None
        self._compiled: set[str] = set()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            from rich import progress as p

            columns = (
                p.TextColumn("{task.completed}/{task.total}"), p.BarColumn(bar_width=None), p.TimeRemainingColumn(),
                p.TextColumn("{task.fields[rate]} {task.fields[losses]}"),
            )  # fmt: skip
            self._bar = p.Progress(*columns, console=self.console, refresh_per_second=4, expand=True)
            self._task = self._bar.add_task("", total=self.total, completed=self.start, rate="", losses="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def compiling(self, stem: str, function: str, folder: str) -> None:
        """A kernel is about to be compiled, to be kept in `folder`."""
        if not self._compiled:
            self.say(f"compiling kernels, once on this installation; they are kept in {folder}")
        if self._bar is not None:
            self._bar.update(self._task, rate="compiling", losses=f"{stem}.{function}")
        elif stem not in self._compiled:
            self.say(f"compiling {stem}")
        self._compiled.add(stem)

    def update(self, step: int, losses: dict[str, float]) -> None:
        now = time.perf_counter()
        if self._compiled and step == self.start + 1:  # how long that took says nothing of the steps to come
            self.say(f"compiled in {now - self._shown:.0f} s")
            self._shown, self._marks = now, deque([(now, step)])
            if step != self.total:
                return
        if self._bar is None and now - self._shown < PLAIN_EVERY and step != self.total:
            return
        if self._bar is not None and now - self._shown < 0.2 and step != self.total:
            return
        self._shown = now
        seconds = self._speed(now, step)
        shown = " ".join(f"{name} {value:.3g}" for name, value in losses.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, rate=f"{seconds:.3f} s/step", losses=shown)
        else:
            left = (self.total - step) * seconds
            self.say(f"step {step}/{self.total}  {seconds:.3f} s/step  {left:.0f} s left  {shown}")

    def _speed(self, now: float, step: int) -> float:
        """Seconds a step, of late."""
        marks = self._marks
        while len(marks) > 1 and now - marks[0][0] > WINDOW:
            marks.popleft()
        then, seen = marks[0]
        marks.append((now, step))
        return (now - then) / max(step - seen, 1)
