"""seq2seq: exact likelihoods, attention, captions that decide the codes, runs that resume, and what is refused."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import minigen as mg
from minigen import cli, nn
from minigen.data import Loader
from minigen.data.captions import Captions
from minigen.errors import UserError
from minigen.models.seq2seq import Reader, Seq2Seq, attend
from minigen.train import checkpoint
from minigen.train import seq2seq as recipe
from minigen.train.config import DataInfo

BOTH = pytest.mark.parametrize("attention", [False, True])
GRIDS = pytest.mark.parametrize("grid", [(1, 2), (2, 1)])
CAPTIONS = Captions(tuple("0123"))


def model(grid=(1, 2), num_codes=3, scale=4.0, attention=False, hidden=6):
    """Larger weights than at the start, so that no probability is near a third by accident."""
    mg.seed(0)
    m = Seq2Seq(grid, num_codes, len(CAPTIONS.vocabulary), hidden, 4, 2, read=5, attention=attention)
    for p in nn.parameters(m):
        p.assign(p.data * scale)
    return m


def all_grids(grid, num_codes):
    return np.array(list(itertools.product(range(num_codes), repeat=math.prod(grid)))).reshape(-1, 1, *grid)


# --- the likelihood


@BOTH
@GRIDS
def test_the_probabilities_of_all_grids_sum_to_one_whatever_the_caption(grid, attention):
    m, every = model(grid, attention=attention), all_grids(grid, 3)
    found = [np.exp(m.log_prob(every, CAPTIONS.encode([text] * 9))) for text in ("three", "a one", "")]
    found.append(np.exp(m.log_prob(every)))
    np.testing.assert_allclose(np.sum(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[2], found[3], rtol=1e-6)  # an empty caption is none
    for one, two in itertools.combinations(found[:3], 2):
        assert np.abs(one - two).max() > 0.01


@BOTH
def test_what_is_drawn_has_the_probability_it_was_drawn_with(attention):
    m = model((2, 3), 7, attention=attention)
    for told in (CAPTIONS.encode(["three", "the digit zero", "", "1"]), None):
        drawn, stepped = m.generate(np.random.default_rng(0), 4, told)
        assert drawn.shape == (4, 1, 2, 3)
        np.testing.assert_allclose(m.log_prob(drawn, told), stepped, rtol=1e-5)


@BOTH
def test_grids_are_drawn_as_often_as_their_probability_says(attention):
    m, n = model(attention=attention), 20_000
    drawn, _ = m.generate(np.random.default_rng(0), n, CAPTIONS.encode(["two"] * n))
    found = np.bincount(drawn.reshape(n, 2) @ [3, 1], minlength=9)
    expected = n * np.exp(m.log_prob(all_grids((1, 2), 3), CAPTIONS.encode(["two"] * 9)))
    likely = expected > 5
    chi2 = ((found - expected)[likely] ** 2 / expected[likely]).sum()
    assert chi2 < likely.sum() + 5 * math.sqrt(2 * likely.sum())


@BOTH
def test_no_step_reads_what_it_has_yet_to_write(attention):
    m, told = model((2, 3), 7, 1.0, attention=attention), CAPTIONS.encode(["three"])
    codes = np.arange(6).reshape(1, 1, 2, 3)
    before = m.logits(codes, told).data
    for t in range(6):
        other = codes.copy()
        other.reshape(-1)[t] = 6
        changed = (m.logits(other, told).data != before).any(axis=(1, 2, 3))
        assert not changed[: t + 1].any() and changed[t + 1 :].all()


def test_the_captions_are_read_once_and_the_state_is_kept(monkeypatch):
    m = model((2, 2), attention=True)
    step, calls = m.rnn.step, []
    monkeypatch.setattr(m.rnn, "step", lambda x, state: calls.append(state) or step(x, state))
    monkeypatch.setattr(m, "reader", lambda *told, inner=m.reader: calls.append("read") or inner(*told))
    m.generate(np.random.default_rng(0), 3, CAPTIONS.encode(["one"] * 3))
    assert [isinstance(c, str) for c in calls] == [True, False, False, False, False]


# --- reading and attention


def test_padding_has_no_influence():
    mg.seed(0)
    reader = Reader(len(CAPTIONS.vocabulary), 4, 5)
    index, mask = CAPTIONS.encode(["one", "the digit three", ""])
    together = reader(index, mask)
    np.testing.assert_array_equal(together.last.data[2], 0)
    alone = reader(*CAPTIONS.encode(["one"]))
    np.testing.assert_allclose(together.last.data[:1], alone.last.data, atol=1e-6)
    np.testing.assert_allclose(together.states.data[:3, :1], alone.states.data, atol=1e-6)
    other = reader(np.where(mask, index, 7), mask)
    np.testing.assert_array_equal(other.states.data, together.states.data)
    query = mg.randn(4, 3, 5)
    found = attend(query, together.states, mask).data
    np.testing.assert_allclose(found[:, :1], attend(query[:, :1], alone.states, alone.mask).data, atol=1e-6)
    np.testing.assert_array_equal(found[:, 2], 0)
    changed = np.where(mask[:, :, None], together.states.data, 9.0)
    np.testing.assert_allclose(attend(query, mg.tensor(changed), mask).data[:, :2], found[:, :2], atol=1e-6)


@BOTH
def test_so_the_likelihood_of_a_caption_is_the_same_beside_a_longer_one(attention):
    m, codes = model((2, 2), 5, attention=attention), np.arange(4).reshape(1, 1, 2, 2)
    alone = m.log_prob(codes, CAPTIONS.encode(["one"]))
    beside = m.log_prob(codes.repeat(2, 0), CAPTIONS.encode(["one", "the digit three"]))
    np.testing.assert_allclose(alone[0], beside[0], rtol=1e-5)
    assert abs(beside[0] - beside[1]) > 0.01


def test_attention_by_hand():
    rng = np.random.default_rng(0)
    q, e = rng.standard_normal((3, 2, 4)), rng.standard_normal((5, 2, 4))
    mask = np.arange(5)[:, None] < [5, 2]
    found = attend(mg.tensor(q), mg.tensor(e), mask).data
    for s, n in itertools.product(range(3), range(2)):
        own = e[mask[:, n], n]
        a = np.exp(own @ q[s, n])
        np.testing.assert_allclose(found[s, n], a @ own / a.sum(), rtol=1e-6)


def test_the_gradients_of_attention():
    rng = np.random.default_rng(0)
    q, e = rng.standard_normal((3, 3, 4)), rng.standard_normal((5, 3, 4))
    mask = np.arange(5)[:, None] < [5, 2, 0]
    mg.gradcheck(lambda q, e: attend(q, e, mask), q, e, order=2)
    states = mg.tensor(e, requires_grad=True, dtype=np.float64)
    (found,) = mg.grad((attend(mg.tensor(q, dtype=np.float64), states, mask) ** 2).sum(), [states])
    for n in (0, 1):
        np.testing.assert_array_equal((found.data[:, n] != 0).any(1), mask[:, n])


@BOTH
def test_the_gradients_of_the_whole(attention):
    m, told = model((1, 2), 3, 1.0, attention, hidden=3), CAPTIONS.encode(["one", "3"])
    named = nn.named_parameters(m)
    for p in named.values():
        p.data = p.data.astype(np.float64)

    def at(*weights):
        for key, w in zip(named, weights, strict=True):
            *path, name = key.split(".")
            owner = m
            for part in path:
                owner = getattr(owner, part)
            setattr(owner, name, w)
        return m.loss(np.array([[[[0, 2]]], [[[1, 1]]]]), told)

    with mg.mode("reference"):
        mg.gradcheck(at, *named.values(), order=1)


# --- the recipe


def trainer(grid=(1, 2), num_codes=6, count=64, classes=4, **options):
    """Over an untrained VQ-VAE; the codes of class k are k and k + 1, always."""
    options = {"hidden": 24, "embedding": 8, "read": 16, "batch_size": 16, "steps": 150, "lr": 1e-2} | options
    config = recipe.Seq2Seq(num_codes=num_codes, dim=4, quantizer="ema", **options)
    info = DataInfo("made", (1, grid[0] * 4, grid[1] * 4), tuple("0123456789"[:classes]), count, 0)
    mg.seed(0)
    made = config.build(info, None)
    made.vqvae.model.quantizer._set(slice(None), mg.randn(num_codes, 4).data)
    labels = np.arange(count) % classes
    codes = np.stack([labels, labels + 1], 1).reshape(count, *grid)
    made.loader = Loader(codes, labels, config.batch_size, config.seed)
    return made, codes, labels


@BOTH
def test_a_caption_decides_the_codes(attention, monkeypatch):
    t, codes, labels = trainer(attention=attention)
    for _ in range(150):
        t.step()
    plain = t.captions.plain(labels)
    assert t.bits(codes, plain) < 0.1
    assert t.bits(codes, t.captions.draw(np.random.default_rng(5), labels, 0.0)) < 0.1
    assert t.bits(codes, t.captions.draw(np.random.default_rng(5), labels, 1.0)) < 0.5
    assert t.bits(codes, plain[1:] + plain[:1]) > 3  # those of others
    assert 0.8 < t.bits(codes) < 1.3  # two bits of class for two codes, where no caption says it
    drawn, _ = t.model.generate(np.random.default_rng(0), 64, t.captions.encode(plain))
    assert (drawn[:, 0] == codes).mean() > 0.98
    seen = []
    monkeypatch.setattr(t.vqvae, "decode", lambda c: seen.append(c) or np.zeros((len(c), 1, 4, 8), np.uint8))
    t.sample(80), t.sample(80, label=2), t.sample(80, caption="a  THREE")
    for found, wanted in zip(seen, (np.arange(80) % 4, np.full(80, 2), np.full(80, 3)), strict=True):
        assert (found == codes[wanted]).mean() > 0.9


def test_the_figures_are_bits_of_the_codes(monkeypatch):
    t, codes, labels = trainer()
    monkeypatch.setattr(t.vqvae, "encode", lambda images: codes)
    found = t.evaluate(np.zeros((64, 1, 4, 8), np.float32), labels)
    told = t.captions.encode(t.captions.plain(labels))
    nats = -t.model.log_prob(codes[:, None], told).mean()
    assert found["bits_per_code_given_caption"] == pytest.approx(nats / 2 / math.log(2))
    assert found["bits_per_dim"] == pytest.approx(nats / 32 / math.log(2))
    p = np.bincount(codes.reshape(-1)) / codes.size
    assert found["zeroth_order_entropy"] == pytest.approx(-(p * np.log2(p)).sum())
    assert found["saving"] == pytest.approx(1 - nats / 2 / math.log(2) / found["zeroth_order_entropy"])
    without = -t.model.log_prob(codes[:, None]).mean() / 2 / math.log(2)
    assert found["bits_per_code"] == pytest.approx(without)
    assert found == t.evaluate(np.zeros((64, 1, 4, 8), np.float32), labels)
    assert found["bits_per_code_misspelled"] != found["bits_per_code_given_caption"]


def test_in_training_a_share_of_captions_is_hidden_and_one_misspelled():
    t, _, _ = trainer(misspelled=0.5)
    index, mask = t.told(np.full(4000, 3))
    texts = [t.captions.vocabulary.decode(index[mask[:, i], i]) for i in range(4000)]
    assert np.mean([x == "" for x in texts]) == pytest.approx(0.2, abs=0.03)
    wrong = [x not in t.captions.of[3] for x in texts if x]
    assert np.mean(wrong) == pytest.approx(0.5 * 3 / 4, abs=0.03)


def test_what_cannot_be():
    t, _, _ = trainer()
    for options, message in (
        ({"caption": "drei!"}, "the caption 'drei!' has characters that are not in the vocabulary: '!'"),
        ({"caption": "one", "label": 1}, "--caption says what to draw, and so does --label"),
        ({"label": 4}, r"label 4 is not in 0\.\.3"),
    ):
        with pytest.raises(UserError, match=message):
            t.sample(2, **options)


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seq2seq") / "vqvae"
    args = ["--num-codes", "16", "--dim", "4", "--steps", "2", "--out", str(folder)]
    assert cli.main(["train", "vqvae", *args]) == 0
    return str(folder)


QUICK = ["--hidden", "8", "--embedding", "4", "--read", "6", "--batch-size", "256"]


@BOTH
def test_a_resumed_run_is_the_same_run(vqvae, tmp_path, attention):
    def run(folder, stop):
        args = [*QUICK, "--vqvae", vqvae, "--steps", "8", "--log-every", "1", "--checkpoint-every", "3", "--out", str(folder)]
        args += ["--attention"] * attention
        if stop:
            step, count = recipe.Seq2SeqTrainer.step, iter(range(stop))
            with pytest.MonkeyPatch.context() as m, pytest.raises(StopIteration):
                m.setattr(recipe.Seq2SeqTrainer, "step", lambda self: (next(count), step(self))[1])
                cli.main(["train", "seq2seq", *args])
        assert cli.main(["train", "seq2seq", *args, *["--resume"] * bool(stop)]) == 0
        saved = checkpoint.load(folder, "seq2seq")
        return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng

    assert run(tmp_path / "a", 0) == run(tmp_path / "b", 7)  # five batches are an epoch; taken up after the sixth


def test_from_the_command_line(vqvae, tmp_path, capsys, monkeypatch):
    folder, picture = str(tmp_path / "run"), tmp_path / "g.png"
    assert cli.main(["train", "seq2seq", *QUICK, "--vqvae", vqvae, "--steps", "2", "--out", folder]) == 0
    sample = ["sample", folder, "--count", "4", "--out", str(picture)]
    assert cli.main(sample) == 0 and picture.exists()
    assert cli.main([*sample, "--caption", "A seven"]) == 0
    one = picture.read_bytes()
    assert cli.main([*sample, "--caption", "a  seven"]) == 0 and picture.read_bytes() == one
    capsys.readouterr()
    assert cli.main(["eval", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_code_given_caption"] > 0 and "captions of their class" in found["protocol"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--vqvae RUN: the vqvae run whose codes to learn"),
        (["--vqvae", "nowhere"], "nowhere: no such run folder"),
        (["--vqvae", "VQVAE", "--data", "mnist-like"], "no data set is called"),
        (["--vqvae", "VQVAE", "--data", "8gaussians"], "trained on images of shape (1, 8, 8)"),
        (["--vqvae", "VQVAE", "--data", "PICTURES"], "makes captions from the names of classes, and the data"),
        (["--vqvae", "VQVAE", "--misspelled", "2"], "--misspelled must be in 0..1, not 2.0"),
        (["--vqvae", "VQVAE", "--read", "0"], "--read must be at least 1, not 0"),
        (["--vqvae", "VQVAE", "--hidden", "0"], "--hidden must be at least 1, not 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, message, vqvae, tmp_path, capsys, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), i).save(pictures / f"{i}.png")
    names = {"VQVAE": vqvae, "PICTURES": str(pictures)}
    assert cli.main(["train", "seq2seq", *(names.get(a, a) for a in args)]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


def test_captions_are_for_seq2seq(vqvae, tmp_path, capsys):
    assert cli.main(["sample", vqvae, "--caption", "one", "--out", str(tmp_path / "g.png")]) == 2
    assert capsys.readouterr().err == "minigen: --caption is for runs of seq2seq\n"
