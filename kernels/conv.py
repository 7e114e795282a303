"""Convolution on the CPU: three kernels around one matrix product.

    form(x, w, y) = sum over n, o, c, i, j, ky, kx of   y[n,o,i,j] * w[o,c,ky,kx] * x[n,c, s i + d ky - p, s j + d kx - p]

is linear in each of x, w and y (stride s, dilation d, padding p). Its partial derivatives are the three functions here, and
each derivative of one of them is another of them:

    d/dy  conv2d_forward_cpu(x, w)             -> y
    d/dx  conv_transpose2d_forward_cpu(y, w)   -> x
    d/dw  conv2d_weight_grad_forward_cpu(x, y) -> w

With cols = the pixels each position of y looks at (`unfold.py` draws it), and one w_ok = w[:, :, ky] for each vertical tap:

    y_ol += w_ok @ cols_kl                    cols_kl += w_ok.T @ y_ol                    w_ok += y_ol @ cols_kl.T

**Where the time goes.** Eight or nine tenths into the products, if cols stays in the second-level cache: so a block of images
is unfolded, used and overwritten. Small images share a block, which makes the product some 200 columns wide. OpenBLAS is up to
1.5 times slower when its right-hand matrix is transposed, so the third product unfolds its pixels the other way round.

With one channel a sum has as few terms as the kernel has taps. DCGAN's first layer (1-64, 4x4) does 8 operations for each byte
it reads or writes, about what the machine's ceilings of products and of copies allow at the same time: bound by both, its three
products reach 58 to 67 % of the first. On one core 137 of the forward one's 180 us are BLAS's.

A kernel of 1x1 needs no columns: they are the image. With many channels most kernels are better served by `winograd.py`, which
needs fewer multiplications and says when; what is here is the plain version, and the more precise one.

Blocks go to threads. Every number is summed by one thread, in an order fixed by the shapes alone: the result does not depend
on the number of threads. Layouts and the meaning of all arguments are those of torch.nn.functional.
"""

from functools import lru_cache

import numpy as np
from numba import get_num_threads, njit, prange

from . import blas, winograd
from .device_array import dense_copy, empty, launch_each, launch_gemm, launch_sums
from .threads import address_of, call
from .transpose import transpose
from .unfold import ZERO, as_plan, empty_rows, first_column, fold, gather, make_plan, matrix, scatter, unfold, unfold_rows

# --- one block of images, one thread ----------------------------------------------------------------------------------

def _by_shift(w_oikk, plan, plan_p):
    """(o, c, ky, kx) -> (shift, o, (c, ty, kx)), where ky is one or the other."""
    return _sorted(w_oikk, plan_p) if plan.shifts > 1 else w_oikk.reshape(1, plan.c_out, -1)


@njit(cache=True)
def _sorted(w_oikk, plan_p):
    plan = as_plan(plan_p)
    w_sok = np.empty((plan.shifts, plan.c_out, plan.c_in * plan.taps_y * plan.kw), w_oikk.dtype)
    for o in range(plan.c_out):
        for c in range(plan.c_in):
            for ky in range(plan.kh):
                for kx in range(plan.kw):
                    w_sok[ky, o, c * plan.kw + kx] = w_oikk[o, c, ky, kx]
    return w_sok


@njit(cache=True)
def _image(flat, n, channels, area):
    """Image n as a matrix (channel, (i, j)): no copy."""
    return flat[n * channels * area:(n + 1) * channels * area].reshape(channels, area)


@njit(cache=True)
def _forward(t, workers, plan_p, x_flat, w_sok, y_flat, cols_flat, block_flat):
    plan = as_plan(plan_p)
    sorted_rows = empty_rows(plan, w_sok.dtype)
    for n0 in range(t * plan.block, plan.images, workers * plan.block):
        n1 = min(n0 + plan.block, plan.images)
        images, length = n1 - n0, (n1 - n0) * plan.h_out * plan.w_out
        cols = matrix(cols_flat, w_sok.shape[2], plan.phases * plan.rows * images * plan.w_out)
        if plan.plain:
            cols = _image(x_flat, n0, plan.c_in, length)
        else:
            unfold(x_flat, n0, n1, plan, sorted_rows, cols)
        y_ol = _image(y_flat, n0, plan.c_out, length) if images == 1 else matrix(block_flat, plan.c_out, length)
        for shift in range(plan.shifts):
            at = first_column(shift, images, plan)
            blas.gemm(w_sok[shift], cols[:, at:at + length], 0.0 if shift == 0 else 1.0, y_ol[:, :length])
        if images > 1:
            scatter(y_ol, n0, n1, plan, y_flat)


