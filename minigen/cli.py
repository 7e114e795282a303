"""The command line: `minigen COMMAND`, or `python -m minigen COMMAND`.

Each command is a dataclass; its fields are its flags (tyro). What a user can get wrong ends in one line on stderr and exit
code 2; a check that fails exits with 1; Ctrl-C with 130.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from minigen.errors import UserError

T = TypeVar("T")
USAGE = """minigen: train small generators, and check the mathematics they stand on

  minigen train RECIPE [--data DATA] [--steps N] [--out DIR] ...
  minigen sample RUN [--count 64] [--out grid.png]
  minigen eval RUN                     losses on held-out data, modes covered
  minigen gradcheck [OP ...]           every gradient against finite differences
  minigen doctor                       what this installation can do
  minigen data fetch|verify NAME       mnist, fashion, cifar10

Recipes: {recipes}. `minigen COMMAND --help` lists a command's options.
A first run, about a minute on two cores:  minigen train wgan-gp
"""


# --- commands -----------------------------------------------------------------------------------------------------------


@dataclass
class Sample:
    """Draw samples from a trained run into one picture."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    count: int = 64
    """How many samples."""
    out: Path = Path("grid.png")
    """The picture to write (PNG)."""
    seed: int = 0
    """Other seeds give other samples."""
    label: int | None = None
    """For runs trained with --labels: the class to draw, by index."""

    def __call__(self) -> int:
        from minigen.train import pictures

        if self.count < 1:
            raise UserError(f"--count must be at least 1, not {self.count}")
        _, trainer, step = _load_run(self.run)
        pictures.save_samples(self.out, trainer.sample(self.count, self.seed, self.label))
        print(f"{self.count} samples of step {step} in {self.out}")
        return 0


@dataclass
class Eval:
    """Judge a trained run on held-out data."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: str | None = None
    """The data, if they have moved since the run was trained."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        import numpy as np

        from minigen import data as datasets
        from minigen import random
        from minigen.metrics import mode_coverage
        from minigen.metrics.modes import SAMPLES

        config, trainer, step = _load_run(self.run)
        data = datasets.load(self.data or config.data, size=config.size, seed=config.seed)
        if tuple(data.shape) != trainer.info.shape or len(data.classes) != len(trainer.info.classes):
            raise UserError(f"{self.run} was trained on data of shape {trainer.info.shape}, {data.name} is {data.shape}")
        if not len(data.test_images):
            raise UserError(f"{data.name} has no held-out part")
        random.seed(config.seed)
        held_out = data.test_images if trainer.info.is_points else datasets.to_float(data.test_images)
        found: dict[str, Any] = {"run": str(self.run), "step": step, "data": data.name, "split": "held-out"}
        found |= {"samples": len(held_out), **trainer.evaluate(np.asarray(held_out), data.test_labels)}
        if data.centers is not None:
            coverage = mode_coverage(trainer.sample(SAMPLES), data.centers, data.sigma or 0.0)
            found |= {"modes_covered": coverage.covered, "modes": coverage.modes, "high_quality": coverage.high_quality}
        if self.json:
            print(json.dumps(found))
        else:
            for name, value in found.items():
                print(f"{name:>16}  {value:.4f}" if isinstance(value, float) else f"{name:>16}  {value}")
        return 0


