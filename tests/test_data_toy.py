"""The toy distributions: where their points lie, and that the seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from minigen import data
from minigen.data import toy
from minigen.errors import UserError


@pytest.mark.parametrize(
    "name, modes, sigma, reach", [("8gaussians", 8, 0.02, 2), ("25gaussians", 25, 0.05, 4)]
)
def test_mixtures_lie_around_their_centers(name, modes, sigma, reach):
    ds = data.load(name, seed=5)
    assert ds.kind == "points" and ds.images.dtype == np.float32
    assert ds.images.shape == (toy.TRAIN, 2) and ds.test_images.shape == (toy.TEST, 2)
    assert ds.centers.shape == (modes, 2) and ds.sigma == sigma and len(ds.classes) == modes
    assert np.abs(ds.centers).max() == reach
    offsets = ds.images - ds.centers[ds.labels]
    np.testing.assert_allclose(offsets.std(axis=0), sigma, rtol=0.02)
    np.testing.assert_allclose(offsets.mean(axis=0), 0, atol=5 * sigma / np.sqrt(toy.TRAIN))
    share = np.bincount(ds.labels, minlength=modes) * modes / toy.TRAIN
    np.testing.assert_allclose(share, 1, atol=0.1)
    distance = np.linalg.norm(ds.centers[:, None] - ds.centers[None], axis=-1)
    assert distance[distance > 0].min() > 20 * sigma  # the modes are apart


def test_the_ring_and_the_grid():
    np.testing.assert_allclose(np.linalg.norm(toy.mixture("8gaussians")[0], axis=1), 2, rtol=1e-6)
    assert {tuple(center) for center in toy.mixture("25gaussians")[0].tolist()} == {
        (x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    }


def test_swissroll_winds_outwards():
    ds = data.load("swissroll")
    assert ds.labels is None and ds.centers is None and ds.sigma is None
    radius = np.linalg.norm(ds.images, axis=1) * 7.5
    assert 1.5 * np.pi - 1.5 < radius.min() < radius.max() < 4.5 * np.pi + 1.5
    # a point at radius t lies at angle t, so the radius predicts the direction
    turned = np.stack([np.cos(radius), np.sin(radius)], axis=1) * radius[:, None] / 7.5
    assert np.linalg.norm(turned - ds.images, axis=1).mean() < 0.5


@pytest.mark.parametrize("name", toy.NAMES)
def test_toys_depend_on_the_seed(name):
    one, same, other = data.load(name, seed=1), data.load(name, seed=1), data.load(name, seed=2)
    np.testing.assert_array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)
    assert not np.array_equal(toy.draw(name, 50, 1, stream=0)[0], toy.draw(name, 50, 1, stream=1)[0])
    np.testing.assert_array_equal(toy.draw(name, toy.TEST, 1, stream=1)[0], one.test_images)
    with pytest.raises(UserError, match=f"{name} .*no image size"):
        data.load(name, size=8)
