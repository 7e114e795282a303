"""A run that was stopped, by Ctrl-C or by kill -9 at any moment, and resumed ends with the bytes of one never stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigen.train import GAN, WGANGP, checkpoint, train
from minigen.train import run as runs

KILLS = int(os.environ.get("MINIGEN_KILLS", "4"))  # the full check is 20
# 23 batches an epoch: 60 steps of a GAN end inside the third; checkpoints fall in the middle of epochs.
OPTIONS = {"net": "mlp", "steps": 60, "checkpoint_every": 7, "log_every": 1, "sample_every": 20}
FLAGS = ["--net", "mlp", "--steps", "60", "--checkpoint-every", "7", "--log-every", "1", "--sample-every", "20"]


def _outcome(folder: Path) -> tuple[bytes, dict[str, bytes], str]:
    saved = checkpoint.load(folder, runs.read_config(folder, {"gan": GAN, "wgan-gp": WGANGP})[0].name)
    return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[bytes, dict[str, bytes], str]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    _finish(folder)
    return _outcome(folder)


def _start(folder: Path, *extra: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "minigen", "train", "gan", *FLAGS, "--out", str(folder), *extra]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _finish(folder: Path, *extra: str) -> None:
    process = _start(folder, *extra)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()


def test_the_same_seed_gives_the_same_bytes(whole, tmp_path):
    _finish(tmp_path / "again")
    assert _outcome(tmp_path / "again") == whole


def test_kill_9_at_random_moments(whole, tmp_path):
    rng = random.Random(os.environ.get("MINIGEN_KILL_SEED", "1"))
    begun = time.perf_counter()
    _finish(tmp_path / "timing")
    seconds = time.perf_counter() - begun
    killed = 0
    for i in range(KILLS):
        folder = tmp_path / f"run{i}"
        process = _start(folder)
        try:
            process.wait(timeout=rng.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        _finish(folder, "--resume")
        assert _outcome(folder) == whole, f"kill {i}"
    assert killed, "no run lived long enough to be killed"


@pytest.mark.parametrize("moment", ["before the rename", "half written"])
def test_killed_during_a_checkpoint(whole, tmp_path, moment):
    """The process dies inside the third checkpoint it writes."""
    script = f"""
import os, signal, sys
from minigen.cli import main
replace, count = os.replace, [0]
def dying(a, b):
    if str(b).endswith("checkpoint.safetensors"):
        count[0] += 1
        if count[0] == 3:
            if {moment == "half written"}:
                os.truncate(a, 100)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
os.replace = dying
main(sys.argv[1:])
"""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", script, "train", "gan", *FLAGS, "--out", str(folder)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert checkpoint.load(folder, "gan").step == 14
    _finish(folder, "--resume")
    assert _outcome(folder) == whole


def test_ctrl_c_saves_and_exits_cleanly(whole, tmp_path):
    folder = tmp_path / "run"
    process = _start(folder)
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").stat().st_size == 0:
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert err == b""
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    assert checkpoint.load(folder, "gan").step == lines  # the step in hand was finished, logged and saved
    _finish(folder, "--resume")
    assert _outcome(folder) == whole


def test_wgan_gp_resumes_in_process(tmp_path):
    options = {"net": "mlp", "n_critic": 2, "checkpoint_every": 3, "log_every": 1, "lr_schedule": "constant"}
    train(WGANGP(**options, steps=8, out=str(tmp_path / "a")))
    train(WGANGP(**options, steps=4, out=str(tmp_path / "b")))
    train(WGANGP(**options, steps=8, out=str(tmp_path / "b"), resume=True))
    assert _outcome(tmp_path / "a") == _outcome(tmp_path / "b")


def test_metrics_after_the_checkpoint_are_dropped_and_written_again(tmp_path):
    folder = tmp_path / "run"
    train(GAN(**(OPTIONS | {"steps": 10}), out=str(folder)))
    before = (folder / "metrics.jsonl").read_bytes()
    with open(folder / "metrics.jsonl", "ab") as f:
        f.write(b'{"step": 11, "discriminator": 9.0, "generator": 9.0}\n{"step": 12, "discr')
    runs.trim_metrics(folder, 10)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_sampling_does_not_disturb_the_run(tmp_path):
    rare = GAN(**(OPTIONS | {"steps": 12, "sample_every": 1000}), out=str(tmp_path / "rare"))
    often = GAN(**(OPTIONS | {"steps": 12, "sample_every": 2}), out=str(tmp_path / "often"))
    train(rare)
    train(often)
    assert _outcome(tmp_path / "rare") == _outcome(tmp_path / "often")


def test_weights_moved_at_all(whole, tmp_path):
    train(GAN(**(OPTIONS | {"steps": 1}), out=str(tmp_path / "one")))
    first = checkpoint.load(tmp_path / "one", "gan").arrays["generator.body.0.weight"]
    last = np.frombuffer(whole[1]["generator.body.0.weight"], np.float32).reshape(first.shape)
    assert np.abs(first - last).max() > 1e-4
