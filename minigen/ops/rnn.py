"""Elman's recurrent net over a whole sequence: h_t = tanh(x_t + U h_{t-1} + b)        (Elman 1990)

x_t is the input's part W x_t, one matrix product over all steps, done outside. Notation: we are at step t, h is the state
before it and k the one after; a = x + U h + b; dq is the gradient of the loss for q, vq the tangent of q.

    backward    dk <- dk + dh_t,   da = dk (1 - k^2),   dh = U^T da;     dU = sum da h^T,  db = sum da
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.ops.scan import Scan, checked, weight_gradients
from minigen.tensor import Tensor


@kernel("rnn")
def rnn_forward(x_tng, h0_nd, w_gd, bias_g, mask_tn):
    """-> (h (T+1, N, D), h0 first,)"""
    h_tnd = np.empty((len(x_tng) + 1, *h0_nd.shape), np.result_type(x_tng, h0_nd, w_gd, bias_g))
    h_tnd[0] = h0_nd
    for t in range(len(x_tng)):
        k = np.tanh(x_tng[t] + h_tnd[t] @ w_gd.T + bias_g)
        h_tnd[t + 1] = np.where(mask_tn[t][:, None], k, h_tnd[t])
    return (h_tnd,)


@kernel("rnn")
def rnn_backward(dh_tnd, h_tnd, w_gd, mask_tn, want_w):
    """-> dx (T, N, D), dh0 (N, D), dw (D, D), dbias (D,)"""
    d_tng = np.empty_like(h_tnd[1:])
    dk = np.zeros_like(h_tnd[0])
    for t in reversed(range(len(dh_tnd))):
        m, k = mask_tn[t][:, None], h_tnd[t + 1]
        dk = dk + dh_tnd[t]
        d_tng[t] = np.where(m, dk * (1 - k * k), 0)
        dk = np.where(m, 0, dk) + d_tng[t] @ w_gd
    return d_tng, dk, *weight_gradients(d_tng, h_tnd[:-1], want_w)


@kernel("rnn")
def rnn_double_backward(v_tng, vh0_nd, vw_gd, vbias_g, dh_tnd, d_tng, h_tnd, w_gd, mask_tn):
    """-> gradients for x (T, N, D), h0 (N, D), w (D, D), bias (D,), dh (T, N, D)"""
    steps, zero = range(len(v_tng)), np.zeros_like(w_gd)
    vw_gd = zero if vw_gd is None else vw_gd
    vh_tnd = np.empty_like(h_tnd)
    vh_tnd[0] = vh0_nd
    for t in steps:
        k = h_tnd[t + 1]
        va = v_tng[t] + vh_tnd[t] @ w_gd.T + h_tnd[t] @ vw_gd.T + vbias_g
        vh_tnd[t + 1] = np.where(mask_tn[t][:, None], (1 - k * k) * va, vh_tnd[t])
    vd_tng = np.empty_like(d_tng)
    dk, vdk = np.zeros_like(vh0_nd), np.zeros_like(vh0_nd)
    for t in reversed(steps):
        m, k, vk = mask_tn[t][:, None], h_tnd[t + 1], vh_tnd[t + 1]
        dk = dk + dh_tnd[t]
        vd_tng[t] = np.where(m, vdk * (1 - k * k) - 2 * dk * k * vk, 0)
        dk = np.where(m, 0, dk) + d_tng[t] @ w_gd
        vdk = np.where(m, 0, vdk) + vd_tng[t] @ w_gd + d_tng[t] @ vw_gd
    gw, gbias = weight_gradients(vd_tng, h_tnd[:-1], True)
    gw = gw + weight_gradients(d_tng, vh_tnd[:-1], True)[0]
    return vd_tng, vdk, gw, gbias, vh_tnd[1:]


class RNN(Scan):
    forward_kernel = staticmethod(rnn_forward)
    backward_kernel = staticmethod(rnn_backward)
    double_backward_kernel = staticmethod(rnn_double_backward)


def rnn(x: Tensor, h0: Tensor, w_hh: Tensor, bias: Tensor, mask: Any = None) -> Tensor:
    """x (T, N, D), h0 (N, D), w_hh (D, D), bias (D,), mask (T, N) of booleans or None -> h (T, N, D).

    Raises ValueError if a shape does not fit.
    """
    return RNN(checked("rnn", 1, x, [h0], w_hh, bias, 1, mask))(x, h0, w_hh, bias)  # type: ignore[no-any-return]


MASK = np.array([[1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0]], bool)  # ends early, comes back

EXAMPLES = {
    "rnn": [
        example(rnn, (4, 3, 2), (3, 2), (2, 2), (2,)),
        example(lambda x, h, w, b: rnn(x, h, w, b, MASK), (4, 3, 2), (3, 2), (2, 2), (2,)),
    ]
}
