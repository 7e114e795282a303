"""Shared by all tests: where real data may be, and a fresh random generator for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

import minigen as mg

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seeded() -> None:
    mg.seed(0)


@pytest.fixture
def real_mnist() -> Path:
    """A folder with the real MNIST files; the test skips where there is none."""
    folder = ROOT.parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("real MNIST is not here (../shared/data/mnist)")
    return folder