@njit(cache=True)
def _transpose(t, workers, plan_p, x_flat, w_sok, y_flat, cols_flat, block_flat):
    plan = as_plan(plan_p)
    for n0 in range(t * plan.block, plan.images, workers * plan.block):
        n1 = min(n0 + plan.block, plan.images)
        images, length = n1 - n0, (n1 - n0) * plan.h_out * plan.w_out
        cols = matrix(cols_flat, w_sok.shape[2], plan.phases * plan.rows * images * plan.w_out)
        y_ol = _image(y_flat, n0, plan.c_out, length) if images == 1 else matrix(block_flat, plan.c_out, length)
        if images > 1:
            gather(y_flat, n0, n1, plan, y_ol)
        if plan.plain:
            cols = _image(x_flat, n0, plan.c_in, length)
        if plan.shifts > 1:
            cols[:] = 0                     # the shifted windows overlap, and none covers all
        for shift in range(plan.shifts):
            at = first_column(shift, images, plan)
            blas.gemm(w_sok[shift].T, y_ol[:, :length], 0.0 if plan.shifts == 1 else 1.0, cols[:, at:at + length])
        if not plan.plain:
            fold(cols, n0, n1, plan, x_flat)


@njit(cache=True)
def _weight(t, workers, plan_p, x_flat, w_qok, y_flat, cols_flat, block_flat):
    """Partial sums w_qok[(part, shift), o, (c, ty, kx)], each over the same images whatever the number of workers."""
    plan = as_plan(plan_p)
    sorted_rows = empty_rows(plan, w_qok.dtype)
    blocks = (plan.images + plan.block - 1) // plan.block
    for part in range(t, plan.parts, workers):
        first, last = part * blocks // plan.parts, (part + 1) * blocks // plan.parts
        for n0 in range(first * plan.block, min(last * plan.block, plan.images), plan.block):
            n1 = min(n0 + plan.block, plan.images)
            images, length = n1 - n0, (n1 - n0) * plan.h_out * plan.w_out
            beta = 0.0 if n0 == first * plan.block else 1.0
            if plan.plain:
                transpose(x_flat, n0 * plan.c_in * length, length, plan.c_in, length, cols_flat, ZERO, plan.c_in)
                pixels = cols_flat[:length * plan.c_in].reshape(length, plan.c_in)
                blas.gemm(_image(y_flat, n0, plan.c_out, length), pixels, beta, w_qok[part])
                continue
            rows = matrix(cols_flat, plan.phases * plan.rows * images * plan.w_out, w_qok.shape[2])
            unfold_rows(x_flat, n0, n1, plan, sorted_rows, rows)
            y_ol = _image(y_flat, n0, plan.c_out, length) if images == 1 else matrix(block_flat, plan.c_out, length)
            if images > 1:
                gather(y_flat, n0, n1, plan, y_ol)
            for shift in range(plan.shifts):
                at = first_column(shift, images, plan)
                blas.gemm(y_ol[:, :length], rows[at:at + length, :w_qok.shape[2]], beta,
                          w_qok[part * plan.shifts + shift])


@njit(cache=True, parallel=True)
def _share(body, workers, plan_p, x_flat, w, y_flat, cols_tk, block_tk):
    """One of the three above, on all threads."""
    blas_threads = blas.only_one_thread()
    for t in prange(workers):
        call(body, np.int64(t), workers, plan_p, x_flat, w, y_flat, cols_tk[t], block_tk[t])
    blas.restore_threads(blas_threads)


