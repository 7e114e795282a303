"""GRU scans on the CPU, reset gate before the product: the equations of `minigen/ops/gru_cho.py`, a slice of the batch per task
(`scan.py` says why).

Two products stand in a row in each step, so each sweep makes two passes over its rows:

    forward           u = h (U_r, U_z)^T;   r, z, p = r h;      un = p U_n^T;      n, h'
    backward          da_n from dh';        dp = da_n U_n;      da_r, da_z;        dh = dh' z + dp r + (da_r, da_z) (U_r, U_z)
    double backward   the same with tangents, and products over all steps before the sweeps
"""

import numpy as np
from numba import njit

from . import device_scan
from .gates import sigmoid, tanh
from .matmul import matmul_forward_cpu, matmul_forward_cuda
from .scan import (
    JIT,
    ROWS,
    add,
    checked,
    outside_the_sweeps,
    over_slices,
    panels,
    product,
    slice_sums,
    tangent_product,
    thirds,
    unused,
)

# --- forward ----------------------------------------------------------------------------------------------------------

@njit(**JIT)
def _cell_gates(u, x, bias, h, gates, p):
    """One sequence, one step: r, z and p = r h."""
    d = h.size
    (xr, xz, _), (br, bz, _), (r_, z_, _) = thirds(x), thirds(bias), thirds(gates)
    ur, uz = u[:d], u[d:]
    for j in range(d):
        r, z = sigmoid(ur[j] + xr[j] + br[j]), sigmoid(uz[j] + xz[j] + bz[j])
        r_[j], z_[j], p[j] = r, z, r * h[j]


@njit(**JIT)
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
                h_tnd[t + 1, n] = h_tnd[t, n]
                gates_tng[t, n] = 0


def _parts(w_gd):
    """U_r and U_z (2D, D), and U_n (D, D)."""
    size = w_gd.shape[1]
    return w_gd[:2 * size], w_gd[2 * size:]


