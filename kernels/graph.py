"""Many launches, captured once and replayed as one: CUDA graphs, and the rules they come with.

    graph = Graph()
    with graph.noting():                step() runs; what it launches is noted
        step()
    with graph.capturing():             nothing runs; each launch has to be the one that was noted
        step()
    graph.replay()                      all of it, as often as wanted

A graph keeps addresses and numbers, and nothing else. So in a step that is captured

- nothing is copied between the host and the device;
- a number that a launch is given is the same in every step: one that changes has to live in device memory;
- an array that was there before the step is the same array in every step: what one step leaves for the next is written into it,
  not put in its place;
- what is allocated comes from a pool that belongs to the graph, and to nobody else as long as the graph lives.

CUDA itself refuses the first; the others only give wrong results, later and in silence. Here all are refused, with the kernel's
name: the launches of two steps are compared, one by one. That needs no GPU, and on the emulator the rest is as on a GPU too: a
capture runs nothing, memory freed in it is used again, and at each replay it holds NaN until it is written.
"""

from contextlib import contextmanager

import numpy as np

from . import cuda, device_array


class Graph:
    """The launches of one step."""

    def __init__(self):
        self.device = cuda.backend()
        self.recording = self.device.recording()
        self._noted = []

    @contextmanager
    def noting(self):
        """Run what is launched inside the block, and note it. DeviceError for a copy to or from the host."""
        watch = _Noting(self.device, self.recording)
        with cuda.using(watch), self.recording.running():
            yield
        self._noted = watch.launches

    @contextmanager
    def capturing(self):
        """Capture what is launched inside the block. DeviceError if it differs from what was noted."""
        watch = _Capturing(self.device, self.recording, self._noted)
        with cuda.using(watch), self.recording.capturing():
            yield
        watch.end()
        self._noted = []        # and what it kept alive

    def replay(self):
        """Run everything that was captured."""
        self.recording.replay()


class _Launch:
    """One launch: what must not change from one step to the next."""

    def __init__(self, kernel, library, parameters, how, values, memories, step):
        self.kernel, self.library, self.how = kernel, library, how      # how: grid, block, shared memory
        self.names = [p.name for p in parameters]
        self.given = [self._of(v, m, step) for v, m in zip(values, memories, strict=True)]
        self.kept = [m for m in cuda.each(memories) if _born(m, step) is None]      # alive, so that no other takes its place

    @classmethod
    def _of(cls, value, memory, step):
        if isinstance(memory, list):
            return [cls._of(v, m, step) for v, m in zip(np.asarray(value).reshape(1).view(np.int64), memory, strict=False)]
        if memory is None:
            return np.asarray(value).tobytes()
        born, offset = _born(memory, step), int(value) - memory.address
        return ("kept", id(memory), offset) if born is None else ("made", born, offset)

    def differs(self, before, number):
        """What differs from the same launch of the step before, in one line; or None."""
        if before is None or (self.kernel, self.library) != (before.kernel, before.library):
            was = "there was none" if before is None else f"it was {before.kernel}"
            return f"launch {number} is {self.kernel}, and in the step before {was}"
        if self.how != before.how:
            return f"{self.kernel}: its grid, block and shared memory are {self.how}, and in the step before were {before.how}"
        for name, now, then in zip(self.names, self.given, before.given, strict=True):
            if now != then:
                if isinstance(now, bytes):
                    return f"{self.kernel}: the number {name} changes from step to step; keep it in device memory"
                return f"{self.kernel}: {name} is another array than in the step before; keep one, and write into it"
        return None


def _born(memory, step):
    """The how-manyth memory of this step it is, or None if it is older."""
    made = getattr(memory, "made", None)
    return made[1] if made is not None and made[0] is step else None


