"""What the README says is true: its Python runs, its commands exist, and CI runs the same test command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np

from minigen import cli
from minigen.train import RECIPES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs():
    (source,) = _blocks("python")
    names: dict[str, object] = {}
    exec(source, names)
    grads = names["grads"]
    assert isinstance(grads, tuple) and len(grads) == 4
    assert all(np.isfinite(g.data).all() and np.abs(g.data).max() > 0 for g in grads[::2])


def test_the_commands_exist():
    words = [shlex.split(line, comments=True) for block in _blocks("sh") for line in block.splitlines()]
    commands = [w[w.index("minigen") + 1 :] for w in words if "minigen" in w]
    assert len(commands) >= 8
    for command in commands:
        assert command[0] in ("train", *cli.COMMANDS)
        if command[0] == "train":
            cli._parse(RECIPES[command[1]], command[2:], "minigen train")  # raises UserError for a flag that is not there


def test_ci_runs_the_readmes_test_command():
    second = next(line for block in _blocks("sh") for line in block.splitlines() if "pytest" in line)
    assert second in (ROOT / ".ci" / "run").read_text().splitlines()


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
