"""The pivoted form against the truncated SVD's product, and its gradients against the dense layer's."""

import copy
import io
import itertools
import re

import numpy as np
import pytest
import torch
from oracles import DTYPES, SHAPES, eps, snapshot, truncated, truncations, with_spectrum, work_eps
from torch import nn
from torch.nn.utils import parametrize, prune

from lowrank_utils import LowRankLinear, PivotedLinear, compress, count_macs, count_params, truncated_svd
from lowrank_utils.factors.svd import balanced_factors

D = torch.float64


def linear_of(m, n, *, bias=True, dtype=D, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(n, m, bias=bias).to(dtype)


def every_rank(shapes=SHAPES):
    return [(m, n, r) for m, n in shapes for r in range(1, min(m, n) + 1)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("m", "n", "r"), every_rank([*SHAPES, (12, 9)]))
def test_the_truncated_product_at_every_rank(m, n, r, bias):
    linear = linear_of(m, n, bias=bias)
    before = snapshot(linear)
    layer = PivotedLinear.from_linear(linear, r)
    assert snapshot(linear) == before
    W, b = truncated(linear.weight, r), linear.bias
    assert torch.allclose(layer.weight, W, rtol=0, atol=1e-13)
    assert (layer.bias is None) if b is None else torch.allclose(layer.bias, b, rtol=0, atol=1e-14)
    for shape in ((n,), (1, n), (5, n), (2, 3, n), (2, 1, 4, n), (0, n), (2, 0, n)):
        x = torch.randn(shape, dtype=D)
        wanted = x @ W.T + (0 if b is None else b)
        with_grad = layer(x)
        with torch.no_grad():
            without = layer(x)
        with torch.inference_mode():
            assert torch.equal(layer(x), without)
        assert with_grad.shape == without.shape == wanted.shape
        assert torch.allclose(with_grad, wanted, rtol=0, atol=1e-12)
        assert torch.allclose(without, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("m", "n"), [(90, 70), (64, 64), (50, 120)])
def test_within_the_floor_in_float32(m, n):
    """1e-4 of the output's size is the floor, against the float64 SVD; measured below 1e-5."""
    k = min(m, n)
    linear = linear_of(m, n, dtype=torch.float32)
    linear.weight.data = with_spectrum(m, n, np.logspace(0, -2, k).tolist()).float()
    product, x = truncations(linear.weight), torch.randn(32, n)
    for r in (*range(1, k, 9), k - 1, k):
        wanted = x.double() @ product(r).T + linear.bias.double()
        layer = PivotedLinear.from_linear(linear, r)
        with torch.no_grad():
            assert (layer(x) - wanted).abs().max() / wanted.abs().max() < 1e-4
            # and of the form alone, given the factors
            U, S, Vh = truncated_svd(linear.weight, r)
            exact = x.double() @ (U.double() * S @ Vh.double()).T
            got = PivotedLinear.from_factors(U * S, Vh)(x)
            assert (got - exact).abs().max() / exact.abs().max() < 1e-5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("m", "n", "r"), every_rank([*SHAPES, (12, 9)]))
def test_how_many_numbers_it_holds(m, n, r, bias):
    layer = PivotedLinear.from_linear(linear_of(m, n, bias=bias), r)
    weights = r * (m + n - r)
    assert count_params(layer) == weights + m * bias
    assert count_macs(layer, torch.ones(1, n, dtype=D)) == weights
    assert weights < m * n if r < min(m, n) else weights == m * n
    assert (
        count_params(layer) == count_params(LowRankLinear.from_linear(linear_of(m, n, bias=bias), r)) - r * r
    )


