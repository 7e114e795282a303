"""A recurrent net over an image's values, one after another: an exact likelihood    (van den Oord et al. 2016, section 2)

An image of H x W pixels and c channels is a sequence x of S = H W c values, in raster order, the channels of a pixel one after
another; each value is one of L levels. By the chain rule

    p(x) = prod_t p(x_t | x_1 .. x_{t-1})        h_t = cell(f_t, h_{t-1}),    p(x_t | ..) = softmax(A h_t + b)

and with L = 2 one logit does: p(x_t = 1 | ..) = s(a h_t + b). f_t is any function of x_1 .. x_{t-1}: here values seen already,
scaled to [-1, 1], which `reads` lists. Zero stands for what lies outside the image.

    by pixel, context 0    the value before                                  K = 2:    o o o o o     o  read at step t
              context K    the c K values to the left, those in the K                   o o o o o     x  the value predicted
                           rows above from c K to the left to c K to the                o o x
                           right, and where t is: row, column and channel, one-hot

    by row                 one step is a whole row of V = W c values; it reads the K rows above (1, if K is 0), and where it is.
                           p(row) = prod_j p(x_j | rows above): given those above, the values of a row are independent. That is
                           another and weaker model; of it, too, the likelihood is exact.

`log_prob` runs all steps at once, on a known image. `generate` runs them one by one, keeping the state, and draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen import nn, ops
from minigen.autograd import no_grad
from minigen.device import place, placed, to_host
from minigen.tensor import Tensor

Array = np.ndarray[Any, Any]


def reads(shape: Sequence[int], by: str, context: int) -> Array:
    """(T, F): the values, numbered 0 .. S-1 along the sequence, that each step reads; S stands for outside the image."""
    c, h, w = shape
    v = w * c
    if by == "row":
        table = np.arange(h)[:, None] * v - np.arange(max(context, 1) * v, 0, -1)  # (H, K V)
        return np.where(table < 0, h * v, table)
    if context == 0:
        return np.where(np.arange(h * v) < 1, h * v, np.arange(h * v) - 1)[:, None]
    reach = context * c
    offsets = [(up, right) for up in range(context, 0, -1) for right in range(-reach, reach + 1)]
    offsets += [(0, right) for right in range(-reach, 0)]
    up, right = np.array(offsets).T
    row, column = (a.reshape(-1, 1) for a in np.divmod(np.arange(h * v), v))
    inside = (row - up >= 0) & (column + right >= 0) & (column + right < v)
    return np.where(inside, (row - up) * v + column + right, h * v)


def positions(shape: Sequence[int], by: str) -> Array:
    """(T, H) by row, (T, H + W + c) by pixel: where each step is, one-hot; without the channel if there is only one."""
    c, h, w = shape
    if by == "row":
        return np.eye(h, dtype=np.float32)
    row, column, channel = np.unravel_index(np.arange(h * w * c), (h, w, c))
    parts = [np.eye(h)[row], np.eye(w)[column]] + [np.eye(c)[channel]] * (c > 1)
    return np.concatenate(parts, 1, dtype=np.float32)


class PixelRNN:
    """Images are integers (N, c, H, W) in 0 .. levels-1; labels (N,), or None without classes."""

    _features = 1  # that a value becomes before it is read
    _bernoulli = True  # two levels have one logit, that of 1; otherwise one each, like any other number of them

    def __init__(
        self, shape: Sequence[int], cell: str = "lstm", hidden: int = 128, by: str = "pixel", context: int = 0,
        levels: int = 2, classes: int = 0,
    ) -> None:  # fmt: skip
        self.shape, self.levels, self.classes = tuple(shape), levels, classes
        self.binary = levels == 2 and self._bernoulli
        self._reads = reads(shape, by, context)
        self._where = place(positions(shape, by) if context else np.zeros((len(self._reads), 0), np.float32))
        self.steps, self.values = len(self._reads), int(np.prod(shape))
        self.width = self.values // self.steps  # values predicted in one step: 1, or a row of them
        self.rnn = nn.CELLS[cell](self._reads.shape[1] * self._features + self._where.shape[1] + classes, hidden)
        self.out = nn.Linear(hidden, self.width * (1 if self.binary else levels))

    # --- all steps at once --------------------------------------------------------------------------------------------

    def prepared(self, x: Array, labels: Any = None) -> tuple[Any, ...]:
        """What the host makes of a batch: what each step reads (T, N, F), what the net is told, and the values to predict.

        Those are (T, N, width) float32 if they are binary; otherwise (T N width,) int64.
        """
        seen = self._seen(self._sequence(x))[:, self._reads].swapaxes(0, 1)
        target = self._targets(x)
        target = target.astype(np.float32) if self.binary else target.reshape(-1).astype(np.int64)
        return seen, self._told(labels, len(x)), target

    def logits(self, x: Array, labels: Any = None) -> Tensor:
        """Logits (T, N, width) of each value being 1; of each level (T, N, width, levels), if there are more than two."""
        seen, told, _ = self.prepared(x, labels)
        return self._logits(placed(seen), placed(told))

    def _logits(self, seen: Any, told: Any) -> Tensor:
        told = self._understood(told)
        states, _ = self.rnn(self._inputs(seen, self._where[:, None], told), self._begin(told))
        return self._unpacked(self._judged(states, told))

    def loss(self, x: Array, labels: Any = None) -> Tensor:
        """-log p(x), in nats for each value: the mean over images and values."""
        return self.loss_of(*placed(self.prepared(x, labels)))

    def loss_of(self, seen: Any, told: Any, target: Any) -> Tensor:
        """The same of what `prepared` gave, where the net is."""
        logits = self._logits(seen, told)
        if self.binary:
            return ops.bce_with_logits(logits, Tensor(target))
        return ops.cross_entropy(ops.reshape(logits, (-1, self.levels)), target)

    def log_prob(self, x: Array, labels: Any = None) -> Array:
        """log p(x) of each image, in nats: (N,) float64."""
        with no_grad():
            found = _log_prob(to_host(self.logits(x, labels).data), self._targets(x), self.binary)
        return found.sum(axis=(0, 2), dtype=np.float64)  # type: ignore[no-any-return]

    # --- one step after another ---------------------------------------------------------------------------------------

    def generate(
        self, rng: np.random.Generator, n: int, labels: Any = None, given: Any = None, rows: int = 0, guidance: float = 0.0
    ) -> Any:  # fmt: skip
        """Draw n images (N, c, H, W), and log p of each of them (N,). The first `rows` rows are those of `given`, if any.

        Each step costs the same: the state is kept, and what was drawn is never read again from the start.
        guidance w: draw from p(x_t | .., label)^(1+w) / p(x_t | ..)^w, rescaled, of a net that knows both; p is that one then
        (Ho and Salimans 2022, section 3.2, for diffusion).
        """
        known = 0 if given is None else rows * self.values // self.shape[1]
        drawn = np.zeros((n, self.values), np.int64)
        if given is not None:
            drawn[:, :known] = self._sequence(given)[:, :known]
        seen = self._seen(drawn)
        copies, total = 2 if guidance else 1, np.zeros(n)
        with no_grad():
            told = self._understood(placed(self._told(self._and_untold(labels, n) if guidance else labels, n * copies)))
            state = self._begin(told)
            for t in range(self.steps):
                at = slice(t * self.width, (t + 1) * self.width)
                reads = place(np.tile(seen[:, self._reads[t]], (copies, 1)))
                h, state = self.rnn.step(self._inputs(reads, self._where[t], told), state)
                logits = to_host(self._unpacked(self._judged(h, told)).data)  # (N, width) or (N, width, levels)
                if guidance:
                    logits = logits[:n] + guidance * (logits[:n] - logits[n:])
                if at.start >= known:
                    drawn[:, at] = _draw(rng, logits, self.binary)
                    seen[:, at] = self._fed(drawn[:, at])
                total += _log_prob(logits, drawn[:, at], self.binary).sum(axis=1, dtype=np.float64)
        return drawn.reshape(n, *self.shape[1:], self.shape[0]).transpose(0, 3, 1, 2), total

    # --- layouts ------------------------------------------------------------------------------------------------------

    def _sequence(self, x: Array) -> Array:
        """(N, c, H, W) -> (N, S)"""
        if x.shape[1:] != self.shape:
            raise ValueError(f"images of shape {x.shape[1:]}; wanted {self.shape}")
        return x.transpose(0, 2, 3, 1).reshape(len(x), -1)

    def scaled(self, x: Array) -> Array:
        """0 .. levels-1 -> float32 in [-1, 1]"""
        return (x * (2 / (self.levels - 1)) - 1).astype(np.float32)

    _outside: Any = 0.0  # what is read beyond the edges

    def _fed(self, x: Array) -> Array:
        """Values as they are fed back: 0 .. levels-1 -> [-1, 1]."""
        return self.scaled(x)

    def _understood(self, told: Any) -> Any:
        """What the net makes, once, of what it is told."""
        return told

    def _inputs(self, seen: Any, where: Any, told: Any) -> Tensor:
        """What a step reads: values (..., F), its place and the label, side by side."""
        return Tensor(np.concatenate([seen, *_spread(seen, where, told)], -1))

    def _begin(self, told: Any) -> Any:
        """The state before the first step; None is zeros."""
        return None

    def _judged(self, states: Tensor, told: Any) -> Tensor:
        """States (..., N, D) -> what the softmax is taken of."""
        return self.out(states)

    def _and_untold(self, labels: Any, n: int) -> Any:
        """The labels of n images, and n times none."""
        raise NotImplementedError(f"{type(self).__name__} does not know images without a label")

    def _seen(self, sequence: Array) -> Array:
        """(N, S) -> (N, S + 1), fed; the last column is what lies outside the image."""
        return np.pad(self._fed(sequence), ((0, 0), (0, 1)), constant_values=self._outside)

    def _told(self, labels: Any, n: int) -> Any:
        """What n images' labels are to the net: arrays, or a tuple of them."""
        return np.eye(self.classes, dtype=np.float32)[labels] if self.classes else np.zeros((n, 0), np.float32)

    def _targets(self, x: Array) -> Array:
        """(N, c, H, W) -> (T, N, width)"""
        return self._sequence(x).reshape(len(x), self.steps, self.width).swapaxes(0, 1)

    def _unpacked(self, out: Tensor) -> Tensor:
        return out if self.binary else ops.reshape(out, (*out.shape[:-1], self.width, self.levels))


def _spread(seen: Any, *more: Any) -> list[Any]:
    """Arrays (.., f), repeated along the leading axes of `seen`."""
    return [np.broadcast_to(a, (*seen.shape[:-1], a.shape[-1])) for a in more]


def _log_prob(logits: Array, x: Array, binary: bool) -> Array:
    """log p of each value x under its logits, shaped like x."""
    if binary:
        return -np.logaddexp(0, np.where(x == 1, -logits, logits))
    top = logits.max(axis=-1)
    chosen = np.take_along_axis(logits, x[..., None], -1)[..., 0]
    return chosen - top - np.log(np.exp(logits - top[..., None]).sum(axis=-1))  # type: ignore[no-any-return]


def _draw(rng: np.random.Generator, logits: Array, binary: bool) -> Array:
    """One value for each set of logits."""
    if binary:
        return rng.random(logits.shape) < 0.5 + 0.5 * np.tanh(0.5 * logits)
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)  # type: ignore[no-any-return]
