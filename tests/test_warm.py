"""Compiling at the first step: what is said of it, and the second process that takes the step from the other end."""

from __future__ import annotations

import importlib
import subprocess
import threading

import pytest
from minigen.kernels import cache, threads
from numba import njit

from minigen import autograd, dispatch
from minigen.optim import Optimizer
from minigen.train import RECIPES, progress, run, warm


@pytest.fixture
def started(monkeypatch):
    """Commands of processes that would have been started; each is killed in the end."""
    commands = []

    class Process:
        def __init__(self, command, **_):
            commands.append(command)
            self.code = None

        def poll(self):
            return self.code

        def kill(self):
            commands.append("killed")

        def wait(self):
            pass

    monkeypatch.setattr(subprocess, "Popen", Process)
    return commands


def fresh():
    """Two functions that were not compiled, of which one calls the other."""

    @njit
    def inner(x):
        return x + 1

    @njit
    def _outer(x):
        return inner(x) * 2

    return _outer


@pytest.mark.parametrize("cores", [1, 2])
def test_what_is_compiled_is_told_and_a_second_core_is_used(cores, started, monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    told = []
    with warm.Compiling(tmp_path, lambda *what: told.append(what[:2])):
        one, two = fresh(), fresh()
        assert (one(1), one(2), two(1.5)) == (4, 6, 5.0)
    assert told == [("test_warm", "outer")] * 2  # not what they call, and not what is compiled already
    assert started == ([] if cores == 1 else [started[0], "killed"])
    if cores > 1:
        assert started[0][-3:-1] == ["minigen.train.warm", str(tmp_path)]
    told.clear()
    fresh()(1)
    assert told == []


def test_nothing_is_started_where_nothing_is_compiled(started, tmp_path):
    with warm.Compiling(tmp_path, lambda *what: None):
        pass
    assert started == []


def test_the_other_end_runs_backward_kernels_and_references_forward(monkeypatch, tmp_path, tmp_path_factory):
    recipe = RECIPES["wgan-gp"](net="mlp", data="8gaussians", steps=1, batch_size=4, n_critic=1)
    data = recipe.load()
    info = run.data_info(data)
    recipe.resolve(info)
    run.write_config(tmp_path, recipe, info)
    monkeypatch.setattr(autograd, "_walk", autograd._walk)  # both are replaced, and so put back
    monkeypatch.setattr(Optimizer, "step", Optimizer.step)
    modes = {"forward": set(), "backward": set(), "optimiser": set()}
    inside = []
    walk = autograd._walk

    def watched(*args):
        inside.append(True)
        try:
            return walk(*args)
        finally:
            inside.pop()

    monkeypatch.setattr(autograd, "_walk", watched)
    matmul, adam = (importlib.import_module(f"minigen.ops.{name}") for name in ("matmul", "adam"))

    def noted(what, f):
        def call(*args):
            modes["backward" if inside else what].add(dispatch._mode)
            return f(*args)

        return call

    monkeypatch.setattr(matmul, "linear_forward", noted("forward", matmul.linear_forward))
    monkeypatch.setattr(matmul, "matmul_forward", noted("forward", matmul.matmul_forward))
    monkeypatch.setattr(adam, "adam_update", noted("optimiser", adam.adam_update))
    files = sorted(tmp_path.iterdir())
    claims = tmp_path_factory.mktemp("claims")
    (claims / "bias_act_backward").touch()
    warm.from_the_other_end(tmp_path, claims)
    assert modes == {"forward": {"reference"}, "backward": {"auto"}, "optimiser": {"auto"}}
    assert sorted(tmp_path.iterdir()) == files
    own = {"matmul_forward", "adam_update"}
    assert {p.name for p in claims.iterdir()} == {"bias_act_backward"} | own | {f"{name}.done" for name in own}


def test_a_kernel_that_the_other_process_compiles_is_waited_for(started, tmp_path):
    with warm.Compiling(tmp_path, lambda *what: None) as compiling:
        log, claims = [], compiling._claims

        def kernel(x):
            log.append((claims / "theirs.done").exists())
            return x + 1

        compiling._process = subprocess.Popen([])
        threading.Timer(0.2, (claims / "theirs.done").touch).start()
        assert compiling._kernel("mine", kernel, None, 1) == 2 and (claims / "mine").exists()
        (claims / "theirs").touch()
        assert compiling._kernel("theirs", kernel, None, 2) == 3
        (claims / "abandoned").touch()
        compiling._process.code = 1  # it ended, and will not finish what it has claimed
        assert compiling._kernel("abandoned", kernel, None, 3) == 4
    assert log == [False, True, True] and not claims.exists()


def test_the_first_lines_of_a_run_say_what_is_compiled(capsys):
    with progress.Progress(0, 3) as shown:
        for stem, function in (("conv", "forward"), ("conv", "weight"), ("norm", "forward")):
            shown.compiling(stem, function, "/kept/here")
    out = capsys.readouterr().out
    assert out == "compiling kernels, once on this installation; they are kept in /kept/here\ncompiling conv\ncompiling norm\n"


def test_what_is_left_does_not_count_the_compiling(capsys, monkeypatch):
    now = iter([0.0, 20.0, 20.5, 26.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    with progress.Progress(0, 100) as shown:
        shown.compiling("conv", "forward", "/kept/here")
        for step in (1, 2, 13):
            shown.update(step, {"loss": 0.5})
    assert capsys.readouterr().out.splitlines()[2:] == ["compiled in 20 s", "step 13/100  0.500 s/step  44 s left  loss 0.5"]


def test_kernels_are_kept_somewhere(monkeypatch, tmp_path):
    """Beside the source; else in the user's cache, which is Numba's own choice; else among temporary files."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    cache.let_numba_keep_kernels()
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(cache, "HERE", blocked)  # nothing can be made in a file
    cache.let_numba_keep_kernels()
    assert "NUMBA_CACHE_DIR" not in cache.os.environ and (tmp_path / "cache" / "numba").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    cache.let_numba_keep_kernels()
    kept = cache.Path(cache.os.environ["NUMBA_CACHE_DIR"])
    assert kept.parent == tmp_path and kept.is_dir() and kept.stat().st_mode & 0o077 == 0
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    other = kept.stat().st_uid + 1
    kept.rename(kept.with_name(f"minigen-numba-{other}"))
    monkeypatch.setattr(cache.os, "getuid", lambda: other)
    with pytest.raises(ValueError, match="belongs to somebody else"):
        cache.let_numba_keep_kernels()
