"""LowRankLinear against the dense layer with the same weight: output, gradient, numbers."""

import io
import math

import pytest
import torch
from oracles import DTYPES, HALVES, eps, snapshot, tail, truncated, with_spectrum, work_eps
from torch import nn
from torch.nn.utils import parametrize

from lowrank_utils import LowRankLinear, PivotedLinear, truncated_svd

SHAPES = [(7, 4), (5, 5), (4, 9)]  # (m, n)
CASES = [
    (m, n, r, bias, core)
    for m, n in SHAPES
    for r in (1, 2, 4)
    for bias in (True, False)
    for core in (True, False)
]


def layer_of(m, n, r, bias=True, core=False, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return LowRankLinear(n, m, r, bias=bias, core=core, dtype=dtype)


def dense_of(m, n, bias=True, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(n, m, bias=bias, dtype=torch.float64)
    k = min(m, n)
    linear.weight.data = with_spectrum(m, n, [2.0**-i for i in range(k)], seed)
    return linear.to(dtype)


def product(layer):
    U, Vh = layer.left.detach().double(), layer.right.detach().double()
    return (U if layer.core is None else U @ layer.core.detach().double()) @ Vh


@pytest.mark.parametrize(("m", "n", "r", "bias", "core"), CASES)
def test_parts_and_numbers(m, n, r, bias, core):
    layer = layer_of(m, n, r, bias, core)
    assert (layer.in_features, layer.out_features, layer.rank) == (n, m, r)
    assert layer.left.shape == (m, r) and layer.right.shape == (r, n)
    assert (layer.core is None) is not core and (layer.bias is None) is not bias
    assert sum(p.numel() for p in layer.parameters()) == r * (m + n) + core * r * r + bias * m
    names = {"left", "right", *(["core"] if core else []), *(["bias"] if bias else [])}
    assert set(layer.state_dict()) == names


@pytest.mark.parametrize(("m", "n", "r", "bias", "core"), CASES)
@pytest.mark.parametrize("lead", [(6,), (2, 3), ()])
def test_output_is_the_dense_layers(m, n, r, bias, core, lead):
    layer, x = layer_of(m, n, r, bias, core), torch.randn(*lead, n, dtype=torch.float64)
    wanted = x @ product(layer).T + (layer.bias if bias else 0.0)
    got = layer(x)
    assert got.shape == (*lead, m) and torch.allclose(got, wanted, rtol=1e-13, atol=1e-14)
    assert torch.allclose(layer.weight, product(layer), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("m", "n", "r", "bias", "core"), CASES)
def test_gradient_is_the_dense_layers_by_the_chain_rule(m, n, r, bias, core):
    layer = layer_of(m, n, r, bias, core)
    dense = nn.Linear(n, m, bias=bias, dtype=torch.float64)
    dense.weight.data = product(layer)
    if bias:
        dense.bias.data = layer.bias.detach().clone()
    x = torch.randn(6, n, dtype=torch.float64, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    weights = torch.randn(6, m, dtype=torch.float64)
    (layer(x).tanh() * weights).sum().backward()
    (dense(x2).tanh() * weights).sum().backward()
    G = dense.weight.grad  # dL/dW
    middle = torch.eye(r, dtype=torch.float64) if layer.core is None else layer.core.detach()
    wanted = {"left": G @ (middle @ layer.right).T, "right": (layer.left @ middle).T @ G}
    if core:
        wanted["core"] = layer.left.T @ G @ layer.right.T
    if bias:
        wanted["bias"] = dense.bias.grad
    for name, gradient in wanted.items():
        assert torch.allclose(getattr(layer, name).grad, gradient, rtol=1e-11, atol=1e-13), name
    assert torch.allclose(x.grad, x2.grad, rtol=1e-11, atol=1e-13)


def test_the_weight_property_carries_a_gradient():
    layer = layer_of(5, 4, 2, core=True)
    assert torch.autograd.gradcheck(
        lambda U, C, Vh: torch.func.functional_call(
            layer, {"left": U, "core": C, "right": Vh}, torch.ones(1, 4).double()
        ),
        [p.detach().requires_grad_() for p in (layer.left, layer.core, layer.right)],
    )
    layer.weight.sum().backward()
    assert all(p.grad is not None for p in (layer.left, layer.core, layer.right))


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "r"), [(m, n, r) for m, n in SHAPES for r in (1, 2, min(m, n))])
def test_from_linear_is_the_truncated_svd(m, n, r, dtype, bias, core):
    linear = dense_of(m, n, bias, dtype)
    layer = LowRankLinear.from_linear(linear, r, core=core)
    assert layer.rank == r and {p.dtype for p in layer.parameters()} == {dtype}
    # the SVD: a backward error times 1 + 2 s_1 / gap, gap 2^-r; then three factors rounded to the dtype
    svd = work_eps(dtype) * max(m, n) * (1 + 2 * 2.0**r)
    rounded = 3 * eps(dtype) * math.sqrt(r)
    assert torch.linalg.norm(product(layer) - truncated(linear.weight, r)) <= svd + rounded
    missed = float(torch.linalg.norm(product(layer) - linear.weight.detach().double()))
    assert abs(missed - tail(linear.weight, r)) <= svd + rounded
    assert (layer.bias is None) is (linear.bias is None)
    if bias:
        assert torch.equal(layer.bias, linear.bias)


@pytest.mark.parametrize("core", [False, True])
def test_full_rank_is_the_dense_layer_in_output_and_gradient(core):
    linear = dense_of(7, 4)
    layer = LowRankLinear.from_linear(linear, 4, core=core)
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(layer(x), linear(x), rtol=0, atol=1e-14)
    grads = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (layer, linear)]
    assert torch.allclose(*grads, rtol=0, atol=1e-13)


