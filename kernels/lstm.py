"""LSTM scans on the CPU: the equations of `minigen/ops/lstm.py`, a slice of the batch per task (`scan.py` says why).

Each step is one product with a weight in panels, and one pass over its rows in which every number is used while it is in a
register or in the first-level cache:

    forward           u = h U^T;        gates, c', h' from u and x_t
    backward          da from dh', dc';                          dh = da U             dU = sum da h^T at the end
    double backward   vu = vh U^T + h vU^T; vgates, vc', vh';    then    vda, dh = da U, vdh = vda U + da vU;    vdU at the end

The bias's gradient is summed row by row inside a slice, then slice by slice: an order that no thread count changes.
"""

import numpy as np
from numba import njit

from . import device_scan
from .gates import ONE, TWO, sigmoid, tanh
from .panels import ROWS, add_product, panels, panels_both_ways, product
from .scan import CELL, JIT, add, checked, clear, copy, over_slices, quarters, slice_sums, sum_of_outer, unused

# --- forward ----------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell(u, x, bias, c, gates, c_next, h_next):
    """One sequence, one step."""
    (ui, uf, ug, uo), (xi, xf, xg, xo), (bi, bf, bg, bo) = quarters(u), quarters(x), quarters(bias)
    gi, gf, gg, go = quarters(gates)
    for j in range(c.size):
        i, f = sigmoid(ui[j] + xi[j] + bi[j]), sigmoid(uf[j] + xf[j] + bf[j])
        g, o = tanh(ug[j] + xg[j] + bg[j]), sigmoid(uo[j] + xo[j] + bo[j])
        gi[j], gf[j], gg[j], go[j] = i, f, g, o
        c_j = f * c[j] + i * g
        c_next[j] = c_j
        h_next[j] = o * tanh(c_j)


@njit(**JIT)
def _forward(n0, n1, arguments):
    x_tng, w_panels, bias_g, mask_tn, h_tnd, c_tnd, gates_tng = arguments
    u = np.empty((n1 - n0, x_tng.shape[2]), x_tng.dtype)
    for t in range(x_tng.shape[0]):
        product(h_tnd[t, n0:n1], w_panels, 0.0, u)
        for n in range(n0, n1):
            _cell(u[n - n0], x_tng[t, n], bias_g, c_tnd[t, n], gates_tng[t, n], c_tnd[t + 1, n], h_tnd[t + 1, n])
            if not mask_tn[t, n]:
                copy(c_tnd[t + 1, n], c_tnd[t, n])
                copy(h_tnd[t + 1, n], h_tnd[t, n])
                clear(gates_tng[t, n])


