"""The heap keeps its pages: arrays made again and again cost page faults once. And it leaves the user's own settings alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from minigen.kernels import heap

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        x = np.ones(500_000)            # 4 MB, about 1,000 pages
        y = x + x
        del x, y
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(heap.kept, faults(20))
"""


def run(code, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_pages_are_faulted_in_once():
    kept, faults = run(FAULTS)
    assert kept == "True" and int(faults) < 500


@pytest.mark.parametrize("variable", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_user_who_has_set_up_the_heap_keeps_it(variable):
    value = "2" if variable.startswith("MALLOC_") else "glibc.malloc.arena_max=2"
    assert run("from minigen.kernels import heap; print(heap.kept)", **{variable: value}) == ["False"]
