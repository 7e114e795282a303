"""The command line as a person meets it: what it prints, what it leaves, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigen import cli

QUICK = ["--net", "mlp", "--steps", "6", "--checkpoint-every", "2", "--log-every", "1"]


def run(capsys, *args: str) -> tuple[int, str, str]:
    try:
        code = cli.main(args)
    except SystemExit as e:  # --help
        code = int(e.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *args: str) -> str:
    """The command must fail with exit code 2 and exactly one line on stderr, which is returned."""
    code, _, err = run(capsys, *args)
    assert code == 2, err
    assert err.endswith("\n") and err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "wgan-gp", "--n-critic", "2", *QUICK, "--out", str(folder)]) == 0
    return folder


def test_a_run_folder_is_complete(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["recipe"] == "wgan-gp" and config["options"]["gp_weight"] == 10.0 and config["data"]["shape"] == [1, 8, 8]
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    assert set(records[0]) == {"step", "critic", "wasserstein", "penalty", "generator"}
    assert records[0]["critic"] == pytest.approx(10 * records[0]["penalty"] - records[0]["wasserstein"], rel=1e-4)
    assert (trained / "checkpoint.safetensors").stat().st_size > 1000
    assert Image.open(trained / "samples" / "000006.png").size == (8 * 50 + 2, 8 * 50 + 2)
    width, height = Image.open(trained / "curves.png").size
    assert width == 700 and height == 4 * 190  # four panels: the estimate and the penalty are drawn apart


def test_sample_and_eval(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "sample", str(trained), "--count", "5", "--out", "g.png")
    assert code == 0 and "5 samples of step 6" in out
    assert Image.open("g.png").size == (3 * 50 + 2, 2 * 50 + 2)
    run(capsys, "sample", str(trained), "--count", "5", "--out", "h.png")
    run(capsys, "sample", str(trained), "--count", "5", "--out", "i.png", "--seed", "1")
    assert Path("g.png").read_bytes() == Path("h.png").read_bytes() != Path("i.png").read_bytes()
    code, out, _ = run(capsys, "eval", str(trained), "--json")
    found = json.loads(out)
    assert code == 0 and found["samples"] == 297 and np.isfinite(found["wasserstein"])
    code, out, _ = run(capsys, "eval", str(trained))
    assert code == 0 and "wasserstein" in out


def test_eval_counts_modes(tmp_path, capsys):
    folder = str(tmp_path / "toy")
    assert run(capsys, "train", "wgan-gp", "--data", "25gaussians", "--steps", "2", "--out", folder)[0] == 0
    found = json.loads(run(capsys, "eval", folder, "--json")[1])
    assert found["modes"] == 25 and 0 <= found["modes_covered"] <= 25 and 0 <= found["high_quality"] <= 1


def test_labels(tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert run(capsys, "train", "gan", *QUICK, "--labels", "--out", folder)[0] == 0
    assert run(capsys, "sample", folder, "--label", "7", "--out", str(tmp_path / "g.png"))[0] == 0
    assert "label 10 is not in 0..9" in refused(capsys, "sample", folder, "--label", "10")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "no command is called 'trian'; did you mean train?"),
        (["train", "wgan"], "no recipe is called 'wgan'"),
        (["train", "gan", "--stesp", "5"], "unknown '--stesp'; did you mean --steps?"),
        (["train", "gan", "--steps", "many"], "--steps wants INT, not 'many'"),
        (["train", "gan", "--steps", "0"], "--steps must be at least 1, not 0"),
        (["train", "gan", "--net", "dgan"], "invalid choice 'dgan' for argument '--net'"),
        (["train", "gan", "--steps"], "Missing value for argument '--steps'"),
        (["train", "gan", "stray"], "unknown 'stray'"),
        (["train", "gan", "--data", "mnits"], "did you mean mnist?"),
        (["train", "gan", "--data", "./nowhere"], "no such file or folder"),
        (["train", "gan", "--data", "25gaussians", "--net", "dcgan"], "makes images"),
        (["train", "gan", "--data", "swissroll", "--labels"], "have no labels"),
        (["train", "gan", "--batch-size", "2000"], "1500 examples, fewer than one batch of 2000"),
        (["train", "gan", "--device", "gpu"], "no device 'gpu'"),
        (["train", "gan", "--resume"], "--resume needs --out"),
        (["train", "wgan-gp", "--critic-norm", "batch"], "batch norm couples samples"),
        (["train", "wgan-gp", "--n-critic", "0"], "--n-critic must be at least 1"),
        (["sample"], "RUN"),
        (["sample", "nowhere"], "no such run folder"),
        (["gradcheck", "tahn"], "no op is called 'tahn'; did you mean tanh?"),
        (["gradcheck", "--races", "tanh"], "--races needs --device emulated"),
        (["data", "verify", "minst"], "minst"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message.lower() in refused(capsys, *args).lower()
    assert list(tmp_path.iterdir()) == []  # nothing was left behind


def test_no_gpu_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "train", "gan", "--device", "cuda")
    reasons = ("CuPy is not installed", "no driver or no device", "does not import", "no CUDA kernels")
    assert any(reason in line for reason in reasons)


def test_an_existing_run_is_not_overwritten(trained, capsys):
    before = (trained / "metrics.jsonl").read_bytes()
    assert "already holds a run" in refused(capsys, "train", "wgan-gp", *QUICK, "--out", str(trained))
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_resume_refuses_another_recipe_other_options_other_data(trained, capsys):
    assert "is a run of recipe wgan-gp, not gan" in refused(capsys, "train", "gan", "--out", str(trained), "--resume")
    line = refused(capsys, "train", "wgan-gp", "--out", str(trained), "--resume", "--lr", "0.5")
    assert "was begun with --lr 0.001; it cannot go on with 0.5" in line
    line = refused(capsys, "train", "wgan-gp", "--out", str(trained), "--resume", "--steps", "9")
    assert "was begun with --steps 6" in line  # its learning rate falls to zero over the steps
    line = refused(capsys, "train", "wgan-gp", "--out", str(trained), "--resume", "--size", "12")
    assert "was begun with --size None; it cannot go on with 12" in line


def test_resume_refuses_other_data(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(80):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(images / f"{i}.png")
    folder = str(tmp_path / "run")
    quick = [*QUICK, "--batch-size", "8", "--data", str(images), "--out", folder]
    assert run(capsys, "train", "gan", *quick)[0] == 0
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(images / "3.png")
    assert "was begun on other data" in refused(capsys, "train", "gan", "--out", folder, "--resume", "--steps", "9")


@pytest.mark.parametrize("damage", ["config.json", "checkpoint.safetensors"])
def test_damaged_run_files(trained, tmp_path, capsys, damage):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    path = folder / damage
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{damage} is damaged" in refused(capsys, "sample", str(folder), "--out", str(tmp_path / "g.png"))
    assert not (tmp_path / "g.png").exists()


def test_unwritable_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write in" in refused(capsys, "train", "gan", *QUICK, "--out", str(tmp_path / "file" / "run"))
    assert "cannot write" in refused(capsys, "sample", _tiny(tmp_path, capsys), "--out", str(tmp_path / "no" / "g.png"))


def _tiny(tmp_path, capsys) -> str:
    folder = str(tmp_path / "tiny")
    assert run(capsys, "train", "gan", *QUICK, "--out", folder)[0] == 0
    return folder


def test_full_disk_keeps_the_last_checkpoint(tmp_path):
    """A real failing write: the process may not make files larger than its first checkpoint is allowed to be."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "run"
    ok = subprocess.run([sys.executable, "-m", "minigen", "train", "gan", *QUICK, "--out", str(folder)], capture_output=True)
    assert ok.returncode == 0, ok.stderr
    before = (folder / "checkpoint.safetensors").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    command = [sys.executable, "-m", "minigen", "train", "gan", "--out", str(folder), "--resume", "--steps", "20"]
    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1 and "cannot write" in full.stderr and "File too large" in full.stderr
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    assert not (folder / "checkpoint.safetensors.tmp").exists()


