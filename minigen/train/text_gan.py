"""A recurrent generator of short texts: maximum likelihood first, then a game against a recurrent critic.

G writes T characters one after another, each drawn from softmax(l_t), where l_t are its logits after what it wrote so far.

**Pre-training.** On pieces x of the text, G learns to predict each character from the true ones before it:

    L_mle = -1/T sum_t log p(x_t | x_1 .. x_{t-1})

**The game.** Now G reads what it wrote itself. A drawn character has no gradient, so what is written is relaxed. With g from a
Gumbel distribution, argmax(l + g) is an exact draw from softmax(l), and (Jang et al. 2017, equation 2; Maddison et al. 2017)

    y = softmax((l + g) / tau)

is a soft one-hot near it. --objective says what G writes and how the critic D scores it, s being the sigmoid:

    gumbel      the one-hot of y's largest entry, with the gradient of y (straight-through: Jang et al. 2017, section 2.2)
                L_D = -E log s(D(x)) - E log(1 - s(D(y))) + lambda P      L_G = -E log s(D(y))     (Goodfellow et al. 2014)
    wgan-gp     y itself
                L_D = E D(y) - E D(x) + lambda P                          L_G = -E D(y)            (Gulrajani et al. 2017)

    P = E (|grad D(u)| - 1)^2       at u = e x + (1 - e) y, e ~ U[0, 1], between one-hots x of the text and what G wrote

G learns from grad D, at one-hots, where D is asked for nothing but its value; P is what gives it a slope that means something.
D is a GRU, and grad D(u) is differentiated again through its fused scan.

G minimises mle_weight L_mle + L_G: the likelihood holds what pre-training taught, the game corrects what G writes by itself.
More keeps the game from spoiling it: D begins to learn in the last fifth of pre-training, from what G has learned of reading,
so that its first verdicts are not noise; and G's learning rate is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from minigen import nn, ops
from minigen.autograd import grad, no_grad
from minigen.data import Text
from minigen.device import constant, feed, place
from minigen.errors import UserError
from minigen.metrics import distinct, presence
from minigen.models import text as models
from minigen.optim import Adam, clip_grad_norm, linear_decay
from minigen.random import generator, rand
from minigen.tensor import Tensor
from minigen.train.config import ChosenFloat, ChosenInt, DataInfo
from minigen.train.gan import discriminator_loss, generator_loss
from minigen.train.text import TextRecipe, TextTrainer
from minigen.train.wgan_gp import gradient_penalty

NGRAMS = (2, 3, 4, 5)
JUDGED = 10_000  # texts written for the figures: two thousand would leave them uncertain by 0.002
FIGURES = ("nll", "presence", *(f"presence_{n}" for n in NGRAMS), "distinct_5")


class TextGANTrainer(TextTrainer):
    texts = 16

    def __init__(self, config: TextGAN, info: DataInfo, data: Text | None) -> None:
        super().__init__(config, info)
        c, v = config, len(self.vocabulary)
        self.length = c.seq_length
        self.data = data
        if data is not None and len(data.train) < (c.batch_size or 1) * c.seq_length:
            raise UserError(
                f"the text has {len(data.train)} training characters, fewer than one batch of {c.batch_size} x {c.seq_length}"
            )
        if data is not None and len(data.test) < c.seq_length:
            raise UserError(f"the held-out text has {len(data.test)} characters, fewer than --seq-length {c.seq_length}")
        g = models.TextGenerator(v, c.embedding, c.hidden, c.layers, c.cell)
        self.critic = models.TextCritic(v, c.embedding, c.hidden)
        self.params_g, self.params_d = nn.parameters(g), nn.parameters(self.critic)
        betas = (0.5, 0.9) if c.objective == "gumbel" else (0.0, 0.9)
        self.opt_mle = Adam(self.params_g, c.lr)
        self.opt_mle.schedule = linear_decay(max(c.pretrain_steps or 0, 1), final=0.05)
        self.opt_g, self.opt_d = Adam(self.params_g, c.lr_game, betas), Adam(self.params_d, c.lr_critic, betas)
        self.pretraining = np.full(len(FIGURES), np.nan)  # what it came to, for evaluate()
        self.parts = {"model": g, "critic": self.critic, "opt_mle": self.opt_mle, "opt_g": self.opt_g, "opt_d": self.opt_d}
        self.parts["pretraining"] = [self.pretraining]

    @property
    def begin(self) -> int:
        return int(self.model.begin)

    # --- one step -----------------------------------------------------------------------------------------------------

    def phase(self) -> str:
        """G learns by likelihood; over the last fifth of that D learns too; then they play."""
        done, until = self.opt_mle.t, self.config.pretrain_steps
        return "game" if done >= until else "likelihood" if 5 * done < 4 * until else "both"

    def update(self) -> dict[str, Tensor]:
        phase = self.phase()
        if phase == "game":
            losses = [self.critic_step() for _ in range(self.config.n_critic)]
            return losses[-1] | self.generator_step()
        warm = self.critic_step() if phase == "both" else {}
        return self.likelihood_step() | warm

    def finish(self, losses: dict[str, float]) -> dict[str, float]:
        """After the last step of pre-training, note how far it came."""
        if self.phase() == "game" and not self.opt_g.t and self.opt_mle.t:
            assert self.data is not None
            self.pretraining[:] = list(self.figures(self.data).values())
        return losses

    def likelihood_step(self) -> dict[str, Tensor]:
        """One update of G in pre-training."""
        nll = self.mle(feed(self.pieces))
        self.opt_mle.step(clip_grad_norm(grad(nll, self.params_g), self.config.clip)[0])
        return {"nll": nll}

    def critic_step(self) -> dict[str, Tensor]:
        """One update of D."""
        c, D = self.config, self.critic
        if self.opt_d.t == 0 and self.opt_mle.t:
            D.read_like(self.model)
        x = Tensor(models.one_hot(feed(self.pieces), len(self.vocabulary)))
        with no_grad():  # D's update does not reach G
            y = self.write(len(x))
        n, scores = len(x), D(ops.concatenate([x, y]))
        if c.objective == "gumbel":
            loss = discriminator_loss("nonsaturating", scores[:n], scores[n:])
            losses = {"discriminator": loss}
        else:
            loss = scores[n:].mean() - scores[:n].mean()
            losses = {"wasserstein": -loss}
        penalty = gradient_penalty("two-sided", D, x, y)
        self.opt_d.step(grad(loss + penalty * c.gp_weight, self.params_d))
        return losses | {"penalty": penalty}

    def generator_step(self) -> dict[str, Tensor]:
        """One update of G in the game."""
        c = self.config
        scores = self.critic(self.write(c.batch_size))
        game = generator_loss("nonsaturating", scores) if c.objective == "gumbel" else -scores.mean()
        nll = self.mle(feed(self.pieces))
        self.opt_g.step(clip_grad_norm(grad(nll * c.mle_weight + game, self.params_g), c.clip)[0])
        return {"generator": game, "nll": nll}

    def pieces(self) -> np.ndarray[Any, Any]:
        """A batch of pieces of the training text, (N, T) int64, each from a place drawn at random."""
        assert self.data is not None
        text, length = self.data.train, self.config.seq_length
        at = generator().integers(0, len(text) - length + 1, self.config.batch_size)
        return text[at[:, None] + np.arange(length)].astype(np.int64)

    def mle(self, x: Any) -> Tensor:
        """L_mle of pieces x (N, T): a scalar."""
        x_tn = x.T
        before = np.concatenate([constant(np.full, (1, len(x)), self.begin), x_tn[:-1]])
        logits, _ = self.model(before)
        return ops.cross_entropy(ops.reshape(logits, (x.size, -1)), x_tn.reshape(-1))

    def write(self, n: int) -> Tensor:
        """n texts of G as one-hots, hard or soft: (N, T, V)."""
        c = self.config
        u = np.maximum(rand(c.seq_length, n, len(self.vocabulary)).data, 1e-30)
        return self.model.write(-np.log(-np.log(u)), c.tau, c.objective == "gumbel")  # type: ignore[no-any-return]

    # --- looking at it ------------------------------------------------------------------------------------------------

    def figures(self, text: Text) -> dict[str, float]:
        """FIGURES by name, on the held-out part: its likelihood in pieces of T, and n-grams of texts that G writes."""
        length = self.config.seq_length
        pieces = text.test[: len(text.test) // length * length].reshape(-1, length).astype(np.int64)
        with no_grad():
            parts = [self.mle(place(pieces[i : i + 256])).item() * len(pieces[i : i + 256]) for i in range(0, len(pieces), 256)]
        written = self.sample(JUDGED, length=length)
        present = {f"presence_{n}": presence(written, text.held_out, n) for n in NGRAMS if n <= length}
        found = {"nll": sum(parts) / len(pieces), "presence": float(np.mean(list(present.values()))), **present}
        found["distinct_5"] = distinct(written, 5)
        return {name: found[name] for name in FIGURES}

    def evaluate(self, text: Text) -> dict[str, float]:
        """The figures now, and those with which pre-training ended."""
        found = self.figures(text)
        if not np.isnan(self.pretraining).any() and text.crc32 == self.info.crc32:
            found |= {f"pretrained_{k}": float(v) for k, v in zip(FIGURES, self.pretraining, strict=True)}
        return found


@dataclass
class TextGAN(TextRecipe):
    """Train a generator of short texts by maximum likelihood, then against a critic."""

    name: ClassVar[str] = "text-gan"

    objective: Literal["gumbel", "wgan-gp"] = "wgan-gp"
    """The game: gumbel (straight-through one-hots, a GAN's losses) or wgan-gp (soft one-hots, gradient penalty)."""
    pretrain_steps: ChosenInt = None
    """Steps of maximum likelihood before the game; they count among --steps. (default: five sixths of --steps)"""
    seq_length: int = 32
    """T: characters in a text."""
    hidden: int = 256
    """Units of each recurrent layer, in the generator and the critic."""
    layers: int = 1
    """Recurrent layers of the generator."""
    embedding: int = 128
    """Features of a character's embedding."""
    tau: float = 1.0
    """Temperature of the relaxed one-hots: gradients are smoother above, truer below."""
    mle_weight: float = 1.0
    """Weight of maximum likelihood beside the game; 0 leaves the game alone."""
    gp_weight: ChosenFloat = None
    """lambda, the weight of the critic's gradient penalty. (default: 1; 10 for wgan-gp)"""
    n_critic: int = 1
    """Critic updates for each generator update in the game."""
    lr: float = 2e-3
    """Adam's learning rate at the start of pre-training, through which it falls to a twentieth."""
    lr_game: float = 1e-4
    """Adam's learning rate for the generator in the game."""
    lr_critic: float = 1e-3
    """Adam's learning rate for the critic."""
    clip: float = 1.0
    """The largest joint norm of the generator's gradient."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.steps = self.steps or 3_000
        self.pretrain_steps = self.steps * 5 // 6 if self.pretrain_steps is None else self.pretrain_steps
        if self.gp_weight is None:
            self.gp_weight = 1.0 if self.objective == "gumbel" else 10.0
        if not 0 <= self.pretrain_steps <= self.steps:
            raise UserError(f"--pretrain-steps must be in 0..{self.steps}, the --steps in all, not {self.pretrain_steps}")
        if self.seq_length < max(NGRAMS):
            raise UserError(f"--seq-length must be at least {max(NGRAMS)}, not {self.seq_length}: n-grams are counted")
        self.require_at_least(1, "n_critic")
        self.require_above_zero("tau", "clip")
        for name in ("mle_weight", "gp_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, not {getattr(self, name)}")

    def build(self, info: DataInfo, data: Any) -> TextGANTrainer:
        return TextGANTrainer(self, info, data)
