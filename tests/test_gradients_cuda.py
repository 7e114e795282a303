"""First and second derivatives of every op, computed by CUDA kernels on the emulator, against finite differences.

Along one random direction for each input: an entry at a time is what tests/test_gradients.py does on the CPU.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from minigen.kernels import cuda, emulator

from minigen import ops

gradcheck = importlib.import_module("minigen.gradcheck")  # mg.gradcheck is the function

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


@pytest.mark.parametrize("name", ops.examples())
def test_gradients_on_the_device(name, monkeypatch):
    monkeypatch.setattr(gradcheck, "ELEMENTWISE_LIMIT", 0)
    with cuda.using(cuda.Emulated()):
        for e in ops.examples()[name]:
            found = gradcheck.measure(e.f, *e.sample(np.random.default_rng(0)), order=min(2, e.order), device="cuda")
            assert [f for f in found if not f.ok] == []


def test_a_tensor_goes_there_and_back_and_so_does_its_gradient():
    import minigen as mg

    with cuda.using(cuda.Emulated()):
        x = mg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
        y = x.to("cuda")
        assert (x.device, y.device) == ("cpu", "cuda") and y.to("cuda") is y
        (g,) = mg.grad((y * y).sum().to("cpu"), x)
        assert g.device == "cpu" and np.array_equal(g.data, 2 * x.data)
        assert "tensor(" in repr(y) and np.array_equal(y.detach().numpy(), x.data)


def test_a_cotangent_of_the_host_goes_to_where_the_output_is():
    """A fused backward cannot read it anywhere else."""
    import minigen as mg

    with cuda.using(cuda.Emulated()):
        x = mg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True, device="cuda")
        loss, y = ops.cross_entropy(x, [2, 0]), ops.bias_act(x, mg.tensor(np.zeros(3), device="cuda"), 0.5)
        (once,), (twice,) = mg.grad(loss, x, 1.0, retain_graph=True), mg.grad(loss, x, np.float64(2))
        np.testing.assert_array_equal(twice.data.get(), 2 * once.data.get())
        np.testing.assert_array_equal(mg.grad(y, x, -np.ones((2, 3)))[0].data.get(), [[-0.5, -1, -1], [-1, -1, -1]])
