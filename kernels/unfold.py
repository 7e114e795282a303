"""Between the pixels of images and the columns of a matrix: the copying half of `conv.py`.

im2col would copy every pixel kh * kw / (s * s) times so that one matrix product does a whole convolution. Here only the
horizontal taps are copied out, and the vertical ones are read by *shifting* (Cho and Brand 2017, "MEC", arXiv 1706.06873):

    x  (c rows of width w)                 cols[(c, kx), (row h, image n, column j)] = x[n, c, h - p, s j + d kx - p]

        h: ........          kx=0  kx=1  kx=2
        h: ........    ->    ....  ....  ....        y[o, (i, n, j)] = sum over ky of
        h: ........          ....  ....  ....            w[ky][o, (c, kx)] @ cols[(c, kx), (rows i + d ky, n, j)]

For one ky the rows i + d ky, i = 0 .. h_out-1, lie one behind the other, because the row is the slowest of the column's
indices: the operand is a slice. With a stride s the rows are sorted by h mod s ("phase") and that stays true. The copy is kh/s
times smaller than im2col's. Where c * kw is so small that the product would starve, all kh * kw taps are copied (`taps_y`).

Before that, a row of the image gets its border and is sorted by column mod stride. Then every tap is a run of neighbours:

    border + row    0 a b c d e f 0        stride 2        0 b d f | a c e 0        kx=0: 0 b d   kx=1: a c e   kx=2: b d f

**Where the time goes.** Runs are short, 7 to 32 numbers, so starting one must cost next to nothing. Indices are unsigned: for a
signed one Numba tests whether it means "from the end". Eight numbers are read before any is written: that much the compiler
knows to be one vector move, without asking whether source and target overlap. And where it does no harm a run is rounded up
to eights ("loosely"). Together this is 5 to 10 times faster than the plain loop.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

_u = np.uintp
ZERO = np.int64(0)      # for a plain 0 in a call Numba would compile what is called once more, as what it is for 0 alone


class Plan(NamedTuple):
    """How one set of shapes is cut up. Sizes in elements; `_y` and `_x` are the vertical and the horizontal of a pair."""
    images: int
    c_in: int
    h: int
    w: int
    c_out: int
    kh: int
    kw: int
    h_out: int
    w_out: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    step_y: int     # dilation
    step_x: int
    taps_y: int     # vertical taps that are copied: 1 (shifting does the rest) or kh
    shifts: int     # vertical taps done by shifting: kh or 1
    phases: int     # classes of rows, h mod stride_y
    rows: int       # rows in each class
    height: int     # rows of an image with its border
    pitch: int      # numbers in one class of columns of a sorted row, border and spare room included
    block: int      # images that share one product
    parts: int      # partial sums of a weight gradient, each over some of the blocks
    plain: int      # 1 for a kernel of 1x1 that sees each pixel once: the columns are the image itself, and nothing is copied


@njit(cache=True)
def as_plan(p):
    """The Plan whose numbers are in the array p. (Numba's threads are handed an array faster than 24 numbers.)"""
    return Plan(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15], p[16],
                p[17], p[18], p[19], p[20], p[21], p[22], p[23])


COLUMNS = 256       # of one product: wide enough for BLAS to be at speed, narrow enough for cols to stay in the L2 cache
NARROW = 48         # c * kw below this: copy the vertical taps too
PART = 800          # positions of y that pay for one partial sum more
SPLIT = 128         # those that pay for two where there would be one, and one thread


