"""Scans of Elman's net on the CPU: the equations of `minigen/ops/rnn.py`, a slice of the batch per task (`scan.py` says why).

The simplest of the four: read it before `gru.py` and `lstm.py`, which differ in what happens to a row of numbers in a step.
"""

import numpy as np
from numba import njit

from . import device_scan
from .gates import ONE, TWO, tanh
from .panels import ROWS, add_product, panels, panels_both_ways, product
from .scan import CELL, JIT, add, checked, clear, copy, over_slices, slice_sums, sum_of_outer, unused

# --- forward ----------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell(u, x, bias, h_next):
    """One sequence, one step."""
    for j in range(u.size):
        h_next[j] = tanh(u[j] + x[j] + bias[j])


@njit(**JIT)
def _forward(n0, n1, arguments):
    x_tng, w_panels, bias_g, mask_tn, h_tnd = arguments
    u = np.empty((n1 - n0, x_tng.shape[2]), x_tng.dtype)
    for t in range(x_tng.shape[0]):
        product(h_tnd[t, n0:n1], w_panels, 0.0, u)
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell(u[n - n0], x_tng[t, n], bias_g, h_tnd[t + 1, n])
            else:
                copy(h_tnd[t + 1, n], h_tnd[t, n])


def rnn_forward_cpu(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> (h (T+1, N, D), h0 first,)"""
    x_tng, h0_nd, w_gd, bias_g, mask_tn = checked("rnn_forward", x_tng, h0_nd, w_gd, bias_g, mask_tn)
    h_tnd = np.empty((len(x_tng) + 1, *h0_nd.shape), x_tng.dtype)
    h_tnd[0] = h0_nd
    over_slices(_forward, len(h0_nd), x_tng, panels(w_gd.T), bias_g, mask_tn, h_tnd)
    return (h_tnd,)


# --- backward ---------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_backward(dh_t, h_next, dh, d, dbias):
    """dh: the gradient of h after the step; it is emptied, for the product to fill with that of h before it."""
    for j in range(dh.size):
        d_j = (dh[j] + dh_t[j]) * (ONE - h_next[j] * h_next[j])
        d[j] = d_j
        dbias[j] += d_j
        dh[j] = 0


@njit(**JIT)
def _backward(n0, n1, arguments):
    dh_tnd, h_tnd, w_panels, mask_tn, d_tng, dh_nd, dbias_sg = arguments
    for t in range(dh_tnd.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward(dh_tnd[t, n], h_tnd[t + 1, n], dh_nd[n], d_tng[t, n], dbias_sg[n0 // ROWS])
            else:
                add(dh_nd[n], dh_tnd[t, n])
                clear(d_tng[t, n])
        product(d_tng[t, n0:n1], w_panels, 1.0, dh_nd[n0:n1])


def rnn_backward_cpu(dh_tnd, h_tnd, w_gd, mask_tn, want_w):
    """-> dx (T, N, D), dh0 (N, D), dw (D, D), dbias (D,)"""
    dh_tnd, h_tnd, w_gd, mask_tn = checked("rnn_backward", dh_tnd, h_tnd, w_gd, mask_tn)
    d_tng, dh_nd, dbias_sg = np.empty_like(dh_tnd), np.zeros_like(h_tnd[0]), slice_sums(len(h_tnd[0]), w_gd)
    over_slices(_backward, len(dh_nd), dh_tnd, h_tnd, panels(w_gd), mask_tn, d_tng, dh_nd, dbias_sg)
    dw = sum_of_outer(d_tng, h_tnd[:-1]) if want_w else unused(w_gd)
    return d_tng, dh_nd, dw, dbias_sg.sum(axis=0)


# --- double backward --------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_tangent(vu, v, vbias, h_next, vh_next):
    """The forward step's tangent."""
    for j in range(vu.size):
        vh_next[j] = (ONE - h_next[j] * h_next[j]) * (vu[j] + v[j] + vbias[j])


@njit(**CELL)
def _cell_backward_tangent(dh_t, h_next, vh_next, dh, vdh, vd, vdbias):
    """The backward step with tangents; dh and vdh are emptied."""
    for j in range(dh.size):
        k, dk = h_next[j], dh[j] + dh_t[j]
        vd_j = vdh[j] * (ONE - k * k) - TWO * dk * k * vh_next[j]
        vd[j] = vd_j
        vdbias[j] += vd_j
        dh[j], vdh[j] = 0, 0


@njit(**JIT)
def _double_backward(n0, n1, arguments):
    (v_tng, vbias_g, dh_tnd, d_tng, h_tnd, w_forward, w_backward, vw_forward, vw_backward, mask_tn,
     vh_tnd, vd_tng, dh_nd, vdh_nd, vdbias_sg) = arguments
    vu = np.empty((n1 - n0, v_tng.shape[2]), v_tng.dtype)
    for t in range(v_tng.shape[0]):
        product(vh_tnd[t, n0:n1], w_forward, 0.0, vu)
        add_product(h_tnd[t, n0:n1], vw_forward, vu)
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_tangent(vu[n - n0], v_tng[t, n], vbias_g, h_tnd[t + 1, n], vh_tnd[t + 1, n])
            else:
                copy(vh_tnd[t + 1, n], vh_tnd[t, n])
    vdbias = vdbias_sg[n0 // ROWS]
    for t in range(v_tng.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward_tangent(dh_tnd[t, n], h_tnd[t + 1, n], vh_tnd[t + 1, n], dh_nd[n], vdh_nd[n], vd_tng[t, n],
                                       vdbias)
            else:
                add(dh_nd[n], dh_tnd[t, n])
                clear(vd_tng[t, n])
        product(d_tng[t, n0:n1], w_backward, 1.0, dh_nd[n0:n1])
        add_product(d_tng[t, n0:n1], vw_backward, vdh_nd[n0:n1])
        product(vd_tng[t, n0:n1], w_backward, 1.0, vdh_nd[n0:n1])


def rnn_double_backward_cpu(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, w_gd, mask_tn):
    """-> gradients for x (T, N, D), h0 (N, D), w (D, D), bias (D,), dh (T, N, D)"""
    v_tng, vh0_nd, vbias_g, dh_tnd, d_tng, h_tnd, w_gd, mask_tn = checked(
        "rnn_double_backward", v_tng, vh0_nd, vbias_g, dh_tnd, d_tng, h_tnd, w_gd, mask_tn)
    vh_tnd, vd_tng, dh_nd, vdh_nd = np.empty_like(h_tnd), np.empty_like(d_tng), np.zeros_like(vh0_nd), np.zeros_like(vh0_nd)
    vh_tnd[0] = vh0_nd
    vdbias_sg = slice_sums(len(vh0_nd), w_gd)
    over_slices(_double_backward, len(vh0_nd), v_tng, vbias_g, dh_tnd, d_tng, h_tnd, *panels_both_ways(w_gd, v_tng.dtype),
                *panels_both_ways(vw_gd, v_tng.dtype), mask_tn, vh_tnd, vd_tng, dh_nd, vdh_nd, vdbias_sg)
    gw = sum_of_outer(vd_tng, h_tnd[:-1])
    gw += sum_of_outer(d_tng, vh_tnd[:-1])
    return vd_tng, vdh_nd, gw, vdbias_sg.sum(axis=0), vh_tnd[1:]


# --- CUDA -------------------------------------------------------------------------------------------------------------

def rnn_forward_cuda(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> (h (T+1, N, D), h0 first,)"""
    mask_tn, x_tng, w_gd, bias_g = device_scan.dense(mask_tn, x_tng, w_gd, bias_g)
    h_tnd = device_scan.states(h0_nd, len(x_tng))
    device_scan.forward_sweep("rnn", "rnn_forward", w_gd, h_tnd, [x_tng, bias_g, mask_tn, h_tnd])
    return (h_tnd,)


def rnn_backward_cuda(dh_tnd, h_tnd, w_gd, mask_tn, want_w):
    """-> dx (T, N, D), dh0 (N, D), dw (D, D), dbias (D,)"""
    mask_tn, dh_tnd, h_tnd, w_gd = device_scan.dense(mask_tn, dh_tnd, h_tnd, w_gd)
    d_tng, dh_nd = np.empty_like(dh_tnd), np.zeros_like(h_tnd[0])
    arrays = [dh_tnd, h_tnd, mask_tn, dh_nd, d_tng]
    device_scan.backward_sweep("rnn", "rnn_backward", w_gd, d_tng, dh_nd, arrays)
    return d_tng, dh_nd, *device_scan.weight_gradients(d_tng, h_tnd[:-1], want_w)


def rnn_double_backward_cuda(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, w_gd, mask_tn):
    """-> gradients for x (T, N, D), h0 (N, D), w (D, D), bias (D,), dh (T, N, D)"""
    mask_tn, dh_tnd, d_tng, h_tnd, w_gd = device_scan.dense(mask_tn, dh_tnd, d_tng, h_tnd, w_gd)
    hv_tng, au_tnd, av_tnd = device_scan.outside_the_sweeps(vw_gd, d_tng, h_tnd[:-1], w_gd)
    v_tng = v_tng + hv_tng + vbias_g
    vh_tnd, vd_tng = device_scan.states(vh0_nd, len(v_tng)), np.empty_like(d_tng)
    dh_nd, vdh_nd = np.zeros_like(h_tnd[0]), np.zeros_like(h_tnd[0])
    device_scan.forward_sweep("rnn", "rnn_tangent", w_gd, vh_tnd, [v_tng, h_tnd, mask_tn, vh_tnd])
    arrays = [au_tnd, av_tnd, dh_tnd, h_tnd, vh_tnd, mask_tn, dh_nd, vdh_nd, vd_tng]
    device_scan.backward_sweep("rnn", "rnn_backward_tangent", w_gd, vd_tng, vdh_nd, arrays)
    gw, gbias = device_scan.weight_gradients(vd_tng, h_tnd[:-1], True)
    return vd_tng, vdh_nd, gw + device_scan.sum_of_outer(d_tng, vh_tnd[:-1]), gbias, vh_tnd[1:]
