"""Objects that live in a process of their own: what is compared with PyTorch takes turns with it, but not in one process.

In one process they would not be two measurements. Measured with an MLP GAN step of 4 ms, on two cores:

- Where Numba's threads are OpenMP's, PyTorch may share their library and pool. After a kernel of minigen had run once, every
  PyTorch step in that process took 20 ms instead of 4.
- What the heap keeps for the next array, and what it returns to the system and must fault in again, depends on all that the
  process ever freed. With PyTorch loaded beside it, minigen's step took 900 page faults instead of 2,400, a third less time.

A user of one library sees neither the other's threads nor its heap. For the same reason `own_heap` keeps minigen's settings of
the heap (`kernels/heap.py`) out of a process that times PyTorch: with them its LSTM over 784 steps takes half the time, but its
users do not have them.

    parent     ---- block(0.3) ---->           ---- block(0.3) ---->
    minigen                         [times]                          asleep
    torch      asleep                          asleep                        [times]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.harness.agree import Refusal, Unable


class Worker:
    """`kind(*args)` in a new process, whose methods `call` runs. Leaving the `with` block ends the process.

    own_heap: the heap as the system sets it up.
    """

    def __init__(self, kind: Callable[..., Any], *args: Any, own_heap: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, kind, args), daemon=True)
        with _set_up_by_the_user() if own_heap else contextlib.nullcontext():
            self.process.start()
        theirs.close()

    def call(self, method: str, *args: Any, limit: float | None = None) -> Any:
        """The method's result. Raises Disagreement or Unable if it does, RuntimeError if the process ended.

        limit: seconds after which the process is ended, and Unable raised.
        """
        self.ask(method, *args)
        if not self.pipe.poll(limit):
            self.process.kill()
            raise Unable(f"it took more than {limit:g} s")
        return self.answer()

    def ask(self, method: str, *args: Any) -> None:
        """Begin a call; `answer` waits for its end."""
        with contextlib.suppress(ConnectionError):  # then there is no answer
            self.pipe.send((method, args))

    def answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise RuntimeError(f"its process ended with exit code {self.process.exitcode}") from None
        if isinstance(answer, Refusal):
            raise answer
        return answer

    def block(self, seconds: float) -> list[float]:
        """What it times; see `clock.block`."""
        return self.call("block", seconds)  # type: ignore[no-any-return]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.pipe.close()  # which ends the loop at the other end
        self.process.join()


@contextlib.contextmanager
def _set_up_by_the_user() -> Iterator[None]:
    """Where this variable exists, even empty, minigen takes it that the user has settings of their own."""
    missing = "GLIBC_TUNABLES" not in os.environ
    os.environ.setdefault("GLIBC_TUNABLES", "")
    try:
        yield
    finally:
        if missing:
            del os.environ["GLIBC_TUNABLES"]


def _serve(pipe: Connection, kind: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        made = kind(*args)
        while True:
            method, arguments = pipe.recv()
            try:
                answer = getattr(made, method)(*arguments)
            except Refusal as e:
                answer = e
            pipe.send(answer)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return  # the parent is done, or was stopped by Ctrl-C, which reaches this process too
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
