"""GRU scans on the CPU, reset gate after the product: the equations of `minigen/ops/gru.py`, a slice of the batch per task
(`scan.py` says why).

    forward           u = h U^T;         gates r, z, n, q and h' from u and x_t
    backward          da, dq from dh';   e = (da_r, da_z, dq);      dh = dh' z + e U            dU = sum e h^T at the end
    double backward   the same with tangents:   vu = vh U^T + h vU^T;   vdh = .. + ve U + e vU

e differs from d, the gradient (da_r, da_z, da_n) of x_t, in its last third. Only that is kept beside d, and a product with e
is two: of d's first two thirds with U_r and U_z, and of dq with U_q.
"""

import numpy as np
from numba import njit

from . import device_scan
from .device_array import empty
from .gates import ONE, TWO, sigmoid, tanh
from .panels import ROWS, add_product, panels, product
from .scan import (
    CELL,
    JIT,
    add,
    checked,
    clear,
    copy,
    over_slices,
    quarters,
    rz_and_last,
    slice_sums,
    sum_of_outer_in_parts,
    thirds,
    unused,
)

# --- forward ----------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell(u, x, bias, h, gates, h_next):
    """One sequence, one step."""
    (ur, uz, un), (xr, xz, xn) = thirds(u), thirds(x)
    (br, bz, bn, bq), (gr, gz, gn, gq) = quarters(bias), quarters(gates)
    for j in range(h.size):
        r, z, q = sigmoid(ur[j] + xr[j] + br[j]), sigmoid(uz[j] + xz[j] + bz[j]), un[j] + bq[j]
        n = tanh(xn[j] + bn[j] + r * q)
        gr[j], gz[j], gn[j], gq[j] = r, z, n, q
        h_next[j] = n + z * (h[j] - n)


@njit(**JIT)
def _forward(n0, n1, arguments):
    x_tng, w_panels, bias_b, mask_tn, h_tnd, gates_tnb = arguments
    u = np.empty((n1 - n0, x_tng.shape[2]), x_tng.dtype)
    for t in range(x_tng.shape[0]):
        product(h_tnd[t, n0:n1], w_panels, 0.0, u)
        for n in range(n0, n1):
            _cell(u[n - n0], x_tng[t, n], bias_b, h_tnd[t, n], gates_tnb[t, n], h_tnd[t + 1, n])
            if not mask_tn[t, n]:
                copy(h_tnd[t + 1, n], h_tnd[t, n])
                clear(gates_tnb[t, n])


