"""Checkpoints: whole or absent, refused when they do not belong."""

from __future__ import annotations

import os

import numpy as np
import pytest

from minigen.errors import UserError
from minigen.train import checkpoint
from minigen.train.checkpoint import Checkpoint


def _some(step: int = 3) -> Checkpoint:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7), "c": np.ones((3, 2)).T}
    return Checkpoint(arrays, "gan", step, '{"state": 1}')


def test_round_trip_keeps_values_shapes_dtypes_and_header(tmp_path):
    checkpoint.save(tmp_path, _some())
    read = checkpoint.load(tmp_path, "gan")
    assert (read.recipe, read.step, read.rng) == ("gan", 3, '{"state": 1}')
    for name, array in _some().arrays.items():
        assert read.arrays[name].shape == array.shape
        assert read.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(read.arrays[name], array)


def test_another_recipe_is_refused_by_name(tmp_path):
    checkpoint.save(tmp_path, _some())
    with pytest.raises(UserError, match="checkpoint of recipe gan, not wgan-gp"):
        checkpoint.load(tmp_path, "wgan-gp")


def test_absent(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        checkpoint.load(tmp_path, "gan")


@pytest.mark.parametrize("keep", [0, 4, 60, 200, -1])
def test_truncated_is_damaged(tmp_path, keep):
    checkpoint.save(tmp_path, _some())
    path = tmp_path / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path, "gan")


def test_file_of_another_program(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, tmp_path / checkpoint.FILE)
    with pytest.raises(UserError, match="not written by minigen"):
        checkpoint.load(tmp_path, "gan")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_one_whole(tmp_path, monkeypatch, moment):
    checkpoint.save(tmp_path, _some(step=3))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, moment, full)
    with pytest.raises(UserError, match="No space left on device; what was saved before is unchanged"):
        checkpoint.save(tmp_path, _some(step=4))
    monkeypatch.undo()
    assert checkpoint.load(tmp_path, "gan").step == 3
    assert os.listdir(tmp_path) == [checkpoint.FILE]
