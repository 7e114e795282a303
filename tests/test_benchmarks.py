"""The benchmarks: what they write, what they refuse, and that both sides of every comparison compute the same."""
# ruff: noqa: E402

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from minigen.kernels import cuda, emulator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are run from the project's folder, not installed

import minigen as mg
from benchmarks.harness import ceilings, clock, gpu, profile, registry, report, scaling
from benchmarks.harness.agree import Disagreement
from benchmarks.harness.case import Case, dispatched, torch_args, verify, verify_torch, wanted
from benchmarks.harness.cli import main
from benchmarks.harness.step import products
from minigen.dispatch import REGISTRY
from minigen.models import gan as models
from minigen.ops.matmul import MatMul

STEPS = registry.names("benchmarks.steps")
STEMS = registry.names("benchmarks")
needs_emulator = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def all_cases(stem: str) -> list[Case]:
    return registry.load("benchmarks", "stem", [stem])[stem].cases()  # type: ignore[no-any-return]


FIRST = {case.kernel: case for stem in reversed(STEMS) for case in reversed(all_cases(stem))}  # one of each kernel


# --- the command line ---------------------------------------------------------------------------------------------------


def test_a_step_is_timed_and_written_as_json(tmp_path):
    file = tmp_path / "steps.json"
    command = [sys.executable, "-m", "benchmarks", "steps", "mlp_gan", "--seconds", "0.2", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mlp_gan" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    content = json.loads(file.read_text())
    assert content["device"] == "cpu"
    step = content["steps"]["mlp_gan"]
    assert 0 < step["best_ms"] <= step["q1_ms"] <= step["median_ms"] <= step["q3_ms"]
    assert 0 < step["floor_ms"] < step["median_ms"]
    assert {"processor", "cores", "threads", "blas", "versions", "date"} <= set(content["environment"])


@needs_emulator
@pytest.mark.parametrize("what", [["steps", "mlp_gan"], ["kernels", "gather"]])
def test_on_a_device_it_says_which(what, tmp_path):
    file = tmp_path / "found.json"
    torch = ["--torch"] if importlib.util.find_spec("torch") else []
    command = [sys.executable, "-m", "benchmarks", *what, *torch, "--device", "cuda", "--seconds", "0.01", "--json", str(file)]
    where = os.environ | {"MINIGEN_CUDA": "emulated", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr
    assert "kernels run on this computer, emulated" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.count("PyTorch has no CUDA here: minigen is measured alone\n") == len(torch)
    content = json.loads(file.read_text())
    assert content["device"] == "cuda" and content[what[0]] and "torch_median_ms" not in file.read_text()


@needs_torch
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_step_is_compiled_and_timed(tmp_path):
    file = tmp_path / "steps.json"
    command = [sys.executable, "-m", "benchmarks", "steps", "mlp_gan", "--torch", "--compile", "--seconds", "0.1"]
    done = subprocess.run([*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compile/minigen" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    step = json.loads(file.read_text())["steps"]["mlp_gan"]
    assert step["compile_ratio"] == step["torch_compile_median_ms"] / step["median_ms"] > 0
    assert step["torch_compile_gradient_error"] < 1e-4 and step["ratio"] > 0


@needs_emulator
def test_the_gpus_command_rehearsed(tmp_path):
    file = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks", "gpu", "--seconds", "0.01", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MINIGEN_CUDA": "emulated"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    content = json.loads(file.read_text())
    assert content["rehearsal"] and content["device"] == "this computer, emulated"
    assert content["tests"]["code"] == 0 and "[100%]" in "".join(content["tests"]["said"])
    assert content["kernels"]["found"]["kernels"] and content["steps"]["found"]["steps"]["mlp_gan"]["median_ms"] > 0
    assert file.with_suffix(".png").stat().st_size > 5000
    assert {"device", "pytorch"} <= set(content["environment"]["gpu"])


@pytest.mark.parametrize("sees_gpu", [False, True])
def test_the_gpus_command_measures_pytorch_where_it_sees_the_gpu(sees_gpu, tmp_path, monkeypatch):
    commands = []
    described = SimpleNamespace(name="cupy", describe=lambda: "a GPU")
    monkeypatch.setattr(cuda, "backend", lambda: described)
    monkeypatch.setattr(report, "torch_facts", lambda: {"sees_gpu": sees_gpu})
    monkeypatch.setattr(gpu, "_part", lambda name, command, where: commands.append(command) or {"code": 0})
    file = tmp_path / "gpu.json"
    assert main(["gpu", "--json", str(file)]) == 0
    assert ["--torch" in command for command in commands] == [False, sees_gpu, sees_gpu]
    assert json.loads(file.read_text())["environment"]["gpu"] == {"device": "a GPU", "pytorch": {"sees_gpu": sees_gpu}}
    assert sum(gpu.LIMITS.values()) < 9 * 60


def test_a_part_that_says_nothing_is_stopped(monkeypatch):
    monkeypatch.setitem(gpu.LIMITS, "tests", 1)
    sleeping = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    found = gpu._part("tests", [sys.executable, "-c", sleeping], {})  # what it started holds the pipe, too
    assert found["code"] != 0 and found["seconds"] < 20 and found["said"] == ["stopped after 1 s"]


def test_the_environment_cannot_hold_one_side_to_old_kernels_in_silence():
    command = [sys.executable, "-m", "benchmarks", "kernels", "gather", "--seconds", "0.001"]
    held = os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}
    aside, kept = (
        subprocess.run(command + more, cwd=ROOT, capture_output=True, text=True, env=held).stdout
        for more in ([], ["--keep-coretype"])
    )
    assert aside.startswith("OPENBLAS_CORETYPE=Nehalem is set aside (--keep-coretype obeys it)\n")
    assert "as OPENBLAS_CORETYPE says" not in aside
    assert "OPENBLAS_CORETYPE=" not in kept
    if " kernels" in kept:  # OpenBLAS, which names them
        assert "as OPENBLAS_CORETYPE says" in " ".join(kept.split())


def test_kernels_are_timed_and_written_as_json(tmp_path, capsys):
    file = tmp_path / "kernels.json"
    assert main(["kernels", "gather", "--seconds", "0.01", "--json", str(file)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    content = json.loads(file.read_text())
    assert set(content["kernels"]) == {"gather_forward", "scatter_add_forward"}
    for entries in content["kernels"].values():
        for entry in entries.values():
            assert entry["gbs"] > 0 and entry["share"] > 0 and entry["error"] < 1e-5


@pytest.mark.parametrize(
    "arguments, hint",
    [
        (["steps", "mlp_gna"], "did you mean mlp_gan?"),
        (["kernels", "cnov"], "did you mean conv?"),
        (["stesp"], "did you mean steps?"),
        (["steps", "--secnds", "1"], "did you mean --seconds?"),
        (["steps", "--seconds", "-1"], "not positive"),
        (["steps", "--device", "tpu"], "no device 'tpu'"),
        (["steps", "--compile"], "goes with --torch"),
        (["kernels", "gather", "--json", "nowhere/x.json"], "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, hint, capsys, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)  # or a line would say that it is set aside
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and hint in err and err.count("\n") == 1


def test_torch_is_asked_for_but_missing(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["kernels", "gather", "--torch"]) == 2
    assert "PyTorch is not installed" in capsys.readouterr().err


# --- what is counted and compared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", STEMS)
def test_a_file_is_named_after_the_stem_of_its_kernels(stem):
    assert {REGISTRY[case.kernel][0] for case in all_cases(stem)} == {stem}


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernel", sorted(FIRST))
def test_kernel_reference_and_torch_compute_the_same(kernel):
    case = FIRST[kernel]
    args = case.args(np.random.default_rng(1))
    assert verify(case, args, dispatched(kernel)) <= case.tolerance
    assert case.torch is None or verify_torch(case, torch_args(case, args, 1), wanted(case, args)) <= case.tolerance


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kernel", sorted(k for k, case in FIRST.items() if case.torch))
def test_pytorchs_side_of_a_kernel_stays_on_its_device(kernel):
    case = FIRST[kernel]
    args = torch_args(case, case.args(np.random.default_rng(1)), 1, "meta")
    found = case.torch(*args)
    results = args[: case.changes] if case.changes else found if isinstance(found, (tuple, list)) else [found]
    assert {t.device.type for t in results} == {"meta"}


@needs_torch
@pytest.mark.filterwarnings("ignore")
def test_tf32_is_held_to_three_digits():
    case = FIRST["matmul_forward"]
    args = case.args(np.random.default_rng(1))
    right = wanted(case, args)
    tf32 = tuple((a.view(np.int32) & ~0x1FFF).view(np.float32) for a in args)  # ten of the 23 bits
    given = torch_args(case, tf32, 1)
    assert 1e-5 < verify_torch(case, given, right, tf32=True) < 2e-3
    with pytest.raises(Disagreement):
        verify_torch(case, given, right)
    codes = FIRST["vq_forward"]
    args = codes.args(np.random.default_rng(1))
    assert verify_torch(codes, torch_args(codes, args, 1), wanted(codes, args), tf32=True) == 0.0  # nothing but codes


def test_products_are_counted_layer_by_layer():
    mlp = products(models.mlp_generator((1, 28, 28)).body, 64, (100,))
    assert mlp.all == 64 * (100 * 256 + 256 * 256 + 256 * 784)
    conv = products(models.dcgan_discriminator((1, 28, 28)).body, 2, (1, 28, 28))
    assert (conv.first, conv.last) == (2 * 64 * 16 * 14 * 14, 2 * 128 * 7 * 7)
    assert conv.all == conv.first + 2 * 128 * 64 * 16 * 7 * 7 + conv.last
    transposed = products(models.dcgan_generator((3, 32, 32)).body, 1, (100,))
    assert transposed.last == 64 * 3 * 16 * 16 * 16


def test_products_of_recurrent_steps():
    def counted(name):
        return registry.load("benchmarks.steps", "step", [name])[name].build().multiply_adds()

    reading = 784 * 64 * (4 * 128 * 128 + 128)  # the states' part of the gates, and the logit
    assert counted("pixel_lstm") == 3 * reading + 2 * 784 * 64 * 4 * 128  # nobody wants the gradient of the pixels
    assert counted("char_gru") == 3 * 100 * 64 * (3 * 512 * (256 + 512) + 512 * 90)
    g = 14 * 64 * 3 * 224 * (100 + 224) + 64 * 14 * 14 * (16 * 64 * 9 + 64 * 16)
    d = products(models.dcgan_discriminator((1, 28, 28)).body, 64, (1, 28, 28))
    assert counted("gru_gan") == 4 * g - 14 * 64 * 3 * 224 * 100 + 8 * d.all - 2 * d.first


@pytest.mark.parametrize("stem", ["rnn", "gru", "gru_cho", "lstm"])
def test_bytes_of_a_scan_are_those_of_its_arrays(stem):
    for case in all_cases(stem)[:3]:
        args = case.args(np.random.default_rng(0))
        results = dispatched(case.kernel)(*args)
        assert case.nbytes == sum(a.nbytes for a in (*args, *results) if isinstance(a, np.ndarray)), case.kernel


def test_a_profile_adds_up_and_leaves_no_trace():
    step = registry.load("benchmarks.steps", "step", ["mlp_gan"])["mlp_gan"].build()
    forward = MatMul.forward
    found = profile.measure(step.run, 0.01)
    table = found.table
    assert MatMul.forward is forward
    assert sum(part.seconds for part in table.values()) == pytest.approx(found.seconds)
    assert table["Linear"].calls == 15 and table["optimiser"].calls == 2 and table["loader"].calls == 1
    assert all(part.seconds >= 0 for part in table.values())


def test_a_profile_counts_the_bytes_that_ops_move(capsys):
    a, b = (mg.tensor(np.ones(shape, np.float32)) for shape in ((4, 5), (5, 6)))
    row = mg.Tensor(np.broadcast_to(np.float32(1), (6,)))  # one number in memory
    found = profile.measure(lambda: ((a @ b) * row).reshape(-1), 0.001)
    assert found.table["MatMul"].nbytes == 4 * (4 * 5 + 5 * 6 + 4 * 6)
    assert found.table["Mul"].nbytes == 4 * (4 * 6 + 1 + 4 * 6)
    assert found.table["Reshape"].nbytes == 0  # the same memory
    profile.show("three ops", found, ceilings.Ceilings(100, 10), 2e9)
    shown = capsys.readouterr().out
    assert "Products alone, at 100 GFLOP/s: 20.0 ms. Copies alone, 0 MB at 10 GB/s: 0.0 ms." in " ".join(shown.split())


def test_blocks_alternate():
    order = []

    def record(name):
        return lambda seconds: order.append(name) or [seconds]

    times = clock.alternate({"a": record("a"), "b": record("b")}, 0.0)
    assert order == ["a", "b"] and times["a"].best == 0.0


# --- scaling ------------------------------------------------------------------------------------------------------------


def test_time_and_memory_against_size(tmp_path, monkeypatch, capsys):
    sweep = dataclasses.replace(scaling.SWEEPS["batch"], sizes=(16, 32))
    monkeypatch.setitem(scaling.SWEEPS, "batch", sweep)
    file, plot = tmp_path / "s.json", tmp_path / "s.png"
    assert main(["scaling", "batch", "--seconds", "0.1", "--json", str(file), "--plot", str(plot)]) == 0
    small, large = json.loads(file.read_text())["scaling"]["batch"]
    assert (small["size"], large["size"]) == (16, 32)
    assert large["median_ms"] > small["median_ms"] > 0 and large["mb"] > small["mb"] > 1
    growth = scaling._growth(sweep, [small, large], 1)
    assert growth == f"{np.log2(large['median_ms'] / small['median_ms']):.2f}" and growth in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(["scaling", "batches"]) == 2 and "choose from batch, image, hidden, length" in capsys.readouterr().err


# --- the ablation of the VQ-VAE -----------------------------------------------------------------------------------------


def test_the_ablation_trains_and_writes_its_table(tmp_path, capsys):
    file = tmp_path / "table.md"
    assert main(["ablation", "--steps", "1", "--out", str(file)]) == 0
    lines = file.read_text().splitlines()
    assert lines[0] == "`python -m benchmarks ablation --data digits --steps 1 --seed 0`:"
    assert lines[1].startswith("297 held-out images")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[5:]]
    assert [row[0] for row in rows] == ["vq"] * 3 + ["ema"] * 3 + ["rotation"] * 3
    assert [row[1:3] for row in rows[:3]] == [["kmeans++", "100"], ["kmeans++", "never"], ["uniform", "never"]]
    assert all(0 < int(row[3].split()[0]) <= 512 and 3 < float(row[5]) < 30 for row in rows)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 128
    assert main(["ablation", "--steps", "1", "--out", str(tmp_path / "no" / "table.md")]) == 2
    assert main(["ablation", "--data", "8gaussians", "--steps", "1"]) == 2