def test_factors_share_the_singular_values():
    linear = dense_of(6, 4)
    two = LowRankLinear.from_linear(linear, 3)
    root = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64).sqrt()
    assert torch.allclose(two.left.norm(dim=0), root) and torch.allclose(two.right.norm(dim=1), root)
    three = LowRankLinear.from_linear(linear, 3, core=True)
    assert torch.allclose(three.core, torch.diag(root**2), atol=1e-14)
    assert torch.allclose(three.left.T @ three.left, torch.eye(3).double(), atol=1e-14)
    assert torch.allclose(three.right @ three.right.T, torch.eye(3).double(), atol=1e-14)


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_shared_or_changed_or_drawn(core, training):
    linear = dense_of(6, 4).train(training)
    linear.weight.grad = torch.ones_like(linear.weight)
    before = snapshot(linear)
    layer = LowRankLinear.from_linear(linear, 4, core=core)
    again = LowRankLinear.from_factors(layer.left, layer.right, layer.bias)
    others = [layer.to_linear(), layer.collapse(), again]
    assert snapshot(linear) == before  # generators too
    for made in (layer, *others):
        assert all(p.requires_grad and p.is_leaf for p in made.parameters())
    assert layer.training == others[0].training == others[1].training == training
    owned = [
        p.untyped_storage().data_ptr() for module in (linear, layer, *others) for p in module.parameters()
    ]
    assert len(set(owned)) == len(owned)
    kept = product(layer)
    for made in others:
        for p in made.parameters():
            p.data.zero_()
    assert torch.equal(product(layer), kept) and snapshot(linear) == before


def test_a_saved_layer_has_no_hidden_storage():
    linear = nn.Linear(256, 256)
    layer = LowRankLinear.from_linear(linear, 4)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    numbers = sum(p.numel() for p in layer.parameters())
    assert file.tell() < 4 * numbers + 4096


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "r", "bias", "core"), CASES[::3])
def test_to_linear_and_collapse_keep_the_product(m, n, r, bias, core, dtype):
    layer = layer_of(m, n, r, bias, core, dtype)
    wanted, size = product(layer), float(torch.linalg.norm(product(layer)))
    room = 2 * (r + 1) * eps(dtype) * max(size, 1.0) * math.sqrt(r)
    dense, flat = layer.to_linear(), layer.collapse()
    assert type(dense) is nn.Linear and dense.weight.dtype == dtype
    assert torch.linalg.norm(dense.weight.double() - wanted) <= room
    assert flat.core is None and type(flat) is LowRankLinear and flat.rank == r
    assert torch.linalg.norm(product(flat) - wanted) <= room
    saved = sum(p.numel() for p in layer.parameters()) - sum(p.numel() for p in flat.parameters())
    assert saved == (r * r if core else 0)
    for made in (dense, flat):
        assert (made.bias is None) is not bias and (not bias or torch.equal(made.bias, layer.bias))


def test_a_forgotten_core_is_seen():
    layer = layer_of(6, 4, 3, core=True)
    assert not torch.allclose(layer.left @ layer.right, product(layer), atol=0.01)
    transposed = layer.left @ layer.core.T @ layer.right  # the seed's slip
    assert not torch.allclose(transposed, product(layer), atol=0.01)


