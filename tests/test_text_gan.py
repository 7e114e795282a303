"""text-gan: the likelihood, the phases, what each update moves, n-gram presence before and after, resuming."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigen as mg
from minigen import nn, ops, random
from minigen.data import Text
from minigen.errors import UserError
from minigen.metrics import presence
from minigen.models.text import one_hot
from minigen.train import TextGAN, checkpoint, run, text_gan, train
from minigen.train.wgan_gp import gradient_penalty

BOTH = pytest.mark.parametrize("objective", ["gumbel", "wgan-gp"])
SMALL = {"hidden": 12, "embedding": 6, "batch_size": 4, "seq_length": 8}
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and\n", "then", "it", "slept."]


def words(count: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(text_gan, "JUDGED", 200)


def trainer(content: str | None = None, **options):
    data = Text("words", words(400) if content is None else content)
    config = TextGAN(**(SMALL | {"steps": 30, "pretrain_steps": 0} | options))
    info = run.data_info(data)
    config.resolve(info)
    mg.seed(0)
    return config.build(info, data), data


# --- the step


def test_first_characters_are_drawn_from_the_softmax():
    t, _ = trainer()
    with mg.no_grad():
        p = np.exp(ops.log_softmax(t.model.step(np.array([t.begin]))[0]).data[0])
        share = np.mean([t.write(500).data[:, 0].mean(0) for _ in range(20)], 0)
    np.testing.assert_allclose(share, p, atol=5 * math.sqrt(0.25 / 10_000))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_critic_begins_as_a_reader_like_the_generator(monkeypatch, cell):
    t, data = trainer(pretrain_steps=5, steps=7, cell=cell)
    monkeypatch.setattr(t.opt_d, "step", lambda grads: None)
    for _ in range(5):
        kept = nn.state_dict(t.model)
        t.step()
    index = np.random.default_rng(0).integers(0, len(data.vocabulary), (4, 9))
    t.model.embedding.weight.assign(kept["embedding.weight"])
    seen = t.critic.embedding(mg.Tensor(one_hot(index, len(data.vocabulary))))
    np.testing.assert_allclose(seen.data, t.model.embedding(index).data, atol=1e-6)
    same = cell == "gru" and all(
        (p.data == kept[f"rnn.{name}"]).all() for name, p in nn.named_parameters(t.critic.rnn).items()
    )
    assert same == (cell == "gru")


def test_the_likelihood_by_hand():
    t, _ = trainer()
    x = t.pieces()
    assert x.shape == (4, 8)
    total = 0.0
    for row in x:
        index, state = t.begin, None
        for c in row:
            logits, state = t.model.step(np.array([index]), state)
            total -= ops.log_softmax(logits).data[0, c]
            index = c
    np.testing.assert_allclose(t.mle(x).item(), total / 32, rtol=1e-5)


@BOTH
def test_the_step_reports_the_losses_of_its_batch(objective):
    (one, _), (two, data) = trainer(objective=objective), trainer(objective=objective)
    mg.seed(1)
    losses = one.step()
    mg.seed(1)
    with mg.no_grad():
        x = one_hot(two.pieces(), len(data.vocabulary))
        y = two.write(4)
        real, fake = two.critic(mg.Tensor(x)).data.astype(np.float64), two.critic(y).data.astype(np.float64)
    penalty = gradient_penalty("two-sided", two.critic, mg.Tensor(x), y).item()
    np.testing.assert_allclose(losses["penalty"], penalty, rtol=1e-4)
    if objective == "gumbel":
        assert set(losses) == {"discriminator", "penalty", "generator", "nll"}
        wanted = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean()
        np.testing.assert_allclose(losses["discriminator"], wanted, rtol=1e-4)
    else:
        assert set(losses) == {"wasserstein", "penalty", "generator", "nll"}
        np.testing.assert_allclose(losses["wasserstein"], real.mean() - fake.mean(), atol=1e-5)
    for p, q in zip(two.params_d, one.params_d, strict=True):
        p.assign(q.data)
    with mg.no_grad():
        fake = two.critic(two.write(4)).data.astype(np.float64)
        nll = two.mle(two.pieces()).item()
    wanted = np.log1p(np.exp(-fake)).mean() if objective == "gumbel" else -fake.mean()
    np.testing.assert_allclose([losses["generator"], losses["nll"]], [wanted, nll], rtol=1e-3, atol=1e-5)


@BOTH
@pytest.mark.parametrize("frozen", ["opt_d", "opt_g"])
def test_each_update_moves_its_own_network_only(monkeypatch, objective, frozen):
    t, _ = trainer(objective=objective)
    before = t.state()
    monkeypatch.setattr(getattr(t, frozen), "step", lambda grads: None)
    t.step()
    still, moved = ("critic.", "model.") if frozen == "opt_d" else ("model.", "critic.")
    for name, value in t.state().items():
        if name.startswith(still):
            np.testing.assert_array_equal(value, before[name])
        elif name.startswith(moved) and (objective, name) != ("wgan-gp", "critic.head.bias"):  # it cancels in the difference
            assert (value != before[name]).any(), name


def test_the_phases(monkeypatch):
    t, data = trainer(objective="gumbel", pretrain_steps=10, steps=13)
    seen = []
    for i in range(13):
        assert np.isnan(t.pretraining).all() == (i < 10)
        seen.append(set(t.step()))
        if i == 9:
            figures = t.figures(data)
            assert list(t.pretraining) == list(figures.values())
    game = {"discriminator", "penalty"}
    assert seen == [{"nll"}] * 8 + [{"nll"} | game] * 2 + [{"nll", "generator"} | game] * 3
    found = t.judge(data)
    assert {k: found["pretrained_" + k] for k in figures} == figures and found["nll"] != figures["nll"]
    other = t.judge(Text("other", words(400, seed=1)))  # the pretrained figures are of another text
    assert not any(k.startswith("pretrained") for k in other)


def test_the_rate_falls_in_pretraining_only():
    t, _ = trainer(pretrain_steps=4, steps=6, lr=0.1, lr_game=0.01)
    rates = []
    for _ in range(4):
        rates.append(t.opt_mle.rate)
        t.step()
    np.testing.assert_allclose(rates, [0.1, 0.07625, 0.0525, 0.02875])
    t.step(), t.step()
    assert (t.opt_mle.t, t.opt_g.t, t.opt_g.rate) == (4, 2, 0.01)


def test_the_figures_by_hand():
    t, data = trainer()
    figures = t.figures(data)
    written = t.sample(200, length=8)
    for n in (2, 3, 4, 5):
        assert figures[f"presence_{n}"] == presence(written, data.held_out, n)
    assert figures["presence"] == pytest.approx(np.mean([figures[f"presence_{n}"] for n in (2, 3, 4, 5)]))
    pieces = data.test[: len(data.test) // 8 * 8].reshape(-1, 8)
    with mg.no_grad():
        assert figures["nll"] == pytest.approx(t.mle(pieces.astype(np.int64)).item(), rel=1e-5)


def test_looking_changes_nothing():
    (one, data), (two, _) = trainer(), trainer()
    mg.seed(5)
    losses = [one.step() for _ in range(3)]
    mg.seed(5)
    found = [two.step()]
    state = random.get_state()
    assert two.sample(3) == two.sample(3) != two.sample(3, seed=1)
    two.judge(data)
    assert random.get_state() == state
    assert [*found, two.step(), two.step()] == losses


@BOTH
def test_the_game_keeps_what_pretraining_reached(objective, monkeypatch):
    """A real run, if a small one: some three hundred steps of likelihood, then sixty of the game."""
    monkeypatch.setattr(text_gan, "JUDGED", 2000)
    t, data = trainer(
        words(8000), objective=objective, hidden=48, embedding=24, batch_size=32, seq_length=16, steps=360, pretrain_steps=300,
        lr=1e-2,
    )  # fmt: skip
    for _ in range(360):
        t.step()
    found = t.judge(data)
    assert found["pretrained_presence"] > 0.9  # letters drawn at random have below 0.1
    assert found["presence"] >= found["pretrained_presence"] - 0.005
    assert found["nll"] < found["pretrained_nll"] + 0.05


def test_what_cannot_be():
    for options, message in (
        ({"pretrain_steps": 31}, r"--pretrain-steps must be in 0\.\.30"),
        ({"pretrain_steps": -1}, r"--pretrain-steps must be in 0\.\.30"),
        ({"seq_length": 4}, "--seq-length must be at least 5"),
        ({"n_critic": 0}, "--n-critic must be at least 1"),
        ({"tau": 0.0}, "--tau must be above 0"),
        ({"mle_weight": -1.0}, "--mle-weight must not be negative"),
        ({"gp_weight": -1.0}, "--gp-weight must not be negative"),
        ({"batch_size": 1000}, "fewer than one batch of 1000 x 8"),
        ({"batch_size": 1, "seq_length": 300}, "the held-out text has .* characters, fewer than --seq-length 300"),
    ):
        with pytest.raises(UserError, match=message):
            trainer(**options)


# --- runs


@BOTH
@pytest.mark.parametrize("stop", [3, 8])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, monkeypatch, objective, stop):
    """One that died after a checkpoint in pre-training, or in the game."""
    (tmp_path / "t.txt").write_text(words(400))
    options = SMALL | {"objective": objective, "text": str(tmp_path / "t.txt"), "checkpoint_every": 2, "log_every": 1}
    options |= {"pretrain_steps": 6, "n_critic": 2}
    train(TextGAN(**options, steps=10, out=str(tmp_path / "a")))
    step, count = text_gan.TextGANTrainer.step, iter(range(stop))
    with monkeypatch.context() as m, pytest.raises(StopIteration):
        m.setattr(text_gan.TextGANTrainer, "step", lambda self: (next(count), step(self))[1])
        train(TextGAN(**options, steps=10, out=str(tmp_path / "b")))
    assert checkpoint.load(tmp_path / "b", "text-gan").step == stop // 2 * 2
    train(TextGAN(**options, steps=10, out=str(tmp_path / "b"), resume=True))
    a, b = (checkpoint.load(tmp_path / name, "text-gan") for name in "ab")
    assert a.rng == b.rng and a.step == b.step == 10
    assert {k: v.tobytes() for k, v in a.arrays.items()} == {k: v.tobytes() for k, v in b.arrays.items()}
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