def gru_cho_forward_cpu(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 3D): r, z, n"""
    x_tng, h0_nd, w_gd, bias_g, mask_tn = checked("gru_cho_forward", x_tng, h0_nd, w_gd, bias_g, mask_tn)
    h_tnd, gates_tng = np.empty((len(x_tng) + 1, *h0_nd.shape), x_tng.dtype), np.empty_like(x_tng)
    h_tnd[0] = h0_nd
    w_rz, w_n = _parts(w_gd)
    over_slices(_forward, len(h0_nd), x_tng, panels(w_rz.T), panels(w_n.T), bias_g, mask_tn, h_tnd, gates_tng)
    return h_tnd, gates_tng


# --- backward ---------------------------------------------------------------------------------------------------------

@njit(**JIT)
def _cell_backward_n(dh_t, gates, dh, d, da):
    """da_n, into d and by itself; dh takes in what arrives at this step."""
    (_, z_, n_), (_, _, dn_) = thirds(gates), thirds(d)
    for j in range(dh.size):
        dh[j] += dh_t[j]
        da_n = dh[j] * (1 - z_[j]) * (1 - n_[j] * n_[j])
        dn_[j], da[j] = da_n, da_n


@njit(**JIT)
def _cell_backward_rz(dp, gates, h, dh, d, da_rz, dbias):
    size = h.size
    (r_, z_, n_), (dr_, dz_, dn_), (br, bz, bn) = thirds(gates), thirds(d), thirds(dbias)
    er, ez = da_rz[:size], da_rz[size:]
    for j in range(size):
        r, z, n = r_[j], z_[j], n_[j]
        da_z, da_r = dh[j] * (h[j] - n) * z * (1 - z), dp[j] * h[j] * r * (1 - r)
        dr_[j], dz_[j] = da_r, da_z
        er[j], ez[j] = da_r, da_z
        br[j] += da_r
        bz[j] += da_z
        bn[j] += dn_[j]
        dh[j] = dh[j] * z + dp[j] * r


@njit(**JIT)
def _backward(n0, n1, arguments):
    dh_tnd, h_tnd, gates_tng, rz_panels, n_panels, mask_tn, d_tng, dh_nd, dbias_sg = arguments
    size, dbias = h_tnd.shape[2], dbias_sg[n0 // ROWS]
    da, dp, da_rz = (np.empty((n1 - n0, size), dh_nd.dtype), np.empty((n1 - n0, size), dh_nd.dtype),
                     np.empty((n1 - n0, 2 * size), dh_nd.dtype))
    for t in range(dh_tnd.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            _cell_backward_n(dh_tnd[t, n], gates_tng[t, n], dh_nd[n], d_tng[t, n], da[n - n0])
        product(da, n_panels, 0.0, dp)
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward_rz(dp[n - n0], gates_tng[t, n], h_tnd[t, n], dh_nd[n], d_tng[t, n], da_rz[n - n0], dbias)
            else:
                d_tng[t, n], da_rz[n - n0] = 0, 0
        product(da_rz, rz_panels, 1.0, dh_nd[n0:n1])


def _sums_of_outer(d_tng, h_tnd, p_tnd):
    """dw (3D, D): of U_r and U_z from the states h, of U_n from p."""
    size = h_tnd.shape[2]
    d, h, p = d_tng.reshape(-1, 3 * size), h_tnd.reshape(-1, size), p_tnd.reshape(-1, size)
    return np.concatenate([matmul_forward_cpu(d[:, :2 * size].T, h), matmul_forward_cpu(d[:, 2 * size:].T, p)])


def gru_cho_backward_cpu(dh_tnd, h_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (3D,)"""
    dh_tnd, h_tnd, gates_tng, w_gd, mask_tn = checked("gru_cho_backward", dh_tnd, h_tnd, gates_tng, w_gd, mask_tn)
    d_tng, dh_nd, dbias_sg = np.empty_like(gates_tng), np.zeros_like(h_tnd[0]), slice_sums(len(h_tnd[0]), gates_tng)
    w_rz, w_n = _parts(w_gd)
    over_slices(_backward, len(dh_nd), dh_tnd, h_tnd, gates_tng, panels(w_rz), panels(w_n), mask_tn, d_tng, dh_nd, dbias_sg)
    r_tnd = gates_tng[..., :w_gd.shape[1]]
    dw = _sums_of_outer(d_tng, h_tnd[:-1], r_tnd * h_tnd[:-1]) if want_w else unused(w_gd)
    return d_tng, dh_nd, dw, dbias_sg.sum(axis=0)


# --- double backward --------------------------------------------------------------------------------------------------

@njit(**JIT)
def _cell_tangent_rz(vu, v, vbias, gates, h, vh, vgates, vp):
    size = h.size
    (xr, xz, _), (br, bz, _), (r_, z_, _), (vr_, vz_, _) = thirds(v), thirds(vbias), thirds(gates), thirds(vgates)
    ur, uz = vu[:size], vu[size:]
    for j in range(size):
        r, z = r_[j], z_[j]
        vr, vz = r * (1 - r) * (xr[j] + ur[j] + br[j]), z * (1 - z) * (xz[j] + uz[j] + bz[j])
        vr_[j], vz_[j], vp[j] = vr, vz, vr * h[j] + r * vh[j]


@njit(**JIT)
def _cell_tangent(vun, v, vbias, gates, h, vh, vgates, vh_next):
    (_, _, xn), (_, _, bn), (_, z_, n_), (_, vz_, vn_) = thirds(v), thirds(vbias), thirds(gates), thirds(vgates)
    for j in range(h.size):
        z, n = z_[j], n_[j]
        vn = (1 - n * n) * (xn[j] + vun[j] + bn[j])
        vn_[j] = vn
        vh_next[j] = vn + vz_[j] * (h[j] - n) + z * (vh[j] - vn)