def test_the_coefficients_stay_small():
    """Pivot rows are chosen, not just the first r: those could be all but dependent."""
    W = with_spectrum(60, 40, [1.0] * 40)
    W[:10] = W[0] + 1e-9 * W[:10]
    linear = nn.Linear(40, 60).double()
    linear.weight.data = W
    for r in (5, 10, 20):
        layer = PivotedLinear.from_linear(linear, r)
        # |C| <= 2^(r - 1) in the worst case of a pivoted QR, a few in practice
        assert layer.coefficients.abs().max() < 10
        first = truncated(W, r)[:r]
        assert np.linalg.cond(first) > 1e6 and np.linalg.cond(layer.pivots.detach()) < 1e3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("m", "n", "r"), [(7, 3, 2), (5, 5, 3), (3, 8, 3), (6, 4, 4), (4, 4, 4), (1, 4, 1)])
def test_gradients_are_the_dense_product_s(m, n, r, bias):
    layer = PivotedLinear.from_linear(linear_of(m, n, bias=bias), r)
    x = torch.randn(2, 6, n, dtype=D, requires_grad=True)
    weights = torch.randn(2, 6, m, dtype=D)
    free = [x, *layer.parameters()]
    got = torch.autograd.grad((torch.sin(layer(x)) * weights).sum(), free)
    dense = nn.functional.linear(x, layer.weight, layer.bias)  # differentiable in the same parameters
    wanted = torch.autograd.grad((torch.sin(dense) * weights).sum(), free)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11) and (b.numel() == 0 or b.any())
    assert {id(p) for p in layer.parameters()} < {id(p) for p in free}


def test_a_rank_deficient_U():
    """One column twice, or zero: there are fewer pivots than r, and the product is still right."""
    torch.manual_seed(0)
    for m, n in ((9, 6), (6, 6), (5, 9)):
        for spoil in ("twice", "zero", "tiny"):
            U, Vh = torch.randn(m, 4, dtype=D), torch.randn(4, n, dtype=D)
            U[:, 3] = {"twice": U[:, 0], "zero": 0 * U[:, 0], "tiny": 1e-14 * U[:, 0]}[spoil]
            layer = PivotedLinear.from_factors(U, Vh)
            assert torch.allclose(layer.weight, U @ Vh, rtol=0, atol=1e-11)
            assert torch.isfinite(layer.coefficients).all() and layer.coefficients.abs().max() < 100


def test_zero_weight_and_fewer_dimensions_than_the_rank():
    for m, n in ((6, 4), (4, 4), (3, 5)):
        linear = linear_of(m, n)
        nn.init.zeros_(linear.weight)
        x = torch.randn(5, n, dtype=D)
        assert torch.allclose(PivotedLinear.from_linear(linear, 3)(x), linear(x), rtol=0, atol=1e-14)
    linear = linear_of(9, 7)
    linear.weight.data = with_spectrum(9, 7, [1.0, 0.5] + [0.0] * 5)
    for r in (1, 2, 3, 5, 7):
        layer = PivotedLinear.from_linear(linear, r)
        assert torch.allclose(layer.weight, truncated(linear.weight, r), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    linear, x = linear_of(24, 16, dtype=dtype), torch.randn(10, 16, dtype=D).to(dtype)
    layer = PivotedLinear.from_linear(linear, 12)
    assert all(p.dtype == dtype for p in layer.parameters()) and layer.position.dtype == torch.int32
    with torch.no_grad():
        got = layer(x)
    wanted = x.double() @ truncated(linear.weight, 12).T + linear.bias.double()
    assert got.dtype == dtype
    # two products of lengths 16 and 12, with coefficients of a few units, in this dtype; the SVD before
    assert (got - wanted).abs().max() <= 40 * max(eps(dtype), work_eps(dtype)) * wanted.abs().max()
    for other in DTYPES:
        moved = copy.deepcopy(layer).to(other)
        assert moved(x.to(other)).dtype == other and moved.position.dtype == torch.int32


def test_state_dict_into_a_layer_with_other_pivots():
    one, two = (PivotedLinear.from_linear(linear_of(12, 9, seed=s), 5) for s in (1, 2))
    assert not torch.equal(one.position, two.position)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    two.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(4, 9, dtype=D)
    assert torch.equal(one(x), two(x)) and torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)


