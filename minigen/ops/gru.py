"""Gated recurrent unit over a whole sequence, in the form of cuDNN and PyTorch: the reset gate acts after the product.

    u = U h                   rows of U in PyTorch's order r, z, n; x_t = W x_t, one matrix product for all steps, outside
    r = s(x_r + u_r + b_r)      z = s(x_z + u_z + b_z)      q = u_n + b_q      n = tanh(x_n + b_n + r q)
    h' = (1 - z) n + z h = n + z (h - n)                                       s the sigmoid

z keeps the old state (as in Cho et al. 2014, equation 7). Papers after Chung et al. 2014 write h' = (1 - z) h + z n instead:
their z is 1 - z here, so weights carry over with the sign of W_z, U_z, b_z changed. `gru_cho.py` has Cho's own form, where r
acts before the product. bias is (b_r, b_z, b_n, b_q): of PyTorch's two biases, b_ih and b_hh, r and z only ever see the sum.

Notation: we are at step t; h is the state before it, h' after it; dq is the loss's gradient for q, vq the tangent of q.

    backward    dh' <- dh' + dh_t,    da_n = dh' (1 - z) (1 - n^2)
                da_z = dh' (h - n) z (1 - z)      da_r = da_n q r (1 - r)      dq = da_n r
                e = (da_r, da_z, dq):   dh = dh' z + U^T e;      dU = sum e h^T,   db = sum (da_r, da_z, da_n, dq)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.ops.rnn import MASK
from minigen.ops.scan import Scan, checked, sigmoid, split, weight_gradients
from minigen.tensor import Tensor


@kernel("gru")
def gru_forward(x_tng, h0_nd, w_gd, bias_b, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 4D): r, z, n, q"""
    real, size = np.result_type(x_tng, h0_nd, w_gd, bias_b), h0_nd.shape[1]
    h_tnd = np.empty((len(x_tng) + 1, *h0_nd.shape), real)
    gates_tnb = np.empty((*x_tng.shape[:2], 4 * size), real)
    h_tnd[0] = h0_nd
    br, bz, bn, bq = split(bias_b, size)
    for t in range(len(x_tng)):
        m, h = mask_tn[t][:, None], h_tnd[t]
        (xr, xz, xn), (ur, uz, un) = split(x_tng[t], size), split(h @ w_gd.T, size)
        r, z, q = sigmoid(xr + ur + br), sigmoid(xz + uz + bz), un + bq
        n = np.tanh(xn + bn + r * q)
        gates_tnb[t] = np.where(m, np.concatenate([r, z, n, q], 1), 0)
        h_tnd[t + 1] = np.where(m, n + z * (h - n), h)
    return h_tnd, gates_tnb


