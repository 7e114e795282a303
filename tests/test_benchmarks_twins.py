"""The twins of PyTorch: what disagrees with them is not timed, and what they are split in."""
# ruff: noqa: E402

from __future__ import annotations

import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from minigen.kernels import cuda, emulator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are run from the project's folder, not installed

from benchmarks.harness import kernels, peers, registry, steps
from benchmarks.harness.agree import Disagreement, Unable, verified
from benchmarks.harness.case import dispatched
from benchmarks.harness.ceilings import Ceilings
from benchmarks.harness.cli import main
from benchmarks.harness.worker import Worker
from minigen import device

STEPS = registry.names("benchmarks.steps")
needs_emulator = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


# --- what disagrees is not timed ----------------------------------------------------------------------------------------


def test_a_kernel_that_disagrees_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kernels, "dispatched", lambda name: lambda *args: dispatched(name)(*args) * 1.001)
    file = tmp_path / "kernels.json"
    assert main(["kernels", "gather", "--seconds", "0.01", "--json", str(file)]) == 1
    err = capsys.readouterr().err
    assert "gather_forward" in err and "disagrees and is not timed" in err and "1.0e-03" in err
    assert json.loads(file.read_text())["kernels"] == {}


def both(name):
    """How to build a step, and its twin."""
    module = registry.load("benchmarks.steps", "step", [name])[name]
    return module.build, module.twin


@needs_torch
@pytest.mark.filterwarnings("ignore")  # those of importing PyTorch
@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_a_twin_that_agrees(name):
    errors = verified(*both(name))
    assert errors["loss_error"] < 2e-6 and errors["gradient_error"] < 1e-4 and errors["update_error"] < 1e-3


def other_learning_rate(twin):
    twin.config.lr = 2.2e-4
    twin.opt_g = twin.optimisers["G"] = twin.adam(twin.params_g)


def other_weight(twin):
    twin.params_d[0].data[0] *= 1.01


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change, what", [(other_learning_rate, "update G"), (other_weight, "loss|gradient")])
def test_a_twin_that_disagrees_is_refused(change, what):
    build, twin_of = both("mlp_gan")

    def wrong(step):
        twin = twin_of(step)
        change(twin)
        return twin

    with pytest.raises(Disagreement, match=what):
        verified(build, wrong)


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in STEPS if name != "pixel_lstm"])  # as pixel_gru
def test_a_step_in_two_parts_is_the_step(name):
    """All of a graph but its capture: inputs where they were, tensors for numbers, a warm-up that leaves no trace."""
    import torch

    from benchmarks.twins.graphed import Graphed

    build, twin_of = both(name)
    plain, graphed = twin_of(build()), Graphed(twin_of(build()))
    for twin in (plain, graphed):
        twin.seed(3)
    for _ in range(2):
        assert graphed.run() == pytest.approx(plain.run(), rel=1e-5)
    for part, module in plain.modules.items():
        for (k, mine), theirs in zip(module.state_dict().items(), graphed.modules[part].state_dict().values(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6, msg=k)


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STEPS)
def test_the_device_part_stays_on_its_device_and_asks_for_no_value(name):
    """As a capture wants it. PyTorch's meta device has no values, and takes no tensor of another one."""
    build, twin_of = both(name)
    twin = twin_of(build(), "meta")
    for _ in range(2):  # noise of PyTorch's own, then noise to compare with
        found = twin.step(*(t.to("meta") for t in twin.batch()))
        assert {t.device.type for t in found.values()} == {"meta"}
        twin.seed(1)


@needs_torch
@needs_emulator
@pytest.mark.filterwarnings("ignore")
def test_a_step_on_a_device_agrees_with_its_twin():
    build, twin_of = both("mlp_gan")
    with cuda.using(cuda.Emulated()), device.on("cuda"):
        # cpu:0 is the CPU, but not by the name of "cpu": what a twin does on a GPU it does there, too.
        assert verified(build, partial(twin_of, device="cpu:0"))["gradient_error"] < 1e-4


def test_what_pytorch_cannot_do_has_a_reason_below_the_table(monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("not permitted when stream is capturing\nmore of it")

    monkeypatch.setattr(steps, "_twin", broken)
    variants = [peers.EAGER, peers.EAGER_TF32, peers.GRAPH, peers.GRAPH_TF32]
    with pytest.raises(Unable) as reason:
        steps.FirstSteps("mlp_gan", "cpu").compare(peers.GRAPH)
    times = {"median_ms": 1.0, "q1_ms": 1.0, "q3_ms": 1.0, "floor_ms": 0.5, "loss_error": 1e-7, "gradient_error": 1e-6}
    eager = {"torch_median_ms": 123.456, "ratio": 123.456, "torch_tf32_median_ms": 120.0, "tf32_ratio": 120.0}
    refused = {v.key: str(reason.value) for v in variants if v.graph}
    steps._show({"wgan_gp_cifar": times | eager | {"refused": refused}}, Ceilings(1.0, 1.0), variants)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    row = [line.split() for line in out.splitlines() if line.strip().startswith("wgan_gp_cifar")][1]
    assert row == ["wgan_gp_cifar", "123.46", "123.46", "120.00", "120.00", "-", "-", "-", "-"]
    for label in ("graph", "graph TF32"):
        said = f"Not timed: wgan_gp_cifar, {label}: RuntimeError: not permitted when stream is capturing"
        assert said in " ".join(out.split())


def test_a_worker_passes_on_why_and_says_that_it_ended():
    with Worker(Refusing) as worker:
        with pytest.raises(Unable, match="for this reason"):
            worker.call("refuse")
        with pytest.raises(RuntimeError, match="ended with exit code 3"):
            worker.call("end")


class Refusing:
    def refuse(self):
        raise Unable("for this reason")

    def end(self):
        os._exit(3)