def test_copies_share_nothing():
    layer = PivotedLinear.from_linear(linear_of(8, 6), 3)
    other, x = copy.deepcopy(layer), torch.randn(4, 6, dtype=D)
    kept = layer(x)
    for t in itertools.chain(other.parameters(), other.buffers()):
        t.data.zero_()
    assert torch.equal(layer(x), kept) and not torch.equal(other(x), kept)
    U, Vh, b = torch.randn(8, 3, dtype=D), torch.randn(3, 6, dtype=D), torch.randn(8, dtype=D)
    whole = [t.clone() for t in (U, Vh, b)]
    layer = PivotedLinear.from_factors(U, Vh, b)
    for t in layer.parameters():
        t.data.zero_()
    assert all(torch.equal(t, w) for t, w in zip((U, Vh, b), whole, strict=True))


def test_called_by_keyword_as_a_linear_can_be():
    layer, x = PivotedLinear.from_linear(linear_of(8, 6), 3), torch.randn(4, 6, dtype=D)
    assert torch.equal(layer(input=x), layer(x))


@pytest.mark.parametrize("bias", [True, False])
def test_back_to_dense(bias):
    layer = PivotedLinear.from_linear(linear_of(8, 6, bias=bias).eval(), 3)
    assert not layer.training
    torch.manual_seed(5)
    state = torch.get_rng_state()
    dense = layer.to_linear()
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(4, 6, dtype=D)
    assert type(dense) is nn.Linear and not dense.training and (dense.bias is not None) == bias
    assert torch.allclose(dense(x), layer(x), rtol=0, atol=1e-13)
    assert torch.equal(dense.weight, layer.weight)


def test_what_follows_can_use_the_output():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(10, 12), nn.LayerNorm(12), nn.Linear(12, 12), nn.ReLU(inplace=True), nn.Linear(12, 8)
    )
    X = torch.randn(5, 7, 10)
    small, same = compress(net, {"0": 5, "2": 6, "4": 4}, pivoted=True), copy.deepcopy(net)
    for name in ("0", "2", "4"):
        same.set_submodule(name, small.get_submodule(name).to_linear())
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            assert torch.allclose(small(X), same(X), rtol=0, atol=1e-5)
            y = small[0](X)
            assert y.view(5, 7, 3, 4).shape == (5, 7, 3, 4)  # heads: split, as attention does
            assert y.view(35, 12).shape == (35, 12) and y.reshape(5, -1).shape == (5, 84)
            assert nn.Flatten()(y).shape == (5, 84) and y.transpose(1, 2).contiguous().shape == (5, 12, 7)
    before = small(X).detach()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    small(X).square().mean().backward()
    optimizer.step()
    assert not torch.equal(small(X), before) and torch.linalg.matrix_rank(small[2].weight) == 6


def test_inputs_that_are_not_contiguous():
    layer = PivotedLinear.from_linear(linear_of(8, 6), 3)
    x = torch.randn(6, 5, 4, dtype=D).permute(2, 1, 0)
    with torch.no_grad():
        assert torch.allclose(layer(x), layer(x.contiguous()), rtol=0, atol=1e-14)
        assert torch.allclose(layer(x[:, ::2]), layer(x)[:, ::2], rtol=0, atol=1e-14)


def test_print():
    assert repr(PivotedLinear.from_linear(linear_of(8, 6, bias=False), 3)) == (
        "PivotedLinear(in_features=6, out_features=8, rank=3, bias=False)"
    )