@kernel("gru")
def gru_backward(dh_tnd, h_tnd, gates_tnb, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (4D,)"""
    size = h_tnd.shape[2]
    d_tng, e_tng = (np.empty((*dh_tnd.shape[:2], 3 * size), h_tnd.dtype) for _ in "de")
    dh = np.zeros_like(h_tnd[0])
    for t in reversed(range(len(dh_tnd))):
        m, h = mask_tn[t][:, None], h_tnd[t]
        r, z, n, q = split(gates_tnb[t], size)
        dh = dh + dh_tnd[t]
        da_n = dh * (1 - z) * (1 - n * n)
        da_z, da_r, dq = dh * (h - n) * z * (1 - z), da_n * q * r * (1 - r), da_n * r
        d_tng[t] = np.where(m, np.concatenate([da_r, da_z, da_n], 1), 0)
        e_tng[t] = np.where(m, np.concatenate([da_r, da_z, dq], 1), 0)
        dh = np.where(m, dh * z, dh) + e_tng[t] @ w_gd
    return d_tng, dh, *_weight_gradients(d_tng, e_tng, h_tnd, want_w)


def _weight_gradients(d_tng, e_tng, h_tnd, want_w):
    """dw (3D, D), dbias (4D,)"""
    size = h_tnd.shape[2]
    dw, de = weight_gradients(e_tng, h_tnd[:-1], want_w)
    dn = d_tng[..., 2 * size :].sum(axis=(0, 1)) if want_w else de[:size]
    return dw, np.concatenate([de[: 2 * size], dn, de[2 * size :]])


@kernel("gru")
def gru_double_backward(v_tng, vh0_nd, vw_gd, vbias_b, dh_tnd, d_tng, h_tnd, gates_tnb, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (4D,), dh (T, N, D)"""
    steps, size = range(len(v_tng)), h_tnd.shape[2]
    vw_gd = np.zeros_like(w_gd) if vw_gd is None else vw_gd
    vbr, vbz, vbn, vbq = split(vbias_b, size)
    vh_tnd, vgates_tnb = np.empty_like(h_tnd), np.empty_like(gates_tnb)
    vh_tnd[0] = vh0_nd
    for t in steps:
        h, vh = h_tnd[t], vh_tnd[t]
        r, z, n, q = split(gates_tnb[t], size)
        (vxr, vxz, vxn), (vur, vuz, vun) = split(v_tng[t], size), split(vh @ w_gd.T + h @ vw_gd.T, size)
        vr, vz, vq = r * (1 - r) * (vxr + vur + vbr), z * (1 - z) * (vxz + vuz + vbz), vun + vbq
        vn = (1 - n * n) * (vxn + vbn + vr * q + r * vq)
        vgates_tnb[t] = np.concatenate([vr, vz, vn, vq], 1)
        vh_tnd[t + 1] = np.where(mask_tn[t][:, None], vn + vz * (h - n) + z * (vh - vn), vh)
    vd_tng, e_tng, ve_tng = (np.empty_like(d_tng) for _ in range(3))
    dh, vdh = np.zeros_like(vh0_nd), np.zeros_like(vh0_nd)
    for t in reversed(steps):
        m, h, vh = mask_tn[t][:, None], h_tnd[t], vh_tnd[t]
        r, z, n, q = split(gates_tnb[t], size)
        vr, vz, vn, vq = split(vgates_tnb[t], size)
        da_r, da_z, da_n = split(d_tng[t], size)
        dh = dh + dh_tnd[t]
        dn, dz, dr = dh * (1 - z), dh * (h - n), da_n * q
        vdn, vdz = vdh * (1 - z) - dh * vz, vdh * (h - n) + dh * (vh - vn)
        va_n = vdn * (1 - n * n) - 2 * dn * n * vn
        vdr, vdq = va_n * q + da_n * vq, va_n * r + da_n * vr
        va_r, va_z = vdr * r * (1 - r) + dr * (1 - 2 * r) * vr, vdz * z * (1 - z) + dz * (1 - 2 * z) * vz
        vd_tng[t] = np.where(m, np.concatenate([va_r, va_z, va_n], 1), 0)
        e_tng[t] = np.where(m, np.concatenate([da_r, da_z, da_n * r], 1), 0)
        ve_tng[t] = np.where(m, np.concatenate([va_r, va_z, vdq], 1), 0)
        vdh = np.where(m, vdh * z + dh * vz, vdh) + ve_tng[t] @ w_gd + e_tng[t] @ vw_gd
        dh = np.where(m, dh * z, dh) + e_tng[t] @ w_gd
    gw, gbias = _weight_gradients(vd_tng, ve_tng, h_tnd, True)
    gw = gw + weight_gradients(e_tng, vh_tnd[:-1], True)[0]
    return vd_tng, vdh, gw, gbias, vh_tnd[1:]


class GRU(Scan):
    forward_kernel = staticmethod(gru_forward)
    backward_kernel = staticmethod(gru_backward)
    double_backward_kernel = staticmethod(gru_double_backward)


def gru(x: Tensor, h0: Tensor, w_hh: Tensor, bias: Tensor, mask: Any = None) -> Tensor:
    """x (T, N, 3D), h0 (N, D), w_hh (3D, D), bias (4D,) as above, mask (T, N) of booleans or None -> h (T, N, D).

    Raises ValueError if a shape does not fit.
    """
    return GRU(checked("gru", 3, x, [h0], w_hh, bias, 4, mask))(x, h0, w_hh, bias)  # type: ignore[no-any-return]


EXAMPLES = {
    "gru": [
        example(gru, (4, 3, 6), (3, 2), (6, 2), (8,)),
        example(lambda x, h, w, b: gru(x, h, w, b, MASK), (4, 3, 6), (3, 2), (6, 2), (8,)),
    ]
}
