"""Convolution by fewer multiplications (Winograd 1980; Lavin and Gray 2015, arXiv 1509.09308): the second version of `conv.py`.

**In one dimension.** Two neighbouring outputs of a filter with two taps, y_i = d_i g_0 + d_i+1 g_1, take four multiplications.
Three are enough, and the same goes for the whole trilinear form of conv.py:

    y_0 = (d_0 - d_1) g_0 + d_1 (g_0 + g_1)
    y_1 = (d_2 - d_1) g_1 + d_1 (g_0 + g_1)                form(d, g, y) = sum over q of  (B d)_q (G g)_q (A y)_q

with a matrix for each of its arguments: `MATRICES` holds them. Three taps take four multiplications instead of six. So each
derivative of the form maps two arguments, multiplies, and maps the result back by the third matrix, transposed:

    y = A' (B d * G g)                  d = B' (A y * G g)                  g = G' (B d * A y)

**In two dimensions** an image is cut into tiles of 2x2 outputs, and both directions are mapped, one after the other: 9
multiplications a tile for 2x2 taps instead of 16, and 16 for 3x3 instead of 36, one at each "place" q. Summed over channels,
the products at one place are a matrix product. With t counting tiles, and v, u, m for x, w, y when mapped:

    m_q[t,o] = v_q[t,c] @ u_q[c,o]      v_q[t,c] = m_q[t,o] @ u_q[o,c]      u_q[o,c] = m_q[t,o].T @ v_q[t,c]

**A stride** s is none if every s x s pixels are taken for s*s channels: a kernel of 4x4 with stride 2 has 2x2 taps.

**Where the time goes.** Channels are the fastest index, for then a map is a few additions of long runs. With 128 channels the
maps take half as long as the products; with 32 they take longer, and `tiling` says no.

**What it costs.** Neighbouring pixels are subtracted before they are multiplied: errors are up to three times those of
`conv.py`, and an infinite or undefined pixel spoils the whole of each tile it is in, not only the outputs that look at it.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit, prange

from . import blas
from .threads import address_of, call
from .transpose import transpose
from .unfold import ZERO

# taps: B, A, G, each with a row for every multiplication
MATRICES = {
    2: ([[1, -1, 0], [0, 1, 0], [0, -1, 1]], [[1, 0], [1, 1], [0, 1]], [[1, 0], [1, 1], [0, 1]]),
    3: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], [[1, 0], [1, 1], [1, -1], [0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
}
OUT = 2                 # outputs of a tile, in each direction
TILES = 128             # of one product: enough for BLAS to be at speed, few enough for the caches
LEAST = 16              # tiles that pay for mapping the weights
MAP = 25                # multiply-adds in the time that mapping one number takes
PART = 1024             # tiles that pay for one more partial sum of a weight gradient
AT_ONCE = 16            # outputs whose weights are mapped together: their numbers fill a cache line
ONE = np.int64(1)       # as ZERO in unfold.py


class Tiling(NamedTuple):
    """How one set of shapes is cut up."""
    images: int
    c_in: int
    c_out: int
    stride: int
    pad_y: int
    pad_x: int
    taps: int
    high: int       # tiles of an image, downwards
    wide: int       # and across
    block: int      # images that share one product
    strip: int      # rows of tiles that do; a block of several images has one strip
    parts: int      # partial sums of a weight gradient
    turned: int     # whether mapped weights are (c, o), or (o, c)


@njit(cache=True)
def _as_tiling(p):
    """The Tiling whose numbers are in the array p."""
    return Tiling(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12])


@lru_cache(maxsize=512)
def tiling(plan):
    """The Tiling for a Plan of unfold.py, or None where this algorithm cannot be used or is not worth its maps."""
    stride, taps = plan.stride_y, plan.kh // plan.stride_y
    square = plan.kh == plan.kw == taps * stride and plan.stride_x == stride and plan.step_y == plan.step_x == 1
    if taps not in MATRICES or not square or max(plan.pad_y, plan.pad_x) >= plan.kh:
        return None
    high, wide, depth = -(-plan.h_out // OUT), -(-plan.w_out // OUT), plan.c_in * stride**2
    places = (taps + 1) ** 2
    spared = plan.h_out * plan.w_out * taps**2 - high * wide * places     # for each image and pair of channels
    if (spared * depth * plan.c_out <= MAP * high * wide * places * (depth + plan.c_out)
            or plan.images * high * wide < LEAST):
        return None
    block = max(1, min(TILES // (high * wide), plan.images // 2))
    parts = 2 if 2 * block <= plan.images else 1
    while parts < 8 and 2 * parts * block <= plan.images and parts * PART <= plan.images * high * wide:
        parts *= 2
    return Tiling(plan.images, plan.c_in, plan.c_out, stride, plan.pad_y, plan.pad_x, taps, high, wide, block,
                  max(1, min(high, TILES // wide)), parts, 0)


# --- maps -------------------------------------------------------------------------------------------------------------

@njit(cache=True)
def _add_rows(t_qk, q, source, start, step, to, at, count, fresh):
    """to[at:at+count] += sum over k of t_qk[q, k] * source[start + k*step:][:count]; = if `fresh`. At most three terms."""
    # Unsigned, because for a signed index Numba tests whether it means "from the end".
    at, count, terms = np.uintp(at), np.uintp(count), 0
    first = second = third = np.uintp(0)
    a = b = c = t_qk[0, 0]
    for k in range(t_qk.shape[1]):
        if t_qk[q, k] != 0:
            if terms == 0:
                first, a = np.uintp(start + k * step), t_qk[q, k]
            elif terms == 1:
                second, b = np.uintp(start + k * step), t_qk[q, k]
            else:
                third, c = np.uintp(start + k * step), t_qk[q, k]
            terms += 1
    zero = t_qk.dtype.type(0)
    if terms == 1:
        for l in range(count):
            to[at + l] = (zero if fresh else to[at + l]) + a * source[first + l]
    elif terms == 2:
        for l in range(count):
            to[at + l] = (zero if fresh else to[at + l]) + (a * source[first + l] + b * source[second + l])
    else:
        for l in range(count):
            to[at + l] = (zero if fresh else to[at + l]) + (
                a * source[first + l] + b * source[second + l] + c * source[third + l])


@njit(cache=True)
def _map(t_qk, image, i0, i1, wide, stride, channels, tiles_ptc, at, row):
    """Rows i0..i1 of tiles of an image (h, w, c): the numbers of each, one at every place, go to tiles_ptc[:, at ...]."""
    places, taps = t_qk.shape
    run = stride * channels
    width, depth = (OUT * (wide - 1) + taps) * run, stride * run
    tiles, place = tiles_ptc.reshape(tiles_ptc.size), tiles_ptc.shape[1] * depth
    for i in range(i0, i1):
        for phase in range(stride):
            for q_y in range(places):
                _add_rows(t_qk, q_y, image, (OUT * i * stride + phase) * width, stride * width, row, ZERO, width, True)
                for j in range(wide):
                    to = q_y * places * place + (at + (i - i0) * wide + j) * depth + phase * run
                    for q_x in range(places):
                        _add_rows(t_qk, q_x, row, OUT * j * run, run, tiles, to + q_x * place, run, True)


@njit(cache=True)
def _map_back(t_kq, tiles_ptc, at, i0, i1, wide, stride, channels, image, row):
    """The transpose of `_map`, given its matrix transposed: adds to the image what the tiles of rows i0..i1 make of it."""
    taps, places = t_kq.shape
    run = stride * channels
    width, depth = (OUT * (wide - 1) + taps) * run, stride * run
    tiles, place = tiles_ptc.reshape(tiles_ptc.size), tiles_ptc.shape[1] * depth
    for i in range(i0, i1):
        for phase in range(stride):
            row[:places * width] = 0
            for q_y in range(places):
                for j in range(wide):
                    start = q_y * places * place + (at + (i - i0) * wide + j) * depth + phase * run
                    for k in range(taps):
                        _add_rows(t_kq, k, tiles, start, place, row, q_y * width + (OUT * j + k) * run, run, False)
            for k in range(taps):
                to = ((OUT * i + k) * stride + phase) * width
                _add_rows(t_kq, k, row, ZERO, width, image, to, width, False)


# --- images and tiles -------------------------------------------------------------------------------------------------
# Of each image, or each output's weights, only one is laid out at a time: in `image`, with the channels last.

@njit(cache=True)
def _to_tiles(t_qk, x_nchw, n0, n1, i0, i1, high, wide, stride, pad_y, pad_x, tiles_ptc, image, row):
    """Rows i0..i1 of the tiles of images n0..n1. Of a new image i0 is 0, and further rows of it follow in further calls."""
    channels, h, w = x_nchw.shape[1:]
    x_flat = x_nchw.reshape(x_nchw.size)
    height, width = stride * (OUT * (high - 1) + t_qk.shape[1]), stride * (OUT * (wide - 1) + t_qk.shape[1])
    for n in range(n0, n1):
        if i0 == 0:
            image[:height * width * channels] = 0
            for i in range(min(h, height - pad_y)):
                transpose(x_flat, (n * channels * h + i) * w, h * w, channels, min(w, width - pad_x),
                          image, ((i + pad_y) * width + pad_x) * channels, channels)
        _map(t_qk, image, i0, i1, wide, stride, channels, tiles_ptc, (n - n0) * (i1 - i0) * wide, row)


@njit(cache=True)
def _from_tiles(t_kq, tiles_ptc, at, n0, n1, i0, i1, high, wide, stride, pad_y, pad_x, x_nchw, image, row):
    """The transpose: images n0..n1 are sums of what their tiles make of them, of which the first is number `at`."""
    channels, h, w = x_nchw.shape[1:]
    x_flat, size = x_nchw.reshape(x_nchw.size), channels * h * w
    height, width = stride * (OUT * (high - 1) + t_kq.shape[0]), stride * (OUT * (wide - 1) + t_kq.shape[0])
    rows, columns = min(h, height - pad_y), min(w, width - pad_x)
    for n in range(n0, n1):
        if i0 == 0:
            image[:height * width * channels] = 0
        _map_back(t_kq, tiles_ptc, at + (n - n0) * (i1 - i0) * wide, i0, i1, wide, stride, channels, image, row)
        if i1 == high:
            if rows < h or columns < w:
                x_flat[n * size:(n + 1) * size] = 0     # pixels that no window sees
            for i in range(rows):
                transpose(image, ((i + pad_y) * width + pad_x) * channels, channels, columns, channels,
                          x_flat, n * size + i * w, h * w)


# --- what each thread does --------------------------------------------------------------------------------------------
# `maps` is B, A, G, B', A', G'; v_ptc and m_pto hold one block of tiles, `row` a row of them.

@njit(cache=True)
def _forward(t, workers, tiling_p, maps, x, u_pco, y, v_ptc, m_pto, image, row):
    p = _as_tiling(tiling_p)
    for n0 in range(t * p.block, p.images, workers * p.block):
        n1 = min(n0 + p.block, p.images)
        for i0 in range(0, p.high, p.strip):
            i1 = min(i0 + p.strip, p.high)
            tiles = (n1 - n0) * (i1 - i0) * p.wide
            _to_tiles(maps[0], x, n0, n1, i0, i1, p.high, p.wide, p.stride, p.pad_y, p.pad_x, v_ptc, image[0], row)
            for q in range(u_pco.shape[0]):
                blas.gemm(v_ptc[q, :tiles], u_pco[q], 0.0, m_pto[q, :tiles])
            _from_tiles(maps[4], m_pto, ZERO, n0, n1, i0, i1, p.high, p.wide, ONE, ZERO, ZERO, y, image[1], row)


@njit(cache=True)
def _transpose(t, workers, tiling_p, maps, x, u_poc, y, v_ptc, m_pto, image, row):
    p = _as_tiling(tiling_p)
    for n0 in range(t * p.block, p.images, workers * p.block):
        n1 = min(n0 + p.block, p.images)
        for i0 in range(0, p.high, p.strip):
            i1 = min(i0 + p.strip, p.high)
            tiles = (n1 - n0) * (i1 - i0) * p.wide
            _to_tiles(maps[1], y, n0, n1, i0, i1, p.high, p.wide, ONE, ZERO, ZERO, m_pto, image[1], row)
            for q in range(u_poc.shape[0]):
                blas.gemm(m_pto[q, :tiles], u_poc[q], 0.0, v_ptc[q, :tiles])
            _from_tiles(maps[3], v_ptc, ZERO, n0, n1, i0, i1, p.high, p.wide, p.stride, p.pad_y, p.pad_x, x, image[0], row)


@njit(cache=True)
def _weight(t, workers, tiling_p, maps, x, u_qoc, y, v_ptc, m_pto, image, row):
    """Partial sums u_qoc[(part, place)], each over the same images whatever the number of workers."""
    p = _as_tiling(tiling_p)
    blocks, places = (p.images + p.block - 1) // p.block, v_ptc.shape[0]
    for part in range(t, p.parts, workers):
        first, last = part * blocks // p.parts * p.block, (part + 1) * blocks // p.parts * p.block
        for n0 in range(first, min(last, p.images), p.block):
            n1 = min(n0 + p.block, p.images)
            for i0 in range(0, p.high, p.strip):
                i1 = min(i0 + p.strip, p.high)
                tiles = (n1 - n0) * (i1 - i0) * p.wide
                _to_tiles(maps[0], x, n0, n1, i0, i1, p.high, p.wide, p.stride, p.pad_y, p.pad_x, v_ptc, image[0], row)
                _to_tiles(maps[1], y, n0, n1, i0, i1, p.high, p.wide, ONE, ZERO, ZERO, m_pto, image[1], row)
                for q in range(places):
                    blas.gemm(m_pto[q, :tiles].T, v_ptc[q, :tiles], 0.0 if n0 == first and i0 == 0 else 1.0,
                              u_qoc[part * places + q])


@njit(cache=True)
def _map_weights(t, workers, tiling_p, maps, w_oikk, u, y, v_ptc, m_pto, image, row):
    """Each output's weights are one tile of an image with the same stride."""
    p = _as_tiling(tiling_p)
    v_flat, u_flat, depth = v_ptc.reshape(v_ptc.size), u.reshape(u.size), v_ptc.shape[2]
    for o0 in range(t * AT_ONCE, p.c_out, workers * AT_ONCE):
        o1 = min(o0 + AT_ONCE, p.c_out)
        _to_tiles(maps[2], w_oikk, o0, o1, ZERO, ONE, ONE, ONE, p.stride, ZERO, ZERO, v_ptc, image[0], row)
        for q in range(v_ptc.shape[0]):
            if p.turned:
                transpose(v_flat, q * v_ptc.shape[1] * depth, depth, o1 - o0, depth, u_flat, q * depth * p.c_out + o0, p.c_out)
            else:
                first, to = q * v_ptc.shape[1] * depth, (q * p.c_out + o0) * depth
                for l in range((o1 - o0) * depth):      # `u[..] = ..` would take seconds to compile: it says what does not fit
                    u_flat[np.uintp(to + l)] = v_flat[np.uintp(first + l)]