def gru_forward_cpu(x_tng, h0_nd, w_gd, bias_b, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 4D): r, z, n, q"""
    x_tng, h0_nd, w_gd, bias_b, mask_tn = checked("gru_forward", x_tng, h0_nd, w_gd, bias_b, mask_tn)
    h_tnd = np.empty((len(x_tng) + 1, *h0_nd.shape), x_tng.dtype)
    gates_tnb = np.empty((*x_tng.shape[:2], 4 * h0_nd.shape[1]), x_tng.dtype)
    h_tnd[0] = h0_nd
    over_slices(_forward, len(h0_nd), x_tng, panels(w_gd.T), bias_b, mask_tn, h_tnd, gates_tnb)
    return h_tnd, gates_tnb


# --- backward ---------------------------------------------------------------------------------------------------------

@njit(**CELL)
def _cell_backward(dh_t, gates, h, dh, d, dq_, dbias):
    """dh: the gradient of h after the step, then what goes straight to h before it; the products add the rest."""
    (r_, z_, n_, q_), (dr_, dz_, dn_), (br, bz, bn, bq) = quarters(gates), thirds(d), quarters(dbias)
    for j in range(h.size):
        r, z, n, q, dh_j = r_[j], z_[j], n_[j], q_[j], dh[j] + dh_t[j]
        da_n = dh_j * (ONE - z) * (ONE - n * n)
        da_z, da_r, dq = dh_j * (h[j] - n) * z * (ONE - z), da_n * q * r * (ONE - r), da_n * r
        dr_[j], dz_[j], dn_[j], dq_[j] = da_r, da_z, da_n, dq
        br[j] += da_r
        bz[j] += da_z
        bn[j] += da_n
        bq[j] += dq
        dh[j] = dh_j * z


@njit(**JIT)
def _backward(n0, n1, arguments):
    dh_tnd, h_tnd, gates_tnb, rz_panels, q_panels, mask_tn, d_tng, dq_tnd, dh_nd, dbias_sb = arguments
    size, dbias = h_tnd.shape[2], dbias_sb[n0 // ROWS]
    for t in range(dh_tnd.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward(dh_tnd[t, n], gates_tnb[t, n], h_tnd[t, n], dh_nd[n], d_tng[t, n], dq_tnd[t, n], dbias)
            else:
                add(dh_nd[n], dh_tnd[t, n])
                clear(d_tng[t, n])
                clear(dq_tnd[t, n])
        product(d_tng[t, n0:n1, :2 * size], rz_panels, 1.0, dh_nd[n0:n1])
        product(dq_tnd[t, n0:n1], q_panels, 1.0, dh_nd[n0:n1])


def gru_backward_cpu(dh_tnd, h_tnd, gates_tnb, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (4D,)"""
    dh_tnd, h_tnd, gates_tnb, w_gd, mask_tn = checked("gru_backward", dh_tnd, h_tnd, gates_tnb, w_gd, mask_tn)
    d_tng, dq_tnd = np.empty((*dh_tnd.shape[:2], len(w_gd)), w_gd.dtype), np.empty_like(dh_tnd)
    dh_nd, dbias_sb, (w_rz, w_q) = np.zeros_like(h_tnd[0]), slice_sums(len(h_tnd[0]), gates_tnb), rz_and_last(w_gd)
    over_slices(_backward, len(dh_nd), dh_tnd, h_tnd, gates_tnb, panels(w_rz), panels(w_q), mask_tn, d_tng, dq_tnd,
                dh_nd, dbias_sb)
    dw = sum_of_outer_in_parts(d_tng, h_tnd[:-1], dq_tnd, h_tnd[:-1]) if want_w else unused(w_gd)
    return d_tng, dh_nd, dw, dbias_sb.sum(axis=0)


# --- double backward --------------------------------------------------------------------------------------------------

def _panels(w_gd, dtype):
    """Panels of U^T, of U_r and U_z, and of U_q; nothing where w is None, a gradient nobody asked for."""
    if w_gd is None:
        return (np.empty(0, dtype),) * 3
    w_gd = np.asarray(w_gd, dtype)
    return panels(w_gd.T), *map(panels, rz_and_last(w_gd))


@njit(**CELL)
def _cell_tangent(vu, v, vbias, gates, h, vh, vgates, vh_next):
    """The forward step's tangents."""
    (ur, uz, un), (xr, xz, xn), (br, bz, bn, bq) = thirds(vu), thirds(v), quarters(vbias)
    (r_, z_, n_, q_), (vr_, vz_, vn_, vq_) = quarters(gates), quarters(vgates)
    for j in range(h.size):
        r, z, n, q = r_[j], z_[j], n_[j], q_[j]
        vr, vz, vq = r * (ONE - r) * (xr[j] + ur[j] + br[j]), z * (ONE - z) * (xz[j] + uz[j] + bz[j]), un[j] + bq[j]
        vn = (ONE - n * n) * (xn[j] + bn[j] + vr * q + r * vq)
        vr_[j], vz_[j], vn_[j], vq_[j] = vr, vz, vn, vq
        vh_next[j] = vn + vz * (h[j] - n) + z * (vh[j] - vn)


@njit(**CELL)
def _cell_backward_tangent(dh_t, d, gates, vgates, h, vh, dh, vdh, dq_, vd, vdq_, vdbias):
    """The backward step with tangents, and dq once more; dh and vdh as dh in `_cell_backward`."""
    (r_, z_, n_, q_), (vr_, vz_, vn_, vq_) = quarters(gates), quarters(vgates)
    (_, _, dan_), (dr_, dz_, dn_), (br, bz, bn, bq) = thirds(d), thirds(vd), quarters(vdbias)
    for j in range(h.size):
        r, z, n, q, vr, vz, vn, vq = r_[j], z_[j], n_[j], q_[j], vr_[j], vz_[j], vn_[j], vq_[j]
        da_n, dh_j, vdh_j = dan_[j], dh[j] + dh_t[j], vdh[j]
        dn, dz, dr = dh_j * (ONE - z), dh_j * (h[j] - n), da_n * q
        vdn, vdz = vdh_j * (ONE - z) - dh_j * vz, vdh_j * (h[j] - n) + dh_j * (vh[j] - vn)
        va_n = vdn * (ONE - n * n) - TWO * dn * n * vn
        vdr, vdq = va_n * q + da_n * vq, va_n * r + da_n * vr
        va_r, va_z = vdr * r * (ONE - r) + dr * (ONE - TWO * r) * vr, vdz * z * (ONE - z) + dz * (ONE - TWO * z) * vz
        dr_[j], dz_[j], dn_[j], dq_[j], vdq_[j] = va_r, va_z, va_n, da_n * r, vdq
        br[j] += va_r
        bz[j] += va_z
        bn[j] += va_n
        bq[j] += vdq
        dh[j], vdh[j] = dh_j * z, vdh_j * z + dh_j * vz