@lru_cache(maxsize=512)
def make_plan(x_shape, w_shape, stride, padding, dilation) -> Plan:
    """The plan for x (n, c, h, w) and w (o, c, kh, kw); ValueError if the kernel does not fit in the image."""
    images, c_in, h, w = x_shape
    c_out, _, kh, kw = w_shape
    h_out, w_out = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((h, w), (kh, kw), stride, padding, dilation, strict=True))
    if min(h_out, w_out) < 1:
        raise ValueError(f"a kernel of {kh}x{kw} with dilation {dilation} does not fit in {h}x{w} with padding {padding}")
    taps_y, shifts, phases = (kh, 1, 1) if c_in * kw < NARROW or kh == 1 else (1, kh, stride[0])
    rows = h_out + (shifts - 1) * dilation[0] // stride[0]
    height = max(h + 2 * padding[0], (rows - 1) * stride[0] + phases + (taps_y - 1) * dilation[0])
    pitch = max((w + 2 * padding[1] - 1) // stride[1] + 1, (kw - 1) * dilation[1] // stride[1] + w_out + 7)
    block = parts = 1
    plain = kh == kw == 1 and stride == (1, 1) and padding == (0, 0)
    # Two blocks at least: one has no work for two threads.
    while not plain and 2 * block * h_out * w_out <= COLUMNS and 4 * block <= images:
        block *= 2
    positions = images * h_out * w_out
    if positions >= SPLIT and 2 * block <= images:
        parts = 2
    while parts < 16 and 2 * parts * block <= images and 1.5 * parts * PART <= positions:
        parts *= 2
    return Plan(images, c_in, h, w, c_out, kh, kw, h_out, w_out, *stride, *padding, *dilation,
                taps_y, shifts, phases, rows, height, pitch, block, parts, int(plain))


@njit(cache=True)
def matrix(flat, rows, columns):
    """The beginning of a buffer as a matrix (rows, columns + 7 or more): the gap is room for loose moves."""
    pitch = columns + 15 - (columns + 7) % 8
    return flat[:rows * pitch].reshape(rows, pitch)


@njit(cache=True)
def first_column(shift, images, plan):
    """Where the columns of vertical tap `shift` begin."""
    h = shift * plan.step_y
    return (h % plan.phases * plan.rows + h // plan.phases) * images * plan.w_out


# --- moving a run -----------------------------------------------------------------------------------------------------

@njit(cache=True)
def _move8(to, at, source, start):
    """to[at:at+8] = source[start:start+8]."""
    v0, v1, v2, v3 = source[start], source[start + _u(1)], source[start + _u(2)], source[start + _u(3)]
    v4, v5, v6, v7 = source[start + _u(4)], source[start + _u(5)], source[start + _u(6)], source[start + _u(7)]
    to[at], to[at + _u(1)], to[at + _u(2)], to[at + _u(3)] = v0, v1, v2, v3
    to[at + _u(4)], to[at + _u(5)], to[at + _u(6)], to[at + _u(7)] = v4, v5, v6, v7


@njit(cache=True)
def _move(to, at, source, start, count):
    """to[at:at+count] = source[start:start+count]."""
    whole = _u(count) // _u(8) * _u(8)
    for q in range(_u(0), whole, _u(8)):
        _move8(to, _u(at) + q, source, _u(start) + q)
    for q in range(whole, _u(count)):
        to[_u(at) + q] = source[_u(start) + q]


@njit(cache=True)
def _move_loosely(to, at, source, start, count):
    """The same in eights. Up to 7 numbers too many are read and written: both arrays must have them, and what is
    overwritten must be about to be written (runs go from left to right) or be a gap."""
    q = _u(0)
    while q < _u(count):
        _move8(to, _u(at) + q, source, _u(start) + q)
        q += _u(8)


# --- pixels and sorted rows -------------------------------------------------------------------------------------------

@njit(cache=True)
def _sort(x_flat, n0, n1, c, plan, stride, rows):
    """Channel c of images n0..n1 -> rows[h, n, class mod stride, (border, pixels, border)]; the border keeps its zeros."""
    w, pad, pitch, step = _u(plan.w), _u(plan.pad_x), _u(plan.pitch), _u(plan.stride_x * plan.pitch)
    even = pad // _u(2) + pad % _u(2) * pitch                   # with a stride of 2: where pixels 0, 2, 4, ... go
    odd = (pad + _u(1)) // _u(2) + (pad + _u(1)) % _u(2) * pitch
    for n in range(n0, n1):
        for h in range(plan.h):
            start = _u(((n * plan.c_in + c) * plan.h + h) * plan.w)
            at = _u((h + plan.pad_y) * (n1 - n0) + n - n0) * step
            if stride == 1:
                for q in range(w):
                    rows[at + pad + q] = x_flat[start + q]
            elif stride == 2:
                for m in range(w // _u(2)):
                    rows[at + even + m] = x_flat[start + m + m]
                    rows[at + odd + m] = x_flat[start + m + m + _u(1)]
                if w % _u(2) == _u(1):
                    rows[at + even + w // _u(2)] = x_flat[start + w - _u(1)]
            else:
                for q in range(w):
                    rows[at + (pad + q) // _u(stride) + (pad + q) % _u(stride) * pitch] = x_flat[start + q]


@njit(cache=True)
def _merge(rows, n0, n1, c, plan, x_flat):
    """The way back: `_sort` read from right to left."""
    w, pad, pitch, stride = _u(plan.w), _u(plan.pad_x), _u(plan.pitch), _u(plan.stride_x)
    even = pad // _u(2) + pad % _u(2) * pitch
    odd = (pad + _u(1)) // _u(2) + (pad + _u(1)) % _u(2) * pitch
    for n in range(n0, n1):
        for h in range(plan.h):
            start = _u(((n * plan.c_in + c) * plan.h + h) * plan.w)
            at = _u((h + plan.pad_y) * (n1 - n0) + n - n0) * stride * pitch
            if stride == _u(1):
                for q in range(w):
                    x_flat[start + q] = rows[at + pad + q]
            elif stride == _u(2):
                for m in range(w // _u(2)):
                    x_flat[start + m + m] = rows[at + even + m]
                    x_flat[start + m + m + _u(1)] = rows[at + odd + m]
                if w % _u(2) == _u(1):
                    x_flat[start + w - _u(1)] = rows[at + even + w // _u(2)]
            else:
                for q in range(w):
                    x_flat[start + q] = rows[at + (pad + q) // stride + (pad + q) % stride * pitch]


# --- sorted rows and columns ------------------------------------------------------------------------------------------

@njit(cache=True)
def empty_rows(plan, dtype):
    """Room for the sorted rows of a block of images, one channel at a time. `unfold` never writes to the border's zeros."""
    return np.zeros(plan.height * plan.block * plan.stride_x * plan.pitch, dtype)


@njit(cache=True)
def unfold(x_flat, n0, n1, plan, pixels, cols):
    """cols[(c, ty, kx), (phase, row, n, j)] = the pixels of images n0..n1; zero in the border."""
    images, step = n1 - n0, plan.stride_x * plan.pitch
    if images < plan.block:
        pixels[:] = 0       # the last images lie elsewhere
    cols_flat = cols.reshape(cols.size)
    for c in range(plan.c_in):
        _sort(x_flat, n0, n1, c, plan, plan.stride_x, pixels)
        for ty in range(plan.taps_y):
            for kx in range(plan.kw):
                at = ((c * plan.taps_y + ty) * plan.kw + kx) * cols.shape[1]
                tap = kx * plan.step_x % plan.stride_x * plan.pitch + kx * plan.step_x // plan.stride_x
                for phase in range(plan.phases):
                    for row in range(plan.rows):
                        h = row * plan.stride_y + phase + ty * plan.step_y
                        for n in range(images):
                            _move_loosely(cols_flat, at, pixels, (h * images + n) * step + tap, plan.w_out)
                            at += plan.w_out


@njit(cache=True)
def fold(cols, n0, n1, plan, x_flat):
    """The transpose of `unfold`: every pixel of images n0..n1 becomes the sum of the columns that are copies of it."""
    images, step = n1 - n0, plan.stride_x * plan.pitch
    sums = np.empty(plan.height * images * step, cols.dtype)
    cols_flat = cols.reshape(cols.size)
    for c in range(plan.c_in):
        sums[:] = 0
        for ty in range(plan.taps_y):
            for kx in range(plan.kw):
                at = _u(((c * plan.taps_y + ty) * plan.kw + kx) * cols.shape[1])
                tap = kx * plan.step_x % plan.stride_x * plan.pitch + kx * plan.step_x // plan.stride_x
                for phase in range(plan.phases):
                    for row in range(plan.rows):
                        h = row * plan.stride_y + phase + ty * plan.step_y
                        for n in range(images):
                            to = _u((h * images + n) * step + tap)
                            for j in range(_u(plan.w_out)):
                                sums[to + j] += cols_flat[at + j]
                            at += _u(plan.w_out)
        _merge(sums, n0, n1, c, plan, x_flat)


@njit(cache=True)
def unfold_rows(x_flat, n0, n1, plan, pixels, rows):
    """rows[(phase, row, n, j), (c, ty, kx)]: the transpose of `unfold`, whose runs are the horizontal taps of one position."""
    images, step = n1 - n0, plan.stride_x * plan.pitch
    if images < plan.block:
        pixels[:] = 0
    rows_flat, pitch, stride = rows.reshape(rows.size), _u(rows.shape[1]), _u(plan.stride_x)
    for c in range(plan.c_in):
        _sort(x_flat, n0, n1, c, plan, np.int64(1), pixels)      # unsorted, that is
        for ty in range(plan.taps_y):
            at = _u((c * plan.taps_y + ty) * plan.kw)
            for phase in range(plan.phases):
                for row in range(plan.rows):
                    h = row * plan.stride_y + phase + ty * plan.step_y
                    for n in range(images):
                        start = _u((h * images + n) * step)
                        for _ in range(plan.w_out):
                            if plan.step_x > 1:
                                for kx in range(plan.kw):
                                    rows_flat[at + _u(kx)] = pixels[start + _u(kx * plan.step_x)]
                            elif plan.kw <= 8:
                                _move8(rows_flat, at, pixels, start)
                            else:
                                _move_loosely(rows_flat, at, pixels, start, plan.kw)
                            at += pitch
                            start += stride


# --- results ----------------------------------------------------------------------------------------------------------

@njit(cache=True)
def gather(y_flat, n0, n1, plan, y_ol):
    """(n, o, i, j) -> (o, (i, n, j)): the order in which cols has its columns."""
    out = y_ol.reshape(y_ol.size)
    loosely = plan.h_out - 1 - 7 // plan.w_out          # rows with at least 7 numbers of the same channel behind them
    for o in range(plan.c_out):
        at = o * y_ol.shape[1]
        for i in range(plan.h_out):
            for n in range(n0, n1):
                start = ((n * plan.c_out + o) * plan.h_out + i) * plan.w_out
                if i < loosely:
                    _move_loosely(out, at, y_flat, start, plan.w_out)
                else:
                    _move(out, at, y_flat, start, plan.w_out)
                at += plan.w_out


@njit(cache=True)
def scatter(y_ol, n0, n1, plan, y_flat):
    """(o, (i, n, j)) -> (n, o, i, j)."""
    images, source = n1 - n0, y_ol.reshape(y_ol.size)
    loosely = plan.h_out - 1 - 7 // plan.w_out
    for n in range(images):
        for o in range(plan.c_out):
            at = ((n0 + n) * plan.c_out + o) * plan.h_out * plan.w_out
            for i in range(plan.h_out):
                start = o * y_ol.shape[1] + (i * images + n) * plan.w_out
                if i < loosely:
                    _move_loosely(y_flat, at, source, start, plan.w_out)
                else:
                    _move(y_flat, at, source, start, plan.w_out)
                at += plan.w_out
