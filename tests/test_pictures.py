"""Grids and curves hold what they should."""

from __future__ import annotations

import numpy as np
from PIL import Image

from minigen.train import pictures


def test_grid_places_every_tile_in_reading_order():
    x = np.full((3, 1, 8, 8), -1, np.float32)
    x[1] = 1.0
    picture = pictures.grid(x, columns=2)
    first, second = slice(2, 2 + pictures.TILE), slice(4 + pictures.TILE, 4 + 2 * pictures.TILE)
    assert picture.shape == (6 + 2 * pictures.TILE, 6 + 2 * pictures.TILE, 3)
    assert (picture[first, first] == 0).all() and (picture[first, second] == 255).all()
    assert (picture[second, first] == 0).all() and (picture[second, second] == 96).all()  # no fourth tile


def test_colour_and_size_are_kept():
    x = np.zeros((1, 3, 32, 32), np.float32)
    x[0, 0], x[0, 2] = 1.0, -1.0
    assert (pictures.grid(x)[2:34, 2:34] == [255, 128, 0]).all()


def test_curves_and_points_are_drawn(tmp_path):
    records = [{"step": i, "wasserstein": np.sin(i), "penalty": i * 100.0} for i in range(1, 50)]
    pictures.save_curves(tmp_path / "c.png", records)
    assert Image.open(tmp_path / "c.png").size == (700, 380)
    assert np.asarray(Image.open(tmp_path / "c.png").convert("L")).std() > 5
    pictures.save_samples(tmp_path / "p.png", np.random.default_rng(0).standard_normal((100, 2)))
    assert np.asarray(Image.open(tmp_path / "p.png").convert("L")).std() > 5
    pictures.save_curves(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()
