"""The codec: what comes back is what was coded, sizes are the prior's, and no damaged file becomes a picture."""

from __future__ import annotations

import json
import math
import os
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import minigen as mg
from minigen import cli
from minigen.codec import Codec, archive, compress, decompress, fixed
from minigen.codec.compare import _file, nearest
from minigen.codec.range_coder import TOTAL, Decoder, Encoder
from minigen.errors import UserError
from minigen.train.config import DataInfo
from minigen.train.vq_prior import VQPrior

MUTATIONS = int(os.environ.get("MINIGEN_MUTATIONS", "300"))


def trainer(seed=0, channels=1, cell="gru", num_codes=16, size=8):
    """An untrained prior over an untrained VQ-VAE; the head is enlarged, so that its probabilities are far from alike."""
    config = VQPrior(cell=cell, hidden=12, embedding=4, num_codes=num_codes, dim=6, quantizer="ema", labels=False, steps=1)
    mg.seed(seed)
    made = config.build(DataInfo("noise", (channels, size, size), (), 0, 0), None)
    made.vqvae.model.quantizer._set(slice(None), mg.randn(num_codes, 6).data)
    made.model.out.weight.assign(made.model.out.weight.data * 20)
    made.model.rnn.weight_hh_l0.assign(made.model.rnn.weight_hh_l0.data * 5)
    return made


@pytest.fixture(scope="module")
def codec():
    return Codec(trainer())


def images(*sizes, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, channels), np.uint8) for size in sizes]


# --- the range coder --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=400), st.sampled_from([2, 3, 300]), st.booleans())
def test_symbols_come_back_at_their_information_content(draws, alphabet, skewed):
    rng = np.random.default_rng(len(draws))
    p = rng.dirichlet(np.full(alphabet, 0.05 if skewed else 5.0))
    sizes = 1 + (p * (TOTAL - alphabet)).astype(int)
    sizes[sizes.argmax()] += TOTAL - sizes.sum()
    ends = sizes.cumsum()
    symbols = [int(ends.searchsorted(d % TOTAL, "right")) for d in draws]
    encoder = Encoder()
    for k in symbols:
        encoder.put(int(ends[k] - sizes[k]), int(sizes[k]))
    data = encoder.finish()
    bits = sum(-math.log2(sizes[k] / TOTAL) for k in symbols)
    assert len(data) <= bits / 8 * 1.003 + 2
    decoder = Decoder(data)
    for k in symbols:
        assert int(ends.searchsorted(decoder.where(), "right")) == k
        decoder.take(int(ends[k] - sizes[k]), int(sizes[k]))


def test_a_carry_runs_through_many_bytes():
    """Always the last, least likely symbol: low stays at the top of its interval, where carries are born."""
    for last in (1, 2, 255, 65535):
        encoder = Encoder()
        pattern = [last if i % 7 else 0 for i in range(500)]
        for bit in pattern:
            encoder.put(*((TOTAL - last, last) if bit else (0, TOTAL - last)))
        decoder = Decoder(encoder.finish())
        for bit in pattern:
            assert (decoder.where() >= TOTAL - last) == bool(bit)
            decoder.take(*((TOTAL - last, last) if bit else (0, TOTAL - last)))


# --- numbers that are the same everywhere -----------------------------------------------------------------------------------