@njit(**JIT)
def _double_backward(n0, n1, arguments):
    (v_tng, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, w_forward, rz_backward, q_backward, vw_forward, vrz_backward, vq_backward,
     mask_tn, vh_tnd, vgates_tnb, dq_tnd, vd_tng, vdq_tnd, dh_nd, vdh_nd, vdbias_sb) = arguments
    vu = np.empty((n1 - n0, v_tng.shape[2]), v_tng.dtype)
    for t in range(v_tng.shape[0]):
        product(vh_tnd[t, n0:n1], w_forward, 0.0, vu)
        add_product(h_tnd[t, n0:n1], vw_forward, vu)
        for n in range(n0, n1):
            _cell_tangent(vu[n - n0], v_tng[t, n], vbias_b, gates_tnb[t, n], h_tnd[t, n], vh_tnd[t, n], vgates_tnb[t, n],
                          vh_tnd[t + 1, n])
            if not mask_tn[t, n]:
                copy(vh_tnd[t + 1, n], vh_tnd[t, n])
    rz, vdbias = 2 * h_tnd.shape[2], vdbias_sb[n0 // ROWS]
    for t in range(v_tng.shape[0] - 1, -1, -1):
        for n in range(n0, n1):
            if mask_tn[t, n]:
                _cell_backward_tangent(dh_tnd[t, n], d_tng[t, n], gates_tnb[t, n], vgates_tnb[t, n], h_tnd[t, n], vh_tnd[t, n],
                                       dh_nd[n], vdh_nd[n], dq_tnd[t, n], vd_tng[t, n], vdq_tnd[t, n], vdbias)
            else:
                add(dh_nd[n], dh_tnd[t, n])
                clear(vd_tng[t, n])
                clear(dq_tnd[t, n])
                clear(vdq_tnd[t, n])
        product(d_tng[t, n0:n1, :rz], rz_backward, 1.0, dh_nd[n0:n1])
        product(dq_tnd[t, n0:n1], q_backward, 1.0, dh_nd[n0:n1])
        add_product(d_tng[t, n0:n1, :rz], vrz_backward, vdh_nd[n0:n1])
        add_product(dq_tnd[t, n0:n1], vq_backward, vdh_nd[n0:n1])
        product(vd_tng[t, n0:n1, :rz], rz_backward, 1.0, vdh_nd[n0:n1])
        product(vdq_tnd[t, n0:n1], q_backward, 1.0, vdh_nd[n0:n1])


def gru_double_backward_cpu(v_tng, vh0_nd, vw_gd, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (4D,), dh (T, N, D)"""
    v_tng, vh0_nd, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd, mask_tn = checked(
        "gru_double_backward", v_tng, vh0_nd, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd, mask_tn)
    vh_tnd, vgates_tnb, vd_tng, dq_tnd, vdq_tnd = (np.empty_like(a) for a in (h_tnd, gates_tnb, d_tng, dh_tnd, dh_tnd))
    vh_tnd[0] = vh0_nd
    dh_nd, vdh_nd, vdbias_sb = np.zeros_like(vh0_nd), np.zeros_like(vh0_nd), slice_sums(len(vh0_nd), gates_tnb)
    over_slices(_double_backward, len(vh0_nd), v_tng, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, *_panels(w_gd, v_tng.dtype),
                *_panels(vw_gd, v_tng.dtype), mask_tn, vh_tnd, vgates_tnb, dq_tnd, vd_tng, vdq_tnd, dh_nd, vdh_nd,
                vdbias_sb)
    gw = sum_of_outer_in_parts(vd_tng, h_tnd[:-1], vdq_tnd, h_tnd[:-1])
    gw += sum_of_outer_in_parts(d_tng, vh_tnd[:-1], dq_tnd, vh_tnd[:-1])
    return vd_tng, vdh_nd, gw, vdbias_sb.sum(axis=0), vh_tnd[1:]


# --- CUDA -------------------------------------------------------------------------------------------------------------

def gru_forward_cuda(x_tng, h0_nd, w_gd, bias_b, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 4D): r, z, n, q"""
    mask_tn, x_tng, w_gd, bias_b = device_scan.dense(mask_tn, x_tng, w_gd, bias_b)
    h_tnd, gates_tnb = device_scan.states(h0_nd, len(x_tng)), empty((*x_tng.shape[:2], bias_b.size), x_tng.dtype)
    arrays = [x_tng, bias_b, mask_tn, h_tnd, gates_tnb]
    device_scan.forward_sweep("gru", "gru_forward", w_gd, h_tnd, arrays)
    return h_tnd, gates_tnb


def gru_backward_cuda(dh_tnd, h_tnd, gates_tnb, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (4D,)"""
    mask_tn, dh_tnd, h_tnd, gates_tnb, w_gd = device_scan.dense(mask_tn, dh_tnd, h_tnd, gates_tnb, w_gd)
    d_tng, e_tng = (empty((*dh_tnd.shape[:2], len(w_gd)), w_gd.dtype) for _ in "de")
    dh_nd = np.zeros_like(h_tnd[0])
    arrays = [dh_tnd, h_tnd, gates_tnb, mask_tn, dh_nd, d_tng, e_tng]
    device_scan.backward_sweep("gru", "gru_backward", w_gd, e_tng, dh_nd, arrays)
    return d_tng, dh_nd, *_weight_gradients_device(d_tng, e_tng, h_tnd, want_w)


def _weight_gradients_device(d_tng, e_tng, h_tnd, want_w):
    """dw (3D, D), dbias (4D,)"""
    size = h_tnd.shape[2]
    dw, de = device_scan.weight_gradients(e_tng, h_tnd[:-1], want_w)
    dn = d_tng[..., 2 * size:].sum(axis=(0, 1)) if want_w else de[:size]
    return dw, np.concatenate([de[:2 * size], dn, de[2 * size:]])


def gru_double_backward_cuda(v_tng, vh0_nd, vw_gd, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (4D,), dh (T, N, D)"""
    mask_tn, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd = device_scan.dense(mask_tn, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd)
    rz, last = np.s_[..., :2 * h_tnd.shape[2]], np.s_[..., 2 * h_tnd.shape[2]:]
    e_tng = np.concatenate([d_tng[rz], d_tng[last] * gates_tnb[..., :h_tnd.shape[2]]], axis=2)
    hv_tng, eu_tnd, ev_tnd = device_scan.outside_the_sweeps(vw_gd, e_tng, h_tnd[:-1], w_gd)
    v_tnb = np.concatenate([v_tng[rz] + hv_tng[rz], v_tng[last], hv_tng[last]], axis=2) + vbias_b       # of r, z, n, q
    vh_tnd, vgates_tnb = device_scan.states(vh0_nd, len(v_tng)), np.empty_like(gates_tnb)
    vd_tng, ve_tng, dh_nd, vdh_nd = np.empty_like(d_tng), np.empty_like(d_tng), np.zeros_like(h_tnd[0]), np.zeros_like(h_tnd[0])
    arrays = [v_tnb, h_tnd, gates_tnb, mask_tn, vh_tnd, vgates_tnb]
    device_scan.forward_sweep("gru", "gru_tangent", w_gd, vh_tnd, arrays)
    arrays = [eu_tnd, ev_tnd, dh_tnd, h_tnd, vh_tnd, gates_tnb, vgates_tnb, d_tng, mask_tn, dh_nd, vdh_nd, vd_tng, ve_tng]
    device_scan.backward_sweep("gru", "gru_backward_tangent", w_gd, ve_tng, vdh_nd, arrays)
    gw, gbias = _weight_gradients_device(vd_tng, ve_tng, h_tnd, True)
    return vd_tng, vdh_nd, gw + device_scan.sum_of_outer(e_tng, vh_tnd[:-1]), gbias, vh_tnd[1:]
