"""Shared by all tests: where real data may be, a fresh random generator for each test, and when two functions are the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from minigen.kernels import cuda

import minigen as mg

ROOT = Path(__file__).resolve().parent.parent

# MINIGEN_TEST_CUDA=gpu, which `python -m benchmarks gpu` sets: what would run on the emulator runs on the GPU. What only the
# emulator can do, naming mistakes in kernels, is left out.
ON_GPU = os.environ.get("MINIGEN_TEST_CUDA") == "gpu"
ONLY_EMULATED = ("writes_outside", "named_with_it", "grid_without_blocks", "race", "dlpack_shares")
if ON_GPU:
    cuda.Emulated = lambda checked=False, seed=0: cuda.CuPy()  # type: ignore[misc,assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ON_GPU and any(word in item.name for word in ONLY_EMULATED):
            item.add_marker(pytest.mark.skip(reason="only the emulator can do this"))


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


def derivatives(f, arrays, asked=None):
    """[outputs, gradients for the `asked` inputs (indices; None: all), gradients of a penalty on those], lists of arrays.

    The penalty is differentiated for all inputs and for the cotangents, whatever was asked for at first: as WGAN-GP does,
    which asks for the gradient of the data and then differentiates it for the weights. Nothing is zero by chance.
    """
    rng = np.random.default_rng(5)
    xs = [mg.Tensor(a, True) for a in arrays]
    asked = range(len(xs)) if asked is None else asked
    outs = f(*xs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    vs = [mg.Tensor(rng.standard_normal(y.shape), True) for y in outs]
    first = mg.grad(outs, [xs[i] for i in asked], vs, create_graph=True)
    penalty = sum(((g + rng.standard_normal(g.shape)) * g).sum() for g in first)
    second = mg.grad(penalty, [*xs, *vs], allow_unused=True)
    zeros = [np.zeros(x.shape) if g is None else g.data for g, x in zip(second, [*xs, *vs], strict=True)]
    return [y.data for y in outs], [g.data for g in first], zeros


@pytest.fixture
def alike():
    """alike(f, g, arrays, asked=None): both have the same outputs, gradients, and gradients of a gradient penalty.

    In float64. They may differ by the order of some hundred additions, ten thousand epsilons of the largest entry.
    """

    def check(f, g, arrays, asked=None):
        for order, (found, wanted) in enumerate(zip(derivatives(f, arrays, asked), derivatives(g, arrays, asked), strict=True)):
            for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
                scale = max(1.0, np.abs(b).max(initial=0))
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * scale, err_msg=f"order {order}, number {i}", strict=True)

    return check
