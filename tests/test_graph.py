"""Graphs of launches, on the emulator: replays are what was captured, and what a graph cannot hold is refused."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from minigen.kernels import cuda, device_array, emulator, graph
from minigen.kernels.cuda import DeviceError

from minigen import device

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


@pytest.fixture(autouse=True)
def emulated():
    with cuda.using(cuda.Emulated()):
        yield


def there(values):
    return device_array.to_device(np.asarray(values, np.float32))


def captured(step):
    """The graph of a step, and what its capture returned."""
    made = graph.Graph()
    with made.noting():
        step()
    with made.capturing():
        result = step()
    return made, result


def test_a_replay_runs_what_was_captured_and_a_capture_runs_nothing():
    x, total = there([1, 2, 3]), there([0, 0, 0])

    def step():
        np.add(total, x * 2, out=total)
        return (total * total).sum()

    made, result = captured(step)
    assert total.get().tolist() == [2, 4, 6]  # of the step that was noted
    for count in (2, 3):
        made.replay()
        assert total.get().tolist() == [2 * count, 4 * count, 6 * count] and result.item() == 56 * count**2


def test_it_reads_what_is_in_its_arrays_at_the_time():
    x = graph.buffer((2,), np.dtype(np.float32))
    graph.fill(x, np.float32([1, 2]))
    made, y = captured(lambda: x + 1)
    for values in ([5, 6], [-1, 0]):
        graph.fill(x, np.float32(values))
        made.replay()
        assert y.get().tolist() == [v + 1 for v in values]


def test_memory_freed_in_a_step_is_used_again_in_it_and_by_nobody_else():
    x = there(np.arange(100))

    def step():
        y = x
        for _ in range(20):
            y = y + 1  # each y is freed when the next is there
        return y

    made, y = captured(step)
    places = {place.address for free in made.recording._free.values() for place in free} | {y.address}
    assert len(places) <= 4
    gc.collect()
    others = [device_array.full((100,), 7, np.float32) for _ in range(30)]
    made.replay()
    assert not places & {o.address for o in others}
    np.testing.assert_array_equal(y.get(), np.arange(100) + 20)
    assert all((o.get() == 7).all() for o in others)


def test_what_a_replay_has_not_written_is_nan_again():
    """Memory of the pool holds NaN at each replay, so a kernel that reads what it did not write cannot live on leftovers."""
    made, y = captured(lambda: device_array.empty((4,), np.float32))
    made.replay()
    assert np.isnan(y.get()).all()


def refused(step, reason):
    made = graph.Graph()
    with pytest.raises(DeviceError, match=reason):
        with made.noting():
            step()
        with made.capturing():
            step()


def test_copies_are_refused():
    x = there([1, 2])
    refused(lambda: (x + 1).item(), "copies nothing to the host")
    refused(lambda: x + np.float32([1, 2]), "copies nothing from the host")
    refused(lambda: device.synchronize("cuda"), "waits for nothing")


def test_a_number_that_changes_is_refused_by_name():
    x, numbers = there([1, 2]), iter([0.1, 0.2])
    refused(lambda: x * next(numbers), "multiply: the number .* changes from step to step; keep it in device memory")


def test_an_array_that_is_replaced_from_step_to_step_is_refused_by_name():
    state = [there([1, 2])]

    def step():
        state[0] = state[0] + 1

    refused(step, "add: a is another array than in the step before; keep one, and write into it")


def test_other_launches_are_refused_by_name():
    x = there(np.ones((4, 4)))
    first = iter([True, False])
    refused(lambda: np.exp(x) if next(first) else np.log(x), "launch 0 is log_, and in the step before it was exp_")
    first = iter([True, False])
    refused(lambda: np.exp(x) if next(first) else None, "went on with exp_, and this one ends")
    first = iter([False, True])
    refused(lambda: np.exp(x) if next(first) else None, "launch 0 is exp_, and in the step before there was none")
    first = iter([True, False])
    refused(lambda: np.exp(x) if next(first) else np.exp(x[:, 0]), "exp_: ")


def test_arrays_of_a_table_are_checked_too():
    """A launch that takes many arrays in one argument: Adam's."""
    from minigen.kernels.adam import update_many

    p, m, v = ([there(np.zeros(3)) for _ in range(2)] for _ in range(3))
    rates = there([[1, 1, 1], [1, 1, 1]])
    g = [there([1, 1, 1]), there([2, 2, 2])]

    def step(gradients):
        update_many(p, m, v, gradients, rates, 0.9, 0.99, 1e-8)

    made, _ = captured(lambda: step([g_i * 1 for g_i in g]))
    made.replay()
    assert m[1].get() == pytest.approx(2 * (1 - 0.9**2))
    orders = iter([g, g[::-1]])
    refused(lambda: step(next(orders)), "adam_update: g_of is another array")


def test_a_buffer_takes_one_shape():
    x = graph.buffer((2,), np.dtype(np.float32))
    with pytest.raises(ValueError, match="each step is given the same: float32 of shape"):
        graph.fill(x, np.zeros(3, np.float32))


def test_constants_are_made_once_for_each_back_end():
    with device.on("cuda"):
        one = device.constant(np.full, (2, 3), 4)
        assert device.constant(np.full, (2, 3), 4) is one and device.constant(np.full, (2, 3), 5) is not one
        with cuda.using(cuda.Emulated()):
            assert device.constant(np.full, (2, 3), 4) is not one
        captured(lambda: device.constant(np.full, (2, 3), 4) + 1)
    assert isinstance(device.constant(np.full, (2, 3), 4), np.ndarray)