def test_losses_that_are_not_numbers_stop_the_run(tmp_path, capsys):
    folder = tmp_path / "run"
    line = refused(capsys, "train", "gan", "--loss", "lsgan", *QUICK, "--lr", "1e30", "--out", str(folder))
    assert "loss is" in line and "stopped" in line
    assert "nan" not in (folder / "metrics.jsonl").read_text().lower()


def test_help_names_every_flag(capsys):
    import dataclasses
    import typing

    from minigen.train import RECIPES

    for name, recipe in RECIPES.items():
        code, out, _ = run(capsys, "train", name, "--help")
        assert code == 0
        hints = typing.get_type_hints(recipe, include_extras=True)
        for field in dataclasses.fields(recipe):
            hidden = "Suppress" in map(str, getattr(hints[field.name], "__metadata__", ()))
            assert hidden != (f"--{field.name.replace('_', '-')}" in out)
        assert max(len(line) for line in out.splitlines()) <= 80


def test_gradcheck_table_and_exit_code(capsys, monkeypatch):
    code, out, _ = run(capsys, "gradcheck", "tanh", "conv2d")
    assert code == 0 and "2 of 2 ops agree" in out
    from minigen.ops.elementwise import Tanh

    right = Tanh.backward
    monkeypatch.setattr(Tanh, "backward", lambda self, d: (-right(self, d)[0],))
    code, out, _ = run(capsys, "gradcheck", "tanh")
    assert code == 1 and "FAIL input 0" in out


def test_gradcheck_on_the_emulated_device_names_a_race(capsys, monkeypatch):
    from minigen.kernels import cuda, emulator

    if emulator.missing():
        pytest.skip(emulator.missing())
    code, out, _ = run(capsys, "gradcheck", "--device", "emulated", "--races", "layer_norm")
    assert code == 0 and "1 of 1 ops agree" in out
    right, barrier = cuda._text, "__syncthreads();        // part may be filled again"
    monkeypatch.setattr(cuda, "_text", lambda stem: right(stem).replace(barrier, ""))
    cuda._emulated.cache_clear()
    code, out, _ = run(capsys, "gradcheck", "--device", "emulated", "--races", "layer_norm")
    cuda._emulated.cache_clear()
    assert code == 1 and re.search(r"race: block_sum.cuh:\d+: thread \d+ of block \d+ writes what thread \d+", out)


def test_doctor_and_usage(capsys):
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "threads" in out and "cuda" in out
    code, out, _ = run(capsys)
    assert code == 0 and "minigen train wgan-gp" in out and max(map(len, out.splitlines())) <= 80