@njit(cache=True)
def _map_weights_back(t, workers, tiling_p, maps, w_oikk, u_qoc, y, v_ptc, m_pto, image, row):
    p = _as_tiling(tiling_p)
    places, depth, u_flat = v_ptc.shape[0], v_ptc.shape[2], u_qoc.reshape(u_qoc.size)
    for o in range(t, p.c_out, workers):
        for part in range(1, p.parts):
            for q in range(places):
                first, to = ((part * places + q) * p.c_out + o) * depth, (q * p.c_out + o) * depth
                for l in range(depth):
                    u_flat[np.uintp(to + l)] += u_flat[np.uintp(first + l)]
        _from_tiles(maps[5], u_qoc, o, o, o + 1, ZERO, ONE, ONE, ONE, p.stride, ZERO, ZERO, w_oikk, image[0], row)


@njit(cache=True, parallel=True)
def _share(body, workers, tiling_p, maps, x, u, y, v_kptc, m_kpto, image_k, row_k):
    """One of the five above, on all threads."""
    blas_threads = blas.only_one_thread()
    for k in prange(workers):
        call(body, np.int64(k), workers, tiling_p, maps, x, u, y, v_kptc[k], m_kpto[k], image_k[k], row_k[k])
    blas.restore_threads(blas_threads)


