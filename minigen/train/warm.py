"""The first step on an installation, when Numba compiles a hundred functions, one after another, on one core.

As soon as it begins to, a second process takes the same step from the other end: forward passes by the NumPy references, which
need no compiling, and only then kernels, those of backward passes and of the optimiser. When the first process comes to those,
they lie in the cache. What both compile is compiled in vain, which costs no time: it is another core's.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minigen import autograd, dispatch, random
from minigen.errors import UserError
from minigen.optim import Optimizer


class Compiling:
    """In the block `tell(stem, function, folder)` is called before a kernel is compiled; at the first the process starts."""

    def __init__(self, folder: Path, tell: Callable[[str, str, str], None]) -> None:
        self.folder, self.tell = folder, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: Any = None

    def __enter__(self) -> Compiling:
        from numba.core import event

        from minigen.kernels import threads

        outer = self

        class Listener(event.Listener):  # type: ignore[misc]
            depth = 0

            def on_start(self, e: Any) -> None:
                self.depth += 1
                if self.depth == 1:  # not what a kernel calls
                    outer._begins(e.data["dispatcher"], threads.cores() > 1)

            def on_end(self, e: Any) -> None:
                self.depth -= 1

        self._listener = Listener()
        event.register("numba:compile", self._listener)
        return self

    def _begins(self, dispatcher: Any, spare: bool) -> None:
        function = dispatcher.py_func
        self.tell(function.__module__.rsplit(".")[-1], function.__name__.strip("_"), dispatcher._cache.cache_path or "")
        if self._process is None and spare:
            command = [sys.executable, "-m", "minigen.train.warm", str(self.folder)]
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)

    def __exit__(self, *exc: object) -> None:
        from numba.core import event

        event.unregister("numba:compile", self._listener)
        if self._process is not None:
            self._process.kill()  # caches are written whole or not at all
            self._process.wait()


def from_the_other_end(folder: Path) -> None:
    """Take a step of the run in `folder`; nothing is written but the cache of kernels."""
    from minigen.train import RECIPES, run

    config, _ = run.read_config(folder, RECIPES)
    data = config.load()
    random.seed(config.seed)
    trainer = config.build(run.data_info(data), data)
    autograd._walk = _compiled(autograd._walk)
    Optimizer.step = _compiled(Optimizer.step)  # type: ignore[method-assign]
    with dispatch.mode("reference"):
        trainer.step()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with dispatch.mode("auto"):
            return function(*args, **kwargs)

    return call


if __name__ == "__main__":
    try:
        from_the_other_end(Path(sys.argv[1]))
    except UserError as e:
        sys.exit(str(e))
