"""LoRALinear against the formula W + (alpha / r) B A: output, gradient, merge, starts, shrinking."""

import copy

import numpy as np
import pytest
import torch
from oracles import DTYPES, eps, snapshot, tail, truncated, with_spectrum, work_eps
from torch import nn

from lowrank_utils import LoRALinear, compress

SHAPES = [(7, 4), (5, 5), (4, 9), (1, 3), (3, 1)]  # (m, n)
CASES = [(m, n, r, bias) for m, n in SHAPES for r in (1, 2, 4) if r <= min(m, n) for bias in (True, False)]


def dense_of(m, n, bias=True, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(n, m, bias=bias, dtype=torch.float64)
    linear.weight.data = with_spectrum(m, n, [2.0**-i for i in range(min(m, n))], seed)
    return linear.to(dtype)


def adapter(m, n, r, bias=True, alpha=3.0, dtype=torch.float64, seed=0):
    """With two factors that are not zero."""
    linear = dense_of(m, n, bias, dtype, seed)
    A, B = torch.randn(r, n, dtype=torch.float64), torch.randn(m, r, dtype=torch.float64)
    return LoRALinear(linear.weight, A, B, linear.bias, alpha=alpha), linear


def composed(layer):
    """numpy's W + (alpha / r) B A."""
    W, A, B = (t.detach().double().numpy() for t in (layer.W, layer.A, layer.B))
    return torch.from_numpy(W + layer.alpha / layer.rank * (B @ A))


@pytest.mark.parametrize(("m", "n", "r", "bias"), CASES)
@pytest.mark.parametrize("lead", [(6,), (2, 3), ()])
def test_output_weight_and_merge_are_the_formula(m, n, r, bias, lead):
    layer, linear = adapter(m, n, r, bias)
    x = torch.randn(*lead, n, dtype=torch.float64)
    wanted = x @ composed(layer).T + (linear.bias if bias else 0.0)
    got = layer(x)
    assert got.shape == (*lead, m) and torch.allclose(got, wanted, rtol=1e-13, atol=1e-13)
    assert torch.allclose(layer.weight, composed(layer), rtol=1e-14, atol=1e-14)
    merged = layer.merge()
    assert type(merged) is nn.Linear and torch.allclose(merged(x), wanted, rtol=1e-13, atol=1e-13)
    assert torch.equal(merged.weight, layer.weight) and (merged.bias is None) is not bias


@pytest.mark.parametrize(("m", "n", "r", "bias"), CASES)
def test_gradient_is_the_dense_layers_by_the_chain_rule(m, n, r, bias):
    layer, linear = adapter(m, n, r, bias)
    linear.weight.data = composed(layer)
    x = torch.randn(6, n, dtype=torch.float64, requires_grad=True)
    x2, weights = x.detach().clone().requires_grad_(), torch.randn(6, m, dtype=torch.float64)
    (layer(x).tanh() * weights).sum().backward()
    (linear(x2).tanh() * weights).sum().backward()
    G, scale = linear.weight.grad, 3.0 / r
    assert torch.allclose(layer.B.grad, scale * G @ layer.A.T, rtol=1e-11, atol=1e-12)
    assert torch.allclose(layer.A.grad, scale * layer.B.T @ G, rtol=1e-11, atol=1e-12)
    assert torch.allclose(x.grad, x2.grad, rtol=1e-11, atol=1e-12)
    assert layer.W.grad is None and (layer.bias is None or layer.bias.grad is None)


def test_what_is_trained_and_what_it_costs():
    layer = LoRALinear.from_linear(nn.Linear(30, 20), 4)
    names = {name: p.numel() for name, p in layer.named_parameters() if p.requires_grad}
    assert names == {"A": 4 * 30, "B": 20 * 4}
    assert set(layer.state_dict()) == {"W", "A", "B", "bias", "_extra_state"}
    assert (layer.in_features, layer.out_features, layer.rank) == (30, 20, 4)
    assert layer.alpha == 4.0 and layer.scaling == 1.0  # alpha is r unless it is given
    assert repr(layer) == "LoRALinear(in_features=30, out_features=20, rank=4, alpha=4, bias=True)"


@pytest.mark.parametrize("start", ["zeros", "pissa"])
@pytest.mark.parametrize("alpha", [None, 6.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "r", "bias"), CASES)
def test_it_starts_as_the_layer(m, n, r, bias, dtype, alpha, start):
    linear = dense_of(m, n, bias, dtype)
    layer = LoRALinear.from_linear(linear, r, alpha=alpha, start=start)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    # W is rounded once after the product of rounded factors was taken off, and once more when it is added
    room = 4 * eps(dtype) * (1 + r)
    assert torch.linalg.norm(layer.weight.double() - linear.weight.double()) <= room
    if start == "zeros":
        assert layer.B.abs().max() == 0 and torch.equal(layer.W, linear.weight)
        assert layer.A.abs().max() <= n**-0.5 * (1 + eps(dtype))
    if bias:
        assert torch.equal(layer.bias, linear.bias)


@pytest.mark.parametrize(("m", "n", "r", "bias"), CASES)
@pytest.mark.parametrize("alpha", [1.0, 8.0])
def test_pissa_takes_the_truncated_svd_and_shares_it(m, n, r, bias, alpha):
    linear = dense_of(m, n, bias)
    layer = LoRALinear.from_linear(linear, r, alpha=alpha, start="pissa")
    product = alpha / r * (layer.B @ layer.A)
    assert torch.allclose(product, truncated(linear.weight, r), rtol=0, atol=1e-13)
    assert torch.linalg.norm(layer.W) == pytest.approx(tail(linear.weight, r), abs=1e-13)
    assert torch.allclose(layer.B.norm(dim=0), layer.A.norm(dim=1), rtol=1e-12, atol=0)


def test_the_plain_start_is_drawn_from_torchs_generator():
    linear = dense_of(5, 40)
    torch.manual_seed(3)
    first = LoRALinear.from_linear(linear, 4)
    torch.manual_seed(3)
    assert torch.equal(first.A, LoRALinear.from_linear(linear, 4).A)
    assert not torch.equal(first.A, LoRALinear.from_linear(linear, 4).A)
    assert float(first.A.detach().var()) == pytest.approx(
        1 / (3 * 40), rel=0.3
    )  # uniform in 1/sqrt(n), 160 draws


@pytest.mark.parametrize(("m", "n", "r", "bias"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shrinking_is_the_best_of_its_rank(m, n, r, bias, dtype):
    layer, _ = adapter(m, n, r, bias, dtype=dtype)
    product = (layer.B.double() @ layer.A.double()).detach()
    for k in range(1, r + 1):
        small = layer.shrink(k)
        assert small.rank == k and small.scaling == pytest.approx(layer.scaling)
        assert torch.equal(small.W, layer.W)
        made = small.B.double() @ small.A.double()
        # decomposed in double, each factor rounded once: root of the norm each
        room = (2 * eps(dtype) + 50 * eps(torch.float64)) * float(product.norm()) * k
        assert abs(torch.linalg.norm(made - product) - tail(product, k)) <= room
        assert np.linalg.matrix_rank(made.detach().numpy(), tol=1e-6) <= k


@pytest.mark.parametrize("trained", [set(), {"A", "B"}, {"B"}, {"B", "bias"}, {"W", "A"}])
def test_shrinking_trains_what_was_trained(trained):
    layer, _ = adapter(6, 4, 3)
    for name, p in layer.named_parameters():
        p.requires_grad_(name in trained)
    assert {name for name, p in layer.shrink(2).named_parameters() if p.requires_grad} == trained


def test_shrinking_never_forms_the_product(monkeypatch):
    """One of 40000 x 30000 would be 9.6 GB."""
    m, n = 40_000, 30_000
    layer = LoRALinear(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 2))
    layer.W = nn.Parameter(torch.ones(1, 1).expand(m, n), requires_grad=False)  # one number
    layer.A, layer.B = nn.Parameter(torch.randn(2, n)), nn.Parameter(torch.randn(m, 2))
    monkeypatch.setattr(LoRALinear, "__init__", lambda self, W, A, B, *a, **k: nn.Module.__init__(self))
    layer.shrink(1)


@pytest.mark.parametrize("r", [1, 3])
def test_an_adapter_of_zeros_shrinks_to_zeros(r):
    layer = LoRALinear.from_linear(dense_of(5, 6), r)
    small = layer.shrink(1)
    assert (small.B @ small.A).abs().max() == 0 and torch.equal(small.weight, layer.weight)


def test_a_rank_above_both_sizes():
    """An adapter may have one, as the sum of two has; shrinking finds the rank that it can have."""
    layer = LoRALinear(torch.zeros(2, 3), torch.randn(5, 3), torch.randn(2, 5), alpha=10.0)
    assert torch.allclose(layer.shrink(5).weight, layer.weight, atol=1e-5)
    assert layer.shrink(5).rank == 2


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("start", ["zeros", "pissa"])
def test_nothing_is_shared_or_changed(training, start):
    linear = dense_of(6, 4).train(training)
    before = snapshot(linear)
    layer = LoRALinear.from_linear(linear, 2, start=start)
    assert layer.training == layer.merge().training == layer.shrink(1).training == training
    kept = copy.deepcopy(layer.state_dict())
    made = [layer, layer.merge(), layer.shrink(2), LoRALinear(linear.weight, layer.A, layer.B, linear.bias)]
    for one in made:
        for p in one.parameters():
            p.data.fill_(7.0)
        if one is layer:
            layer.load_state_dict(kept)
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in kept.items())
    parts = {name: value for name, value in snapshot(linear).items() if name in linear.state_dict()}
    assert all(torch.equal(value, before[name]) for name, value in parts.items())


def test_a_file_says_how_much_of_the_update_is_added(tmp_path):
    layer, other = adapter(6, 5, 2, alpha=8.0), adapter(6, 5, 2, alpha=2.0, seed=1)
    written, read = nn.Sequential(layer[0]), nn.Sequential(other[0])
    torch.save(written.state_dict(), tmp_path / "adapter.pt")
    read.load_state_dict(torch.load(tmp_path / "adapter.pt", weights_only=True))
    x = torch.randn(7, 5, dtype=torch.float64)
    assert torch.equal(read(x), written(x)) and read[0].alpha == 8.0
    assert torch.equal(torch.func.functional_call(read, written.state_dict(), (x,)), written(x))


def test_a_file_without_it_leaves_alpha_as_it_is():
    (layer, _), (other, _) = adapter(6, 5, 2, alpha=8.0), adapter(6, 5, 2, alpha=2.0, seed=1)
    other.load_state_dict(dict(layer.named_parameters()))
    assert torch.equal(other.B, layer.B) and other.alpha == 2.0
    told = other.load_state_dict({"A": layer.A}, strict=False)
    assert sorted(told.missing_keys) == ["B", "W", "bias"]
    with pytest.raises(ValueError, match="^alpha=-1.0 must be a finite number > 0"):
        other.load_state_dict({**layer.state_dict(), "_extra_state": torch.tensor(-1.0)})
    assert other.alpha == 2.0


def test_compress_says_that_it_is_no_layer_to_cut():
    net = nn.Sequential(LoRALinear.from_linear(nn.Linear(9, 8), 2))
    with pytest.raises(ValueError, match="is LoRALinear, which is no matrix applied to rows"):
        compress(net, {"0": 1})


W, A, B = torch.ones(4, 5), torch.ones(2, 5), torch.ones(4, 2)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LoRALinear(W, B, A), ValueError, r"^\(weight, A, B, bias\) of shapes .* must be \(m, n\)"),
        (
            lambda: LoRALinear(W, A, B, torch.ones(5)),
            ValueError,
            r"must be \(m, n\), \(r, n\), \(m, r\), \(m,\)",
        ),
        (lambda: LoRALinear(W, A[:1], B), ValueError, "of shapes"),
        (lambda: LoRALinear(W, A, B, alpha=0.0), ValueError, r"^alpha=0.0 must be a finite number > 0"),
        (lambda: LoRALinear(W, A, B, alpha="4"), TypeError, "^alpha='4' must be"),
        (lambda: LoRALinear(W * float("nan"), A, B), ValueError, "weight of shape .* nan or inf"),
        (lambda: LoRALinear(W, A.long(), B), TypeError, "^A="),
        (
            lambda: LoRALinear.from_linear(nn.Conv2d(1, 1, 1), 1),
            TypeError,
            "^linear=Conv2d must be an nn.Linear",
        ),
        (
            lambda: LoRALinear.from_linear(nn.Linear(5, 4), 5),
            ValueError,
            r"^rank=5 must be an integer from 1 to 4",
        ),
        (lambda: LoRALinear.from_linear(nn.Linear(5, 4), 0), ValueError, "^rank=0"),
        (lambda: LoRALinear.from_linear(nn.Linear(5, 4), 1.5), TypeError, "^rank=1.5"),
        (
            lambda: LoRALinear.from_linear(nn.Linear(5, 4), 1, start="ones"),
            ValueError,
            "^start='ones' must be",
        ),
        (lambda: LoRALinear.from_linear(nn.Linear(5, 4), 1, alpha=-1.0), ValueError, "^alpha=-1.0"),
        (
            lambda: LoRALinear.from_linear(nn.Linear(5, 4), 1, alpha=-1.0, start="pissa"),
            ValueError,
            "^alpha=-1.0",
        ),
        (lambda: LoRALinear(W, A, B).shrink(3), ValueError, r"^rank=3 must be an integer from 1 to 2"),
        (lambda: LoRALinear(W, A, B).shrink(0), ValueError, "^rank=0"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_float32_keeps_the_weight_to_its_last_digits_under_pissa():
    """The residual is taken from the rounded factors, so their rounding is not lost."""
    linear = dense_of(40, 30, dtype=torch.float32)
    layer = LoRALinear.from_linear(linear, 10, start="pissa")
    off = torch.linalg.norm(layer.weight.double() - linear.weight.double())
    assert off <= 10 * work_eps(torch.float32) * torch.linalg.norm(linear.weight.double())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit.script is deprecated
def test_it_can_be_scripted():
    layer, x = (
        LoRALinear(torch.randn(3, 4), torch.randn(2, 4), torch.randn(3, 2), torch.randn(3)),
        torch.randn(5, 4),
    )
    assert torch.allclose(torch.jit.script(layer)(x), layer(x))