@dataclass
class Gradcheck:
    """Check ops' gradients, first and second order, against finite differences in float64."""

    ops: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of ops; none means all."""
    order: int = 2
    """The highest order."""

    def __call__(self) -> int:
        import numpy as np

        from minigen import ops as operations
        from minigen.gradcheck import Finding, measure

        if self.order < 1:
            raise UserError(f"--order must be at least 1, not {self.order}")
        examples = operations.examples()
        for name in self.ops:
            if name not in examples:
                raise UserError(f"no op is called {name!r}{_suggest(name, examples)}")
        header = f"{'op':<20}" + "".join(f"{f'order {n}':>10}" for n in range(1, self.order + 1)) + "  worst entry"
        print(f"{header}\n{'-' * 79}")
        failed = 0
        for name in self.ops or tuple(examples):
            rows = []
            for e in examples[name]:
                rows.append(measure(e.f, *e.sample(np.random.default_rng(0)), order=min(self.order, e.order)))
            worst = [max((r[n] for r in rows if n < len(r)), key=_badness, default=None) for n in range(self.order)]
            known = [w for w in worst if w is not None]
            bad = [w for w in known if not w.ok]
            failed += bool(bad)
            last: Finding = max(bad or known, key=_badness)
            cells = "".join(f"{'-' if w is None else f'{w.error:.0e}':>10}" for w in worst)
            print(f"{name:<20}{cells}  {'FAIL ' if bad else ''}{last.where} (order {last.order})")
        checked = len(self.ops) or len(examples)
        print(f"{'-' * 79}\n{checked - failed} of {checked} ops agree with finite differences to a relative 1e-6")
        return 1 if failed else 0


def _badness(finding: Any) -> float:
    return float("inf") if finding.error != finding.error else float(finding.error)


@dataclass
class Doctor:
    """Say what this installation can do, and what is missing."""

    def __call__(self) -> int:
        import platform
        from importlib.metadata import version

        from minigen import __version__
        from minigen.data import cache
        from minigen.device import cuda_status
        from minigen.kernels import blas, threads

        versions = ", ".join(f"{p} {version(p)}" for p in ("numpy", "numba", "pillow", "safetensors", "matplotlib"))
        print(f"minigen   {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
        print(f"packages  {versions}")
        print(f"cpu       {threads.get_num_threads()} threads; products: {blas.describe()}")
        print(f"cuda      {cuda_status()}")
        print(f"data      downloads are kept in {cache.cache_dir()}")
        return 0


@dataclass
class Data:
    """Download a data set, or check its files."""

    action: Annotated[Literal["fetch", "verify"], tyro.conf.Positional]
    """fetch: download what is missing. verify: compare with the known checksums."""
    name: Annotated[str, tyro.conf.Positional]
    """mnist, fashion or cifar10."""
    folder: Path | None = None
    """For verify: a folder of yours that holds the files. (default: the cache)"""

    def __call__(self) -> int:
        from minigen.data import download, verify

        if self.action == "fetch":
            print(f"{self.name} is in {download.fetch(self.name)}")
            return 0
        checks = verify.verify(self.name, self.folder)
        for check in checks:
            print(f"{'ok ' if check.ok else 'BAD'} {check.file}: {check.message}")
        return 0 if all(check.ok for check in checks) else 1


def _load_run(folder: Path) -> tuple[Any, Any, int]:
    """A run's configuration, its trainer with the checkpoint's weights, and the step of the checkpoint."""
    from minigen.train import RECIPES, run

    config, info = run.read_config(folder, RECIPES)
    trainer = config.build(info, None)
    return config, trainer, run.restore(folder, config, trainer)


def _train(args: Sequence[str]) -> int:
    from minigen.train import RECIPES, run, train

    if not args or args[0] in ("-h", "--help"):
        print("usage: minigen train RECIPE [OPTIONS]\n")
        print(f"Recipes: {', '.join(RECIPES)}. minigen train RECIPE --help lists the options.")
        return 0
    if args[0] not in RECIPES:
        raise UserError(f"no recipe is called {args[0]!r}{_suggest(args[0], RECIPES)}")
    recipe, rest = RECIPES[args[0]], list(args[1:])
    config = _parse(recipe, rest, f"minigen train {args[0]}")
    folder = Path(config.out).expanduser() if config.out else None
    if config.resume and folder is not None and (folder / run.CONFIG).exists():
        saved, _ = run.read_config(folder, RECIPES)
        if not isinstance(saved, recipe):
            raise UserError(f"{folder} is a run of recipe {saved.name}, not {recipe.name}")
        # What was saved takes the place of the defaults. (resume stays off there: a flag that is on has no --resume.)
        config = _parse(recipe, rest, f"minigen train {args[0]}", dataclasses.replace(saved, out=None, resume=False))
    train(config)
    return 0


# --- parsing ------------------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Any] = {"sample": Sample, "eval": Eval, "gradcheck": Gradcheck, "doctor": Doctor, "data": Data}


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; choose from {', '.join(known)}"


def _parse(kind: type[T], args: Sequence[str], prog: str, default: T | None = None) -> T:
    """Flags to a dataclass. What tyro would print over many lines becomes one."""
    err = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(err):
            parsed, unknown = tyro.cli(kind, args=list(args), prog=prog, return_unknown_args=True, **options)
    except SystemExit as e:
        if not e.code:
            raise
        raise UserError(_one_line(err.getvalue(), prog)) from None
    if unknown:
        flags = ["--" + f.name.replace("_", "-") for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
        hint = _suggest(unknown[0], flags) if unknown[0].startswith("-") else ""
        raise UserError(f"unknown {unknown[0]!r}{hint if 'mean' in hint else f'; {prog} --help lists the options'}")
    return parsed  # type: ignore[no-any-return]


def _one_line(text: str, prog: str) -> str:
    lines = [line.strip(" │╭╮╰╯─-|+") for line in text.splitlines()]
    body = " ".join(line for line in lines[1:] if line)
    body = re.split(r"Got errors:|Argument helptext:|For full helptext", body)[0].strip()
    body = body.replace("'None', ", "").replace(", 'None'", "")  # how tyro shows "chosen for the data"
    found = re.match(r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*)\]", body)
    if found:
        body = f"{found[1]} wants {found[2].replace('{None}|', '')}, not {found[3]}"
    return f"{prog}: {body.rstrip('.') or 'wrong arguments'}; {prog} --help lists the options"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(args)
    except UserError as e:
        print(f"minigen: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minigen: stopped", file=sys.stderr)
        return 130


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        from minigen.train import RECIPES

        print(USAGE.format(recipes=", ".join(RECIPES)), end="")
        return 0
    if args[0] == "--version":
        from minigen import __version__

        print(__version__)
        return 0
    if args[0] == "train":
        return _train(args[1:])
    if args[0] not in COMMANDS:
        raise UserError(f"no command is called {args[0]!r}{_suggest(args[0], ['train', *COMMANDS])}")
    return int(_parse(COMMANDS[args[0]], args[1:], f"minigen {args[0]}")())


if __name__ == "__main__":
    sys.exit(main())
