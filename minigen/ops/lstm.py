"""Long short-term memory over a whole sequence       (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000)

    a = x_t + U h + b        rows of U in PyTorch's order i, f, g, o; x_t = W x_t, one matrix product for all steps, outside
    i = s(a_i)   f = s(a_f)   g = tanh(a_g)   o = s(a_o)                 s the sigmoid
    c' = f c + i g           k = tanh(c')           h' = o k

Notation: we are at step t; h, c are the states before it, h', c' after it; dq is the loss's gradient for q, vq its tangent.

    backward    dh' <- dh' + dh_t,    dc' <- dc' + dh' o (1 - k^2)
                da_i = dc' g i (1 - i)    da_f = dc' c f (1 - f)    da_g = dc' i (1 - g^2)    da_o = dh' k o (1 - o)
                dc = dc' f,    dh = U^T da;      dU = sum da h^T,  db = sum da
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.ops.rnn import MASK
from minigen.ops.scan import Scan, checked, sigmoid, split, weight_gradients
from minigen.tensor import Tensor


@kernel("lstm")
def lstm_forward(x_tng, h0_nd, c0_nd, w_gd, bias_g, mask_tn):
    """-> h (T+1, N, D) and c (T+1, N, D), initial states first; gates (T, N, 4D): i, f, g, o"""
    real = np.result_type(x_tng, h0_nd, c0_nd, w_gd, bias_g)
    h_tnd, c_tnd = (np.empty((len(x_tng) + 1, *h0_nd.shape), real) for _ in "hc")
    gates_tng = np.empty(x_tng.shape, real)
    h_tnd[0], c_tnd[0] = h0_nd, c0_nd
    for t in range(len(x_tng)):
        m, h, c = mask_tn[t][:, None], h_tnd[t], c_tnd[t]
        i, f, g, o = split(x_tng[t] + h @ w_gd.T + bias_g, h.shape[1])
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        gates_tng[t] = np.where(m, np.concatenate([i, f, g, o], 1), 0)
        c_tnd[t + 1] = np.where(m, f * c + i * g, c)
        h_tnd[t + 1] = np.where(m, o * np.tanh(c_tnd[t + 1]), h)
    return h_tnd, c_tnd, gates_tng


@kernel("lstm")
def lstm_backward(dh_tnd, dc_nd, h_tnd, c_tnd, gates_tng, w_gd, mask_tn, want_w):
    """-> dx (T, N, 4D), dh0 (N, D), dc0 (N, D), dw (4D, D), dbias (4D,)"""
    d_tng = np.empty_like(gates_tng)
    dh, dc = np.zeros_like(h_tnd[0]), dc_nd
    for t in reversed(range(len(dh_tnd))):
        m, c, k = mask_tn[t][:, None], c_tnd[t], np.tanh(c_tnd[t + 1])
        i, f, g, o = split(gates_tng[t], c.shape[1])
        dh = dh + dh_tnd[t]
        dk = dc + dh * o * (1 - k * k)
        da = [dk * g * i * (1 - i), dk * c * f * (1 - f), dk * i * (1 - g * g), dh * k * o * (1 - o)]
        d_tng[t] = np.where(m, np.concatenate(da, 1), 0)
        dc = np.where(m, dk * f, dc)
        dh = np.where(m, 0, dh) + d_tng[t] @ w_gd
    return d_tng, dh, dc, *weight_gradients(d_tng, h_tnd[:-1], want_w)


@kernel("lstm")
def lstm_double_backward(
    v_tng, vh0_nd, vc0_nd, vw_gd, vbias_g, dh_tnd, dc_nd, d_tng, h_tnd, c_tnd, gates_tng, w_gd, mask_tn
):
    """-> gradients for x (T, N, 4D), h0, c0 (N, D), w (4D, D), bias (4D,), dh (T, N, D), dc (N, D)"""
    steps, size = range(len(v_tng)), h_tnd.shape[2]
    vw_gd = np.zeros_like(w_gd) if vw_gd is None else vw_gd
    vh_tnd, vc_tnd, vgates_tng = np.empty_like(h_tnd), np.empty_like(c_tnd), np.empty_like(gates_tng)
    vh_tnd[0], vc_tnd[0] = vh0_nd, vc0_nd
    for t in steps:
        m, c, k = mask_tn[t][:, None], c_tnd[t], np.tanh(c_tnd[t + 1])
        i, f, g, o = split(gates_tng[t], size)
        vi, vf, vg, vo = split(v_tng[t] + vh_tnd[t] @ w_gd.T + h_tnd[t] @ vw_gd.T + vbias_g, size)
        vi, vf, vg, vo = i * (1 - i) * vi, f * (1 - f) * vf, (1 - g * g) * vg, o * (1 - o) * vo
        vgates_tng[t] = np.concatenate([vi, vf, vg, vo], 1)
        vc_tnd[t + 1] = np.where(m, vf * c + f * vc_tnd[t] + vi * g + i * vg, vc_tnd[t])
        vh_tnd[t + 1] = np.where(m, vo * k + o * (1 - k * k) * vc_tnd[t + 1], vh_tnd[t])
    vd_tng = np.empty_like(d_tng)
    dh, dc = np.zeros_like(dc_nd), dc_nd
    vdh, vdc = np.zeros_like(dc_nd), np.zeros_like(dc_nd)
    for t in reversed(steps):
        m, c, vc, k = mask_tn[t][:, None], c_tnd[t], vc_tnd[t], np.tanh(c_tnd[t + 1])
        i, f, g, o = split(gates_tng[t], size)
        vi, vf, vg, vo = split(vgates_tng[t], size)
        slope = 1 - k * k
        vk = slope * vc_tnd[t + 1]
        dh = dh + dh_tnd[t]
        dk = dc + dh * o * slope
        vdk = vdc + vdh * o * slope + dh * vo * slope - 2 * dh * o * k * vk
        va = [
            (vdk * g + dk * vg) * i * (1 - i) + dk * g * (1 - 2 * i) * vi,
            (vdk * c + dk * vc) * f * (1 - f) + dk * c * (1 - 2 * f) * vf,
            (vdk * i + dk * vi) * (1 - g * g) - 2 * dk * i * g * vg,
            (vdh * k + dh * vk) * o * (1 - o) + dh * k * (1 - 2 * o) * vo,
        ]
        vd_tng[t] = np.where(m, np.concatenate(va, 1), 0)
        dc, vdc = np.where(m, dk * f, dc), np.where(m, vdk * f + dk * vf, vdc)
        dh = np.where(m, 0, dh) + d_tng[t] @ w_gd
        vdh = np.where(m, 0, vdh) + vd_tng[t] @ w_gd + d_tng[t] @ vw_gd
    gw, gbias = weight_gradients(vd_tng, h_tnd[:-1], True)
    gw = gw + weight_gradients(d_tng, vh_tnd[:-1], True)[0]
    return vd_tng, vdh, vdc, gw, gbias, vh_tnd[1:], vc_tnd[-1]


class LSTM(Scan):
    states = 2
    forward_kernel = staticmethod(lstm_forward)
    backward_kernel = staticmethod(lstm_backward)
    double_backward_kernel = staticmethod(lstm_double_backward)


def lstm(
    x: Tensor, h0: Tensor, c0: Tensor, w_hh: Tensor, bias: Tensor, mask: Any = None
) -> tuple[Tensor, Tensor]:
    """x (T, N, 4D), h0 and c0 (N, D), w_hh (4D, D), bias (4D,), mask (T, N) of booleans or None -> h (T, N, D), c_n (N, D).

    Raises ValueError if a shape does not fit.
    """
    scan = LSTM(checked("lstm", 4, x, [h0, c0], w_hh, bias, 4, mask))
    return scan(x, h0, c0, w_hh, bias)  # type: ignore[no-any-return]


EXAMPLES = {
    "lstm": [
        example(lstm, (4, 3, 8), (3, 2), (3, 2), (8, 2), (8,)),
        example(lambda x, h, c, w, b: lstm(x, h, c, w, b, MASK), (4, 3, 8), (3, 2), (3, 2), (8, 2), (8,)),
        example(lambda *u: lstm(*u)[0], (2, 1, 8), (1, 2), (1, 2), (8, 2), (8,)),
        example(lambda *u: lstm(*u)[1], (2, 1, 8), (1, 2), (1, 2), (8, 2), (8,)),
    ]
}