@pytest.mark.parametrize(("m", "n", "r"), [(192, 256, 32), (256, 64, 16), (64, 256, 16)])
def test_initialisation_has_the_variance_it_says(m, n, r):
    layer = layer_of(m, n, r, core=True, seed=1)
    square = [float(p.detach().square().mean()) for p in (layer.left, layer.right)]
    # a mean over N squares of uniform draws has the relative deviation sqrt((9/5 - 1) / N)
    spread = math.sqrt(0.8 / (m * r)) + math.sqrt(0.8 / (r * n))
    assert r * square[0] * square[1] == pytest.approx(1 / (3 * n), rel=5 * spread)
    assert m * square[0] == pytest.approx(n * square[1], rel=5 * spread)
    # with an orthogonal core the product has this mean square; it also varies with the r inner products
    rough = 5 * (spread + math.sqrt(2 / (r * min(m, n))))
    assert float(layer.weight.detach().square().mean()) == pytest.approx(1 / (3 * n), rel=rough)
    assert torch.allclose(layer.core.T @ layer.core, torch.eye(r).double(), atol=1e-6)  # drawn in float32
    assert layer.bias.abs().max() <= 1 / math.sqrt(n) < 1.2 * layer.bias.abs().max()


def test_initialisation_follows_the_global_generator():
    a, b, c = (layer_of(5, 4, 2, core=True, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))
    before = a.left.detach().clone()
    a.reset_parameters()
    assert not torch.equal(a.left, before)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_can_be_drawn(dtype):
    layer = layer_of(6, 4, 3, core=True, dtype=dtype)
    assert {p.dtype for p in layer.parameters()} == {dtype}
    assert torch.isfinite(layer(torch.ones(2, 4, dtype=dtype))).all()


def test_from_factors_with_and_without_core():
    U, C, Vh, b = torch.randn(5, 2), torch.randn(2, 2), torch.randn(2, 3), torch.randn(5)
    layer = LowRankLinear.from_factors(U, Vh, b, core=C)
    assert torch.allclose(layer.weight, U @ C @ Vh, atol=1e-6) and torch.equal(layer.bias, b)
    assert LowRankLinear.from_factors(U, Vh).core is None and LowRankLinear.from_factors(U, Vh).bias is None


M = torch.ones


@pytest.mark.parametrize(
    ("U", "Vh", "bias", "core", "error", "message"),
    [
        (M(5, 2), M(3, 4), None, None, ValueError, "[(5, 2), None, (3, 4), None]"),
        (M(5, 2), M(2, 4), M(4), None, ValueError, "[(5, 2), None, (2, 4), (4,)]"),
        (M(5, 2), M(2, 4), M(5), M(3, 2), ValueError, "[(5, 2), (3, 2), (2, 4), (5,)]"),
        (M(2), M(2, 4), None, None, ValueError, "left=Tensor(shape=(2,)"),
        (M(5, 2), M(2, 4) * math.nan, None, None, ValueError, "right of shape (2, 4) has 8 entries"),
        (M(5, 2).long(), M(2, 4), None, None, TypeError, "left=Tensor(shape=(5, 2), dtype=torch.int64)"),
        (M(3, 5), M(5, 4), None, None, ValueError, "rank=5 must be an integer from 1 to 3"),
    ],
)
def test_factors_that_do_not_fit(U, Vh, bias, core, error, message):
    with pytest.raises(error) as caught:
        LowRankLinear.from_factors(U, Vh, bias, core=core)
    assert message in str(caught.value)


RANKS = [
    (0, ValueError),
    (-1, ValueError),
    (5, ValueError),
    (1.5, TypeError),
    (True, TypeError),
    (None, TypeError),
    (math.nan, TypeError),
    (math.inf, TypeError),
    ("2", TypeError),
]


@pytest.mark.parametrize(("rank", "error"), RANKS)
@pytest.mark.parametrize("make", [LowRankLinear.from_linear, lambda linear, r: LowRankLinear(4, 10, r)])
def test_impossible_ranks(make, rank, error):
    with pytest.raises(error) as caught:
        make(nn.Linear(4, 10), rank)
    assert str(caught.value) == f"rank={rank!r} must be an integer from 1 to 4 (min(m, n) of a 10 x 4 matrix)"


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((0, 3), ValueError, "in_features=0"),
        ((3, -2), ValueError, "out_features=-2"),
        ((3.0, 3), TypeError, "in_fea"),
    ],
)
def test_impossible_sizes(sizes, error, message):
    with pytest.raises(error) as caught:
        LowRankLinear(*sizes, 1)
    assert str(caught.value).startswith(message) and str(caught.value).endswith("must be an integer >= 1")


