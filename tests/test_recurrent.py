"""Recurrent layers against PyTorch's of the same name: weights copied both ways, states, gradients, gradient penalties."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import nn, ops

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
CELLS = pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
ALL = [nn.RNN, nn.LSTM, nn.GRU, lambda *a, **k: nn.GRU(*a, **k, reset_after=False)]
EVERY = pytest.mark.parametrize("make", ALL, ids=["RNN", "LSTM", "GRU", "GRU Cho"])
OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2},
        {"batch_first": True},
        {"bidirectional": True},
        {"num_layers": 2, "batch_first": True, "bidirectional": True},
    ],
    ids=["one layer", "two layers", "batch first", "bidirectional", "everything"],
)
T, N, IN, D = 5, 3, 4, 6


@pytest.fixture
def torch():
    module = pytest.importorskip("torch")
    module.manual_seed(0)
    return module


def pair(torch, cell, options, dtype=np.float64, direction="from torch"):
    """Our layer and PyTorch's with the same weights, its own in float64."""
    ours, theirs = getattr(nn, cell)(IN, D, **options), getattr(torch.nn, cell)(IN, D, **options)
    if direction == "from torch":
        nn.load_state_dict(ours, {k: v.numpy() for k, v in theirs.state_dict().items()})
    else:
        theirs.load_state_dict({k: torch.tensor(v) for k, v in nn.state_dict(ours).items()})
    for p in nn.parameters(ours):
        p.data = p.data.astype(dtype)
    return ours, theirs.double()


def starts(ours, rng):
    """Initial states, not zero: (h0,) or (h0, c0)."""
    passes = ours.num_layers * (1 + ours.bidirectional)
    return [rng.standard_normal((passes, N, D)) for _ in range(ours.states)]


def flat(output, state):
    return [output, *(state if isinstance(state, tuple) else [state])]


def derivatives(ours, layer, x, states, parameters, gradient, vs):
    """Outputs; gradients of <vs, outputs> for x, states and weights; then those of a penalty on x's gradient, WGAN-GP's."""
    outs = flat(*layer(x, tuple(states) if ours.states > 1 else states[0]))
    everything = [x, *states, *parameters]
    first = gradient(sum((v * y).sum() for v, y in zip(vs, outs, strict=True)), everything, create_graph=True)
    norm = ((first[0] * first[0]).sum((0, 2) if not ours.batch_first else (1, 2)) + 1e-12) ** 0.5
    second = gradient(((norm - 1) ** 2).mean(), everything)
    return [*outs, *first, *second]


@BACK_ENDS
@OPTIONS
@CELLS
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_a_layer_is_torchs(torch, cell, options, direction, back_end):
    ours, theirs = pair(torch, cell, options, direction=direction)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, IN) if ours.batch_first else (T, N, IN))
    states, width = starts(ours, rng), D * (1 + ours.bidirectional)
    vs = [rng.standard_normal((*x.shape[:2], width)), *(rng.standard_normal(s.shape) for s in states)]
    with mg.mode(back_end):
        xs = [mg.Tensor(a, True) for a in (x, *states)]
        found = derivatives(ours, ours, xs[0], xs[1:], nn.parameters(ours), mg.grad, [mg.Tensor(v) for v in vs])
    ts = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    parameters = list(theirs.parameters())
    exact = derivatives(ours, theirs, ts[0], ts[1:], parameters, torch.autograd.grad, [torch.tensor(v) for v in vs])
    assert len(found) == len(exact) == 1 + len(states) + 2 * (1 + len(states) + len(parameters))
    for f, e in zip(found, exact, strict=True):
        e = e.detach().numpy()
        assert f.shape == e.shape
        np.testing.assert_allclose(f.data, e, rtol=0, atol=1e-12 * max(1.0, np.abs(e).max()))


@BACK_ENDS
@CELLS
def test_in_float32_as_users_run_it(torch, cell, back_end):
    ours, theirs = pair(torch, cell, {"num_layers": 2, "bidirectional": True}, np.float32)
    x = np.random.default_rng(0).standard_normal((T, N, IN)).astype(np.float32)
    a, b = mg.tensor(x, requires_grad=True), torch.tensor(x, dtype=torch.float64, requires_grad=True)
    with mg.mode(back_end):
        found = flat(*ours(a))
        found += mg.grad(found[0].sum(), [a, *nn.parameters(ours)])
    exact = flat(*theirs(b))
    exact += torch.autograd.grad(exact[0].sum(), [b, *theirs.parameters()])
    for f, e in zip(found, exact, strict=True):
        e = e.detach().numpy()
        assert f.dtype == np.float32
        # Five steps there and back through two layers, sums of up to 15 products each; no sum cancels much.
        np.testing.assert_allclose(f.data, e, rtol=0, atol=100 * np.finfo(np.float32).eps * max(1.0, np.abs(e).max()))


