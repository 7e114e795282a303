"""Every .cu file passes CUDA's own compiler, for GPUs of five generations, and no kernel spills registers."""

from __future__ import annotations

import re

import pytest
from minigen.kernels import nvrtc, source

pytestmark = pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
# Kernels that may keep an array in memory, and why.
ALLOWED_STACK: dict[str, str] = {}


@pytest.fixture(scope="module")
def each():
    with nvrtc.processes() as each:
        yield each


@pytest.mark.parametrize("stem", nvrtc.stems())
def test_a_file_compiles_and_spills_nothing(stem, each):
    text = source.spliced(nvrtc.HERE / f"{stem}.cu")
    jobs = [(real, arch) for real in nvrtc.FLOATS for arch in nvrtc.ARCHITECTURES]
    jobs += [(real, nvrtc.ARCHITECTURES[0]) for real in nvrtc.REALS.get(stem, nvrtc.FLOATS) if real not in nvrtc.FLOATS]
    jobs += [("float", nvrtc.OLDEST)]
    for (real, arch), found in zip(jobs, each([(text, *job) for job in jobs]), strict=True):
        if arch == nvrtc.OLDEST and isinstance(found, nvrtc.NeedsNewer):
            continue
        assert isinstance(found, list), str(found)
        assert {r.kernel for r in found} == set(source.kernels(text)), "launch would not know them all"
        bad = [r for r in found if r.spills or (r.stack and r.kernel not in ALLOWED_STACK)]
        assert bad == [], f"{stem}.cu for {real} on sm_{arch}"


def test_kernels_that_may_have_a_stack_exist():
    texts = "".join(source.spliced(nvrtc.HERE / f"{stem}.cu") for stem in nvrtc.stems())
    assert set(ALLOWED_STACK) <= set(source.kernels(texts))


@pytest.mark.parametrize("wrong", ["INFINITY", "(uint32_t)1", "undeclared"])
def test_an_error_is_named_with_its_file_and_line(wrong, tmp_path):
    (tmp_path / "half.cuh").write_text("\n\n")
    (tmp_path / "poor.cu").write_text(f'#include "half.cuh"\nextern "C" __global__ void k(real* y) {{\n    *y = {wrong};\n}}\n')
    with pytest.raises(ValueError, match=rf'poor\.cu\(3\): error: identifier "{re.sub(r"[(]|[)].*", "", wrong)}" is undefined'):
        nvrtc.compile(source.spliced(tmp_path / "poor.cu"), "float", 90)


KERNEL = 'extern "C" __global__ void k(real* x, int n) {{ {} }}'


def test_what_a_kernel_takes():
    body = "__shared__ real s[100]; s[threadIdx.x] = x[n]; __syncthreads(); x[0] = s[n];"
    for real, size in (("float", 4), ("double", 8)):
        (found,) = nvrtc.compile(KERNEL.format(body), real, 80)
        assert found.kernel == "k" and 0 < found.registers < 32 and found.shared == 100 * size
        assert found.stack == found.spills == 0 and found.constant >= 12
    assert nvrtc.compile(KERNEL.format(body), "float", 90)[0].constant is None


def test_an_array_in_memory_shows_as_stack():
    body = """real a[64];
    for (int i = 0; i < n; i++) a[(int)x[i]] = x[i + 1];
    for (int i = 0; i < n; i++) x[i] = a[(int)x[i + n]];"""
    (found,) = nvrtc.compile(KERNEL.format(body), "float", 90)
    assert found.stack == 256


def test_too_many_registers_show_as_spills():
    body = """real a[64];
    #pragma unroll
    for (int i = 0; i < 64; i++) a[i] = x[i * n];
    for (int j = 0; j < n; j++) {
        #pragma unroll
        for (int i = 0; i < 64; i++) a[i] = a[i] * a[(i + 1) % 64] + x[j];
    }
    #pragma unroll
    for (int i = 0; i < 64; i++) x[i * n] = a[i];"""
    text = KERNEL.format(body).replace("void k", "void __launch_bounds__(1024) k")
    (found,) = nvrtc.compile(text, "double", 90)
    assert found.spill_stores > 0 and found.spill_loads > 0 and found.registers <= 64


