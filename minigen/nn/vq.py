"""Quantisers: a codebook of vectors, and three ways to learn through the choice of the nearest.

    class                      codebook learns by                         the networks before it learn by
    VectorQuantizer            its gradient, |q - sg(z)|^2                straight through, + beta |sg(q) - z|^2
    EMAVectorQuantizer         running means of what chose it             the same
    RotationVectorQuantizer    running means                              the rotation trick, + beta |sg(q) - z|^2

(sg stops the gradient. van den Oord et al. 2017, sections 3.1 to 3.2 and appendix A.1; Fifty et al. 2024.) All three begin
with codes taken from the first batch by k-means++, and in training replace a code that nothing has chosen for `revive_after`
batches by a vector of the present batch: a code that is far from everything is never chosen, so it would never move again.

In evaluation (`nn.set_training(model, False)`) nothing changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minigen import ops
from minigen.device import place, to_host
from minigen.random import generator
from minigen.tensor import Tensor

Array = np.ndarray[Any, Any]


class Quantized(NamedTuple):
    """quantized: shaped like the input. indices: int64, without its axis of D. loss, perplexity: scalars.

    loss is what to add to the reconstruction's. perplexity = exp(entropy of the codes' shares in this batch), 1 to K.
    """

    quantized: Tensor
    indices: Array
    loss: Tensor
    perplexity: float


class _Codebook:
    """What the quantisers share: `weight` (K, D), its first values, its dead codes.

    init: "kmeans++", from the first training batch (Arthur and Vassilvitskii 2007), or "uniform" in [-1/K, 1/K].
    revive_after: batches; 0 never. revived: how many codes the last call replaced.
    """

    _stand_in = staticmethod(ops.straight_through)  # the value of q, with a gradient for z
    weight: Any  # a Tensor that is trained, or an array that follows running means

    def __init__(self, num_codes: int, dim: int, beta: float, init: str, revive_after: int) -> None:
        if num_codes < 1 or dim < 1:
            raise ValueError(f"a codebook needs at least one code and one dimension, not {num_codes} x {dim}")
        if init not in ("kmeans++", "uniform"):
            raise ValueError(f'init is "kmeans++" or "uniform", not {init!r}')
        if revive_after < 0:
            raise ValueError(f"revive_after must not be negative, not {revive_after}")
        self.num_codes, self.dim, self.beta, self.revive_after = num_codes, dim, beta, revive_after
        self.unused = np.zeros(num_codes, np.int64)  # batches since it was last chosen
        self.began = np.array(int(init == "uniform"))
        self.revived = 0
        self.training = True

    def __call__(self, z: Tensor) -> Quantized:
        """z (N, D, H, W) or (..., D), any other number of axes but 4. Raises ValueError if D does not fit."""
        images = z.ndim == 4
        vectors = ops.permute(z, (0, 2, 3, 1)) if images else z
        if vectors.ndim < 2 or vectors.shape[-1] != self.dim:
            raise ValueError(f"codes have {self.dim} dimensions; an input of shape {z.shape} does not fit")
        flat = ops.reshape(vectors, (-1, self.dim))
        if self.training and not self.began:
            self._set(slice(None), kmeans_plus_plus(to_host(flat.data), self.num_codes))
            self.began[...] = 1
        codes = self.codes()
        index = to_host(ops.nearest_code(flat, codes.detach())._data)
        q = ops.gather(codes, index)
        out, loss = self._through(flat, q)
        counts = np.bincount(index, minlength=self.num_codes)
        if self.training:
            self._learn(flat.data, index, counts)
            self._revive(to_host(flat.data), counts)
        out, indices = ops.reshape(out, vectors.shape), index.reshape(vectors.shape[:-1])
        return Quantized(ops.permute(out, (0, 3, 1, 2)) if images else out, indices, loss, perplexity(counts))

    def codes(self) -> Tensor:
        """The codebook (K, D)."""
        return self.weight if isinstance(self.weight, Tensor) else Tensor(place(self.weight.copy()))

    def lookup(self, indices: Array) -> Tensor:
        """The vectors at integers (...): (..., D), or for (N, H, W) as an image (N, D, H, W)."""
        q = ops.gather(self.codes().detach(), indices)
        return ops.permute(q, (0, 3, 1, 2)) if indices.ndim == 3 else q

    def _through(self, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """What replaces z, with a gradient, and the loss."""
        return self._stand_in(z, q.detach()), ops.mse(z, q.detach()) * self.beta

    def _learn(self, z: Array, index: Array, counts: Array) -> None:
        """Move the codes towards the vectors that chose them."""

    def _set(self, which: Any, vectors: Array) -> None:
        """Replace codes."""
        raise NotImplementedError(f"{type(self).__name__} does not replace codes")

    def _revive(self, z: Array, counts: Array) -> None:
        self.unused[...] = np.where(counts > 0, 0, self.unused + 1)
        dead = np.flatnonzero(self.unused >= self.revive_after) if self.revive_after else np.empty(0, np.int64)
        self.revived = len(dead)
        if len(dead):
            self._set(dead, z[generator().integers(0, len(z), len(dead))])
            self.unused[dead] = 0


class VectorQuantizer(_Codebook):
    """The codebook is a parameter: loss = |q - sg(z)|^2 + beta |sg(q) - z|^2, means over all elements."""

    def __init__(
        self, num_codes: int, dim: int, beta: float = 0.25, init: str = "kmeans++", revive_after: int = 0
    ) -> None:  # fmt: skip
        super().__init__(num_codes, dim, beta, init, revive_after)
        self.weight = Tensor(place(_uniform(num_codes, dim)), True)

    def _through(self, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        out, commitment = super()._through(z, q)
        return out, ops.mse(q, z.detach()) + commitment

    def _set(self, which: Any, vectors: Array) -> None:
        weight = self.weight.data.copy()
        weight[which] = vectors
        self.weight.assign(weight)


class EMAVectorQuantizer(_Codebook):
    """A code is the running mean of the vectors that chose it (van den Oord et al. 2017, appendix A.1):

        N_k <- g N_k + (1 - g) n_k,   m_k <- g m_k + (1 - g) sum of the z that chose k,   e_k = m_k / N_k

    N_k is smoothed, (N_k + eps) / (N + K eps) N with N their sum, so that a code nobody chose lately does not become 0 / 0.
    The loss is the commitment alone, beta |sg(q) - z|^2.
    """

    def __init__(
        self, num_codes: int, dim: int, beta: float = 0.25, decay: float = 0.99, init: str = "kmeans++", revive_after: int = 0,
        eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__(num_codes, dim, beta, init, revive_after)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay}")
        self.decay, self.eps = decay, eps
        self.weight = _uniform(num_codes, dim)
        self.counts, self.sums = np.ones(num_codes, np.float32), self.weight.copy()

    def _learn(self, z: Array, index: Array, counts: Array) -> None:
        sums = to_host(ops.scatter_add(Tensor(z), index, self.num_codes).data)
        self.counts += (1 - self.decay) * (counts - self.counts)
        self.sums += (1 - self.decay) * (sums - self.sums)
        total = self.counts.sum()
        smoothed = (self.counts + self.eps) / (total + self.num_codes * self.eps) * total
        self.weight[...] = self.sums / smoothed[:, None]

    def _set(self, which: Any, vectors: Array) -> None:
        self.weight[which], self.sums[which], self.counts[which] = vectors, vectors, 1.0


class RotationVectorQuantizer(EMAVectorQuantizer):
    """Running means; the gradient comes back through the rotation that takes z to q (Fifty et al. 2024, section 4.2)."""

    _stand_in = staticmethod(ops.rotation_trick)


QUANTIZERS = {"vq": VectorQuantizer, "ema": EMAVectorQuantizer, "rotation": RotationVectorQuantizer}


def _uniform(num_codes: int, dim: int) -> Array:
    return generator().uniform(-1 / num_codes, 1 / num_codes, (num_codes, dim)).astype(np.float32)


def perplexity(counts: Array) -> float:
    """exp(-sum p log p) of the shares p of counts (K,): as many codes, used alike, would have this entropy."""
    p = counts[counts > 0] / counts.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def kmeans_plus_plus(z: Array, count: int, most: int = 4096) -> Array:
    """`count` of the vectors z (N, D), each drawn in proportion to its squared distance from those before it.

    Looks at no more than `most` of the vectors. Where all that are left coincide with chosen ones, any may be drawn again.
    """
    rng = generator()
    z = z[rng.permutation(len(z))[:most]]
    squares = np.einsum("nd,nd->n", z, z)
    chosen = [int(rng.integers(len(z)))]
    distance = np.full(len(z), np.inf, z.dtype)
    for _ in range(count - 1):
        last = z[chosen[-1]]
        distance = np.minimum(distance, np.maximum(squares - 2 * (z @ last) + squares[chosen[-1]], 0))
        upto = np.cumsum(distance, dtype=np.float64)
        draw = rng.random()
        chosen.append(int(np.searchsorted(upto, draw * upto[-1], "right")) if upto[-1] > 0 else int(draw * len(z)))
    return z[np.minimum(chosen, len(z) - 1)]  # type: ignore[no-any-return]
