"""Gated recurrent unit as first published: the reset gate acts before the product       (Cho et al. 2014, equations 5 to 8)

    r = s(x_r + U_r h + b_r)      z = s(x_z + U_z h + b_z)      n = tanh(x_n + U_n (r h) + b_n)
    h' = (1 - z) n + z h = n + z (h - n)                         s the sigmoid; rows of U in the order r, z, n

z keeps the old state, as in `gru.py`, which says how to convert. Two products stand in a row here, U_r and U_z before U_n.

Notation: we are at step t; h is the state before it, h' after it, p = r h; dq is the loss's gradient for q, vq its tangent.

    backward    dh' <- dh' + dh_t,    da_n = dh' (1 - z) (1 - n^2),    dp = U_n^T da_n
                da_z = dh' (h - n) z (1 - z)      da_r = dp h r (1 - r)
                dh = dh' z + dp r + U_r^T da_r + U_z^T da_z;      dU_r, dU_z = sum (da_r, da_z) h^T,  dU_n = sum da_n p^T
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.ops.rnn import MASK
from minigen.ops.scan import Scan, checked, sigmoid, split, weight_gradients
from minigen.tensor import Tensor


@kernel("gru_cho")
def gru_cho_forward(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D), h0 first; gates (T, N, 3D): r, z, n"""
    real, size = np.result_type(x_tng, h0_nd, w_gd, bias_g), h0_nd.shape[1]
    h_tnd = np.empty((len(x_tng) + 1, *h0_nd.shape), real)
    gates_tng = np.empty(x_tng.shape, real)
    h_tnd[0] = h0_nd
    w_rz, w_n = w_gd[: 2 * size], w_gd[2 * size :]
    for t in range(len(x_tng)):
        m, h, (xr, xz, xn) = mask_tn[t][:, None], h_tnd[t], split(x_tng[t] + bias_g, size)
        ur, uz = split(h @ w_rz.T, size)
        r, z = sigmoid(xr + ur), sigmoid(xz + uz)
        n = np.tanh(xn + (r * h) @ w_n.T)
        gates_tng[t] = np.where(m, np.concatenate([r, z, n], 1), 0)
        h_tnd[t + 1] = np.where(m, n + z * (h - n), h)
    return h_tnd, gates_tng