def test_too_much_shared_memory_is_named():
    body = "__shared__ real s[16000]; s[threadIdx.x] = x[n]; __syncthreads(); x[0] = s[n];"
    with pytest.raises(ValueError, match="k: 64000 bytes of shared memory, more than 49152"):
        nvrtc.compile(KERNEL.format(body), "float", 90)


def test_what_an_old_gpu_cannot_do_is_another_error():
    text = KERNEL.format('asm volatile("cp.async.wait_all;");')
    with pytest.raises(nvrtc.NeedsNewer, match=r"requires \.target sm_80 or higher"):
        nvrtc.compile(text, "float", nvrtc.OLDEST)
    assert nvrtc.compile(text, "float", 80)
    with pytest.raises(ValueError, match=r"for float on sm_60: .*INVALID") as error:
        nvrtc.compile(text, "float", 60)
    assert not isinstance(error.value, nvrtc.NeedsNewer)


def test_the_log_is_read_as_two_versions_write_it():
    log = """k.cu(3): warning #177-D: variable "unused" was declared but never referenced

ptxas info    : 40 bytes gmem, 16 bytes cmem[3], 8 bytes cmem[4]
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
ptxas         .     1400 bytes stack frame, 2192 bytes spill stores, 2472 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 1400 bytes cumulative stack size, 8320 bytes smem, 364 bytes cmem[0], 8 bytes cmem[2]
ptxas info    : Compile time = 28.347 ms
ptxas info    : Function properties for __internal_accurate_pow
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 19 registers
"""  # noqa: E501
    assert nvrtc.parse(log) == [
        nvrtc.Resources("first", 32, 8320, 1400, 2200, 2476, 372),
        nvrtc.Resources("second", 19, 0, 0, 0, 0, None),
    ]
    assert nvrtc.parse("") == []


# --- the command

NAME = "a_kernel_whose_name_is_cut_at_33_letters"


def run(names, folder, monkeypatch, capsys):
    """The exit code of the command in another folder, what it printed, and its errors."""
    monkeypatch.setattr(nvrtc, "HERE", folder)
    return nvrtc.main(names), *capsys.readouterr()


def test_the_table(tmp_path, monkeypatch, capsys):
    (tmp_path / "good.cu").write_text(KERNEL.format("x[n] = 1;").replace(" k(", f" {NAME}("))
    (tmp_path / "poor.cu").write_text(KERNEL.format("\n    x[n] = INFINITY;"))
    code, printed, _ = run(["good"], tmp_path, monkeypatch, capsys)
    header, *rows = printed.splitlines()
    assert code == 0 and "Nothing spills" in rows[-1]
    assert " ".join(header.split()) == "good.cu real regs: sm_75 80 90 100 120 shared stack spills"
    assert [row.split()[:2] for row in rows[:2]] == [[NAME[:33], real] for real in nvrtc.FLOATS]
    assert max(map(len, [header, *rows])) <= 100
    code, printed, _ = run([], tmp_path, monkeypatch, capsys)
    assert code == 1 and "poor.cu for double on sm_120" in printed and 'identifier "INFINITY" is undefined' in printed
    code, printed, errors = run(["better"], tmp_path, monkeypatch, capsys)
    assert code == 2 and errors == "no such file: better; there are good, poor\n"


def test_without_nvrtc_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nvrtc, "_library", lambda: None)
    code, printed, errors = run([], tmp_path, monkeypatch, capsys)
    assert (code, printed) == (2, "") and errors == "NVRTC is not installed (pip install nvidia-cuda-nvrtc)\n"