@CELLS
@OPTIONS
def test_names_order_and_initial_weights_are_torchs(torch, cell, options):
    ours, theirs = getattr(nn, cell)(IN, 40, **options), getattr(torch.nn, cell)(IN, 40, **options)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in nn.state_dict(ours).items()} == {k: v.shape for k, v in state.items()}
    assert list(nn.named_parameters(ours)) == list(state)
    for k, p in nn.named_parameters(ours).items():  # uniform up to a bound that the largest of 40 or more draws comes close to
        np.testing.assert_allclose([p.data.max(), -p.data.min()], [1 / np.sqrt(40)] * 2, rtol=0.2)
        assert np.abs(p.data).max() <= 1 / np.sqrt(40) and p.dtype == np.float32, k


@BACK_ENDS
@CELLS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_mask_is_torchs_packed_sequence(torch, cell, bidirectional, back_end):
    """Outputs where there is a step, last states, and the gradients of a function of both."""
    ours, theirs = pair(torch, cell, {"num_layers": 2, "bidirectional": bidirectional})
    rng, lengths = np.random.default_rng(0), np.array([2, 5, 1])
    x, mask = rng.standard_normal((T, N, IN)), np.arange(T)[:, None] < lengths
    weights = rng.standard_normal((T, N, D * (1 + bidirectional))) * mask[..., None]
    a, b = mg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    pack, unpack = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    packed, state = theirs(pack(b, lengths, enforce_sorted=False))
    exact = flat(unpack(packed)[0], state)
    total = (exact[0] * torch.tensor(weights)).sum() + sum((s * s).sum() for s in exact[1:])
    exact += torch.autograd.grad(total, [b, *theirs.parameters()])
    with mg.mode(back_end):
        found = flat(*ours(a, mask=mask))
        total = (found[0] * weights).sum() + sum((s * s).sum() for s in found[1:])
        found += mg.grad(total, [a, *nn.parameters(ours)])
    np.testing.assert_allclose(found[0].data * mask[..., None], exact[0].detach().numpy(), atol=1e-13)  # theirs: 0 elsewhere
    for f, e in zip(found[1:], exact[1:], strict=True):
        e = e.detach().numpy()
        np.testing.assert_allclose(f.data, e, rtol=0, atol=1e-12 * max(1.0, np.abs(e).max()))


@BACK_ENDS
@EVERY
def test_what_stands_in_the_padding_does_not_matter(make, back_end):
    layer = make(IN, D, 2, bidirectional=True)
    x, mask = mg.randn(T, N, IN).data, np.arange(T)[:, None] < np.array([2, 5, 1])
    found = []
    for filler in (0.0, np.nan):
        a = mg.tensor(np.where(mask[..., None], x, np.float32(filler)), requires_grad=True)
        with mg.mode(back_end):
            y, _ = layer(a, mask=mask)
            found.append([y, *mg.grad((y * y).sum(), [a, *nn.parameters(layer)])])
    for zeros, nans in zip(*found, strict=True):
        np.testing.assert_array_equal(nans.data, zeros.data)


@EVERY
@pytest.mark.parametrize("layers", [1, 2])
def test_batch_first_only_moves_axes(make, layers):
    first, second = make(IN, D, layers), make(IN, D, layers, batch_first=True)
    nn.load_state_dict(second, nn.state_dict(first))
    x, mask = mg.randn(T, N, IN), np.random.default_rng(0).random((T, N)) < 0.7
    y, state = first(x, mask=mask)
    z, other = second(x.transpose(0, 1), mask=mask.T)
    np.testing.assert_array_equal(y.data, z.data.transpose(1, 0, 2))
    for a, b in zip(flat(y, state)[1:], flat(z, other)[1:], strict=True):
        np.testing.assert_array_equal(a.data, b.data)


@EVERY
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_step_by_step_is_the_whole_sequence(make, layers, batch_first):
    layer = make(IN, D, layers, batch_first)
    x = mg.randn(T, N, IN)
    whole, last = layer(x.transpose(0, 1) if batch_first else x)
    outs, state = [], None
    for t in range(T):
        y, state = layer.step(x[t], state)
        outs.append(y.data)
    assert outs[0].shape == (N, D)
    np.testing.assert_allclose(np.stack(outs, int(batch_first)), whole.data, rtol=0, atol=1e-6)
    for a, b in zip(flat(None, state)[1:], flat(None, last)[1:], strict=True):
        assert a.shape == b.shape == (layers, N, D)
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=1e-6)