def test_exp_sigmoid_and_tanh():
    x = np.concatenate([-np.geomspace(1e-12, 700, 4000), [0.0]])
    np.testing.assert_allclose(fixed.exp(x), np.exp(x), rtol=1e-12)
    x = np.concatenate([x, -x])
    np.testing.assert_allclose(fixed.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-12)
    np.testing.assert_allclose(fixed.tanh(x), np.tanh(x), rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_sums_do_not_depend_on_their_order(cell):
    """Turn the hidden units around, and with them every sum: the frequencies stay the same to the last bit."""
    made = trainer(cell=cell, num_codes=40)
    prior = fixed.FixedPrior(made.model, TOTAL)
    turned = fixed.FixedPrior(made.model, TOTAL)
    order = np.random.default_rng(0).permutation(12)
    gates = np.concatenate([order + 12 * g for g in range(prior.w_ih.shape[1] // 12)])
    turned.w_ih, turned.b_ih = prior.w_ih[:, gates], prior.b_ih[gates]
    turned.w_hh, turned.b_hh = prior.w_hh[order][:, gates], prior.b_hh[gates]
    turned.w_out = prior.w_out[order]
    rng = np.random.default_rng(1)
    seen = np.concatenate([rng.integers(0, 40, (30, prior.steps)), np.full((30, 1), 40)], 1)
    a, b = prior.begin(30), turned.begin(30)
    for t in range(prior.steps):
        x, a = prior.frequencies(t, seen, a)
        y, b = turned.frequencies(t, seen, b)
        np.testing.assert_array_equal(x, y)
        assert (x >= 1).all() and (x.sum(1) == TOTAL).all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_frequencies_are_the_priors_probabilities(cell):
    made = trainer(cell=cell)
    prior = fixed.FixedPrior(made.model, 1 << 24)
    codes = np.random.default_rng(0).integers(0, 16, (20, 2, 2))
    logits = made.model.logits(codes[:, None]).data[:, :, 0].astype(np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    seen, state = np.concatenate([codes.reshape(20, 4), np.full((20, 1), 16)], 1), prior.begin(20)
    for t in range(4):
        found, state = prior.frequencies(t, seen, state)
        np.testing.assert_allclose(found / 2**24, p[t], atol=2e-3)


def test_weights_that_would_round_are_refused():
    made = trainer()
    made.model.out.weight.assign(made.model.out.weight.data * 1e7)
    with pytest.raises(UserError, match="too large for exact sums"):
        Codec(made)


def test_the_decoder_is_the_networks(codec):
    codes = np.random.default_rng(0).integers(0, 16, (9, 2, 2))
    found = np.stack(codec.reconstruct(codes, [(8, 8)] * 9)).transpose(0, 3, 1, 2)
    expected = codec.vqvae.decode(codes)
    assert np.abs(found.astype(int) - expected).max() <= 1


# --- files ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "channels", "num_codes"), [("gru", 1, 16), ("lstm", 3, 16), ("gru", 3, 2), ("lstm", 1, 1)])
def test_what_comes_back_is_what_was_coded(cell, channels, num_codes):
    codec = Codec(trainer(cell=cell, channels=channels, num_codes=num_codes))
    given_images = images((8, 8), (1, 1), (20, 9), (20, 9), (8, 17), (160, 120), channels=channels)
    back = decompress(codec, compress(codec, given_images))
    expected = codec.reconstruct(codec.encode(given_images), [i.shape[:2] for i in given_images])
    for a, b, x in zip(back, expected, given_images, strict=True):
        assert a.shape == x.shape and a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)


def test_tiles_lie_where_they_were(codec):
    """Each tile of a large image is coded like the same tile alone."""
    (whole,) = images((24, 16))
    parts = [whole[y : y + 8, x : x + 8] for y in (0, 8, 16) for x in (0, 8)]
    np.testing.assert_array_equal(codec.encode([whole]), codec.encode(parts))
    (back,) = codec.reconstruct(codec.encode([whole]), [(24, 16)])
    alone = codec.reconstruct(codec.encode(parts), [(8, 8)] * 6)
    np.testing.assert_array_equal(back, np.concatenate([np.concatenate(alone[i : i + 2], 1) for i in (0, 2, 4)]))


def test_the_size_is_the_priors_likelihood(codec):
    """Codes drawn from the prior itself, so that it is right about them."""
    made = trainer()
    codes, log_p = made.model.generate(np.random.default_rng(0), 600)
    data = codec.put(codes[:, 0])
    assert len(data) * 8 == pytest.approx(-log_p.sum() / math.log(2), rel=0.01)
    np.testing.assert_array_equal(codec.take(data, 600), codes[:, 0])


def test_damaged_files_give_an_error_each_time(codec):
    """Cut anywhere, one bit flipped, bytes replaced, removed, added: never a picture."""
    content = compress(codec, images((8, 8), (20, 9)))
    rng = np.random.default_rng(0)
    for i in range(MUTATIONS):
        bad = bytearray(content)
        at = int(rng.integers(len(bad)))
        if i % 5 == 0:
            bad = bad[:at]
        elif i % 5 == 1:
            bad[at] ^= 1 << int(rng.integers(8))
        elif i % 5 == 2:
            bad[at : at + 4] = rng.bytes(4)
        elif i % 5 == 3:
            del bad[at]
        else:
            bad.insert(at, int(rng.integers(256)))
        if bytes(bad) != content:
            with pytest.raises(UserError, match=r"damaged|not written|another"):
                decompress(codec, bytes(bad))


def test_another_model_is_refused(codec):
    content = compress(codec, images((8, 8)))
    other = trainer()
    other.model.out.bias.assign(other.model.out.bias.data + np.float32(1e-3))
    with pytest.raises(UserError, match="was compressed with another model"):
        decompress(Codec(other), content, "x.mgvq")


def sealed(body):
    return body + zlib.crc32(body).to_bytes(4, "big")


def test_headers_that_are_sealed_but_absurd(codec):
    start = archive.MAGIC + codec.hash[: archive.HASH]
    absurd = (b"", b"\x01", b"\x01\x01\x08", b"\x01\x00\x08\x08", b"\x01" + b"\xff\x7f" * 3 + b"\x01", b"\xff" * 9)
    for header in absurd:
        with pytest.raises(UserError, match="damaged"):
            decompress(codec, sealed(start + header))
    assert decompress(codec, sealed(start + b"\x00")) == []
    with pytest.raises(UserError, match="another version"):
        decompress(codec, sealed(b"MGVQ\x02" + start[5:] + b"\x00"))


def test_images_that_do_not_fit(codec):
    with pytest.raises(UserError, match="channels, not 3"):
        compress(codec, images((8, 8), channels=3))
    with pytest.raises(UserError, match="without pixels"):
        compress(codec, images((0, 8)))


# --- the command line -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny = ["--steps", "2", "--batch-size", "8"]
    assert cli.main(["train", "vqvae", *tiny, "--num-codes", "32", "--dim", "4", "--out", str(folder / "vq")]) == 0
    for seed in ("0", "1"):
        args = ["--vqvae", str(folder / "vq"), "--hidden", "8", "--seed", seed, "--out", str(folder / f"prior{seed}")]
        assert cli.main(["train", "vq-prior", *tiny, *args]) == 0
    return folder


def test_from_the_command_line(runs, tmp_path, capsys):
    model = ["--model", str(runs / "prior0")]
    Image.fromarray(images((20, 30), channels=3)[0]).save(tmp_path / "a.png")
    Image.fromarray(images((8, 8))[0][:, :, 0]).save(tmp_path / "b.bmp")
    assert cli.main(["compress", str(tmp_path / "a.png"), str(tmp_path / "b.bmp"), *model]) == 0
    file = tmp_path / "a.mgvq"
    assert f"2 images, {file.stat().st_size} bytes" in capsys.readouterr().out
    assert cli.main(["decompress", str(file), *model]) == 0
    back = [Image.open(tmp_path / "a" / f"000{i}.png") for i in (1, 2)]
    assert [b.size for b in back] == [(30, 20), (8, 8)] and {b.mode for b in back} == {"L"}
    capsys.readouterr()
    assert cli.main(["decompress", str(file), "--model", str(runs / "prior1")]) == 2
    file.write_bytes(file.read_bytes()[:-3])
    assert cli.main(["decompress", str(file), *model, "--out", str(tmp_path / "never")]) == 2
    assert cli.main(["compress", str(file), *model]) == 2
    assert cli.main(["compress", *model]) == 2
    assert cli.main(["compress", str(tmp_path / "none.png"), *model]) == 2
    assert cli.main(["compress", str(tmp_path / "a.png"), "--model", str(runs / "vq")]) == 2
    assert cli.main(["decompress", str(tmp_path / "none"), *model]) == 2
    lines = capsys.readouterr().err.splitlines()
    wanted = ["another model", "damaged", "as an image", "which images", "cannot read", "one of vq-prior", "cannot read"]
    assert len(lines) == 7 and all(w in line for w, line in zip(wanted, lines, strict=True)), lines
    assert not (tmp_path / "never").exists()


def test_eval_prints_the_codec_beside_jpeg_and_webp(runs, capsys):
    assert cli.main(["eval", str(runs / "prior0"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mosaic"] == "136x136"  # 17 x 17 of the 297 held-out digits
    assert found["bits_per_code"] <= 5.2 and found["bits_per_dim"] == pytest.approx(found["bits_per_code"] * 4 / 64)
    assert found["bits_per_pixel"] == pytest.approx(found["bits_per_dim"], rel=0.05)
    assert {"psnr", "jpeg_bits_per_pixel", "jpeg_psnr", "webp_bits_per_pixel", "webp_psnr"} <= set(found)


def test_the_nearest_size_of_a_format():
    picture = np.add.outer(np.arange(64), np.arange(64))[:, :, None].astype(np.uint8) * 2
    sizes = [len(_file(picture, "JPEG", q)) for q in range(101)]
    for wanted in (0, sizes[50], sizes[50] + 1, 10**6):
        size, decoded = nearest(picture, "JPEG", wanted)
        assert abs(size - wanted) == min(abs(s - wanted) for s in sizes) and decoded.shape == picture.shape
