"""The command line. Bad input gives one line on stderr and exit code 2; a benchmark that disagrees, exit code 1.

Nothing heavy is imported before the arguments are known: Numba and BLAS read the number of threads when they are loaded.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

CORETYPE = "OPENBLAS_CORETYPE"
THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line that suggest the flag that was meant."""

    def error(self, message: str) -> NoReturn:
        marker = "unrecognized arguments: "
        if message.startswith(marker):
            word = message.removeprefix(marker).split()[0]
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            message = f"unknown {word!r}{suggest(word, flags)}"
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def suggest(word: str, known: Iterable[str]) -> str:
    """What was probably meant; to be put after "unknown ..."."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; choose from {', '.join(known)}"


def _positive(kind: Any) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    parse.__name__ = kind.__name__  # argparse names it: "invalid int value"
    return parse


def _parsers() -> dict[str, Parser]:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=_positive(int), metavar="N", help="cores to use (default: all)")
    common.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    common.add_argument("--torch", action="store_true", help="time PyTorch on the same work beside it")
    common.add_argument("--keep-coretype", action="store_true", help=f"obey {CORETYPE}, which is set aside otherwise")
    made = {}
    for name, what, each in (("steps", "NAME", 10.0), ("kernels", "STEM", 0.5)):
        parser = Parser(f"python -m benchmarks {name}", parents=[common], allow_abbrev=False)
        parser.add_argument("names", nargs="*", metavar=what, help=f"which {name} (default: all)")
        parser.add_argument(
            "--seconds", type=_positive(float), default=each, metavar="S", help=f"time for each (default: {each:g})"
        )
        parser.add_argument("--device", default="cpu", help="where to compute: cpu or cuda (default: cpu)")
        made[name] = parser
    gpu = made["gpu"] = Parser("python -m benchmarks gpu", allow_abbrev=False)
    gpu.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE, and a picture beside it")
    gpu.add_argument("--seconds", type=_positive(float), default=0.2, metavar="S", help="time for each (default: 0.2)")
    gpu.set_defaults(threads=None, torch=False, keep_coretype=False, device="cuda")
    ablation = made["ablation"] = Parser("python -m benchmarks ablation", allow_abbrev=False)
    ablation.add_argument("--data", default="digits", metavar="DATA", help="what to train on, as minigen train takes it")
    ablation.add_argument("--steps", type=_positive(int), default=1600, metavar="N", help="updates of each run (default: 1600)")
    ablation.add_argument("--seed", type=int, default=0, help="of all runs (default: 0)")
    ablation.add_argument("--out", type=Path, metavar="FILE", help="also write the table to FILE, as Markdown")
    ablation.set_defaults(threads=None, torch=False, json=None, keep_coretype=False, device="cpu")
    scaling = made["scaling"] = Parser("python -m benchmarks scaling", parents=[common], allow_abbrev=False)
    scaling.add_argument("names", nargs="*", metavar="SWEEP", help="batch, image, hidden, length (default: all)")
    scaling.add_argument("--seconds", type=_positive(float), default=4.0, metavar="S", help="time for each size (default: 4)")
    scaling.add_argument("--plot", type=Path, metavar="FILE", help="also draw the table to FILE, a PNG")
    scaling.set_defaults(device="cpu")
    made["steps"].add_argument("--compile", action="store_true", help="with --torch: time what torch.compile makes of it, too")
    made["steps"].add_argument("--profile", action="store_true", help="also show where minigen's time goes, op by op")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    parsers = _parsers()
    if not args or args[0] in ("-h", "--help"):
        print(f"{(sys.modules['benchmarks'].__doc__ or '').strip()}\n\n--help after any of them lists its options.")
        return 0
    if args[0] not in parsers:
        print(f"python -m benchmarks: unknown {args[0]!r}{suggest(args[0], parsers)}", file=sys.stderr)
        return 2
    try:
        options = parsers[args[0]].parse_args(args[1:])
    except SystemExit as e:
        return int(e.code or 0)
    if options.threads:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(options.threads)))
    if not options.keep_coretype:
        _set_coretype_aside()
    try:
        return _report_errors(args[0], options)
    except ModuleNotFoundError as e:
        print(f"python -m benchmarks: {e}; from the project's root: pip install -e .", file=sys.stderr)
        return 2


def _set_coretype_aside() -> None:
    """Let OpenBLAS choose its kernels for this processor, as PyTorch's libraries do, and say so.

    Held to the kernels of an older processor it runs at half its speed and less, which says nothing about either library.
    """
    held = os.environ.pop(CORETYPE, None)
    if held is not None:
        print(f"{CORETYPE}={held} is set aside (--keep-coretype obeys it)")


def _report_errors(command: str, options: argparse.Namespace) -> int:
    from minigen.errors import UserError  # NumPy, and with it BLAS, is loaded here

    try:
        return _run(command, options)
    except UserError as e:
        print(f"python -m benchmarks {command}: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(command: str, options: argparse.Namespace) -> int:
    from minigen.kernels import threads

    from benchmarks.harness import ablation, gpu, kernels, report, scaling, steps
    from minigen import device
    from minigen.errors import UserError

    device.require(options.device)
    if getattr(options, "compile", False) and not (options.torch and options.device == "cpu"):
        raise UserError("--compile goes with --torch, and with --device cpu")
    report.check_path(options.json)
    if options.torch:
        report.require_torch()
    if options.threads:
        try:
            threads.set_num_threads(options.threads)
        except ValueError as e:
            raise UserError(f"--threads: {e}") from e
    commands = {
        "steps": steps.run, "kernels": kernels.run, "scaling": scaling.run, "ablation": ablation.run, "gpu": gpu.run,
    }  # fmt: skip
    return commands[command](options)
