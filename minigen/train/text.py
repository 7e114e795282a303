"""What the text recipes share: where the text comes from, how a character is drawn, how a run is sampled and saved.

A network gives logits l; the next character is drawn from

    p = softmax(l / temperature)            sharper below 1, flatter above; at 0 the likeliest character is taken

and with top_p below 1 only from the nucleus: the smallest set of likeliest characters whose probabilities sum to at least
top_p, rescaled to sum to one (Holtzman et al. 2020, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from minigen.autograd import no_grad
from minigen.data import Text, Vocabulary, load_text
from minigen.device import to_host
from minigen.errors import UserError
from minigen.train.checkpoint import write_atomically
from minigen.train.config import BaseRecipe, DataInfo
from minigen.train.trainer import Trainer

RULE = "\n" + "-" * 32 + "\n"  # between texts

Cell = Literal["gru", "lstm", "rnn"]


@dataclass
class _Source:
    text: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="", aliases=["--data"])] = None
    """The text to learn, UTF-8; its last tenth is held out. (default: the help topics that Python carries)"""


@dataclass
class TextRecipe(BaseRecipe, _Source):
    """Options of the recipes that learn text."""

    cell: Cell = "gru"
    """The recurrent cell: gru, lstm or rnn."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.require_at_least(1, "hidden", "embedding", "layers", "seq_length")

    def load(self, source: str | None = None) -> Text:
        if self.text is not None:
            self.text = str(Path(self.text).expanduser().absolute())  # the run can be judged from any folder
        return load_text(source or self.text)

    def free(self) -> set[str]:
        return super().free() | {"text"}


def draw(logits: Any, temperature: float, top_p: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """One index for each row of logits (N, V) -> (N,), as described above."""
    if temperature == 0:
        return np.asarray(logits.argmax(1))
    p = np.exp((logits.astype(np.float64) - logits.max(1, keepdims=True)) / temperature)
    p /= p.sum(1, keepdims=True)
    if top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        falling = np.take_along_axis(p, order, 1)
        falling[falling.cumsum(1) - falling >= top_p] = 0  # those before it suffice
        np.put_along_axis(p, order, falling, 1)
    upto = p.cumsum(1)
    return np.asarray((upto <= rng.random(len(p))[:, None] * upto[:, -1:]).sum(1))


class TextTrainer(Trainer):
    """Holds a vocabulary, and as the part "model" a network that writes. A recipe subclasses it and writes `step()`."""

    texts, length = 1, 500  # what samples/ shows, and `minigen sample` unless told otherwise

    def __init__(self, config: Any, info: DataInfo) -> None:
        super().__init__(config, info)
        self.vocabulary = Vocabulary(info.vocabulary)

    @property
    def model(self) -> Any:
        """The network that writes: step(index (N,), state) -> logits (N, V), state."""
        return self.parts["model"]

    @property
    def begin(self) -> int:
        """What the network has read before a text begins: an index."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a text begins")

    def evaluate(self, text: Text) -> dict[str, float]:
        """Figures of the held-out part of `text`."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluation")

    def judge(self, text: Text) -> dict[str, Any]:
        """What `minigen eval` prints. Raises UserError if the text has another vocabulary than the run."""
        if text.vocabulary != self.vocabulary:
            difference = self.vocabulary.difference(text.vocabulary)
            raise UserError(f"the run was trained on text of another vocabulary: {text.name} differs, {difference}")
        return {"split": "held-out, the last 10 %", "characters": len(text.test), **self.evaluate(text)}

    # --- sampling -----------------------------------------------------------------------------------------------------

    def sample(
        self, count: int, seed: int | None = None, length: int | None = None, temperature: float = 1.0, top_p: float = 1.0,
        prompt: str = "",
    ) -> list[str]:  # fmt: skip
        """`count` texts: the prompt and `length` characters more. A function of the weights, the seed and the arguments."""
        length = self.length if length is None else length
        if count < 1 or length < 1:
            raise UserError(f"--{'count' if count < 1 else 'length'} must be at least 1, not {min(count, length)}")
        if not 0 <= temperature < float("inf"):
            raise UserError(f"--temperature must not be negative, not {temperature}")
        if not 0 < top_p <= 1:
            raise UserError(f"--top-p must be above 0 and at most 1, not {top_p}")
        rng = self.config.sample_rng(seed)
        written: list[Any] = []
        with self.looking(self.model), no_grad():
            state = None
            for index in (self.begin, *self._encode(prompt)):
                logits, state = self.model.step(np.full(count, index), state)
            while len(written) < length:
                written.append(draw(to_host(logits.data), temperature, top_p, rng))
                logits, state = self.model.step(written[-1], state)
        return [prompt + self.vocabulary.decode(row) for row in np.stack(written, 1)]

    def _encode(self, prompt: str) -> Any:
        try:
            return self.vocabulary.encode(prompt)
        except UserError as e:
            raise UserError(f"--prompt: {e}") from None

    def samples(self, count: int | None = None, *options: Any) -> str:
        """What `sample` gives, apart by a rule."""
        return RULE.join(self.sample(self.texts if count is None else count, *options)) + "\n"

    def save_samples(self, path: Path, *options: Any) -> None:
        write_atomically(path, self.samples(*options).encode())
