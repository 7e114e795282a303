"""Checkpoints: one safetensors file, replaced atomically, so that a kill at any moment leaves the old or the new one whole.

Arrays are the trainer's state by name; the header's metadata holds the recipe, the step and the random generator's state.
Nothing is pickled: reading a checkpoint runs no code from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minigen.errors import UserError

FILE = "checkpoint.safetensors"
FORMAT = "minigen-1"


class Checkpoint(NamedTuple):
    arrays: dict[str, np.ndarray[Any, Any]]
    recipe: str
    step: int
    rng: str  # minigen.random.get_state()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a temporary file beside `path`, flush it to disk, rename it. Raises UserError; then `path` is as it was."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {e.strerror or e}; what was saved before is unchanged") from e


def save(folder: Path, checkpoint: Checkpoint) -> None:
    from safetensors.numpy import save as serialize

    metadata = {"format": FORMAT, "recipe": checkpoint.recipe, "step": str(checkpoint.step), "rng": checkpoint.rng}
    arrays = {k: np.asarray(v, order="C") for k, v in checkpoint.arrays.items()}  # safetensors ignores strides
    write_atomically(folder / FILE, serialize(arrays, metadata))


def load(folder: Path, recipe: str) -> Checkpoint:
    """Read a run's checkpoint. Raises UserError if it is absent, damaged, or of another recipe."""
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {FILE}")
    try:
        with safe_open(path, framework="np") as f:
            metadata = f.metadata() or {}
            arrays = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, ValueError) as e:
        raise UserError(f"{path} is damaged or not a safetensors file ({e})") from e
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} was not written by minigen")
    if metadata.get("recipe") != recipe:
        raise UserError(f"{path} is a checkpoint of recipe {metadata.get('recipe')}, not {recipe}")
    return Checkpoint(arrays, recipe, int(metadata["step"]), metadata["rng"])
