"""The command line: `minigen COMMAND`, or `python -m minigen COMMAND`.

Each command is a dataclass; its fields are its flags (tyro). What a user can get wrong ends in one line on stderr and exit
code 2; a check that fails exits with 1; Ctrl-C with 130.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from minigen.checks import Data, Doctor, Gradcheck
from minigen.codec.command import Compress, Decompress
from minigen.errors import UserError, suggest

T = TypeVar("T")
USAGE = """minigen: train small generators, and check the mathematics they stand on

  minigen train RECIPE [--data DATA] [--text FILE] [--steps N] [--out DIR] ...
  minigen sample RUN [--count 64] [--out grid.png] [--label N] [--prompt TEXT]
  minigen eval RUN                     losses, likelihood, modes, n-grams
  minigen compress IMAGES... --model RUN [--out FILE]
  minigen decompress FILE --model RUN  small files, with a run of vq-prior
  minigen gradcheck [OP ...]           every gradient against finite differences
  minigen doctor                       what this installation can do
  minigen data fetch|verify NAME       mnist, fashion, cifar10

{recipes}
`minigen COMMAND --help` lists a command's options.
A first run, about a minute on two cores:  minigen train wgan-gp
"""


# --- commands -----------------------------------------------------------------------------------------------------------


@dataclass
class Sample:
    """Draw samples from a trained run: images into one picture, text onto the screen or into a file."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """How many samples. (default: 64; 1 of char-rnn, 16 of text-gan)"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The file to write. (default: grid.png; text is printed)"""
    seed: int = 0
    """Other seeds give other samples."""
    label: int | None = None
    """For runs trained with --labels: the class to draw, by index."""
    caption: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """Of seq2seq: what to draw, in words. (default: each class in turn)"""
    complete: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of pixel-rnn: rows of a held-out image, its upper half, and six lower halves that the run writes to it."""
    length: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Of text: how many characters. (default: 500; --seq-length of text-gan)"""
    prompt: str = ""
    """Of text: how it begins."""
    temperature: float = 1.0
    """Of text: below 1 likelier characters, above 1 more surprising ones; 0 takes the likeliest."""
    top_p: float = 1.0
    """Of text: draw from the likeliest characters that make up this share of the probability."""

    def __call__(self) -> int:
        from minigen.train import RECIPES, pictures, run

        count = 64 if self.count is None else self.count
        if count < 1:
            raise UserError(f"--count must be at least 1, not {count}")
        config, trainer, step = run.load(self.run, RECIPES)
        if self.caption is not None and config.name != "seq2seq":
            raise UserError("--caption is for runs of seq2seq")
        if self.complete and (config.name != "pixel-rnn" or self.label is not None):
            raise UserError("--complete is for runs of pixel-rnn, and takes the labels of the held-out images")
        if trainer.info.is_text:
            return self._text(trainer, step)
        for f in dataclasses.fields(self):
            if f.name in ("length", "prompt", "temperature", "top_p") and getattr(self, f.name) != f.default:
                raise UserError(f"--{f.name.replace('_', '-')} is for runs that write text, and {self.run} draws")
        out = self.out or Path("grid.png")
        if self.complete:
            data, columns = config.load(), 8
            x, labels = run.held_out(self.run, trainer.info, data)
            samples = trainer.complete(x[: -(-count // columns)], labels, columns - 2, self.seed)
            pictures.save_samples(out, samples.reshape(-1, *trainer.info.shape), columns=columns)
            print(f"completions of {len(samples)} held-out images of {data.name} at step {step} in {out}")
            return 0
        if config.shows_data:
            trainer.shown, _ = run.held_out(self.run, trainer.info, config.load())
        told = (self.label,) if self.caption is None else (self.label, self.caption)
        pictures.save_samples(out, trainer.sample(count, self.seed, *told))
        print(f"{count} samples of step {step} in {out}")
        return 0

    def _text(self, trainer: Any, step: int) -> int:
        if self.label is not None:
            raise UserError(f"--label is for runs that draw, and {self.run} writes text")
        count = trainer.texts if self.count is None else self.count
        options = (count, self.seed, self.length, self.temperature, self.top_p, self.prompt)
        if self.out is None:
            encoding = sys.stdout.encoding or "utf-8"  # a terminal may know fewer characters than the text
            print(trainer.samples(*options).encode(encoding, "replace").decode(encoding), end="")
            return 0
        trainer.save_samples(self.out, *options)
        print(f"{count} samples of step {step} in {self.out}")
        return 0


@dataclass
class Eval:
    """Judge a trained run on held-out data."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: Annotated[str | None, tyro.conf.arg(aliases=["--text"], metavar="PATH", help_behavior_hint="")] = None
    """The data or the text, if they have moved since the run was trained."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        from minigen import random
        from minigen.train import RECIPES, run

        config, trainer, step = run.load(self.run, RECIPES)
        data = config.load(self.data)
        random.seed(config.seed)
        found = {"run": str(self.run), "step": step, "data": data.name}
        found |= trainer.judge(data) if trainer.info.is_text else self._judge(trainer, data)
        if self.json:
            print(json.dumps(found))
        else:
            for name, value in found.items():
                print(f"{name:>22}  {value:.4f}" if isinstance(value, float) else f"{name:>22}  {value}")
        return 0

    def _judge(self, trainer: Any, data: Any) -> dict[str, Any]:
        from minigen.metrics import mode_coverage
        from minigen.metrics.modes import SAMPLES
        from minigen.train import run

        held_out, labels = run.held_out(self.run, trainer.info, data)
        found: dict[str, Any] = {"split": "held-out", "samples": len(held_out)}
        found |= trainer.evaluate(held_out, labels)
        if getattr(trainer, "compresses", False):
            from minigen.codec.compare import compare

            found |= compare(trainer, held_out)
        if data.centers is not None:
            coverage = mode_coverage(trainer.sample(SAMPLES), data.centers, data.sigma or 0.0)
            found |= {"modes_covered": coverage.covered, "modes": coverage.modes, "high_quality": coverage.high_quality}
        return found


def _train(args: Sequence[str]) -> int:
    from minigen.train import RECIPES, run, train

    if not args or args[0] in ("-h", "--help"):
        print("usage: minigen train RECIPE [OPTIONS]\n")
        print(f"{_recipes(RECIPES)}\nminigen train RECIPE --help lists the options.")
        return 0
    if args[0] not in RECIPES:
        raise UserError(f"no recipe is called {args[0]!r}{suggest(args[0], RECIPES)}")
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


def _recipes(recipes: Any) -> str:
    return textwrap.fill(f"Recipes: {', '.join(recipes)}.", 79)


# --- parsing ------------------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Any] = {
    "sample": Sample, "eval": Eval, "compress": Compress, "decompress": Decompress, "gradcheck": Gradcheck, "doctor": Doctor,
    "data": Data,
}  # fmt: skip


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
        hint = suggest(unknown[0], flags) if unknown[0].startswith("-") else ""
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

        print(USAGE.format(recipes=_recipes(RECIPES)), end="")
        return 0
    if args[0] == "--version":
        from minigen import __version__

        print(__version__)
        return 0
    if args[0] == "train":
        return _train(args[1:])
    if args[0] not in COMMANDS:
        raise UserError(f"no command is called {args[0]!r}{suggest(args[0], ['train', *COMMANDS])}")
    return int(_parse(COMMANDS[args[0]], args[1:], f"minigen {args[0]}")())


if __name__ == "__main__":
    sys.exit(main())
