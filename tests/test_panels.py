"""What scans and the quantiser are made of on the CPU: products with panels, and cells that stay in float32."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from minigen.kernels import panels
from numba import config, types
from numba.core.compiler import run_frontend
from numba.core.registry import cpu_target
from numba.core.typed_passes import type_inference_stage


@pytest.mark.parametrize("rows", [1, panels.ROWS])
@pytest.mark.parametrize(("k", "n"), [(5, 3), (20, panels.WIDTH), (7, 2 * panels.WIDTH + 9), (2 * panels.DEEPEST + 1, 70)])
def test_a_product_with_panels_is_the_product(rows, k, n):
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((rows, k)), rng.standard_normal((k, n)), rng.standard_normal((rows, n))
    in_panels, before = panels.panels(b), c.copy()
    assert in_panels.shape == (k * n,)
    panels.product(a, in_panels, 0.0, c)
    np.testing.assert_allclose(c, a @ b, rtol=0, atol=1e-13 * k)
    panels.product(a, in_panels, 2.0, c)
    np.testing.assert_allclose(c, 3 * (a @ b), rtol=0, atol=4e-13 * k)
    wanted = before + a @ b
    panels.add_product(a, in_panels, before)
    np.testing.assert_allclose(before, wanted, rtol=0, atol=1e-13 * k)


def test_panels_of_nothing_add_nothing():
    c = np.ones((2, 3))
    for empty in panels.panels_both_ways(None, c.dtype):
        panels.add_product(np.ones((2, 4)), empty, c)
    assert (c == 1).all()


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
@pytest.mark.parametrize("stem", ["rnn", "gru", "gru_cho", "lstm"])
def test_a_compiled_cell_computes_float32_in_float32(stem):
    """A plain 1 beside a float32 makes a float64: right, and half as fast."""
    kernels = importlib.import_module(f"minigen.kernels.{stem}")
    typing, target = cpu_target.typing_context, cpu_target.target_context
    typing.refresh()
    target.refresh()
    cells = {name: f for name, f in vars(kernels).items() if name.startswith("_cell")}
    assert len(cells) >= 4
    for name, f in cells.items():
        rows = (types.float32[::1],) * f.py_func.__code__.co_argcount
        inferred = type_inference_stage(typing, target, run_frontend(f.py_func), rows, None).typemap
        found = {kind for kind in inferred.values() if isinstance(kind, types.Float)}
        assert found == {types.float32}, name