@BACK_ENDS
def test_reset_before_or_after_by_name(back_end):
    """The two forms have the same parameters; Cho's sees only the sum of its biases."""
    x = mg.randn(T, N, IN)
    after, before = nn.GRU(IN, D), nn.GRU(IN, D, reset_after=False)
    nn.load_state_dict(before, nn.state_dict(after))
    w_ih, w_hh, b_ih, b_hh = (before.weight_ih_l0, before.weight_hh_l0, before.bias_ih_l0, before.bias_hh_l0)
    with mg.mode(back_end):
        h = ops.gru_cho(ops.linear(x, w_ih), mg.Tensor(np.zeros((N, D), np.float32)), w_hh, b_ih + b_hh)
        y, _ = before(x)
        z, _ = after(x)
    np.testing.assert_array_equal(y.data, h.data)
    assert np.abs(y.data - z.data).max() > 1e-3


def test_dropout_acts_between_layers_and_only_in_training(monkeypatch):
    seen = []
    right = ops.dropout
    monkeypatch.setattr(ops, "dropout", lambda x, p, training: seen.append((x.shape, p, training)) or right(x, p, training))
    x = mg.randn(T, N, IN)
    layer, plain = nn.GRU(IN, D, 3, dropout=0.5), nn.GRU(IN, D, 3)
    nn.load_state_dict(plain, nn.state_dict(layer))
    one, two = layer(x)[0].data, layer(x)[0].data
    assert seen == [((T, N, D), 0.5, True)] * 4  # before the second layer and the third, twice
    assert (one != two).any() and (one[-1] != 0).all()  # the output itself is not dropped
    nn.set_training(layer, False)
    np.testing.assert_array_equal(layer(x)[0].data, plain(x)[0].data)
    assert nn.GRU(IN, D, dropout=0.9)(x)[0].data.all()  # one layer: nothing between


def test_dropout_zeroes_and_scales_what_the_next_layer_reads():
    layer = nn.RNN(IN, D, 2, dropout=0.4)
    first, second = nn.RNN(IN, D), nn.RNN(D, D)
    for name, p in nn.named_parameters(layer).items():
        nn.named_parameters(second if name.endswith("l1") else first)[name.replace("l1", "l0")].assign(p.data)
    x = mg.randn(T, N, IN)
    mg.seed(1)
    found, _ = layer(x)
    mg.seed(1)
    between = ops.dropout(first(x)[0], 0.4)
    assert 0 < (between.data == 0).sum() < between.size
    np.testing.assert_array_equal(found.data, second(between)[0].data)


def test_a_state_carried_over_cuts_nothing_unless_detached():
    """Gradients reach the first piece through the state; through a detached state they do not."""
    layer = nn.LSTM(IN, D)
    x, y = (mg.tensor(mg.randn(T, N, IN).data, requires_grad=True) for _ in "ab")
    _, state = layer(x)
    (g,) = mg.grad(layer(y, state)[0].sum(), x, retain_graph=True)
    assert np.abs(g.data).max() > 1e-4
    with pytest.raises(mg.GradientError, match="do not depend on input 0"):
        mg.grad(layer(y, tuple(s.detach() for s in state))[0].sum(), x)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda: nn.GRU(0, 4), "sizes and layers must be positive, not 0, 4, 1"),
        (lambda: nn.GRU(3, 4, 0), "sizes and layers must be positive, not 3, 4, 0"),
        (lambda: nn.GRU(3, 4)(mg.randn(5, 3)), r"GRU: x \(5, 3\); wanted three axes, the last of 3 features"),
        (lambda: nn.LSTM(3, 4)(mg.randn(5, 2, 4)), r"LSTM: x \(5, 2, 4\); wanted three axes, the last of 3 features"),
        (lambda: nn.RNN(3, 4)(mg.randn(0, 2, 3)), "a sequence of no steps"),
        (lambda: nn.GRU(3, 4, 2)(mg.randn(5, 2, 3), mg.randn(1, 2, 4)), r"GRU: 1 state\(s\) of shape \(2, 2, 4\) wanted"),
        (lambda: nn.LSTM(3, 4)(mg.randn(5, 2, 3), mg.randn(1, 2, 4)), r"LSTM: 2 state\(s\) of shape \(1, 2, 4\) wanted"),
        (lambda: nn.GRU(3, 4)(mg.randn(5, 2, 3), (mg.randn(1, 2, 4),) * 2), r"GRU: 1 state\(s\) of shape \(1, 2, 4\) wanted"),
        (lambda: nn.GRU(3, 4)(mg.randn(5, 2, 3), mask=np.ones((2, 5))), r"a mask of shape \(2, 5\); wanted \(T, N\)"),
        (lambda: nn.GRU(3, 4, bidirectional=True).step(mg.randn(2, 3)), r"bidirectional layer .* no step\(\)"),
        (lambda: nn.GRU(3, 4).step(mg.randn(2, 5)), "GRU: x .*; wanted three axes, the last of 3 features"),
    ],
)
def test_one_clear_error_each(f, message):
    with pytest.raises(ValueError, match=message):
        f()