def lstm_forward_cpu(x_tng, h0_nd, c0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D) and c (T+1, N, D), initial states first; gates (T, N, 4D): i, f, g, o"""
    x_tng, h0_nd, c0_nd, w_gd, bias_g, mask_tn = checked("lstm_forward", x_tng, h0_nd, c0_nd, w_gd, bias_g, mask_tn)
    (steps, batch, _), size = x_tng.shape, w_gd.shape[1]
    h_tnd, c_tnd = (np.empty((steps + 1, batch, size), x_tng.dtype) for _ in "hc")
    h_tnd[0], c_tnd[0] = h0_nd, c0_nd
    gates_tng = np.empty_like(x_tng)
    over_slices(_forward, batch, x_tng, panels(w_gd.T), bias_g, mask_tn, h_tnd, c_tnd, gates_tng)
    return h_tnd, c_tnd, gates_tng


# --- backward ---------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_backward(dh_t, gates, c, c_next, dh, dc, d, dbias):
    """dh, dc: gradients of the states after the step, then of c before it; dh is emptied, for the product to fill."""
    (i_, f_, g_, o_), (di, df, dg, do), (bi, bf, bg, bo) = quarters(gates), quarters(d), quarters(dbias)
    for j in range(c.size):
        i, f, g, o, k = i_[j], f_[j], g_[j], o_[j], tanh(c_next[j])
        dh_j = dh[j] + dh_t[j]
        dk = dc[j] + dh_j * o * (ONE - k * k)
        di_j, df_j = dk * g * i * (ONE - i), dk * c[j] * f * (ONE - f)
        dg_j, do_j = dk * i * (ONE - g * g), dh_j * k * o * (ONE - o)
        di[j], df[j], dg[j], do[j] = di_j, df_j, dg_j, do_j
        bi[j] += di_j
        bf[j] += df_j
        bg[j] += dg_j
        bo[j] += do_j
        dc[j] = dk * f
        dh[j] = 0


@njit(**JIT)
def _backward(n0, n1, arguments):
    dh_tnd, c_tnd, gates_tng, w_panels, mask_tn, d_tng, dh_nd, dc_nd, dbias_sg = arguments
    dbias = dbias_sg[n0 // ROWS]
    for t in range(dh_tnd.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward(dh_tnd[t, n], gates_tng[t, n], c_tnd[t, n], c_tnd[t + 1, n], dh_nd[n], dc_nd[n], d_tng[t, n],
                               dbias)
            else:
                add(dh_nd[n], dh_tnd[t, n])
                clear(d_tng[t, n])
        product(d_tng[t, n0:n1], w_panels, 1.0, dh_nd[n0:n1])


def lstm_backward_cpu(dh_tnd, dc_nd, h_tnd, c_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 4D), dh0 (N, D), dc0 (N, D), dw (4D, D), dbias (4D,)"""
    dh_tnd, dc_nd, h_tnd, c_tnd, gates_tng, w_gd, mask_tn = checked(
        "lstm_backward", dh_tnd, dc_nd, h_tnd, c_tnd, gates_tng, w_gd, mask_tn)
    d_tng, dbias_sg = np.empty_like(gates_tng), slice_sums(len(dc_nd), gates_tng)
    dh_nd, dc_nd = np.zeros_like(dc_nd), dc_nd.copy()
    over_slices(_backward, len(dc_nd), dh_tnd, c_tnd, gates_tng, panels(w_gd), mask_tn, d_tng, dh_nd, dc_nd, dbias_sg)
    dw = sum_of_outer(d_tng, h_tnd[:-1]) if want_w else unused(w_gd)
    return d_tng, dh_nd, dc_nd, dw, dbias_sg.sum(axis=0)


# --- double backward --------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_tangent(vu, v, vbias, gates, c, vc, c_next, vgates, vc_next, vh_next):
    """The forward step's tangents."""
    (ui, uf, ug, uo), (xi, xf, xg, xo), (bi, bf, bg, bo) = quarters(vu), quarters(v), quarters(vbias)
    (i_, f_, g_, o_), (vi_, vf_, vg_, vo_) = quarters(gates), quarters(vgates)
    for j in range(c.size):
        i, f, g, o, k = i_[j], f_[j], g_[j], o_[j], tanh(c_next[j])
        vi, vf = i * (ONE - i) * (ui[j] + xi[j] + bi[j]), f * (ONE - f) * (uf[j] + xf[j] + bf[j])
        vg, vo = (ONE - g * g) * (ug[j] + xg[j] + bg[j]), o * (ONE - o) * (uo[j] + xo[j] + bo[j])
        vi_[j], vf_[j], vg_[j], vo_[j] = vi, vf, vg, vo
        vc_j = vf * c[j] + f * vc[j] + vi * g + i * vg
        vc_next[j] = vc_j
        vh_next[j] = vo * k + o * (ONE - k * k) * vc_j


@njit(**CELL)
def _cell_backward_tangent(dh_t, gates, vgates, c, vc, c_next, vc_next, dh, dc, vdh, vdc, vd, vdbias):
    """The backward step with tangents; dh and vdh are emptied, as in `_cell_backward`."""
    (i_, f_, g_, o_), (vi_, vf_, vg_, vo_) = quarters(gates), quarters(vgates)
    (di, df, dg, do), (bi, bf, bg, bo) = quarters(vd), quarters(vdbias)
    for j in range(c.size):
        i, f, g, o, k = i_[j], f_[j], g_[j], o_[j], tanh(c_next[j])
        vi, vf, vg, vo, slope = vi_[j], vf_[j], vg_[j], vo_[j], ONE - k * k
        vk, dh_j, vdh_j = slope * vc_next[j], dh[j] + dh_t[j], vdh[j]
        dk = dc[j] + dh_j * o * slope
        vdk = vdc[j] + (vdh_j * o + dh_j * vo) * slope - TWO * dh_j * o * k * vk
        di_j = (vdk * g + dk * vg) * i * (ONE - i) + dk * g * (ONE - TWO * i) * vi
        df_j = (vdk * c[j] + dk * vc[j]) * f * (ONE - f) + dk * c[j] * (ONE - TWO * f) * vf
        dg_j = (vdk * i + dk * vi) * (ONE - g * g) - TWO * dk * i * g * vg
        do_j = (vdh_j * k + dh_j * vk) * o * (ONE - o) + dh_j * k * (ONE - TWO * o) * vo
        di[j], df[j], dg[j], do[j] = di_j, df_j, dg_j, do_j
        bi[j] += di_j
        bf[j] += df_j
        bg[j] += dg_j
        bo[j] += do_j
        dc[j], vdc[j] = dk * f, vdk * f + dk * vf
        dh[j], vdh[j] = 0, 0


