"""Telling how a run goes: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

PLAIN_EVERY = 5.0  # seconds
PATIENCE = 2.0
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
        # Said only if the first step is slow, which is when Numba has to compile.
        notice = "compiling kernels: some ten seconds, once on each installation"
        self._patience = threading.Timer(PATIENCE, self.say, [notice])
        self._patience.daemon = True

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
        self._patience.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._patience.cancel()
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def update(self, step: int, losses: dict[str, float]) -> None:
        self._patience.cancel()
        now = time.perf_counter()
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
