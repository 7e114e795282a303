"""Units of a likelihood.

A model that gives every image a probability is judged by its negative logarithm on held-out images, in nats per image: with
binary pixels 784 log 2 = 543.4 is a coin for each pixel of 28x28. Divided by the number of values and by log 2 it is bits per
dimension, which can be compared between sizes: what an ideal compressor of this model would spend on each value. 8 is a guess
among 256 levels.

    >>> round(bits_per_dim(784 * math.log(2), 784), 6)
    1.0

Numbers are comparable only under one protocol: grey levels as they are, or binarised by a threshold, or by a random draw for
each pixel. The three are different data.
"""

from __future__ import annotations

import math


def bits_per_dim(nats: float, values: int) -> float:
    """nats per image of so many values (pixels times channels) -> bits for each of them."""
    return nats / (values * math.log(2))
