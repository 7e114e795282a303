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
from minigen.device import constant, place, to_host
from minigen.random import generator, rand
from minigen.tensor import Tensor

Array = np.ndarray[Any, Any]
TINY = 1e-30  # in place of a share of zero, whose logarithm is multiplied by zero


class Quantized(NamedTuple):
    """quantized: shaped like the input. indices: int64, without its axis of D. loss, perplexity: scalars.

    loss is what to add to the reconstruction's. perplexity = exp(entropy of the codes' shares in this batch), 1 to K. On the
    device all of them stay there.
    """

    quantized: Tensor
    indices: Any
    loss: Tensor
    perplexity: Any


class _Codebook:
    """What the quantisers share: `weight` (K, D), its first values, its dead codes.

    init: "kmeans++", from the first training batch (Arthur and Vassilvitskii 2007), or "uniform" in [-1/K, 1/K].
    revive_after: batches; 0 never.
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
        self.unused = place(np.zeros(num_codes, np.int64))  # batches since it was last chosen
        self.began = np.array(int(init == "uniform"))
        self._revived: Any = 0
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
        index = ops.nearest_code(flat, codes.detach())._data
        q = ops.gather(codes, index)
        out, loss = self._through(flat, q)
        counts = count(index, self.num_codes)
        if self.training:
            self._learn(flat.data, index, counts)
            self._revive(flat.data, counts)
        out, indices = ops.reshape(out, vectors.shape), index.reshape(vectors.shape[:-1])
        return Quantized(ops.permute(out, (0, 3, 1, 2)) if images else out, indices, loss, perplexity(counts))

    @property
    def revived(self) -> int:
        """How many codes the last call replaced."""
        return int(self._revived)

    def codes(self) -> Tensor:
        """The codebook (K, D)."""
        return self.weight if isinstance(self.weight, Tensor) else Tensor(self.weight.copy())

    def lookup(self, indices: Array) -> Tensor:
        """The vectors at integers (...): (..., D), or for (N, H, W) as an image (N, D, H, W)."""
        q = ops.gather(self.codes().detach(), indices)
        return ops.permute(q, (0, 3, 1, 2)) if indices.ndim == 3 else q

    def _through(self, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """What replaces z, with a gradient, and the loss."""
        return self._stand_in(z, q.detach()), ops.mse(z, q.detach()) * self.beta

    def _learn(self, z: Any, index: Any, counts: Any) -> None:
        """Move the codes towards the vectors that chose them."""

    def _held(self, vectors: Any) -> list[tuple[Any, Any]]:
        """(array, what it holds when the codes are these vectors), for each array that says what the codes are."""
        return [(self.weight.data, vectors)]

    def _set(self, which: Any, vectors: Any) -> None:
        """Replace codes."""
        for array, values in self._held(vectors):
            array[which] = values
        if isinstance(self.weight, Tensor):
            self.weight.bump()

    def _revive(self, z: Any, counts: Any) -> None:
        self.unused[...] = np.where(counts > 0, 0, self.unused + 1)
        if not self.revive_after:
            return
        dead = self.unused >= self.revive_after
        if isinstance(dead, np.ndarray):
            which = np.flatnonzero(dead)
            self._revived = len(which)
            if len(which):
                self._set(which, z[generator().integers(0, len(z), len(which))])
                self.unused[which] = 0
            return
        # On the device the same without a look at what is dead: a vector is drawn for each code, and few are used.
        self._revived = dead.sum()
        rows = np.minimum((rand(self.num_codes).data * len(z)).astype(np.int64), len(z) - 1)
        for array, values in self._held(ops.gather(Tensor(z), rows).data):
            array[...] = np.where(dead.reshape(-1, *(1,) * (array.ndim - 1)), values, array)
        self.unused[...] = np.where(dead, 0, self.unused)
        if isinstance(self.weight, Tensor):
            self.weight.bump()


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
        self.weight = place(_uniform(num_codes, dim))
        self.counts, self.sums = place(np.ones(num_codes, np.float32)), self.weight.copy()

    def _learn(self, z: Any, index: Any, counts: Any) -> None:
        sums = ops.scatter_add(Tensor(z), index, self.num_codes).data
        self.counts += (1 - self.decay) * (counts - self.counts)
        self.sums += (1 - self.decay) * (sums - self.sums)
        total = self.counts.sum()
        smoothed = (self.counts + self.eps) / (total + self.num_codes * self.eps) * total
        self.weight[...] = self.sums / smoothed[:, None]

    def _held(self, vectors: Any) -> list[tuple[Any, Any]]:
        return [(self.weight, vectors), (self.sums, vectors), (self.counts, 1.0)]


class RotationVectorQuantizer(EMAVectorQuantizer):
    """Running means; the gradient comes back through the rotation that takes z to q (Fifty et al. 2024, section 4.2)."""

    _stand_in = staticmethod(ops.rotation_trick)


QUANTIZERS = {"vq": VectorQuantizer, "ema": EMAVectorQuantizer, "rotation": RotationVectorQuantizer}


def _uniform(num_codes: int, dim: int) -> Array:
    return generator().uniform(-1 / num_codes, 1 / num_codes, (num_codes, dim)).astype(np.float32)


def count(index: Any, size: int) -> Any:
    """How often each of 0 .. size-1 is in an index (N,): (size,)."""
    if isinstance(index, np.ndarray):
        return np.bincount(index, minlength=size)
    ones = Tensor(constant(np.ones, (len(index), 1), np.float32))
    return ops.scatter_add(ones, index, size).data.reshape(size)


def perplexity(counts: Any) -> Any:
    """exp(-sum p log p) of the shares p of counts (K,): as many codes, used alike, would have this entropy."""
    p = counts / counts.sum()
    return np.exp(-(p * np.log(np.maximum(p, TINY))).sum())


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