def test_from_linear_wants_a_finite_linear():
    for wrong in (nn.ReLU(), torch.ones(3, 3), None):
        with pytest.raises(TypeError, match=r"^linear=.* must be an nn\.Linear$"):
            LowRankLinear.from_linear(wrong, 1)
    linear = nn.Linear(3, 3)
    linear.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="1 entries that are nan or inf"):
        LowRankLinear.from_linear(linear, 1)


def test_it_prints_its_sizes():
    assert repr(LowRankLinear(6, 4, 2, bias=False, core=True)) == (
        "LowRankLinear(in_features=6, out_features=4, rank=2, bias=False, core=True)"
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("core", [True, False])
def test_to_sequential_is_plain_and_the_same(bias, core):
    layer = LowRankLinear(7, 9, 3, bias=bias, core=core)
    layer.right.requires_grad_(False)
    plain, x = layer.to_sequential(), torch.randn(5, 7)
    assert {type(part) for part in plain} == {nn.Linear} and len(plain) == 2 + core
    for made in (plain, torch.jit.script(plain), torch.jit.script(layer), torch.jit.trace(layer, x)):
        assert torch.allclose(made(x), layer(x), atol=1e-6)
    assert not plain[0].weight.requires_grad and plain[-1].weight.requires_grad
    with torch.no_grad():
        plain[0].weight.zero_()  # a copy
    assert layer.right.any()


@pytest.mark.parametrize("core", [True, False])
def test_files_with_the_old_names_of_the_factors_are_read(core):
    net = nn.Sequential(LowRankLinear(6, 4, 2, core=core), nn.ReLU())
    names = {"left": "U", "right": "Vh"}
    old = {f"0.{names.get(k, k)}": t.clone() for k, t in net[0].state_dict().items()}
    kept = dict(old)
    other = nn.Sequential(LowRankLinear(6, 4, 2, core=core), nn.ReLU())
    assert not torch.equal(other[0].left, net[0].left)
    assert other.load_state_dict(old).missing_keys == [] and old == kept
    pairs = zip(net.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    del old["0.Vh"]
    with pytest.raises(RuntimeError, match="0.right"):
        other.load_state_dict(old)


def test_half_precision_whose_singular_values_do_not_fit():
    """65504 is the end of float16; a 300 x 300 matrix of entries 400 has the singular value 120000."""
    linear = nn.Linear(300, 300).half()
    linear.weight.data.fill_(400.0)
    low = LowRankLinear.from_linear(linear, 1)
    assert low.left.isfinite().all() and low.right.isfinite().all()
    W = low.left.double() @ low.right.double()
    assert torch.allclose(W, torch.full_like(W, 400.0), rtol=2e-3)
    U, S, Vh = truncated_svd(linear.weight, 1)
    assert S.dtype == torch.float32 and float(S) == pytest.approx(120000.0, rel=1e-3)
    assert U.dtype == Vh.dtype == torch.float16


@pytest.mark.parametrize("kind", [LowRankLinear, PivotedLinear])
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_frozen_stays_frozen(kind, weight, bias):
    dense = nn.Linear(7, 5)
    dense.weight.requires_grad_(weight)
    dense.bias.requires_grad_(bias)
    layer = kind.from_linear(dense, 3)
    wanted = {"start": bias, "shift": bias, "bias": bias}
    back = [layer, layer.to_linear(), layer.to_sequential()]
    if kind is LowRankLinear:
        back += [layer.collapse(), kind.from_linear(dense, 3, core=True).collapse()]
    for made in back:
        flags = {name: p.requires_grad for name, p in made.named_parameters()}
        assert flags == {name: wanted.get(name.rpartition(".")[2], weight) for name in flags}


@pytest.mark.parametrize("core", [None, True, False])
def test_a_factor_that_is_frozen_alone_stays_so(core):
    layer = LowRankLinear(7, 5, 3, core=core is not None)
    layer.left.requires_grad_(False)
    if core is not None:
        layer.core.requires_grad_(core)
    made = layer.collapse()
    assert (made.left.requires_grad, made.right.requires_grad) == (bool(core), True)
    assert layer.to_linear().weight.requires_grad
    parametrize.register_parametrization(layer, "right", nn.Identity())
    with torch.no_grad():
        assert layer.collapse().right.requires_grad


@pytest.mark.parametrize("kind", [LowRankLinear, PivotedLinear])
def test_factors_of_other_dtypes_are_cast_to_the_first_one(kind):
    left, right, bias = torch.randn(5, 2, dtype=torch.float64), torch.randn(2, 4), torch.randn(5).half()
    layer = kind.from_factors(left, right, bias)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert torch.allclose(layer.weight, left @ right.double())
    assert torch.allclose(layer.bias, bias.double())
    assert kind.from_factors(left.float(), right.double(), bias).weight.dtype == torch.float32