@kernel("gru_cho")
def gru_cho_backward(dh_tnd, h_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 3D), dh0 (N, D), dw (3D, D), dbias (3D,)"""
    size = h_tnd.shape[2]
    w_rz, w_n = w_gd[: 2 * size], w_gd[2 * size :]
    d_tng = np.empty_like(gates_tng)
    dh = np.zeros_like(h_tnd[0])
    for t in reversed(range(len(dh_tnd))):
        m, h = mask_tn[t][:, None], h_tnd[t]
        r, z, n = split(gates_tng[t], size)
        dh = dh + dh_tnd[t]
        da_n = dh * (1 - z) * (1 - n * n)
        dp = da_n @ w_n
        da_z, da_r = dh * (h - n) * z * (1 - z), dp * h * r * (1 - r)
        d_tng[t] = np.where(m, np.concatenate([da_r, da_z, da_n], 1), 0)
        dh = np.where(m, dh * z + dp * r, dh) + d_tng[t][:, : 2 * size] @ w_rz
    return d_tng, dh, *_weight_gradients(d_tng, h_tnd[:-1], gates_tng[..., :size] * h_tnd[:-1], want_w)


def _weight_gradients(d_tng, h_tnd, p_tnd, want_w):
    """dw (3D, D) from the states, and from r h for the last third; dbias (3D,)"""
    size = h_tnd.shape[2]
    dw_rz, db_rz = weight_gradients(d_tng[..., : 2 * size], h_tnd, want_w)
    dw_n, db_n = weight_gradients(d_tng[..., 2 * size :], p_tnd, want_w)
    return np.concatenate([dw_rz, dw_n]), np.concatenate([db_rz, db_n])


@kernel("gru_cho")
def gru_cho_double_backward(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, gates_tng, w_gd, mask_tn):
    """-> gradients for x (T, N, 3D), h0 (N, D), w (3D, D), bias (3D,), dh (T, N, D)"""
    steps, size = range(len(v_tng)), h_tnd.shape[2]
    vw_gd = np.zeros_like(w_gd) if vw_gd is None else vw_gd
    w_rz, w_n, vw_rz, vw_n = w_gd[: 2 * size], w_gd[2 * size :], vw_gd[: 2 * size], vw_gd[2 * size :]
    vh_tnd, vgates_tng = np.empty_like(h_tnd), np.empty_like(gates_tng)
    vh_tnd[0] = vh0_nd
    for t in steps:
        h, vh, (vxr, vxz, vxn) = h_tnd[t], vh_tnd[t], split(v_tng[t] + vbias_g, size)
        r, z, n = split(gates_tng[t], size)
        vur, vuz = split(vh @ w_rz.T + h @ vw_rz.T, size)
        vr, vz = r * (1 - r) * (vxr + vur), z * (1 - z) * (vxz + vuz)
        vp = vr * h + r * vh
        vn = (1 - n * n) * (vxn + vp @ w_n.T + (r * h) @ vw_n.T)
        vgates_tng[t] = np.concatenate([vr, vz, vn], 1)
        vh_tnd[t + 1] = np.where(mask_tn[t][:, None], vn + vz * (h - n) + z * (vh - vn), vh)
    vd_tng = np.empty_like(d_tng)
    dh, vdh = np.zeros_like(vh0_nd), np.zeros_like(vh0_nd)
    for t in reversed(steps):
        m, h, vh = mask_tn[t][:, None], h_tnd[t], vh_tnd[t]
        r, z, n = split(gates_tng[t], size)
        vr, vz, vn = split(vgates_tng[t], size)
        da_n = d_tng[t][:, 2 * size :]
        dh = dh + dh_tnd[t]
        dn, dz, dp = dh * (1 - z), dh * (h - n), da_n @ w_n
        vdn, vdz = vdh * (1 - z) - dh * vz, vdh * (h - n) + dh * (vh - vn)
        va_n = np.where(m, vdn * (1 - n * n) - 2 * dn * n * vn, 0)
        vdp = va_n @ w_n + da_n @ vw_n
        vdr = vdp * h + dp * vh
        va_r, va_z = vdr * r * (1 - r) + dp * h * (1 - 2 * r) * vr, vdz * z * (1 - z) + dz * (1 - 2 * z) * vz
        vd_tng[t] = np.where(m, np.concatenate([va_r, va_z, va_n], 1), 0)
        da_rz = d_tng[t][:, : 2 * size]
        vdh = np.where(m, vdh * z + dh * vz + vdp * r + dp * vr, vdh) + vd_tng[t][:, : 2 * size] @ w_rz + da_rz @ vw_rz
        dh = np.where(m, dh * z + dp * r, dh) + da_rz @ w_rz
    r, vr = gates_tng[..., :size], vgates_tng[..., :size]
    gw, gbias = _weight_gradients(vd_tng, h_tnd[:-1], r * h_tnd[:-1], True)
    gw = gw + _weight_gradients(d_tng, vh_tnd[:-1], vr * h_tnd[:-1] + r * vh_tnd[:-1], True)[0]
    return vd_tng, vdh, gw, gbias, vh_tnd[1:]


class GRUCho(Scan):
    forward_kernel = staticmethod(gru_cho_forward)
    backward_kernel = staticmethod(gru_cho_backward)
    double_backward_kernel = staticmethod(gru_cho_double_backward)


def gru_cho(x: Tensor, h0: Tensor, w_hh: Tensor, bias: Tensor, mask: Any = None) -> Tensor:
    """x (T, N, 3D), h0 (N, D), w_hh (3D, D), bias (3D,), mask (T, N) of booleans or None -> h (T, N, D).

    Raises ValueError if a shape does not fit.
    """
    return GRUCho(checked("gru_cho", 3, x, [h0], w_hh, bias, 3, mask))(x, h0, w_hh, bias)  # type: ignore[no-any-return]


EXAMPLES = {
    "gru_cho": [
        example(gru_cho, (4, 3, 6), (3, 2), (6, 2), (6,)),
        example(lambda x, h, w, b: gru_cho(x, h, w, b, MASK), (4, 3, 6), (3, 2), (6, 2), (6,)),
    ]
}