@njit(**JIT)
def _cell_backward_tangent_n(dh_t, gates, vgates, dh, vdh, vd, va):
    (_, z_, n_), (_, vz_, vn_), (_, _, dn_) = thirds(gates), thirds(vgates), thirds(vd)
    for j in range(dh.size):
        dh[j] += dh_t[j]
        z, n = z_[j], n_[j]
        vdn = vdh[j] * (1 - z) - dh[j] * vz_[j]
        va_n = vdn * (1 - n * n) - 2 * dh[j] * (1 - z) * n * vn_[j]
        dn_[j], va[j] = va_n, va_n


@njit(**JIT)
def _cell_backward_tangent_rz(dp, vdp, gates, vgates, h, vh, dh, vdh, vd, va_rz, vdbias):
    size = h.size
    (r_, z_, n_), (vr_, vz_, vn_), (dr_, dz_, dn_), (br, bz, bn) = thirds(gates), thirds(vgates), thirds(vd), thirds(vdbias)
    er, ez = va_rz[:size], va_rz[size:]
    for j in range(size):
        r, z, n, vr, vz, vn, dh_j, vdh_j = r_[j], z_[j], n_[j], vr_[j], vz_[j], vn_[j], dh[j], vdh[j]
        vdr, vdz = vdp[j] * h[j] + dp[j] * vh[j], vdh_j * (h[j] - n) + dh_j * (vh[j] - vn)
        va_r = vdr * r * (1 - r) + dp[j] * h[j] * (1 - 2 * r) * vr
        va_z = vdz * z * (1 - z) + dh_j * (h[j] - n) * (1 - 2 * z) * vz
        dr_[j], dz_[j] = va_r, va_z
        er[j], ez[j] = va_r, va_z
        br[j] += va_r
        bz[j] += va_z
        bn[j] += dn_[j]
        dh[j], vdh[j] = dh_j * z + dp[j] * r, vdh_j * z + dh_j * vz + vdp[j] * r + dp[j] * vr


