"""GRU scans on the CPU, reset gate before the product: the equations of `minigen/ops/gru_cho.py`, a slice of the batch per task
(`scan.py` says why).

Two products stand in a row in each step, so each sweep makes two passes over its rows:

    forward           u = h (U_r, U_z)^T;   r, z, p = r h;      un = p U_n^T;      n, h'
    backward          da_n from dh';        dp = da_n U_n;      da_r, da_z;        dh = dh' z + dp r + (da_r, da_z) (U_r, U_z)
    double backward   the same with tangents, and with vU where dU's gradient was asked for
"""

import numpy as np
from numba import njit

from . import device_scan
from .gates import ONE, TWO, sigmoid, tanh
from .matmul import matmul_forward_cuda
from .panels import ROWS, add_product, panels, panels_both_ways, product
from .scan import CELL, JIT, checked, clear, copy, over_slices, rz_and_last, slice_sums, sum_of_outer_in_parts, thirds, unused

# --- forward ----------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_gates(u, x, bias, h, gates, p):
    """One sequence, one step: r, z and p = r h."""
    d = h.size
    (xr, xz, _), (br, bz, _), (r_, z_, _) = thirds(x), thirds(bias), thirds(gates)
    ur, uz = u[:d], u[d:]
    for j in range(d):
        r, z = sigmoid(ur[j] + xr[j] + br[j]), sigmoid(uz[j] + xz[j] + bz[j])
        r_[j], z_[j], p[j] = r, z, r * h[j]


@njit(**CELL)
def _cell(un, x, bias, h, gates, h_next):
    (_, _, xn), (_, _, bn), (_, z_, n_) = thirds(x), thirds(bias), thirds(gates)
    for j in range(h.size):
        n = tanh(un[j] + xn[j] + bn[j])
        n_[j] = n
        h_next[j] = n + z_[j] * (h[j] - n)


@njit(**JIT)
def _forward(n0, n1, arguments):
    x_tng, rz_panels, n_panels, bias_g, mask_tn, h_tnd, gates_tng = arguments
    size = h_tnd.shape[2]
    u, p, un = (np.empty((n1 - n0, 2 * size), x_tng.dtype), np.empty((n1 - n0, size), x_tng.dtype),
                np.empty((n1 - n0, size), x_tng.dtype))
    for t in range(x_tng.shape[0]):
        product(h_tnd[t, n0:n1], rz_panels, 0.0, u)
        for n in range(n0, n1):
            _cell_gates(u[n - n0], x_tng[t, n], bias_g, h_tnd[t, n], gates_tng[t, n], p[n - n0])
        product(p, n_panels, 0.0, un)
        for n in range(n0, n1):
            _cell(un[n - n0], x_tng[t, n], bias_g, h_tnd[t, n], gates_tng[t, n], h_tnd[t + 1, n])
            if not mask_tn[t, n]:
                copy(h_tnd[t + 1, n], h_tnd[t, n])
                clear(gates_tng[t, n])


def gru_cho_forward_cpu(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 3D): r, z, n"""
    x_tng, h0_nd, w_gd, bias_g, mask_tn = checked("gru_cho_forward", x_tng, h0_nd, w_gd, bias_g, mask_tn)
    h_tnd, gates_tng = np.empty((len(x_tng) + 1, *h0_nd.shape), x_tng.dtype), np.empty_like(x_tng)
    h_tnd[0] = h0_nd
    w_rz, w_n = rz_and_last(w_gd)
    over_slices(_forward, len(h0_nd), x_tng, panels(w_rz.T), panels(w_n.T), bias_g, mask_tn, h_tnd, gates_tng)
    return h_tnd, gates_tng


# --- backward ---------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_backward_n(dh_t, gates, dh, d):
    """da_n; dh takes in what arrives at this step."""
    (_, z_, n_), (_, _, dn_) = thirds(gates), thirds(d)
    for j in range(dh.size):
        dh[j] += dh_t[j]
        dn_[j] = dh[j] * (ONE - z_[j]) * (ONE - n_[j] * n_[j])


@njit(**CELL)
def _cell_backward_rz(dp, gates, h, dh, d, p, dbias):
    """da_r, da_z, and p once more, for the weight's gradient."""
    (r_, z_, n_), (dr_, dz_, dn_), (br, bz, bn) = thirds(gates), thirds(d), thirds(dbias)
    for j in range(h.size):
        r, z, n = r_[j], z_[j], n_[j]
        da_z, da_r = dh[j] * (h[j] - n) * z * (ONE - z), dp[j] * h[j] * r * (ONE - r)
        dr_[j], dz_[j], p[j] = da_r, da_z, r * h[j]
        br[j] += da_r
        bz[j] += da_z
        bn[j] += dn_[j]
        dh[j] = dh[j] * z + dp[j] * r