LINEAR, ONES = nn.Linear(6, 8), torch.ones


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PivotedLinear.from_linear(LINEAR, 0), ValueError, "rank=0 must be an integer from 1 to 6"),
        (lambda: PivotedLinear.from_linear(LINEAR, 7), ValueError, "rank=7 must be an integer from 1 to 6"),
        (
            lambda: PivotedLinear.from_linear(LINEAR, 2.0),
            TypeError,
            "rank=2.0 must be an integer from 1 to 6",
        ),
        (lambda: PivotedLinear.from_linear(nn.ReLU(), 2), TypeError, "linear=ReLU must be an nn.Linear"),
        (
            lambda: PivotedLinear.from_factors(ONES(8, 3), ONES(2, 6)),
            ValueError,
            "(left, right, bias) of shapes [(8, 3), (2, 6), None] must be (m, r), (r, n), (m,), r <=",
        ),
        (
            lambda: PivotedLinear.from_factors(ONES(8, 3), ONES(3, 6), ONES(7)),
            ValueError,
            "(left, right, bias) of shapes [(8, 3), (3, 6), (7,)] must be",
        ),
        (
            lambda: PivotedLinear.from_factors(ONES(4, 5), ONES(5, 6)),
            ValueError,
            "(left, right, bias) of shapes [(4, 5), (5, 6), None] must be",
        ),
        (
            lambda: PivotedLinear.from_factors([[1.0]], ONES(1, 6)),
            TypeError,
            "left of type list must be a torch.T",
        ),
        (
            lambda: PivotedLinear.from_factors(ONES(2, 1), ONES(1, 2) * torch.nan),
            ValueError,
            "right of shape (1, 2) has 2 entries that are nan or inf; all must be finite",
        ),
    ],
)
def test_impossible_requests(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


def test_the_output_is_contiguous_and_biases_have_one_axis():
    layer = PivotedLinear.from_linear(nn.Linear(7, 9), 4)
    for x in (torch.randn(7), torch.randn(5, 7), torch.randn(3, 5, 7)):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                y = layer(x)
            assert y.is_contiguous() and y.view(-1).shape == (9 * x.numel() // 7,)
    # a rule "no decay below two axes" spares the biases, and them alone
    assert {name for name, p in layer.named_parameters() if p.ndim < 2} == {"start", "shift"}


def test_a_file_with_columns_for_biases_is_read():
    layer = PivotedLinear.from_linear(nn.Linear(7, 9), 4)
    old = {k: v[:, None] if k in ("start", "shift") else v for k, v in layer.state_dict().items()}
    other = PivotedLinear.from_linear(nn.Linear(7, 9), 4)
    nn.ModuleDict({"x": other}).load_state_dict({f"x.{k}": v for k, v in old.items()})
    x = torch.randn(3, 7)
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("trained", ["pivots", "coefficients", "start", "shift"])
def test_a_plain_pair_is_trained_where_one_of_its_parts_is(trained):
    layer = PivotedLinear.from_linear(nn.Linear(7, 9), 4).requires_grad_(False)
    getattr(layer, trained).requires_grad_(True)
    weight = trained in ("pivots", "coefficients")
    told = {name: p.requires_grad for name, p in layer.to_sequential().named_parameters()}
    assert told == {"0.weight": weight, "1.weight": weight, "1.bias": not weight}


@pytest.mark.parametrize("bias", [True, False])
def test_to_sequential_is_plain_and_the_same(bias):
    layer = PivotedLinear.from_linear(nn.Linear(7, 9, bias=bias), 4).eval()
    plain, x = layer.to_sequential(), torch.randn(5, 7)
    assert [type(part) for part in plain] == [nn.Linear, nn.Linear] and not plain.training
    assert all(p.requires_grad for p in plain.parameters())
    assert not any(p.requires_grad for p in layer.requires_grad_(False).to_sequential().parameters())
    assert torch.allclose(plain(x), layer(x), atol=1e-5)
    for compiled in (torch.jit.trace(layer, x), torch.jit.script(layer)):
        assert torch.allclose(compiled(x), layer(x), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "r"), [(30, 50, 7), (50, 30, 30), (6, 6, 1)])
def test_the_plain_pair_is_balanced(m, n, r, dtype):
    """Row i of the first and column i of the second are of one length, and orthogonal to the others."""
    dense = linear_of(m, n, dtype=torch.float32)
    dense.weight.data = with_spectrum(m, n, np.logspace(0, -2, min(m, n)).tolist()).float() * 10
    layer = PivotedLinear.from_linear(dense.to(dtype), r)
    B, A = (part.weight.double() for part in layer.to_sequential())
    size, room = layer.weight.double().norm(), 40 * max(eps(dtype), work_eps(dtype))
    assert (A @ B - layer.weight.double()).norm() <= room * size
    S = torch.linalg.svdvals(layer.weight.double())[:r]
    for gram in (B @ B.T, A.T @ A):
        assert (gram - S.diag()).abs().max() <= room * size


def test_8_bits_lose_no_more_of_it_than_of_the_svd():
    """Pivots of unlike sizes, as data-aware factors have: [I; C] and P would lose several times as much."""
    torch.manual_seed(0)
    left, right = torch.randn(64, 12), torch.randn(12, 48) * torch.logspace(0, 2, 48)
    layer, x = PivotedLinear.from_factors(left, right), torch.randn(500, 48) / torch.logspace(0, 2, 48)
    svd = LowRankLinear.from_factors(*balanced_factors(left @ right, 12)).to_sequential()
    C = torch.cat([torch.eye(12), layer.coefficients])[layer.position]
    direct = LowRankLinear.from_factors(C, layer.pivots).to_sequential()

    def lost(pair):
        steps = [part.weight.abs().max() / 127 for part in pair]
        B, A = ((part.weight / s).round() * s for part, s in zip(pair, steps, strict=True))
        return float((x @ B.T @ A.T - layer(x)).norm() / layer(x).norm())

    with torch.no_grad():
        ours = lost(layer.to_sequential())
        assert abs(ours / lost(svd) - 1) < 0.3 and lost(direct) > 1.3 * ours, (ours, lost(svd), lost(direct))


def dense_output(layer, x):
    """By numpy, in float64, from the dense W and b."""
    b = 0 if layer.bias is None else layer.bias.detach().double().numpy()
    return x.double().numpy() @ layer.weight.detach().double().numpy().T + b


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_may_be_pruned_parametrized_or_swapped(bias):
    """The forward reads them where nn.Module keeps them, and they can be kept elsewhere."""
    torch.manual_seed(0)
    whole = PivotedLinear.from_linear(nn.Linear(12, 10, bias=bias), 4)
    x = torch.randn(3, 12)
    room = 100 * torch.finfo(torch.float32).eps * (1 + np.abs(dense_output(whole, x)).max())

    pruned = copy.deepcopy(whole)
    prune.l1_unstructured(pruned, "pivots", 0.5)
    assert "pivots" not in pruned._parameters and (pruned.pivots == 0).sum() == 24

    class Doubled(nn.Module):
        def forward(self, value):
            return 2 * value

    doubled = copy.deepcopy(whole)
    parametrize.register_parametrization(doubled, "coefficients", Doubled())
    assert torch.equal(doubled.coefficients, 2 * whole.coefficients)

    folded = copy.deepcopy(whole)
    folded.drop_order()
    for layer in (whole, pruned, doubled, folded):
        assert np.abs(layer(x).detach().double().numpy() - dense_output(layer, x)).max() < room

    other = {name: value.detach() * 3 for name, value in whole.named_parameters()}
    tripled = copy.deepcopy(whole)
    tripled.load_state_dict(other | {"position": whole.position}, assign=True)
    swapped = torch.func.functional_call(whole, other, (x,))
    assert np.abs(swapped.detach().double().numpy() - dense_output(tripled, x)).max() < 9 * room
    assert torch.equal(swapped, tripled(x))


def test_drop_order_says_where_each_output_was():
    torch.manual_seed(0)
    layer, x = PivotedLinear.from_linear(nn.Linear(12, 10), 4), torch.randn(3, 12)
    with torch.no_grad():
        before, W = layer(x), layer.weight
        old = layer.drop_order()
        assert old.sort().values.tolist() == list(range(10)) and old.tolist() != list(range(10))
        assert torch.equal(layer(x), before[:, old]) and torch.equal(layer.weight, W[old])
        assert layer.position is None and layer.drop_order().tolist() == list(range(10))
