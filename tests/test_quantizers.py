"""The quantiser layers: what they return, how their codebooks learn, and that dead codes come back."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import nn, ops
from minigen.nn.vq import kmeans_plus_plus, perplexity

ALL = pytest.mark.parametrize("kind", list(nn.QUANTIZERS))


def made(kind, num_codes=5, dim=3, **options):
    mg.seed(0)
    return nn.QUANTIZERS[kind](num_codes, dim, **({"init": "uniform"} | options))


def fill(quantizer, codes):
    """The codebook, as if training had led there."""
    quantizer._set(slice(None), np.asarray(codes, np.float32))


@ALL
@pytest.mark.parametrize("shape", [(7, 3), (2, 4, 3), (2, 3, 4, 5)])
def test_the_result(kind, shape):
    q = made(kind)
    fill(q, np.random.default_rng(0).standard_normal((5, 3)))
    q.training = False
    z = mg.randn(*shape)
    found = q(z)
    vectors = z.data.transpose(0, 2, 3, 1) if len(shape) == 4 else z.data
    codes = q.codes().data
    expected = ((vectors[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(found.indices, expected)
    chosen = codes[expected].transpose(0, 3, 1, 2) if len(shape) == 4 else codes[expected]
    np.testing.assert_array_equal(found.quantized.data, chosen)
    shares = np.bincount(expected.reshape(-1), minlength=5) / expected.size
    assert found.perplexity == pytest.approx(np.exp(-sum(p * np.log(p) for p in shares if p)))
    np.testing.assert_array_equal(q.lookup(found.indices).data, chosen)


def test_the_losses_and_their_gradients():
    """vq: |q - sg z|^2 + beta |sg q - z|^2 as means; the codes get the gradient of the first term, z that of the second."""
    q = made("vq", beta=0.5)
    fill(q, np.random.default_rng(0).standard_normal((5, 3)))
    z = mg.tensor(np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32), requires_grad=True)
    found = q(z)
    chosen = q.weight.data[found.indices]
    mean = np.mean((chosen - z.data) ** 2)
    assert found.loss.item() == pytest.approx(1.5 * mean, rel=1e-5)
    dz, dw = mg.grad(found.loss, [z, q.weight])
    np.testing.assert_allclose(dz.data, 0.5 * 2 / 21 * (z.data - chosen), rtol=1e-4, atol=1e-7)
    expected = np.zeros((5, 3))
    np.add.at(expected, found.indices, 2 / 21 * (chosen - z.data))
    np.testing.assert_allclose(dw.data, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["ema", "rotation"])
def test_running_means_follow_the_formulas(kind):
    q = made(kind, decay=0.9, eps=1e-3)
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((5, 3)).astype(np.float32)
    fill(q, codes)
    counts, sums = np.ones(5), codes.astype(np.float64)
    for _ in range(4):
        z = rng.standard_normal((40, 3)).astype(np.float32)
        index = ((z[:, None] - codes) ** 2).sum(-1).argmin(1)
        found = q(mg.tensor(z))
        np.testing.assert_array_equal(found.indices, index)
        assert found.loss.item() == pytest.approx(0.25 * np.mean((codes[index] - z) ** 2), rel=1e-5)
        for k in range(5):
            counts[k] = 0.9 * counts[k] + 0.1 * (index == k).sum()
            sums[k] = 0.9 * sums[k] + 0.1 * z[index == k].sum(0)
        smoothed = (counts + 1e-3) / (counts.sum() + 5e-3) * counts.sum()
        codes = (sums / smoothed[:, None]).astype(np.float32)
        np.testing.assert_allclose(q.weight, codes, rtol=1e-4, atol=1e-5)


@ALL
def test_the_gradient_before_the_codebook(kind):
    q = made(kind)
    fill(q, np.random.default_rng(0).standard_normal((5, 3)))
    z, dy = mg.randn(7, 3), mg.randn(7, 3)
    z.requires_grad = True
    found = q(z)
    (dz,) = mg.grad((found.quantized * dy).sum(), z)
    chosen = mg.tensor(found.quantized.data)
    if kind == "rotation":
        (expected,) = mg.grad(ops.rotation_trick(z, chosen), z, dy)
        np.testing.assert_allclose(dz.data, expected.data, rtol=1e-5)
        assert np.abs(dz.data - dy.data).max() > 0.1
    else:
        np.testing.assert_array_equal(dz.data, dy.data)


@ALL
def test_evaluation_moves_nothing(kind):
    q = made(kind, init="kmeans++", revive_after=1)
    q(mg.randn(50, 3))
    nn.set_training(q, False)
    before = nn.state_dict(q)
    q(mg.randn(50, 3))
    for name, value in nn.state_dict(q).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@ALL
def test_a_dead_code_comes_back(kind):
    """Code 4 is far from everything: never chosen, and replaced after three batches by a vector of the batch."""
    q = made(kind, revive_after=3)
    rng = np.random.default_rng(0)
    fill(q, np.concatenate([rng.standard_normal((4, 3)), np.full((1, 3), 100.0)]))
    for batch in range(3):
        z = rng.standard_normal((200, 3)).astype(np.float32)
        found = q(mg.tensor(z))
        assert 4 not in found.indices
        assert q.revived == (batch == 2)
    assert (np.abs(z - q.codes().data[4]).max(1) == 0).any()
    q(mg.tensor(rng.standard_normal((2000, 3)).astype(np.float32)))
    assert q.unused[4] == 0


@ALL
def test_without_revival_it_stays_dead(kind):
    q = made(kind)
    fill(q, [[0, 0, 0], [100, 100, 100], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    for _ in range(20):
        q(mg.randn(50, 3))
    assert q.unused[1] == 20 and q.revived == 0


@ALL
def test_it_begins_with_vectors_of_the_first_batch(kind):
    q = made(kind, init="kmeans++")
    z = mg.randn(50, 3)
    found = q(z)
    chosen = np.unique(found.quantized.data, axis=0)
    assert len(chosen) == 5 and all((np.abs(z.data - c).max(1) < 1e-6).any() for c in chosen)


def test_kmeans_plus_plus_spreads():
    """Of ten far groups it takes one vector each; chance alone would do so once in 2,755 times."""
    rng = np.random.default_rng(0)
    z = (np.repeat(np.arange(10), 30)[:, None] * 100 + rng.standard_normal((300, 2))).astype(np.float32)
    mg.seed(1)
    assert sorted((kmeans_plus_plus(z, 10)[:, 0] / 100).round()) == list(range(10))
    assert kmeans_plus_plus(np.zeros((4, 2), np.float32), 6).shape == (6, 2)


def test_perplexity():
    assert perplexity(np.array([3, 3, 3, 0])) == pytest.approx(3)
    assert perplexity(np.array([0, 9])) == 1


@ALL
@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_codes": 0}, "at least one code"), ({"init": "zeros"}, 'init is "kmeans'), ({"revive_after": -1}, "negative")],
)
def test_what_it_refuses(kind, options, message):
    with pytest.raises(ValueError, match=message):
        made(kind, **options)
    with pytest.raises(ValueError, match="3 dimensions"):
        made(kind)(mg.randn(4, 2))