@njit(**JIT)
def _double_backward(n0, n1, arguments):
    (v_tng, vbias_g, dh_tnd, d_tng, h_tnd, c_tnd, gates_tng, w_forward, w_backward, vw_forward, vw_backward, mask_tn,
     vh_tnd, vc_tnd, vgates_tng, vd_tng, dh_nd, dc_nd, vdh_nd, vdc_nd, vdbias_sg) = arguments
    vu = np.empty((n1 - n0, v_tng.shape[2]), v_tng.dtype)
    for t in range(v_tng.shape[0]):
        product(vh_tnd[t, n0:n1], w_forward, 0.0, vu)
        add_product(h_tnd[t, n0:n1], vw_forward, vu)
        for n in range(n0, n1):
            _cell_tangent(vu[n - n0], v_tng[t, n], vbias_g, gates_tng[t, n], c_tnd[t, n], vc_tnd[t, n], c_tnd[t + 1, n],
                          vgates_tng[t, n], vc_tnd[t + 1, n], vh_tnd[t + 1, n])
            if not mask_tn[t, n]:
                copy(vc_tnd[t + 1, n], vc_tnd[t, n])
                copy(vh_tnd[t + 1, n], vh_tnd[t, n])
    vdbias = vdbias_sg[n0 // ROWS]
    for t in range(v_tng.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward_tangent(
                    dh_tnd[t, n], gates_tng[t, n], vgates_tng[t, n], c_tnd[t, n], vc_tnd[t, n], c_tnd[t + 1, n],
                    vc_tnd[t + 1, n], dh_nd[n], dc_nd[n], vdh_nd[n], vdc_nd[n], vd_tng[t, n], vdbias)
            else:
                add(dh_nd[n], dh_tnd[t, n])
                clear(vd_tng[t, n])
        product(d_tng[t, n0:n1], w_backward, 1.0, dh_nd[n0:n1])
        add_product(d_tng[t, n0:n1], vw_backward, vdh_nd[n0:n1])
        product(vd_tng[t, n0:n1], w_backward, 1.0, vdh_nd[n0:n1])


def lstm_double_backward_cpu(
    v_tng, vh0_nd, vc0_nd, vw_gd, vbias_g, dh_tnd, dc_nd, d_tng, h_tnd, c_tnd, gates_tng, w_gd, mask_tn
):
    """-> gradients for x (T, N, 4D), h0, c0 (N, D), w (4D, D), bias (4D,), dh (T, N, D), dc (N, D)"""
    v_tng, vh0_nd, vc0_nd, vbias_g, dh_tnd, dc_nd, d_tng, h_tnd, c_tnd, gates_tng, w_gd, mask_tn = checked(
        "lstm_double_backward",
        v_tng, vh0_nd, vc0_nd, vbias_g, dh_tnd, dc_nd, d_tng, h_tnd, c_tnd, gates_tng, w_gd, mask_tn)
    vh_tnd, vc_tnd, vgates_tng, vd_tng = (np.empty_like(a) for a in (h_tnd, c_tnd, gates_tng, d_tng))
    vh_tnd[0], vc_tnd[0] = vh0_nd, vc0_nd
    dh_nd, vdh_nd, vdc_nd, dc_nd = (*(np.zeros_like(vh0_nd) for _ in range(3)), dc_nd.copy())
    vdbias_sg = slice_sums(len(vh0_nd), gates_tng)
    over_slices(_double_backward, len(vh0_nd), v_tng, vbias_g, dh_tnd, d_tng, h_tnd, c_tnd, gates_tng,
                *panels_both_ways(w_gd, v_tng.dtype), *panels_both_ways(vw_gd, v_tng.dtype), mask_tn,
                vh_tnd, vc_tnd, vgates_tng, vd_tng, dh_nd, dc_nd, vdh_nd, vdc_nd, vdbias_sg)
    gw = sum_of_outer(vd_tng, h_tnd[:-1])
    gw += sum_of_outer(d_tng, vh_tnd[:-1])
    return vd_tng, vdh_nd, vdc_nd, gw, vdbias_sg.sum(axis=0), vh_tnd[1:], vc_tnd[-1]


# --- CUDA -------------------------------------------------------------------------------------------------------------

def lstm_forward_cuda(x_tng, h0_nd, c0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D) and c (T+1, N, D), initial states first; gates (T, N, 4D): i, f, g, o"""
    mask_tn, x_tng, w_gd, bias_g = device_scan.dense(mask_tn, x_tng, w_gd, bias_g)
    h_tnd, c_tnd, gates_tng = *(device_scan.states(s, len(x_tng)) for s in (h0_nd, c0_nd)), np.empty_like(x_tng)
    arrays = [x_tng, bias_g, mask_tn, h_tnd, c_tnd, gates_tng]
    device_scan.forward_sweep("lstm", "lstm_forward", w_gd, h_tnd, arrays)
    return h_tnd, c_tnd, gates_tng


def lstm_backward_cuda(dh_tnd, dc_nd, h_tnd, c_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 4D), dh0 (N, D), dc0 (N, D), dw (4D, D), dbias (4D,)"""
    mask_tn, dh_tnd, c_tnd, gates_tng, w_gd = device_scan.dense(mask_tn, dh_tnd, c_tnd, gates_tng, w_gd)
    d_tng, dh_nd, dc_nd = np.empty_like(gates_tng), np.zeros_like(dc_nd), dc_nd.copy()
    arrays = [dh_tnd, c_tnd, gates_tng, mask_tn, dh_nd, dc_nd, d_tng]
    device_scan.backward_sweep("lstm", "lstm_backward", w_gd, d_tng, dh_nd, arrays)
    return d_tng, dh_nd, dc_nd, *device_scan.weight_gradients(d_tng, h_tnd[:-1], want_w)


def lstm_double_backward_cuda(
    v_tng, vh0_nd, vc0_nd, vw_gd, vbias_g, dh_tnd, dc_nd, d_tng, h_tnd, c_tnd, gates_tng, w_gd, mask_tn
):
    """-> gradients for x (T, N, 4D), h0, c0 (N, D), w (4D, D), bias (4D,), dh (T, N, D), dc (N, D)"""
    mask_tn, dh_tnd, d_tng, c_tnd, gates_tng, w_gd = device_scan.dense(mask_tn, dh_tnd, d_tng, c_tnd, gates_tng, w_gd)
    hv_tng, au_tnd, av_tnd = device_scan.outside_the_sweeps(vw_gd, d_tng, h_tnd[:-1], w_gd)
    v_tng = v_tng + hv_tng + vbias_g
    vh_tnd, vc_tnd = (device_scan.states(s, len(v_tng)) for s in (vh0_nd, vc0_nd))
    vgates_tng, vd_tng = np.empty_like(gates_tng), np.empty_like(d_tng)
    dc_nd, (dh_nd, vdh_nd, vdc_nd) = dc_nd.copy(), (np.zeros_like(dc_nd) for _ in range(3))
    arrays = [v_tng, c_tnd, gates_tng, mask_tn, vh_tnd, vc_tnd, vgates_tng]
    device_scan.forward_sweep("lstm", "lstm_tangent", w_gd, vh_tnd, arrays)
    arrays = [au_tnd, av_tnd, dh_tnd, c_tnd, vc_tnd, gates_tng, vgates_tng, mask_tn, dh_nd, dc_nd, vdh_nd, vdc_nd, vd_tng]
    device_scan.backward_sweep("lstm", "lstm_backward_tangent", w_gd, vd_tng, vdh_nd, arrays)
    gw, gbias = device_scan.weight_gradients(vd_tng, h_tnd[:-1], True)
    return vd_tng, vdh_nd, vdc_nd, gw + device_scan.sum_of_outer(d_tng, vh_tnd[:-1]), gbias, vh_tnd[1:], vc_tnd[-1]
