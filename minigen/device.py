"""Where arrays live: "cpu" for NumPy's, "cuda" for those of `kernels/device_array.py`, and how they get there.

`MINIGEN_CUDA=emulated` lets "cuda" be this computer: see `kernels/emulator/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigen.errors import UserError

DEVICES = ("cpu", "cuda")
_where = "cpu"


@contextlib.contextmanager
def on(device: str) -> Iterator[None]:
    """Inside the block, `place` and everything made with it is on `device`: weights, noise, batches. UserError without one."""
    global _where
    require(device)
    before, _where = _where, device
    try:
        yield
    finally:
        _where = before


def current() -> str:
    """The device that work is done on."""
    return _where


def place(array: Any) -> Any:
    """A NumPy array, on the device that work is done on."""
    return array if _where == "cpu" else to_device(array, _where)


def placed(tree: Any) -> Any:
    """`place` of every array among tuples; what is None stays so."""
    if isinstance(tree, tuple):
        return tuple(placed(part) for part in tree)
    return tree if tree is None else place(np.asarray(tree))


def constant(make: Callable[..., Any], *arguments: Any) -> Any:
    """make(*arguments), on the device that work is done on. There it is kept: who asks again gets the same array."""
    if _where == "cpu":
        return make(*arguments)
    from minigen.kernels import cuda

    kept = cuda.backend().constants
    if (make, arguments) not in kept:
        kept[make, arguments] = place(np.asarray(make(*arguments)))
    return kept[make, arguments]


# --- what the host does in each step ----------------------------------------------------------------------------------

_feeder: Feeder | None = None


def feed(prepare: Callable[[], Any]) -> Any:
    """What the host prepares for a step of training, `placed`: a batch, a learning rate.

    A step that was captured runs without Python. What it does on the host (take the next batch, count steps) is then called
    again before each replay, in the same order. So `prepare` uses what lives longer than the step, nothing that the step made.
    """
    return placed(prepare()) if _feeder is None else _feeder.feed(prepare)


class Feeder:
    """Buffers on the device that each step's preparations are copied into."""

    def __init__(self) -> None:
        self._prepare: list[Callable[[], Any]] = []
        self._buffers: list[Any] = []
        self._waiting: list[Any] = []
        self._holding = False

    @contextlib.contextmanager
    def collecting(self, hold: bool) -> Iterator[None]:
        """Inside the block `feed` gives buffers. They are filled at once, or, to `hold`, only by `fill`."""
        global _feeder
        self._prepare, self._holding, _feeder = [], hold, self
        try:
            yield
        finally:
            _feeder = None

    def feed(self, prepare: Callable[[], Any]) -> Any:
        number = len(self._prepare)
        self._prepare.append(prepare)
        found = prepare()
        if number == len(self._buffers):
            self._buffers.append(_buffers(found))
        if self._holding:
            self._waiting.append(found)
        else:
            _fill(self._buffers[number], found)
        return self._buffers[number]

    def prepare(self) -> None:
        """Do the host's part of the next step."""
        self._waiting = [prepare() for prepare in self._prepare]

    def fill(self) -> None:
        """Copy what was prepared into the buffers."""
        for buffers, found in zip(self._buffers, self._waiting, strict=True):
            _fill(buffers, found)
        self._waiting = []


def _buffers(found: Any) -> Any:
    from minigen.kernels import graph

    if isinstance(found, tuple):
        return tuple(_buffers(part) for part in found)
    return None if found is None else graph.buffer(np.shape(found), np.asarray(found).dtype)


def _fill(buffers: Any, found: Any) -> None:
    from minigen.kernels import graph

    if isinstance(buffers, tuple) and isinstance(found, tuple):
        for buffer, part in zip(buffers, found, strict=True):
            _fill(buffer, part)
    elif buffers is not None:
        graph.fill(buffers, np.asarray(found))


# ----------------------------------------------------------------------------------------------------------------------

def synchronize(device: str) -> None:
    """Wait until the device has done everything it was given."""
    if device == "cpu":
        return
    from minigen.kernels import cuda

    cuda.backend().synchronize()


def is_array(x: Any) -> bool:
    """Whether x is an array of either kind (and not a Tensor)."""
    return isinstance(x, np.ndarray) or hasattr(x, "__array_function__")


def cuda_status() -> str:
    """One line: what runs CUDA kernels here, or why nothing can."""
    from minigen.kernels import cuda

    try:
        return f"kernels run on {cuda.backend().describe()}"
    except cuda.DeviceError as e:
        return f"{e} ({_emulator()})"


def _emulator() -> str:
    from minigen.kernels import emulator

    return emulator.missing() or "MINIGEN_CUDA=emulated runs the kernels on this computer, slowly"


def require(device: str) -> None:
    """Raise UserError unless tensors can live on `device`."""
    if device not in DEVICES:
        raise UserError(f"no device {device!r}; choose from {', '.join(DEVICES)}")
    if device == "cuda":
        from minigen.kernels import cuda

        try:
            cuda.backend()
        except cuda.DeviceError as e:
            raise UserError(f"cannot use --device cuda: {e}; use --device cpu") from None


def to_host(array: Any) -> Any:
    """The array itself if NumPy owns it; otherwise a copy that it does."""
    return array if isinstance(array, (np.ndarray, np.generic)) else array.get()


def to_device(array: Any, device: str) -> Any:
    """The array on `device`: itself, if it is there. Raises UserError if there is no such device."""
    require(device)
    if device == "cpu":
        return to_host(array)
    from minigen.kernels.device_array import to_device

    return to_device(array)
