"""The command line of the text recipes: what it prints, what it leaves, and how it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from minigen import cli
from minigen.train import text_gan

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and\n", "then", "it", "slept."]
FLAGS = ["--hidden", "12", "--embedding", "6", "--batch-size", "4", "--seq-length", "8", "--log-every", "1"]


def words(count: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


@pytest.fixture(scope="module")
def novel(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "novel.txt"
    path.write_text(words(300))
    return path


def command(capsys, *args) -> tuple[int, str, str]:
    code = cli.main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *args) -> str:
    code, _, err = command(capsys, *args)
    assert code == 2 and err.count("\n") == 1 and err.endswith("\n"), err
    return err


@pytest.fixture(scope="module")
def trained(novel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    flags = [*FLAGS, "--steps", "6", "--lr-schedule", "constant", "--checkpoint-every", "2"]
    assert cli.main(["train", "char-rnn", "--text", str(novel), *flags, "--out", str(folder)]) == 0
    return folder


def test_a_run_folder_is_complete(trained, novel):
    config = json.loads((trained / "config.json").read_text())
    assert config["recipe"] == "char-rnn" and config["options"]["text"] == str(novel)
    assert config["data"]["vocabulary"] == "".join(sorted(set(words(300)))) and config["data"]["count"] == len(words(300))
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [set(r) for r in records] == [{"step", "nll"}] * 6
    assert len((trained / "samples" / "000006.txt").read_text()) == 501 and (trained / "curves.png").exists()


def test_sample_prints_or_writes(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command(capsys, "sample", trained, "--prompt", "the cat", "--length", "20", "--temperature", "0.8")
    assert code == 0 and out.startswith("the cat") and len(out) == 28
    options = ("sample", trained, "--count", "3", "--length", "9", "--top-p", "0.9", "--seed", "4")
    _, printed, _ = command(capsys, *options)
    code, out, _ = command(capsys, *options, "--out", "s.txt")
    assert code == 0 and out == "3 samples of step 6 in s.txt\n"
    assert Path("s.txt").read_text() == printed and printed.count("\n" + "-" * 32 + "\n") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s.txt"]


def test_eval_names_the_split(trained, capsys):
    found = json.loads(command(capsys, "eval", trained, "--json")[1])
    assert found["split"] == "held-out, the last 10 %" and found["characters"] == math.ceil(len(words(300)) / 10)
    assert found["bits"] == pytest.approx(found["nll"] / math.log(2)) and 0 < found["nll"] < 4
    assert "bits" in command(capsys, "eval", trained)[1]


def test_another_text(trained, novel, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text(words(400, seed=1))  # the same characters
    assert "was begun on other data" in refused(
        capsys, "train", "char-rnn", "--out", trained, "--resume", "--steps", "9", "--text", other
    )
    assert json.loads(command(capsys, "eval", trained, "--text", other, "--json")[1])["data"] == "other"
    other.write_text(words(300) + " Zebra")
    line = refused(capsys, "train", "char-rnn", "--out", trained, "--resume", "--steps", "9", "--text", other)
    assert "vocabulary" in line and "it adds 'Z' 'b' 'r'" in line
    line = refused(capsys, "eval", trained, "--text", other)
    assert "vocabulary" in line and "it adds 'Z' 'b' 'r'" in line
    moved = tmp_path / "moved.txt"
    moved.write_bytes(novel.read_bytes())
    assert command(capsys, "train", "char-rnn", "--out", trained, "--resume", "--steps", "7", "--text", moved)[0] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--text", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--text", "empty.txt"], "the file is empty"),
        (["--text", "latin.txt"], "not UTF-8 text (byte 0xe9 at offset 3)"),
        (["--text", "."], "is a folder"),
        (["--text", "short.txt"], "fewer than one batch of 64 x 100"),
        (["--data", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--hiden", "5"], "unknown '--hiden'; did you mean --hidden?"),
        (["--cell", "grU"], "invalid choice 'grU' for argument '--cell'"),
        (["--dropout", "2"], "--dropout must be in [0, 1)"),
        (["--steps", "0"], "--steps must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9" * 20)
    (tmp_path / "short.txt").write_text(words(100))
    assert message.lower() in refused(capsys, "train", "char-rnn", *args).lower()
    assert not (tmp_path / "runs").exists()  # nothing was left behind


def test_options_of_text_and_of_images_are_not_mixed(trained, tmp_path, capsys):
    assert "--label is for runs that draw" in refused(capsys, "sample", trained, "--label", "1")
    assert "--count must be at least 1" in refused(capsys, "sample", trained, "--count", "0")
    assert "not in the vocabulary: 'Z'" in refused(capsys, "sample", trained, "--prompt", "Z")
    folder = tmp_path / "gan"
    assert command(capsys, "train", "gan", "--net", "mlp", "--steps", "1", "--out", folder)[0] == 0
    for flag, value in (("--prompt", "a"), ("--length", "5"), ("--temperature", "0.5"), ("--top-p", "0.5")):
        assert f"{flag} is for runs that write text" in refused(capsys, "sample", folder, flag, value)


def test_text_gan(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(text_gan, "JUDGED", 200)
    (tmp_path / "t.txt").write_text(words(400))
    folder = str(tmp_path / "run")
    flags = ["--hidden", "12", "--embedding", "6", "--batch-size", "4", "--seq-length", "8", "--steps", "6"]
    assert cli.main(["train", "text-gan", "--text", str(tmp_path / "t.txt"), *flags, "--out", folder]) == 0
    capsys.readouterr()
    assert cli.main(["sample", folder, "--count", "3"]) == 0
    texts = capsys.readouterr().out.removesuffix("\n").split("\n" + "-" * 32 + "\n")
    assert [len(text) for text in texts] == [8, 8, 8]
    assert cli.main(["sample", folder, "--count", "1", "--length", "20", "--prompt", "the "]) == 0
    out = capsys.readouterr().out
    assert out.startswith("the ") and len(out) == 25
    assert cli.main(["eval", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"nll", "presence", "presence_5", "distinct_5", "pretrained_nll", "pretrained_presence"} <= set(found)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["pretrain_steps"] == 5
    (tmp_path / "t.txt").write_text(words(400) + "Z")
    assert cli.main(["eval", folder]) == 2
    assert "it adds 'Z'" in capsys.readouterr().err
    assert cli.main(["train", "text-gan", "--objective", "gumble"]) == 2
    assert "invalid choice 'gumble' for argument '--objective'" in capsys.readouterr().err.lower()
    assert cli.main(["train", "textgan"]) == 2
    assert "no recipe is called 'textgan'; did you mean text-gan?" in capsys.readouterr().err