@njit(**JIT)
def _double_backward(n0, n1, arguments):
    (v_tng, vbias_g, dh_tnd, h_tnd, gates_tng, mask_tn, rz_forward, n_forward, rz_backward, n_backward,
     hv_tng, e_tnd, ve_tnd, pv_tnd, dp_tnd, vdp_tnd, vh_tnd, vgates_tng, vp_tnd, vd_tng, dh_nd, vdh_nd, vdbias_sg) = arguments
    size, rows, real, vdbias = h_tnd.shape[2], n1 - n0, v_tng.dtype, vdbias_sg[n0 // ROWS]
    vu, vun = np.empty((rows, 2 * size), real), np.empty((rows, size), real)
    for t in range(v_tng.shape[0]):
        tangent_product(vh_tnd[t], rz_forward, hv_tng, t, n0, n1, vu)
        for n in range(n0, n1):
            _cell_tangent_rz(vu[n - n0], v_tng[t, n], vbias_g, gates_tng[t, n], h_tnd[t, n], vh_tnd[t, n], vgates_tng[t, n],
                             vp_tnd[t, n])
        tangent_product(vp_tnd[t], n_forward, pv_tnd, t, n0, n1, vun)
        for n in range(n0, n1):
            _cell_tangent(vun[n - n0], v_tng[t, n], vbias_g, gates_tng[t, n], h_tnd[t, n], vh_tnd[t, n], vgates_tng[t, n],
                          vh_tnd[t + 1, n])
            if not mask_tn[t, n]:
                vh_tnd[t + 1, n] = vh_tnd[t, n]
    va, vdp, va_rz = np.empty((rows, size), real), np.empty((rows, size), real), np.empty((rows, 2 * size), real)
    for t in range(v_tng.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            _cell_backward_tangent_n(dh_tnd[t, n], gates_tng[t, n], vgates_tng[t, n], dh_nd[n], vdh_nd[n], vd_tng[t, n],
                                     va[n - n0])
        product(va, n_backward, 0.0, vdp)
        for n in range(n0, n1):
            if vdp_tnd.size:
                add(vdp[n - n0], vdp_tnd[t, n])
            if mask_tn[t, n]:
                _cell_backward_tangent_rz(dp_tnd[t, n], vdp[n - n0], gates_tng[t, n], vgates_tng[t, n], h_tnd[t, n],
                                          vh_tnd[t, n], dh_nd[n], vdh_nd[n], vd_tng[t, n], va_rz[n - n0], vdbias)
            else:
                vd_tng[t, n], va_rz[n - n0] = 0, 0
            add(dh_nd[n], e_tnd[t, n])
            if ve_tnd.size:
                add(vdh_nd[n], ve_tnd[t, n])
        product(va_rz, rz_backward, 1.0, vdh_nd[n0:n1])


def gru_cho_double_backward_cpu(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (3D,), dh (T, N, D)"""
    v_tng, vh0_nd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn = checked(
        "gru_cho_double_backward", v_tng, vh0_nd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn)
    size, (w_rz, w_n), (vw_rz, vw_n) = w_gd.shape[1], _parts(w_gd), (None, None) if vw_gd is None else _parts(vw_gd)
    r_tnd, h_before = gates_tng[..., :size], h_tnd[:-1]
    p_tnd = r_tnd * h_before
    hv_tng, e_tnd, ve_tnd = outside_the_sweeps(vw_rz, d_tng[..., :2 * size], h_before, w_rz)
    pv_tnd, dp_tnd, vdp_tnd = outside_the_sweeps(vw_n, d_tng[..., 2 * size:], p_tnd, w_n)
    vh_tnd, vgates_tng, vp_tnd, vd_tng = (np.empty_like(a) for a in (h_tnd, gates_tng, p_tnd, d_tng))
    vh_tnd[0] = vh0_nd
    dh_nd, vdh_nd, vdbias_sg = np.zeros_like(vh0_nd), np.zeros_like(vh0_nd), slice_sums(len(vh0_nd), gates_tng)
    over_slices(_double_backward, len(vh0_nd), v_tng, vbias_g, dh_tnd, h_tnd, gates_tng, mask_tn, panels(w_rz.T), panels(w_n.T),
                panels(w_rz), panels(w_n), hv_tng, e_tnd, ve_tnd, pv_tnd, dp_tnd, vdp_tnd, vh_tnd, vgates_tng, vp_tnd, vd_tng,
                dh_nd, vdh_nd, vdbias_sg)
    gw = _sums_of_outer(vd_tng, h_before, p_tnd)
    gw += _sums_of_outer(d_tng, vh_tnd[:-1], vp_tnd)
    return vd_tng, vdh_nd, gw, vdbias_sg.sum(axis=0), vh_tnd[1:]


# --- CUDA -------------------------------------------------------------------------------------------------------------

def _forward_sweep_device(kernel, w_gd, h_tnd, arrays, mask_tn):
    """As in `device_scan.py`, with two products and two cells in a step."""
    (w_rz, w_n), steps, p_nd = _parts(w_gd), len(h_tnd) - 1, np.empty_like(h_tnd[0])
    if device_scan.persistent(w_gd):
        device_scan.scan("gru_cho", f"{kernel}_scan", steps, p_nd, 2, 5, [device_scan.transposed(w_gd), *arrays, mask_tn])
    else:
        for t in range(steps):
            u = matmul_forward_cuda(h_tnd[t], w_rz.T)
            device_scan.step("gru_cho", f"{kernel}_gates_step", t, p_nd, [u, *arrays, p_nd])
            un = matmul_forward_cuda(p_nd, w_n.T)
            device_scan.step("gru_cho", f"{kernel}_step", t, p_nd, [un, *arrays, mask_tn])


def _backward_sweep_device(kernel, w_gd, d_tng, dh_nd, for_n, for_rz, for_both):
    (w_rz, w_n), size = _parts(w_gd), w_gd.shape[1]
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
    size, (w_rz, w_n), (vw_rz, vw_n) = w_gd.shape[1], _parts(w_gd), (None, None) if vw_gd is None else _parts(vw_gd)
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
