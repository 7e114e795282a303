"""Commands that say whether things are in order: the gradients, the installation, the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minigen.errors import UserError, suggest


@dataclass
class Gradcheck:
    """Check ops' gradients, first and second order, against finite differences in float64."""

    ops: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of ops; none means all."""
    order: int = 2
    """The highest order."""
    device: Literal["cpu", "cuda", "emulated"] = "cpu"
    """Where to compute: cpu; cuda; or emulated, the CUDA kernels on this computer."""
    races: bool = False
    """With emulated: watch every access to memory, and name races and accesses outside of arrays by file and line."""

    def __call__(self) -> int:
        from minigen.device import require

        if self.order < 1:
            raise UserError(f"--order must be at least 1, not {self.order}")
        if self.races and self.device != "emulated":
            raise UserError("--races needs --device emulated")
        if self.device != "emulated":
            require(self.device)
            return self._run()
        from minigen.kernels import cuda, emulator

        if reason := emulator.missing():
            raise UserError(f"cannot use --device emulated: {reason}")
        with cuda.using(cuda.Emulated(self.races)):
            try:
                return self._run()
            except emulator.KernelFault as fault:
                print(fault)
                return 1

    def _run(self) -> int:
        import numpy as np

        from minigen import ops as operations
        from minigen.gradcheck import measure

        examples = operations.examples()
        for name in self.ops:
            if name not in examples:
                raise UserError(f"no op is called {name!r}{suggest(name, examples)}")
        header = f"{'op':<20}" + "".join(f"{f'order {n}':>10}" for n in range(1, self.order + 1)) + "  worst entry"
        print(f"{header}\n{'-' * 79}")
        failed = 0
        for name in self.ops or tuple(examples):
            rows = []
            for e in examples[name]:
                order, device = min(self.order, e.order), "cpu" if self.device == "cpu" else "cuda"
                rows.append(measure(e.f, *e.sample(np.random.default_rng(0)), order=order, device=device))
            worst = [max((r[n] for r in rows if n < len(r)), key=_badness, default=None) for n in range(self.order)]
            known = [w for w in worst if w is not None]
            bad = [w for w in known if not w.ok]
            failed += bool(bad)
            last = max(bad or known, key=_badness)
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
        from minigen.kernels import blas, matmul, threads

        versions = ", ".join(f"{p} {version(p)}" for p in ("numpy", "numba", "pillow", "safetensors", "matplotlib"))
        print(f"minigen   {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
        print(f"packages  {versions}")
        print(f"cpu       {threads.get_num_threads()} threads; products: {blas.describe()}")
        print(f"cuda      {cuda_status()}")
        print(f"kernels   compiled when first used, and kept in {matmul._tiles._cache.cache_path}")
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
