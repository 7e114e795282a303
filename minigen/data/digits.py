"""The built-in data: 1,797 handwritten digits of 8x8 pixels, so that everything runs offline.

They are the test part of Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0;
digits.txt, beside the data, holds the attribution. Each stored value 0..16 counts the inked pixels in a 4x4
block of the scan.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minigen.data.dataset import Dataset
from minigen.data.resize import Size, fit_split

HELD_OUT = 297


def load_digits(size: Size | None = None) -> Dataset:
    """1,500 training and 297 held-out images, uint8 (N, 1, 8, 8); 0..16 is scaled to 0..255.

    The split is fixed: the last 297 images in the published order are held out.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        counts, labels = file["images"], file["labels"]
    images = np.rint(counts * np.float32(255 / 16)).astype(np.uint8)[:, None]
    labels = labels.astype(np.int64)
    train, test, notices = fit_split(images[:-HELD_OUT], images[-HELD_OUT:], size)
    return Dataset(
        name="digits",
        images=train,
        labels=labels[:-HELD_OUT],
        classes=tuple("0123456789"),
        test_images=test,
        test_labels=labels[-HELD_OUT:],
        source="Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, "
        "UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0",
        notices=notices,
    )
