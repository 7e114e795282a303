"""Random numbers by counting: those of block i are a function of (seed, i), so all of them can be worked out at once.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3) makes of a counter c of four
words under a key k of two, all of 32 bits, a block of four random words, by ten rounds of

    c <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))       hi, lo: the halves of a product of 64 bits
    k <- (k0 + W0, k1 + W1)                                                     modulo 2^32, between rounds

A state is (seed, counter): the key is the seed's lower and upper word, and block i of a draw has the counter words
(lower, upper of counter + i, 0, 0). A draw moves the counter on by as many blocks as it used, so that draws never overlap.

    u = (w >> 8) / 2^24                          one word w, float32: four numbers a block
    u = (w0 + 2^32 w1 >> 11) / 2^53              two words, float64: two numbers a block

    z0, z1 = sqrt(-2 log(1 - u0)) (cos 2 pi u1, sin 2 pi u1)                    Box and Muller 1958

u is in [0, 1), so 1 - u is never 0, and no |z| is above 5.8 in float32 or 8.6 in float64.

On a device the state is in the device's memory and moves on there. A step that was captured as a graph therefore draws other
numbers in each replay; a counter that the host handed over would be frozen with it.
"""

from __future__ import annotations

import math

import numpy as np

from minigen.dispatch import kernel

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF


def philox_4x32(counter_4b, key_2):
    """Four words of 32 bits for each of B counters. Counter: four arrays (B,) of uint64; key: two numbers -> uint64 (4, B)."""
    c0, c1, c2, c3 = counter_4b
    k0, k1 = key_2
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & WORD, (p0 >> 32) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return np.stack([c0, c1, c2, c3])


@kernel("philox")
def philox_uniform(state_2, shape, dtype):
    """Uniform numbers in [0, 1), float32 or float64, from a state (seed, counter) of int64, which moves on."""
    return _shaped(_uniform(state_2, math.prod(shape), dtype), shape, dtype)


@kernel("philox")
def philox_normal(state_2, shape, dtype):
    """Standard normal numbers, float32 or float64, from a state (seed, counter) of int64, which moves on."""
    u = _uniform(state_2, math.prod(shape), dtype)
    radius, angle = np.sqrt(-2 * np.log(1 - u[0::2])), 2 * np.pi * u[1::2]
    return _shaped(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1), shape, dtype)


def _uniform(state_2, count, dtype):
    """At least `count` numbers, in float64: those of whole blocks."""
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"philox: random numbers are float32 or float64, not {dtype}")
    blocks = -(-count * dtype.itemsize // 16)
    seed, counter = state_2.astype(np.uint64)
    at = counter + np.arange(blocks, dtype=np.uint64)
    words = philox_4x32([at & WORD, at >> 32, 0 * at, 0 * at], [int(seed) & WORD, int(seed) >> 32])
    state_2[1] += blocks
    found = (words >> 8) * 2.0**-24 if dtype == np.float32 else (words[0::2] + (words[1::2] << 32) >> 11) * 2.0**-53
    return found.T.reshape(-1)


def _shaped(numbers, shape, dtype):
    return numbers[: math.prod(shape)].astype(dtype).reshape(shape)