# --- the three functions of conv.py -----------------------------------------------------------------------------------

@lru_cache(maxsize=8)
def _maps(taps, dtype):
    maps = tuple(np.array(m, dtype) for m in MATRICES[taps])
    return maps + tuple(np.ascontiguousarray(m.T) for m in maps)


class _Room:
    """What the bodies need besides their arrays, for each thread."""

    def __init__(self, p, dtype):
        self.p, self.maps, self.workers = p, _maps(p.taps, dtype), get_num_threads()
        self.places, self.depth = (p.taps + 1) ** 2, p.c_in * p.stride**2
        tiles, most = max(p.block * p.strip * p.wide, AT_ONCE), max(p.c_in * p.stride, p.c_out)
        height, width = OUT * p.high + p.taps - 1, OUT * p.wide + p.taps - 1
        self.buffers = (
            np.empty((self.workers, self.places, tiles, self.depth), dtype),
            np.empty((self.workers, self.places, tiles, p.c_out), dtype),
            np.empty((self.workers, 2, height * width * max(self.depth, p.c_out)), dtype),
            np.empty((self.workers, (p.taps + 1) * width * most), dtype))

    def run(self, body, x, u, y):
        shared = (self.workers, np.array(self.p, np.int64), self.maps, x, u, y)
        body = address_of(body, x.dtype, 0, *shared, *(b[0] for b in self.buffers))
        _share(body, *shared, *self.buffers)

    def mapped(self, w_oikk):
        lines = (self.depth, self.p.c_out) if self.p.turned else (self.p.c_out, self.depth)
        u = np.empty((self.places, *lines), w_oikk.dtype)
        self.run(_map_weights, w_oikk, u, w_oikk)
        return u


def conv2d(p, x_nihw, w_oikk, y_nohw):
    """Writes y. Shapes are those the Tiling p was made for; all arrays contiguous, and of one dtype."""
    room = _Room(p._replace(turned=1), x_nihw.dtype)
    room.run(_forward, x_nihw, room.mapped(w_oikk), y_nohw)


def conv_transpose2d(p, x_nihw, w_oikk, y_nohw):
    """Writes x."""
    room = _Room(p, y_nohw.dtype)
    room.run(_transpose, x_nihw, room.mapped(w_oikk), y_nohw)


def conv2d_weight_grad(p, x_nihw, w_oikk, y_nohw):
    """Writes w."""
    room = _Room(p, x_nihw.dtype)
    u_qoc = np.empty((p.parts * room.places, p.c_out, room.depth), x_nihw.dtype)
    room.run(_weight, x_nihw, u_qoc, y_nohw)
    room.run(_map_weights_back, w_oikk, u_qoc, w_oikk)