class _Noting:
    """A back end for one step: hands on what it is asked, and notes it."""

    def __init__(self, device, recording):
        self.watched, self._recording = device, recording
        self.launches, self._step, self._count = [], object(), 0

    def __getattr__(self, name):
        return getattr(self.watched, name)

    def allocate(self, size):
        memory = self._recording.allocate(size)
        memory.made = self._step, self._count
        self._count += 1
        return memory

    def upload(self, memory, offset, host):
        raise cuda.DeviceError("a step that is captured copies nothing from the host: a graph would keep what it was once")

    def download(self, memory, offset, host):
        raise cuda.DeviceError("a step that is captured copies nothing to the host: read it when the step is over")

    def synchronize(self):
        raise cuda.DeviceError("a step that is captured waits for nothing")

    def launch(self, library, kernel, grid, block, shared, values, memories):
        parameters = library.parameters[kernel]
        noted = _Launch(kernel, library, parameters, (grid, block, shared), values, memories, self._step)
        self._check(noted)
        self.launches.append(noted)
        self._run(library, kernel, grid, block, shared, values, memories)

    def _check(self, launch):
        """There is nothing to compare it with yet."""

    def _run(self, *launch):
        self.watched.launch(*launch)


class _Capturing(_Noting):
    def __init__(self, device, recording, noted):
        super().__init__(device, recording)
        self._noted = noted

    def _check(self, launch):
        number = len(self.launches)
        before = self._noted[number] if number < len(self._noted) else None
        if reason := launch.differs(before, number):
            raise cuda.DeviceError(f"this step cannot be captured: {reason}")

    def _run(self, *launch):
        self._recording.launch(*launch)
        self._recording.kept.extend(self.launches[-1].kept)

    def end(self):
        if len(self.launches) < len(self._noted):
            missing = self._noted[len(self.launches)].kernel
            raise cuda.DeviceError(f"this step cannot be captured: the step before went on with {missing}, and this one ends")


# --- what the host gives to each step ---------------------------------------------------------------------------------

def buffer(shape, dtype):
    """A device array that is no part of the step, even if one is being captured: for `fill`."""
    with cuda.using(cuda.bare_backend()):
        return device_array.empty(shape, dtype)


def fill(array, host):
    """Copy a NumPy array into a buffer, before the replay that reads it."""
    if (host.shape, host.dtype) != (array.shape, array.dtype):
        raise ValueError(f"each step is given the same: {array.dtype} of shape {array.shape}, not {host.dtype} of {host.shape}")
    if host.size:
        cuda.bare_backend().upload(array.memory, 0, np.ascontiguousarray(host))


# --- the two back ends ------------------------------------------------------------------------------------------------

class EmulatedRecording:
    """A list of launches, and of the places where memory of the pool was given out, which then holds NaN again."""

    def __init__(self, device):
        self.device, self.kept, self._events, self._free = device, [], None, {}

    @contextmanager
    def running(self):
        yield

    @contextmanager
    def capturing(self):
        self._events = []
        yield

    def allocate(self, size):
        free = self._free.setdefault(size, [])
        memory = free.pop() if free else self.device.allocate(size)
        memory.renew()
        if self._events is not None:
            self._events.append(memory.renew)
        return _FromPool(memory, free)

    def launch(self, *launch):
        *given, memories = launch
        bare = [getattr(m, "whole", m) for m in cuda.each(memories)]        # held, a place of the pool would stay taken
        self._events.append(lambda: self.device.launch(*given, bare))

    def replay(self):
        for event in self._events:
            event()


class _FromPool:
    """Memory of a pool: goes back when nobody holds it."""

    def __init__(self, whole, free):
        self.whole, self._free = whole, free

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def __del__(self):
        self._free.append(self.whole)


class CuPyRecording:
    """A CUDA graph by stream capture, on a stream and with a memory pool of its own.

    The step that is noted takes its memory from the same pool on the same stream, so the capture finds all of it there: CUDA
    lets nobody allocate while it captures.
    """

    def __init__(self, device):
        self.device, self.kept = device, []
        self._stream, self._pool, self._graph = device.cupy.cuda.Stream(), device.cupy.cuda.MemoryPool(), None

    @contextmanager
    def running(self):
        # This stream and the default one wait for each other, as streams do unless they are made not to.
        with self._stream:
            yield

    @contextmanager
    def capturing(self):
        with self._stream:
            self._stream.begin_capture()
            try:
                yield
            finally:
                self._graph = self._stream.end_capture()

    def allocate(self, size):
        return cuda.DeviceMemory(self._pool.malloc(max(size, 1)), size)

    def launch(self, *launch):
        self.device.launch(*launch)

    def replay(self):
        self._graph.launch(self._stream)
