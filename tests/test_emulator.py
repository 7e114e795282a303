"""The emulated back end: it finds planted mistakes, says nothing of good kernels, and runs them as a GPU would."""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import emulator, source
from minigen.kernels.emulator import KernelFault, Library, Memory, planted

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
named = {"ids": lambda p: p.name if isinstance(p, planted.Planted) else None}
X = np.arange(1, 65)
WARPS = X.reshape(2, 32).sum(1)
RESULTS = {
    "a reduction": lambda y: y[0] == X.sum(),
    "tiles that are filled again": lambda y: (y == 6 * np.roll(X, -1)).all(),
    "lanes with __syncwarp between": lambda y: (y == X.reshape(-1, 2)[:, ::-1].ravel()).all(),
    "sums of warps, added up": lambda y: y[0] == X.sum(),
    "a butterfly": lambda y: (y == np.repeat(WARPS, 32)).all(),
    "half warps": lambda y: (y == X.reshape(-1, 2, 8)[:, ::-1].ravel()).all(),
    "blocks that share nothing": lambda y: (y == X).all(),
    "blocks that add atomically": lambda y: y[0] == 2 * X.sum(),
    "dynamic shared memory": lambda y: (y == X[::-1]).all(),
    "a transposed tile with padding": lambda y: (y == X.reshape(8, 8).T.ravel()).all(),
    "a counting barrier": lambda y: (y == 64).all(),
    "vectors": lambda y: (y[:16] == X[:16]).all(),
    "votes": lambda y: (y == sum(1 << i for i in range(0, 32, 3)))[:32].all(),
}


@pytest.mark.parametrize("bug", planted.BUGS, **named)
def test_a_planted_mistake_is_found_whatever_the_order(bug):
    assert [bug.kind in kinds for kinds, _ in planted.found(bug)] == [True] * 3
    if bug.kind not in ("waiting",):
        assert all("planted.cu:" in line for _, line in planted.found(bug))


@pytest.mark.parametrize("bug", [b for b in planted.BUGS if b.kind == "waiting"], **named)
def test_waiting_that_cannot_end_is_found_in_the_plain_build_too(bug):
    with pytest.raises(KernelFault) as fault:
        planted.run(bug, checked=False)
    assert fault.value.kinds == ["waiting"] and "line" in str(fault.value)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("good", planted.GOOD, **named)
def test_nothing_is_said_of_a_good_kernel_and_it_computes(good, real):
    for checked in (False, True):
        for seed in range(3):
            y = planted.run(good, real, checked, seed)
            assert RESULTS[good.name](y), (checked, seed)


def test_the_order_of_threads_and_of_blocks_comes_from_the_seed():
    text = """
    extern "C" __global__ void arrive(int* count, int* order) {
        order[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(count, 1);
    }"""
    library, orders = Library(text, np.float32), []
    for seed in (0, 0, 1):
        count, order = Memory(4), Memory(4 * 4 * 8)
        count.bytes[:] = 0
        library.launch("arrive", (4, 1, 1), (8, 1, 1), 0, [count.address, order.address], seed)
        orders.append(order.bytes.view(np.int32).tolist())
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(32)) and orders[2] != list(range(32))


def test_a_write_outside_shows_in_the_plain_build_at_the_edges():
    text = 'extern "C" __global__ void poke(real* y, int i) { y[i] = 1; }'
    library, y = Library(text, np.float32), Memory(40)
    library.launch("poke", (1, 1, 1), (1, 1, 1), 0, [y.address, np.int32(9)])
    assert not y.damaged()
    library.launch("poke", (1, 1, 1), (1, 1, 1), 0, [y.address, np.int32(10)])
    assert y.damaged()


def test_three_dimensions_and_every_type_of_argument():
    text = """
    extern "C" __global__ void where(long long* out, int i, unsigned u, long long l, unsigned long long ul, float f, double d,
                                     bool b) {
        int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        int k = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        out[k * blockDim.x * blockDim.y * blockDim.z + t] = 1000 * k + t + (i + u + l + ul + f + d + b - 28);
    }"""
    library, out = Library(text, np.float32), Memory(8 * 24 * 30)
    for shape in ((30, 1, 1), (5, 3, 2)):  # as many threads, otherwise arranged
        library.launch("where", (1, 1, 1), shape, 0, [out.address, *[np.zeros((), t)[()] for t in "iIqQfd?"]])
    given = [np.int32(1), np.uint32(2), np.int64(3), np.uint64(4), np.float32(5), np.float64(6), np.bool_(True)]
    library.launch("where", (2, 3, 4), (5, 3, 2), 0, [out.address, *given])
    expected = (1000 * np.arange(24)[:, None] + np.arange(30)).ravel() + 22 - 28
    assert np.array_equal(out.bytes.view(np.int64), expected)


def test_a_kernel_that_does_not_compile_is_an_error_with_its_line():
    with pytest.raises(ValueError, match=r"kernels\.cu:2:"):
        Library('extern "C" __global__ void k(real* y) {\n    y[0] = undeclared;\n}', np.float32)


def test_without_a_home_built_kernels_go_where_temporary_files_do(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert emulator.cache_folder() == tmp_path / "minigen" / "emulator"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert emulator.cache_folder().parent == tmp_path


def test_includes_are_put_in_and_lines_kept(tmp_path):
    (tmp_path / "a.cuh").write_text("// one\n// two\n")
    (tmp_path / "k.cu").write_text('// first\n#include "a.cuh"\n#include "a.cuh"\nint here;\n')
    text = source.spliced(tmp_path / "k.cu")
    assert text.count("// two") == 1
    lines, number = {}, 0
    for line in text.splitlines():
        if line.startswith("#line"):
            number = int(line.split()[1]) - 1
        else:
            number += 1
            lines[line] = number
    assert lines["int here;"] == 4 and lines["// two"] == 2


def test_parameters_of_kernels():
    found = source.kernels("""
    // extern "C" __global__ void old(int n) {
    extern "C" __global__ void __launch_bounds__(256) f(const real* __restrict__ x, real *y, unsigned long long* n, float lr) {}
    """)
    assert list(found) == ["f"]
    assert [(p.name, p.type, p.pointer, p.constant) for p in found["f"]] == [
        ("x", "real", True, True), ("y", "real", True, False), ("n", "u8", True, False), ("lr", "f4", False, False),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="char"):
        source.kernels('extern "C" __global__ void f(char* x) {}')
