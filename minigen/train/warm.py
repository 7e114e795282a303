"""The first step on an installation, when Numba compiles a hundred functions, one after another, on one core.

As soon as it begins to, a second process takes the same step from the other end: forward passes by the NumPy references, which
need no compiling, and only then kernels, those of backward passes and of the optimiser. Who comes to a kernel first claims it,
by a file; the second process passes over what is claimed, with the reference again, and the first waits for what the second is
compiling, and finds it in the cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minigen import autograd, dispatch, random
from minigen.errors import UserError
from minigen.optim import Optimizer

DONE = ".done"


class Compiling:
    """In the block `tell(stem, function, folder)` is called before a kernel is compiled; at the first the process starts."""

    def __init__(self, folder: Path, tell: Callable[[str, str, str], None]) -> None:
        self.folder, self.tell = folder, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: Any = None
        self._stack, self._claims, self._seen = ExitStack(), Path(), set[str]()

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
        self._claims = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="minigen-")))
        self._stack.enter_context(dispatch.around(self._kernel))
        return self

    def _begins(self, dispatcher: Any, spare: bool) -> None:
        function = dispatcher.py_func
        self.tell(function.__module__.rsplit(".")[-1], function.__name__.strip("_"), dispatcher._cache.cache_path or "")
        if self._process is None and spare:
            command = [sys.executable, "-m", "minigen.train.warm", str(self.folder), str(self._claims)]
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)

    def _kernel(self, name: str, kernel: Callable[..., Any], reference: Any, *args: Any) -> Any:
        if name not in self._seen and not _claimed(self._claims, name):
            while not (self._claims / (name + DONE)).exists() and self._process is not None and self._process.poll() is None:
                time.sleep(0.01)
        self._seen.add(name)
        return kernel(*args)

    def __exit__(self, *exc: object) -> None:
        from numba.core import event

        event.unregister("numba:compile", self._listener)
        if self._process is not None:
            self._process.kill()  # caches are written whole or not at all
            self._process.wait()
        self._stack.close()


def _claimed(claims: Path, name: str) -> bool:
    """Claim a kernel. False if the other process has."""
    try:
        (claims / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def from_the_other_end(folder: Path, claims: Path) -> None:
    """Take a step of the run in `folder`; nothing is written but claims and the cache of kernels."""
    from minigen.train import RECIPES, run

    config, _ = run.read_config(folder, RECIPES)
    data = config.load()
    random.seed(config.seed)
    trainer = config.build(run.data_info(data), data)
    autograd._walk = _compiled(autograd._walk)
    Optimizer.step = _compiled(Optimizer.step)  # type: ignore[method-assign]
    mine: set[str] = set()

    def kernel(name: str, compiled: Callable[..., Any], reference: Callable[..., Any], *args: Any) -> Any:
        if name not in mine and not _claimed(claims, name):
            return reference(*args)
        result = compiled(*args)
        mine.add(name)
        (claims / (name + DONE)).touch()
        return result

    with dispatch.mode("reference"), dispatch.around(kernel):
        trainer.step()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with dispatch.mode("auto"):
            return function(*args, **kwargs)

    return call


if __name__ == "__main__":
    try:
        from_the_other_end(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as e:
        sys.exit(str(e))
