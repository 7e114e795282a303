"""Vector quantisation: the nearest of K codes, and what stands in for the gradient of that choice.

Notation: vectors z (N, D), codes e (K, D), the choice k_n, the quantised vectors q (N, D).

    choice      k_n = argmin_k |z_n - e_k|^2,    q_n = e_{k_n}

The distance is a sum of squares, so it is never negative; of codes at the same distance the lowest index is taken, on every
back end. k is a step function of z: its gradient is zero almost everywhere and useless, so it has none here, and asking for it
raises. What the networks before the codebook learn from is put in its place, and is exact only where z = q:

    straight through    dz = dq                                                    (van den Oord et al. 2017, section 3.1)
    rotation            dz = J^T dq,  J = (|q| / |z|) R                            (Fifty et al. 2024, section 4.2)
                        R is the rotation that takes z/|z| to q/|q|:
                        R x = x - 2 (r . x) r + 2 (z/|z| . x) q/|q|,    r = (z/|z| + q/|q|) / its length

Both have the value q. Neither is the gradient of q: straight through moves every z by what its code should have moved, all
alike; the rotation turns dq back into z's frame, so that z keeps its angle to the gradient that q has to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd import NonDifferentiable, Op
from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.ops.reduce import sum as total
from minigen.tensor import Tensor

ROWS = 1024  # vectors compared at a time: N x K distances need not fit in memory
TINY = 1e-12


@kernel("vq")
def vq_forward(z_nd, codes_kd):
    """z (N, D), codes (K, D) -> index (N,) int64 of the nearest code, squared distance (N,) to it. NaN is near to nothing: 0.

    The sums run over D in order and in float64, so that every implementation finds the same code, and the same ties.
    """
    index_n, distance_n = np.zeros(len(z_nd), np.int64), np.zeros(len(z_nd), z_nd.dtype)
    codes_dk = codes_kd.T.astype(np.float64)
    for at in range(0, len(z_nd), ROWS):
        z_dn = z_nd[at : at + ROWS].T.astype(np.float64)
        distance_nk = np.zeros((z_dn.shape[1], len(codes_kd)))
        for z_n, codes_k in zip(z_dn, codes_dk, strict=True):
            distance_nk += np.square(z_n[:, None] - codes_k)
        best_n = np.where(np.isnan(distance_nk), np.inf, distance_nk).argmin(axis=1)
        index_n[at : at + ROWS] = best_n
        distance_n[at : at + ROWS] = np.take_along_axis(distance_nk, best_n[:, None], 1)[:, 0]
    return index_n, distance_n


class NearestCode(NonDifferentiable):
    def forward(self, z, codes):
        return vq_forward(z, codes)[0]


class StraightThrough(Op):
    def forward(self, z, q):
        return q.copy()

    def backward(self, dy):
        return dy, None


def nearest_code(z: Tensor, codes: Tensor) -> Tensor:
    """The index (...) int64 of the code nearest to each vector; it has no gradient. z (..., D), codes (K, D).

    Raises ValueError if the shapes do not fit, or if there is no code; TypeError if the dtypes differ.
    """
    if codes.ndim != 2 or z.ndim < 1 or z.shape[-1] != codes.shape[1] or not codes.shape[0]:
        raise ValueError(f"nearest_code wants z (..., D) and codes (K, D) with K > 0, not {z.shape} and {codes.shape}")
    if z.dtype != codes.dtype:
        raise TypeError(f"nearest_code: z is {z.dtype} and the codes are {codes.dtype}")
    index = NearestCode()(Tensor(z.data.reshape(-1, z.shape[-1])), Tensor(codes.data))
    index._data = index._data.reshape(z.shape[:-1])
    return index


def straight_through(z: Tensor, q: Tensor) -> Tensor:
    """The value of q, with the gradient of z. Of one shape and dtype; q must not need a gradient (detach it), or ValueError."""
    if q.requires_grad:
        raise ValueError("straight_through: q gets no gradient; pass q.detach()")
    if z.shape != q.shape or z.dtype != q.dtype:
        raise ValueError(f"straight_through: z is {z.dtype} {z.shape} and q is {q.dtype} {q.shape}")
    return StraightThrough()(z, q)


def rotate_as(x: Tensor, z: Any, q: Any) -> Tensor:
    """(|q| / |z|) R x, R the rotation that takes the direction of z to that of q. Arrays z, q (..., D) are constants.

    Linear in x. Where z and q point in opposite directions no rotation is singled out, and where either is zero there is no
    direction: there x is only scaled.
    """
    size_z, size_q = (np.sqrt((a * a).sum(-1, keepdims=True)) for a in (z, q))
    unit_z, unit_q = z / np.maximum(size_z, TINY), q / np.maximum(size_q, TINY)
    r = unit_z + unit_q
    size_r = np.sqrt((r * r).sum(-1, keepdims=True))
    known = (size_r > 1e-4) & (size_z > TINY) & (size_q > TINY)
    r, unit_q = np.where(known, r / np.maximum(size_r, TINY), 0), np.where(known, unit_q, 0)
    scale = np.where(size_z > TINY, size_q / np.maximum(size_z, TINY), 1)
    R, Z, Q, S = (Tensor(a.astype(x.dtype, copy=False)) for a in (r, unit_z, unit_q, scale))
    return (x - 2 * total(x * R, -1, keepdim=True) * R + 2 * total(x * Z, -1, keepdim=True) * Q) * S


def rotation_trick(z: Tensor, q: Tensor) -> Tensor:
    """The value of q, with the gradient that a rotation of z would have; see the module's equations. z, q (..., D)."""
    return straight_through(rotate_as(z, z.data, q.data), q)


_FIXED = np.random.default_rng(0).standard_normal((2, 4, 3))

EXAMPLES = {
    # Where z = q, and only there, the value follows z and the gradient is that of the value: the identity's.
    "straight_through": [example(lambda z: straight_through(z, z.detach()), (4, 3))],
    "rotate_as": [
        example(lambda x: rotate_as(x, *_FIXED), (4, 3)),
        example(lambda x: rotate_as(x, _FIXED[0], -_FIXED[0]), (4, 3)),
        example(lambda x: rotate_as(x, _FIXED[0], 0 * _FIXED[0]), (4, 3)),
    ],
}
