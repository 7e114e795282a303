"""A run folder: self-contained, so that a run can be sampled, resumed and judged from it alone.

    config.json              the recipe, every option's value, and what the data were
    metrics.jsonl            one line of losses every --log-every steps
    checkpoint.safetensors   weights, optimiser, random state, data position
    samples/000500.png       grids of samples; .txt of text
    curves.png               the losses

metrics.jsonl holds nothing that depends on time or machine load: a run that was killed and resumed writes the same bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from minigen import random
from minigen.data import Text, Vocabulary, to_float
from minigen.errors import UserError
from minigen.train import checkpoint
from minigen.train.config import BaseRecipe, DataInfo, from_dict

CONFIG, METRICS = "config.json", "metrics.jsonl"


def data_info(data: Any) -> DataInfo:
    """What config.json keeps of the data; the checksum tells whether a resumed run sees the same ones."""
    if isinstance(data, Text):
        return DataInfo(data.name, (), (), len(data.content), data.crc32, data.vocabulary.characters)
    crc = zlib.crc32(np.ascontiguousarray(data.images).data)
    return DataInfo(data.name, tuple(data.shape), tuple(data.classes), len(data.images), crc)


def new_folder(out: str | None, recipe: str, data: str) -> Path:
    """The folder for a new run: `out`, or runs/RECIPE-DATA with a number if that exists. Never one that holds a run."""
    if out is not None:
        folder = Path(out).expanduser()
        if (folder / CONFIG).exists():
            raise UserError(f"{folder} already holds a run: --resume goes on with it, another --out starts a new one")
    else:
        base = Path("runs") / f"{recipe}-{data}"
        folder, n = base, 1
        while folder.exists():
            n += 1
            folder = base.with_name(f"{base.name}-{n}")
    try:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        (folder / METRICS).touch()
    except OSError as e:
        raise UserError(f"cannot write in {folder}: {e.strerror or e}") from e
    return folder


def write_config(folder: Path, config: BaseRecipe, info: DataInfo) -> None:
    content = {"recipe": config.name, "options": config.to_dict(), "data": asdict(info)}
    checkpoint.write_atomically(folder / CONFIG, (json.dumps(content, indent=2) + "\n").encode())


def read_config(folder: Path, recipes: Mapping[str, type[BaseRecipe]]) -> tuple[BaseRecipe, DataInfo]:
    """Raises UserError if the folder holds no run, or one that this version does not understand."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no {CONFIG}")
    try:
        content = json.loads(path.read_text())
        recipe, options, data = content["recipe"], content["options"], content["data"]
        known = (data["name"], tuple(data["shape"]), tuple(data["classes"]), data["count"], data["crc32"])
        info = DataInfo(*known, data.get("vocabulary", ""))
    except (ValueError, KeyError, TypeError, OSError) as e:
        raise UserError(f"{path} is damaged ({e})") from e
    if recipe not in recipes:
        raise UserError(f"{path} is of recipe {recipe!r}; this version has {', '.join(recipes)}")
    return from_dict(recipes[recipe], options), info


def check_resume(folder: Path, given: BaseRecipe, saved: BaseRecipe, info: DataInfo, saved_info: DataInfo) -> None:
    """Refuse to go on with a run under other options or other data than it began with."""
    if info.vocabulary != saved_info.vocabulary:
        difference = Vocabulary(saved_info.vocabulary).difference(Vocabulary(info.vocabulary))
        raise UserError(f"{folder} was begun on text of another vocabulary: {info.name} differs, {difference}")
    for name, value in saved.to_dict().items():
        if name not in saved.free() and getattr(given, name) != value:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{folder} was begun with {flag} {value}; it cannot go on with {getattr(given, name)}")
    if (info.count, info.shape, info.crc32) != (saved_info.count, saved_info.shape, saved_info.crc32):
        then, now = (
            f"{i.count} {'characters' if i.is_text else f'of shape {i.shape}'}, crc32 {i.crc32:08x}" for i in (saved_info, info)
        )
        raise UserError(f"{folder} was begun on other data: {then}; now {now}")


def held_out(folder: Path, info: DataInfo, data: Any) -> tuple[Any, Any]:
    """The held-out part of data like those of a run that draws: float32, images in [-1, 1], and labels. Raises UserError."""
    if tuple(data.shape) != info.shape or len(data.classes) != len(info.classes):
        raise UserError(f"{folder} was trained on data of shape {info.shape}, {data.name} is {data.shape}")
    if not len(data.test_images):
        raise UserError(f"{data.name} has no held-out part")
    return data.test_images if info.is_points else to_float(data.test_images), data.test_labels


def save(folder: Path, config: BaseRecipe, trainer: Any, step: int) -> None:
    checkpoint.save(folder, checkpoint.Checkpoint(trainer.state(), config.name, step, random.get_state()))


def restore(folder: Path, config: BaseRecipe, trainer: Any) -> int:
    """Load the checkpoint into the trainer and the random generator. Returns the step it was written after."""
    saved = checkpoint.load(folder, config.name)
    try:
        trainer.load_state(saved.arrays)
        random.set_state(saved.rng)
    except (ValueError, KeyError) as e:
        raise UserError(f"{folder / checkpoint.FILE} does not fit this run: {e}") from e
    return saved.step


def load(folder: Path, recipes: Mapping[str, type[BaseRecipe]]) -> tuple[Any, Any, int]:
    """A run's configuration, its trainer with the checkpoint's weights, and the step of the checkpoint."""
    config, info = read_config(folder, recipes)
    trainer = config.build(info, None)
    return config, trainer, restore(folder, config, trainer)


def trim_metrics(folder: Path, step: int) -> None:
    """Drop the lines that were written after the checkpoint of `step`, and a last line cut short by a kill."""
    path = folder / METRICS
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or record["step"] > step:
            break
        kept.append(line)
    checkpoint.write_atomically(path, b"".join(kept))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All complete lines of metrics.jsonl."""
    path = folder / METRICS
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]
    except ValueError as e:
        raise UserError(f"{path} is damaged ({e})") from e