@njit(**JIT)
def _backward(n0, n1, arguments):
    dh_tnd, h_tnd, gates_tng, rz_panels, n_panels, mask_tn, d_tng, p_tnd, dh_nd, dbias_sg = arguments
    rz, dp, dbias = 2 * h_tnd.shape[2], np.empty((n1 - n0, h_tnd.shape[2]), dh_nd.dtype), dbias_sg[n0 // ROWS]
    for t in range(dh_tnd.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            _cell_backward_n(dh_tnd[t, n], gates_tng[t, n], dh_nd[n], d_tng[t, n])
        product(d_tng[t, n0:n1, rz:], n_panels, 0.0, dp)
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward_rz(dp[n - n0], gates_tng[t, n], h_tnd[t, n], dh_nd[n], d_tng[t, n], p_tnd[t, n], dbias)
            else:
                clear(d_tng[t, n])
                clear(p_tnd[t, n])
        product(d_tng[t, n0:n1, :rz], rz_panels, 1.0, dh_nd[n0:n1])


def gru_cho_backward_cpu(dh_tnd, h_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (3D,)"""
    dh_tnd, h_tnd, gates_tng, w_gd, mask_tn = checked("gru_cho_backward", dh_tnd, h_tnd, gates_tng, w_gd, mask_tn)
    d_tng, p_tnd, dh_nd = np.empty_like(gates_tng), np.empty_like(dh_tnd), np.zeros_like(h_tnd[0])
    dbias_sg, (w_rz, w_n) = slice_sums(len(dh_nd), gates_tng), rz_and_last(w_gd)
    over_slices(_backward, len(dh_nd), dh_tnd, h_tnd, gates_tng, panels(w_rz), panels(w_n), mask_tn, d_tng, p_tnd,
                dh_nd, dbias_sg)
    dw = sum_of_outer_in_parts(d_tng, h_tnd[:-1], d_tng[..., 2 * h_tnd.shape[2]:], p_tnd) if want_w else unused(w_gd)
    return d_tng, dh_nd, dw, dbias_sg.sum(axis=0)


# --- double backward --------------------------------------------------------------------------------------------------

def _panels(w_gd, dtype):
    """Panels of U_r and U_z both ways, then of U_n; nothing where w is None, a gradient nobody asked for."""
    return [p for part in rz_and_last(w_gd) for p in panels_both_ways(part, dtype)]


@njit(**CELL)
def _cell_tangent_rz(vu, v, vbias, gates, h, vh, vgates, p, vp):
    """vr, vz, vp, and p once more."""
    size = h.size
    (xr, xz, _), (br, bz, _), (r_, z_, _), (vr_, vz_, _) = thirds(v), thirds(vbias), thirds(gates), thirds(vgates)
    ur, uz = vu[:size], vu[size:]
    for j in range(size):
        r, z = r_[j], z_[j]
        vr, vz = r * (ONE - r) * (xr[j] + ur[j] + br[j]), z * (ONE - z) * (xz[j] + uz[j] + bz[j])
        vr_[j], vz_[j], p[j], vp[j] = vr, vz, r * h[j], vr * h[j] + r * vh[j]


@njit(**CELL)
def _cell_tangent(vun, v, vbias, gates, h, vh, vgates, vh_next):
    (_, _, xn), (_, _, bn), (_, z_, n_), (_, vz_, vn_) = thirds(v), thirds(vbias), thirds(gates), thirds(vgates)
    for j in range(h.size):
        z, n = z_[j], n_[j]
        vn = (ONE - n * n) * (xn[j] + vun[j] + bn[j])
        vn_[j] = vn
        vh_next[j] = vn + vz_[j] * (h[j] - n) + z * (vh[j] - vn)


@njit(**CELL)
def _cell_backward_tangent_n(dh_t, gates, vgates, dh, vdh, vd):
    (_, z_, n_), (_, vz_, vn_), (_, _, dn_) = thirds(gates), thirds(vgates), thirds(vd)
    for j in range(dh.size):
        dh[j] += dh_t[j]
        z, n = z_[j], n_[j]
        vdn = vdh[j] * (ONE - z) - dh[j] * vz_[j]
        dn_[j] = vdn * (ONE - n * n) - TWO * dh[j] * (ONE - z) * n * vn_[j]


@njit(**CELL)
def _cell_backward_tangent_rz(dp, vdp, gates, vgates, h, vh, dh, vdh, vd, vdbias):
    (r_, z_, n_), (vr_, vz_, vn_), (dr_, dz_, dn_), (br, bz, bn) = thirds(gates), thirds(vgates), thirds(vd), thirds(vdbias)
    for j in range(h.size):
        r, z, n, vr, vz, vn, dh_j, vdh_j = r_[j], z_[j], n_[j], vr_[j], vz_[j], vn_[j], dh[j], vdh[j]
        vdr, vdz = vdp[j] * h[j] + dp[j] * vh[j], vdh_j * (h[j] - n) + dh_j * (vh[j] - vn)
        va_r = vdr * r * (ONE - r) + dp[j] * h[j] * (ONE - TWO * r) * vr
        va_z = vdz * z * (ONE - z) + dh_j * (h[j] - n) * (ONE - TWO * z) * vz
        dr_[j], dz_[j] = va_r, va_z
        br[j] += va_r
        bz[j] += va_z
        bn[j] += dn_[j]
        dh[j], vdh[j] = dh_j * z + dp[j] * r, vdh_j * z + dh_j * vz + vdp[j] * r + dp[j] * vr


@njit(**JIT)
def _double_backward(n0, n1, arguments):
    (v_tng, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, mask_tn, rz_forward, rz_backward, n_forward, n_backward,
     vrz_forward, vrz_backward, vn_forward, vn_backward,
     vh_tnd, vgates_tng, p_tnd, vp_tnd, vd_tng, dh_nd, vdh_nd, vdbias_sg) = arguments
    size, rows, real, vdbias = h_tnd.shape[2], n1 - n0, v_tng.dtype, vdbias_sg[n0 // ROWS]
    rz, vu, vun = 2 * size, np.empty((rows, 2 * size), real), np.empty((rows, size), real)
    for t in range(v_tng.shape[0]):
        product(vh_tnd[t, n0:n1], rz_forward, 0.0, vu)
        add_product(h_tnd[t, n0:n1], vrz_forward, vu)
        for n in range(n0, n1):
            _cell_tangent_rz(vu[n - n0], v_tng[t, n], vbias_g, gates_tng[t, n], h_tnd[t, n], vh_tnd[t, n], vgates_tng[t, n],
                             p_tnd[t, n], vp_tnd[t, n])
        product(vp_tnd[t, n0:n1], n_forward, 0.0, vun)
        add_product(p_tnd[t, n0:n1], vn_forward, vun)
        for n in range(n0, n1):
            _cell_tangent(vun[n - n0], v_tng[t, n], vbias_g, gates_tng[t, n], h_tnd[t, n], vh_tnd[t, n], vgates_tng[t, n],
                          vh_tnd[t + 1, n])
            if not mask_tn[t, n]:
                copy(vh_tnd[t + 1, n], vh_tnd[t, n])
    dp, vdp = np.empty((rows, size), real), np.empty((rows, size), real)
    for t in range(v_tng.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            _cell_backward_tangent_n(dh_tnd[t, n], gates_tng[t, n], vgates_tng[t, n], dh_nd[n], vdh_nd[n], vd_tng[t, n])
        product(d_tng[t, n0:n1, rz:], n_backward, 0.0, dp)
        product(vd_tng[t, n0:n1, rz:], n_backward, 0.0, vdp)
        add_product(d_tng[t, n0:n1, rz:], vn_backward, vdp)
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward_tangent_rz(dp[n - n0], vdp[n - n0], gates_tng[t, n], vgates_tng[t, n], h_tnd[t, n],
                                          vh_tnd[t, n], dh_nd[n], vdh_nd[n], vd_tng[t, n], vdbias)
            else:
                clear(vd_tng[t, n])
        product(d_tng[t, n0:n1, :rz], rz_backward, 1.0, dh_nd[n0:n1])
        add_product(d_tng[t, n0:n1, :rz], vrz_backward, vdh_nd[n0:n1])
        product(vd_tng[t, n0:n1, :rz], rz_backward, 1.0, vdh_nd[n0:n1])


def gru_cho_double_backward_cpu(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (3D,), dh (T, N, D)"""
    v_tng, vh0_nd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn = checked(
        "gru_cho_double_backward", v_tng, vh0_nd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn)
    vh_tnd, vgates_tng, p_tnd, vp_tnd, vd_tng = (np.empty_like(a) for a in (h_tnd, gates_tng, dh_tnd, dh_tnd, d_tng))
    vh_tnd[0] = vh0_nd
    dh_nd, vdh_nd, vdbias_sg = np.zeros_like(vh0_nd), np.zeros_like(vh0_nd), slice_sums(len(vh0_nd), gates_tng)
    over_slices(_double_backward, len(vh0_nd), v_tng, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, mask_tn,
                *_panels(w_gd, v_tng.dtype), *_panels(vw_gd, v_tng.dtype), vh_tnd, vgates_tng, p_tnd, vp_tnd, vd_tng,
                dh_nd, vdh_nd, vdbias_sg)
    last = np.s_[..., 2 * h_tnd.shape[2]:]
    gw = sum_of_outer_in_parts(vd_tng, h_tnd[:-1], vd_tng[last], p_tnd)
    gw += sum_of_outer_in_parts(d_tng, vh_tnd[:-1], d_tng[last], vp_tnd)
    return vd_tng, vdh_nd, gw, vdbias_sg.sum(axis=0), vh_tnd[1:]


# --- CUDA -------------------------------------------------------------------------------------------------------------

def _forward_sweep_device(kernel, w_gd, h_tnd, arrays, mask_tn):
    """As in `device_scan.py`, with two products and two cells in a step."""
    (w_rz, w_n), steps, p_nd = rz_and_last(w_gd), len(h_tnd) - 1, np.empty_like(h_tnd[0])
    if device_scan.persistent(w_gd):
        device_scan.scan("gru_cho", f"{kernel}_scan", steps, p_nd, 2, 5, [device_scan.transposed(w_gd), *arrays, mask_tn])
    else:
        for t in range(steps):
            u = matmul_forward_cuda(h_tnd[t], w_rz.T)
            device_scan.step("gru_cho", f"{kernel}_gates_step", t, p_nd, [u, *arrays, p_nd])
            un = matmul_forward_cuda(p_nd, w_n.T)
            device_scan.step("gru_cho", f"{kernel}_step", t, p_nd, [un, *arrays, mask_tn])


def _backward_sweep_device(kernel, w_gd, d_tng, dh_nd, for_n, for_rz, for_both):
    (w_rz, w_n), size = rz_and_last(w_gd), w_gd.shape[1]
    if device_scan.persistent(w_gd):
        device_scan.scan("gru_cho", f"{kernel}_scan", len(d_tng), dh_nd, 2, 6, [w_gd, *for_n, *for_rz, *for_both])
    else:
        u = np.zeros_like(dh_nd)
        for t in reversed(range(len(d_tng))):
            device_scan.step("gru_cho", f"{kernel}_n_step", t, dh_nd, [u, *for_n, *for_both])
            dp = matmul_forward_cuda(d_tng[t, :, 2 * size:], w_n)
            device_scan.step("gru_cho", f"{kernel}_rz_step", t, dh_nd, [dp, *for_rz, *for_both])
            u = matmul_forward_cuda(d_tng[t, :, :2 * size], w_rz)
        dh_nd += u


def _weight_gradients_device(d_tng, h_tnd, p_tnd, want_w):
    """dw (3D, D) from the states, and from p for the last third; dbias (3D,)"""
    size = h_tnd.shape[2]
    (dw_rz, db_rz), (dw_n, db_n) = (device_scan.weight_gradients(d, h, want_w) for d, h in (
        (d_tng[..., :2 * size], h_tnd), (d_tng[..., 2 * size:], p_tnd)))
    return np.concatenate([dw_rz, dw_n]), np.concatenate([db_rz, db_n])


def gru_cho_forward_cuda(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 3D): r, z, n"""
    mask_tn, x_tng, w_gd, bias_g = device_scan.dense(mask_tn, x_tng, w_gd, bias_g)
    h_tnd, gates_tng = device_scan.states(h0_nd, len(x_tng)), np.empty_like(x_tng)
    _forward_sweep_device("gru_cho_forward", w_gd, h_tnd, [x_tng, bias_g, h_tnd, gates_tng], mask_tn)
    return h_tnd, gates_tng


def gru_cho_backward_cuda(dh_tnd, h_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (3D,)"""
    mask_tn, dh_tnd, h_tnd, gates_tng, w_gd = device_scan.dense(mask_tn, dh_tnd, h_tnd, gates_tng, w_gd)
    d_tng, dh_nd = np.empty_like(gates_tng), np.zeros_like(h_tnd[0])
    _backward_sweep_device("gru_cho_backward", w_gd, d_tng, dh_nd, [dh_tnd], [h_tnd], [gates_tng, mask_tn, dh_nd, d_tng])
    p_tnd = gates_tng[..., :w_gd.shape[1]] * h_tnd[:-1]
    return d_tng, dh_nd, *_weight_gradients_device(d_tng, h_tnd[:-1], p_tnd, want_w)


def gru_cho_double_backward_cuda(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (3D,), dh (T, N, D)"""
    mask_tn, dh_tnd, d_tng, h_tnd, gates_tng, w_gd = device_scan.dense(mask_tn, dh_tnd, d_tng, h_tnd, gates_tng, w_gd)
    size, (w_rz, w_n), (vw_rz, vw_n) = w_gd.shape[1], rz_and_last(w_gd), rz_and_last(vw_gd)
    r_tnd, h_before = gates_tng[..., :size], h_tnd[:-1]
    p_tnd = r_tnd * h_before
    hv_tng, au_tnd, av_tnd = device_scan.outside_the_sweeps(vw_rz, d_tng[..., :2 * size], h_before, w_rz)
    pv_tnd, dp_tnd, dpv_tnd = device_scan.outside_the_sweeps(vw_n, d_tng[..., 2 * size:], p_tnd, w_n)
    v_tng = v_tng + np.concatenate([hv_tng, pv_tnd], axis=2) + vbias_g
    vh_tnd, vgates_tng, vd_tng = device_scan.states(vh0_nd, len(v_tng)), np.empty_like(gates_tng), np.empty_like(d_tng)
    dh_nd, vdh_nd = np.zeros_like(h_tnd[0]), np.zeros_like(h_tnd[0])
    _forward_sweep_device("gru_cho_tangent", w_gd, vh_tnd, [v_tng, h_tnd, gates_tng, vh_tnd, vgates_tng], mask_tn)
    for_rz, for_both = [au_tnd, av_tnd, dp_tnd, dpv_tnd, h_tnd, vh_tnd], [gates_tng, vgates_tng, mask_tn, dh_nd, vdh_nd, vd_tng]
    _backward_sweep_device("gru_cho_backward_tangent", w_gd, vd_tng, vdh_nd, [dh_tnd], for_rz, for_both)
    gw, gbias = _weight_gradients_device(vd_tng, h_before, p_tnd, True)
    vp_tnd = vgates_tng[..., :size] * h_before + r_tnd * vh_tnd[:-1]
    return vd_tng, vdh_nd, gw + _weight_gradients_device(d_tng, vh_tnd[:-1], vp_tnd, True)[0], gbias, vh_tnd[1:]