@njit(cache=True)
def _sum_parts(w_qok, plan_p, w_oikk):
    plan, flat = as_plan(plan_p), w_qok.reshape(w_qok.size)
    size = np.uintp(w_qok.size // plan.parts)
    for part in range(np.uintp(1), np.uintp(plan.parts)):
        for l in range(size):
            flat[l] += flat[part * size + l]
    if plan.shifts == 1:
        w_flat = w_oikk.reshape(w_oikk.size)
        for l in range(size):
            w_flat[l] = flat[l]
        return
    for o in range(plan.c_out):
        for c in range(plan.c_in):
            for ky in range(plan.kh):
                for kx in range(plan.kw):
                    w_oikk[o, c, ky, kx] = w_qok[ky, o, c * plan.kw + kx]


# --- the public names -------------------------------------------------------------------------------------------------

def _pair(name, value, least):
    pair = tuple(int(v) for v in value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{name} = {value}: two integers, vertical and horizontal, of at least {least}")
    return pair


def _checked(first, a, second, b):
    """Two arrays with four axes and one dtype, contiguous."""
    if a.ndim != 4 or b.ndim != 4:
        raise ValueError(f"{first} {a.shape} and {second} {b.shape}: both need four axes")
    if a.dtype != b.dtype or a.dtype not in (np.float32, np.float64):
        raise TypeError(f"{first} is {a.dtype} and {second} is {b.dtype}: both must be float32, or both float64")
    blas.require()
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def _plan_for(x_shape, w_shape, y_shape, stride, padding, dilation):
    """The plan, and its numbers in an array; if y is given, its shape must be the one that x and w lead to."""
    return _planned(x_shape, w_shape, y_shape, tuple(stride), tuple(padding), tuple(dilation))


@lru_cache(maxsize=512)
def _planned(x_shape, w_shape, y_shape, stride, padding, dilation):
    plan = make_plan(x_shape, w_shape, _pair("stride", stride, 1), _pair("padding", padding, 0), _pair("dilation", dilation, 1))
    wanted = (plan.images, plan.c_out, plan.h_out, plan.w_out)
    if y_shape is not None and y_shape != wanted:
        raise ValueError(f"y_nohw {y_shape}: x {x_shape} and w {w_shape} with stride {stride}, padding {padding}, dilation "
                         f"{dilation} make {wanted}")
    return plan, np.array(plan, np.int64)


def _run(body, plan, plan_p, x_nihw, w, y_nohw):
    """`body` on all threads, each with the columns of one block, and its part of y when several images share it."""
    workers = get_num_threads()
    lines, columns = plan.c_in * plan.taps_y * plan.kw, plan.phases * plan.rows * plan.block * plan.w_out
    cols = np.empty((workers, max(lines * (columns + 15), columns * (lines + 15))), w.dtype)
    block = np.empty((workers, plan.c_out * (plan.block * plan.h_out * plan.w_out + 15) if plan.block > 1 else 0), w.dtype)
    x_flat, y_flat = x_nihw.reshape(-1), y_nohw.reshape(-1)
    body = address_of(body, w.dtype, 0, workers, plan_p, x_flat, w, y_flat, cols[0], block[0])
    _share(body, workers, plan_p, x_flat, w, y_flat, cols, block)


def conv2d_forward_cpu(x_nihw, w_oikk, stride, padding, dilation):
    """y_nohw: cross-correlation of x (n, i, h, w) with w (o, i, kh, kw), float32 or float64.

    `stride`, `padding`, `dilation` are pairs (vertical, horizontal). ValueError or TypeError if the arrays do not agree.
    """
    x_nihw, w_oikk = _checked("x_nihw", x_nihw, "w_oikk", w_oikk)
    if x_nihw.shape[1] != w_oikk.shape[1]:
        raise ValueError(f"x_nihw {x_nihw.shape} has {x_nihw.shape[1]} channels, w_oikk {w_oikk.shape} wants {w_oikk.shape[1]}")
    plan, plan_p = _plan_for(x_nihw.shape, w_oikk.shape, None, stride, padding, dilation)
    y_nohw = np.empty((plan.images, plan.c_out, plan.h_out, plan.w_out), x_nihw.dtype)
    if not x_nihw.size or not w_oikk.size:
        y_nohw[...] = 0                     # sums of nothing
    elif fast := winograd.tiling(plan):
        winograd.conv2d(fast, x_nihw, w_oikk, y_nohw)
    else:
        _run(_forward, plan, plan_p, x_nihw, _by_shift(w_oikk, plan, plan_p), y_nohw)
    return y_nohw


def conv_transpose2d_forward_cpu(y_nohw, w_oikk, stride, padding, dilation, size):
    """x_nihw, with (h, w) = `size`: the gradient of conv2d with respect to x, for the cotangent y (n, o, h_out, w_out).

    `w_oikk` is conv2d's: its first axis is y's channels, so it is torch.conv_transpose2d's (c_in, c_out, kh, kw) as well.
    """
    y_nohw, w_oikk = _checked("y_nohw", y_nohw, "w_oikk", w_oikk)
    x_shape = (y_nohw.shape[0], w_oikk.shape[1], *_pair("size", size, 1))
    plan, plan_p = _plan_for(x_shape, w_oikk.shape, y_nohw.shape, stride, padding, dilation)
    x_nihw = np.empty(x_shape, y_nohw.dtype)
    if not y_nohw.size or not w_oikk.size:
        x_nihw[...] = 0
    elif fast := winograd.tiling(plan):
        winograd.conv_transpose2d(fast, x_nihw, w_oikk, y_nohw)
    else:
        _run(_transpose, plan, plan_p, x_nihw, _by_shift(w_oikk, plan, plan_p), y_nohw)
    return x_nihw


def conv2d_weight_grad_forward_cpu(x_nihw, y_nohw, stride, padding, dilation, kernel_size):
    """w_oikk, with (kh, kw) = `kernel_size`: the gradient of conv2d with respect to w, for the cotangent y."""
    x_nihw, y_nohw = _checked("x_nihw", x_nihw, "y_nohw", y_nohw)
    w_shape = (y_nohw.shape[1], x_nihw.shape[1], *_pair("kernel_size", kernel_size, 1))
    plan, plan_p = _plan_for(x_nihw.shape, w_shape, y_nohw.shape, stride, padding, dilation)
    w_oikk = np.empty(w_shape, x_nihw.dtype)
    if not x_nihw.size or not y_nohw.size:
        w_oikk[...] = 0
        return w_oikk
    if fast := winograd.tiling(plan):
        winograd.conv2d_weight_grad(fast, x_nihw, w_oikk, y_nohw)
        return w_oikk
    w_qok = np.empty((plan.parts * plan.shifts, plan.c_out, plan.c_in * plan.taps_y * plan.kw), x_nihw.dtype)
    _run(_weight, plan, plan_p, x_nihw, w_qok, y_nohw)
    _sum_parts(w_qok, plan_p, w_oikk)
    return w_oikk


# --- CUDA -------------------------------------------------------------------------------------------------------------

DIRECT = 4          # with fewer channels than this on one side, sums are too short to be matrix products
SUM = 2048          # terms of a weight's gradient that are one block's
PARTS = 32          # blocks that share such a sum, at most


def _geometry(x_shape, w_shape, y_shape, stride, padding, dilation):
    """The Geometry of conv.cu; ValueError if the shapes do not fit together."""
    plan, _ = _plan_for(x_shape, w_shape, y_shape, stride, padding, dilation)
    if w_shape[1] != x_shape[1]:
        raise ValueError(f"x_nihw {x_shape} has {x_shape[1]} channels, w_oikk {w_shape} wants {w_shape[1]}")
    return plan, [*x_shape, w_shape[0], *w_shape[2:], plan.h_out, plan.w_out, *stride, *padding, *dilation]


def _filled(out, kernel, plan, given):
    """`out` (n, channels, h, w), which the kernel has written: one thread a pixel, or a product with a row a channel."""
    images, channels, h, w = out.shape
    if plan.c_in < DIRECT:
        launch_each("conv", f"{kernel}_direct", out.dtype, out.size, [*given, out.size])
    else:
        launch_gemm("conv", f"{kernel}_product", out.dtype, channels, images * h * w, 1, given)
    return out


def conv2d_forward_cuda(x_nihw, w_oikk, stride, padding, dilation):
    plan, g = _geometry(x_nihw.shape, w_oikk.shape, None, stride, padding, dilation)
    y = empty((plan.images, plan.c_out, plan.h_out, plan.w_out), x_nihw.dtype)
    return _filled(y, "conv_forward", plan, [dense_copy(x_nihw), dense_copy(w_oikk), y, g])


def conv_transpose2d_forward_cuda(y_nohw, w_oikk, stride, padding, dilation, size):
    x_shape = (y_nohw.shape[0], w_oikk.shape[1], *size)
    plan, g = _geometry(x_shape, w_oikk.shape, y_nohw.shape, stride, padding, dilation)
    x = empty(x_shape, y_nohw.dtype)
    return _filled(x, "conv_transpose", plan, [dense_copy(y_nohw), dense_copy(w_oikk), x, g])


def conv2d_weight_grad_forward_cuda(x_nihw, y_nohw, stride, padding, dilation, kernel_size):
    w_shape = (y_nohw.shape[1], x_nihw.shape[1], *kernel_size)
    plan, g = _geometry(x_nihw.shape, w_shape, y_nohw.shape, stride, padding, dilation)
    x, y = dense_copy(x_nihw), dense_copy(y_nohw)
    if plan.c_in < DIRECT:
        w = empty(w_shape, x.dtype)
        launch_sums("conv", "conv_weight_direct", x.dtype, w.size, [x, y, w, g])
        return w
    parts = max(1, min(PARTS, plan.images * plan.h_out * plan.w_out // SUM))
    w_parts = empty((parts, *w_shape), x.dtype)
    columns = plan.c_in * plan.kh * plan.kw
    launch_gemm("conv", "conv_weight_product", x.dtype, plan.c_out, columns, parts, [x, y, w_parts, g])
    return w_parts.sum(axis=0)
