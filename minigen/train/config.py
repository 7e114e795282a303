"""What every recipe can be told: one dataclass whose fields become command-line flags.

A field that is None is "chosen for the data": `resolve` fills it in, and config.json keeps the value that was used.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from minigen import data as datasets
from minigen.errors import UserError

SAMPLE_STREAM = 1  # beside the seed


@dataclass(frozen=True)
class DataInfo:
    """What a model needs to know of its data, kept in config.json so that a run can be sampled without them."""

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    count: int
    crc32: int
    vocabulary: str = ""  # of a text: its characters; its shape is () and it has no classes

    @property
    def is_text(self) -> bool:
        return bool(self.vocabulary)

    @property
    def is_points(self) -> bool:
        return len(self.shape) == 1


def chosen(metavar: str) -> Any:
    """How --help shows a field whose default depends on the data."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


ChosenInt = Annotated[int | None, chosen("INT")]
ChosenFloat = Annotated[float | None, chosen("FLOAT")]
ChosenPair = Annotated[tuple[float, float] | None, chosen("FLOAT FLOAT")]
ChosenText = Annotated[str | None, chosen("FOLDER")]


@dataclass
class BaseRecipe:
    """Options common to all recipes."""

    name: ClassVar[str] = ""
    shows_data: ClassVar[bool] = False  # its samples are of held-out images, which `minigen sample` then has to load

    steps: ChosenInt = None
    """Updates in all; of the generator, where there are two networks. (default: chosen for the data)"""
    batch_size: ChosenInt = None
    """Samples in a batch. (default: 64; 256 points)"""
    seed: int = 0
    """Fixes initial weights, noise and data order: the same seed gives the same run."""
    device: str = "cpu"
    """Where to compute: cpu or cuda."""
    graph: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --device cuda: capture a step of training once, as a CUDA graph, and replay it."""
    out: ChosenText = None
    """The run's folder. (default: runs/RECIPE-DATA, with a number if that exists)"""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run in --out from its last checkpoint, bit for bit."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    sample_every: int = 500
    """Steps between samples."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def resolve(self, info: DataInfo) -> None:
        """Replace each None by the default for these data. Raises UserError for a combination that cannot work."""
        if self.graph and self.device != "cuda":
            raise UserError("--graph captures the kernels of --device cuda; on the CPU there is nothing to capture")
        if self.batch_size is None:
            self.batch_size = 256 if info.is_points else 64
        self.require_at_least(1, "steps", "batch_size", "log_every", "sample_every", "checkpoint_every")

    def require_at_least(self, low: int, *names: str) -> None:
        """Raise UserError for the first of these fields that is less."""
        for name in names:
            if getattr(self, name) is not None and getattr(self, name) < low:
                raise UserError(f"--{name.replace('_', '-')} must be at least {low}, not {getattr(self, name)}")

    def require_above_zero(self, *names: str) -> None:
        """The same for fields that may be small, but not zero, negative or NaN."""
        for name in names:
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be above 0, not {getattr(self, name)}")

    def free(self) -> set[str]:
        """Fields that may differ when a run is resumed: those that do not change what is computed."""
        free = {"out", "resume", "device", "graph", "sample_every", "checkpoint_every"}
        falling = getattr(self, "lr_schedule", None) not in (None, "constant")  # over the steps: then their number matters
        return free if falling else free | {"steps"}

    def sample_rng(self, seed: int | None) -> np.random.Generator:
        """What samples are drawn from: the run's seed or another, in a stream of its own, so that looking changes nothing."""
        return np.random.default_rng([self.seed if seed is None else seed, SAMPLE_STREAM])

    def load(self, source: str | None = None) -> Any:
        """The data to learn, or those of `source` in their place. Raises UserError."""
        raise NotImplementedError(f"{type(self).__name__} has no data")

    def build(self, info: DataInfo, data: Any) -> Any:
        """A Trainer for this configuration; `data` is None when the run is only to be sampled."""
        raise NotImplementedError(f"{type(self).__name__} has no trainer")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass
class _Data:
    data: str = "digits"
    """What to learn: a name (digits, mnist, fashion, cifar10, 8gaussians, 25gaussians, swissroll) or a folder of images."""
    size: ChosenInt = None
    """Resize images to this many pixels square, a multiple of 4. (default: as they are)"""


@dataclass
class Recipe(BaseRecipe, _Data):  # bases in this order: fields are collected from the last, so --help begins with --data
    """Options of the recipes that learn images or points."""

    def load(self, source: str | None = None) -> datasets.Dataset:
        path = Path(self.data).expanduser()
        if self.data not in datasets.NAMES and path.exists():
            self.data = str(path.absolute())  # the run can be judged from any folder
        return datasets.load(source or self.data, size=self.size, seed=self.seed)

    def require_images(self, info: DataInfo) -> None:
        if info.is_points:
            raise UserError(f"{self.name} learns images; the data {info.name} are points")

    def free(self) -> set[str]:
        return super().free() | {"data"}


def from_dict(recipe: type[BaseRecipe], values: dict[str, Any]) -> BaseRecipe:
    """The recipe with the saved `values`; unknown or missing fields raise UserError (another version wrote them)."""
    known = {f.name for f in dataclasses.fields(recipe)}
    if set(values) != known:
        odd = sorted(set(values) ^ known)
        raise UserError(f"config.json does not fit this version: {', '.join(odd)}")
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return recipe(**options)
