"""`python -m benchmarks ablation`: what keeps a VQ-VAE's codes alive. The same run nine times, but for its quantiser.

Each of the three quantisers begins with codes from the first batch and revives dead ones; then without reviving; then with
codes from a small cube around zero besides, as the first papers had it. Used codes and their perplexity are counted over all
held-out images; PSNR is of the same images, as bytes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import report
from minigen import random
from minigen.data import to_float
from minigen.errors import UserError
from minigen.train import run as folders
from minigen.train.vqvae import VQVAE

COLUMNS = ["quantiser", "first codes", "revival", "codes used", "perplexity", "PSNR dB", "minutes"]
VARIANTS: list[dict[str, Any]] = [{}, {"revive_after": 0}, {"revive_after": 0, "init": "uniform"}]


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0."""
    if options.out is not None and not options.out.parent.is_dir():
        raise UserError(f"--out: cannot write {options.out}: no such folder")
    report.say_machine()
    rows, held_out = [], 0
    for quantizer in ("vq", "ema", "rotation"):
        for variant in VARIANTS:
            config = VQVAE(data=options.data, steps=options.steps, seed=options.seed, quantizer=quantizer, **variant)  # type: ignore[arg-type]
            row, held_out = _row(config)
            rows.append(row)
            report.say(" ".join(f"{c}: {v}," for c, v in zip(COLUMNS, row, strict=True)).rstrip(","))
    report.print_table(f"VQ-VAE on {options.data}, {options.steps} steps, {held_out} held-out images", COLUMNS, rows)
    if options.out is not None:
        _write(options.out, options, rows, held_out)
    return 0


def _row(config: VQVAE) -> tuple[list[str], int]:
    """Train one, and judge it."""
    start = time.perf_counter()
    data = config.load()
    info = folders.data_info(data)
    config.resolve(info)
    random.seed(config.seed)
    trainer = config.build(info, data)
    for _ in range(config.steps or 0):
        trainer.step()
    if not len(data.test_images):
        raise UserError(f"{data.name} has no held-out part")
    found = trainer.evaluate(to_float(data.test_images), None)
    return [
        config.quantizer, config.init, str(config.revive_after or "never"), f"{found['codes_used']} of {config.num_codes}",
        f"{found['perplexity']:.1f}", f"{found['psnr']:.2f}", f"{(time.perf_counter() - start) / 60:.1f}",
    ], len(data.test_images)  # fmt: skip


def _write(path: Path, options: argparse.Namespace, rows: list[list[str]], held_out: int) -> None:
    e = report.environment()
    lines = [
        f"`python -m benchmarks ablation --data {Path(options.data).name} --steps {options.steps} --seed {options.seed}`:",
        f"{held_out} held-out images, {e['processor']}, {e['threads']} threads, {e['date'][:10]}.",
        "",
        *(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)),
    ]
    try:
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"--out: cannot write {path}: {error.strerror or error}") from error
