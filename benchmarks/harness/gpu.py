"""`python -m benchmarks gpu`: proof and figures on a GPU by one command.

First the tests of CUDA kernels, which on a computer without a GPU run on the emulator; here on the device. Then the kernels and
the steps, with the device's own ceilings and, where PyTorch sees the GPU, beside PyTorch, into one JSON file, and beside it a
picture of every kernel under its roof. Each part has a limit of time, and what was found by then is kept.

With MINIGEN_CUDA=emulated everything is small: a rehearsal, which says so in the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import report

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["test_cuda", "test_device_array", "test_parity_cuda", "test_gradients_cuda", "test_scan_cuda", "test_train_cuda"]
LIMITS = {"tests": 200, "kernels": 175, "steps": 150}  # seconds; the whole takes less than nine minutes


def run(options: argparse.Namespace) -> int:
    """The command. Returns 0, or 1 if a test failed or a part did not end in time."""
    from minigen.kernels import cuda

    backend = cuda.backend()
    small = backend.name == "emulated"
    report.say_machine("cuda")
    found: dict[str, Any] = {"device": backend.describe(), "rehearsal": small}
    tests = [f"tests/{name}.py" for name in (TESTS[:1] if small else TESTS)]
    where = {} if small else {"MINIGEN_TEST_CUDA": "gpu"}
    found["tests"] = _part("tests", [sys.executable, "-m", "pytest", "-q", *tests], where)
    torch = ["--torch"] if report.torch_facts()["sees_gpu"] and not small else []
    for what, names in (("kernels", ["gather"] if small else []), ("steps", ["mlp_gan"] if small else [])):
        found[what] = _measured(what, [*names, *torch], options.seconds)
    report.write_json(options.json, found, "cuda")
    if options.json and "found" in found["kernels"]:
        picture = options.json.with_suffix(".png")
        _roofline(picture, found["device"], found["kernels"]["found"])
        report.say(f"{options.json} and {picture}")
    failed = [what for what in LIMITS if found[what]["code"] != 0]
    report.say(f"failed: {', '.join(failed)}" if failed else "all parts are done, and no test failed")
    return 1 if failed else 0


def _part(name: str, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Exit code, seconds, and the last lines of a command's output, which is shown as it comes."""
    report.say(f"\n{name}: {' '.join(command[1:])}")
    start, lines = time.perf_counter(), []
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        limit = threading.Timer(LIMITS[name], _stop, [process])  # a kernel that hangs says nothing: nobody waits for a line
        limit.start()
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip())
            code = process.wait()
        except KeyboardInterrupt:  # does not reach another session
            _stop(process)
            raise
        finally:
            limit.cancel()
    seconds = time.perf_counter() - start
    if seconds > LIMITS[name]:
        lines.append(f"stopped after {LIMITS[name]} s")
    return {"code": code, "seconds": round(seconds, 1), "said": lines[-12:]}


def _stop(process: subprocess.Popen[str]) -> None:
    """End it with all processes that it started: one of them may be what hangs, and holds the other end of the pipe."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _measured(what: str, arguments: list[str], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks", what, *arguments, "--device", "cuda", "--seconds", str(seconds)]
        part = _part(what, [*command, "--json", str(file)], {})
        with contextlib.suppress(OSError, ValueError):  # stopped before it was written, or meanwhile
            part["found"] = json.loads(file.read_text())
    return part


def _roofline(path: Path, device: str, measured: dict[str, Any]) -> None:
    """Operations a second over operations a byte, for each kernel, under what the device can do (Williams et al. 2009)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    roof, bandwidth = measured["ceilings"]["gflops"], measured["ceilings"]["gbs"]
    for kernel, shapes in measured["kernels"].items():
        points = [(e["gflops"] / e["gbs"], e["gflops"]) for e in shapes.values() if e["gflops"] and e["gbs"]]
        if points:
            axes.scatter(*zip(*points, strict=True), s=18, label=kernel)
    x = np.logspace(-2, 4, 200)
    axes.plot(x, np.minimum(roof, x * bandwidth), color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", title=device)
    axes.legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)
