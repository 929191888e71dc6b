"""Layer after layer: against a regression on augmented rows, and against factors found one by one."""

import re

import numpy as np
import pytest
import torch
from oracles import Lambda, full_outputs, snapshot
from torch import nn
from zoo import ZOO, case

from lowrank_utils import LowRankLinear, PivotedLinear, calibrate, cascade, compress
from lowrank_utils.network.side_by_side import SideBySide

D = torch.float64
PLAIN = [name for name in ZOO if name != "residual, hooks"]  # a replaced layer's hooks go with it


@pytest.mark.parametrize("name", PLAIN)
def test_full_rank_is_the_dense_net(name):
    model, layer, X, y, (m, n) = case(name, 0, train=True)
    moments, before = calibrate(model, X, y), snapshot(model, X)
    wanted = full_outputs(model, X)
    for pivoted in (False, True):
        small = cascade(model, {layer: min(m, n)}, X, moments, pivoted=pivoted)
        assert type(small.get_submodule(layer)) is (PivotedLinear if pivoted else LowRankLinear)
        # G's root has condition 30 (damping 1e-3), the refit's C + ridge I one of 1e3
        assert torch.allclose(full_outputs(small, X), wanted, rtol=0, atol=1e-8)
        assert [v.training for v in small.modules()] == [v.training for v in model.modules()]
    assert snapshot(model, X) == before


@pytest.mark.parametrize("name", PLAIN)
def test_a_low_rank_anywhere(name):
    model, layer, X, y, (m, n) = case(name, 0)
    moments = calibrate(model, X, y)
    small = cascade(model, {layer: 2}, X, moments)
    assert torch.linalg.matrix_rank(small.get_submodule(layer).weight) == 2
    got, wanted = full_outputs(small, X), full_outputs(model, X)
    assert torch.isfinite(got).all() and not torch.allclose(got, wanted, rtol=0, atol=1e-3)
    one_by_one = full_outputs(compress(model, {layer: 2}, moments=moments), X)
    if name != "called twice":  # then its second inputs come from itself
        error = float((got - wanted).square().mean())
        assert error <= 1.05 * float((one_by_one - wanted).square().mean())  # ridge and G pull a little


def test_nothing_to_compress_is_a_copy():
    model, _, X, y, _ = case("mlp, middle", 0)
    same = cascade(model, {}, X, calibrate(model, X, y))
    assert same is not model and torch.equal(same(X), model(X))
    pairs = list(zip(model.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(p, q) and p.data_ptr() != q.data_ptr() for p, q in pairs)


def deep(seed, bias=True):
    torch.manual_seed(seed)
    widths = (24, 20, 16, 12, 5)
    layers = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU(inplace=True)]
    for linear in layers[::2]:
        nn.init.kaiming_normal_(linear.weight)
    X = torch.randn(600, 8, dtype=D) @ torch.randn(8, 24, dtype=D) + 0.3 * torch.randn(600, 24, dtype=D)
    return nn.Sequential(*layers[:-1]).double(), X, torch.randint(0, 5, (600,))


@pytest.mark.parametrize("bias", [True, False])
def test_lower_error_of_the_output_than_one_by_one(bias):
    """On samples that were not fitted: 13 to 25 % lower on average here, and in 9 cases of 10."""
    ratios = []
    for seed in range(10):
        net, X, y = deep(seed, bias)
        Z, X, y = X[400:], X[:400], y[:400]
        moments = calibrate(net, X, y)
        for ranks in ({"0": 3, "2": 3, "4": 3}, {"0": 6, "2": 5, "4": 4}, {"0": 10, "2": 8, "4": 6}):
            fit = [cascade(net, ranks, X, moments), compress(net, ranks, moments=moments)]
            with torch.no_grad():
                ours, one_by_one = (float((f(Z) - net(Z)).square().mean()) for f in fit)
            ratios.append(ours / one_by_one)
    assert np.exp(np.mean(np.log(ratios))) < 0.92 and np.mean(np.array(ratios) < 1) > 0.8


def test_operations_in_place_change_nothing():
    net, X, y = deep(0)
    ranks, results = {"0": 10, "2": 8, "4": 6}, []
    for in_place in (True, False):
        for relu in net[1::2]:
            relu.inplace = in_place
        results.append(cascade(net, ranks, X, calibrate(net, X, y))(X))
    assert torch.equal(*results)

    def forward(s, x):  # writes into the input of a layer, after it
        h = s.a(x)
        z = s.b(h)
        return s.out(h.relu_() + z)

    torch.manual_seed(0)
    net = Lambda(forward, a=nn.Linear(24, 9), b=nn.Linear(9, 9), out=nn.Linear(9, 5)).double()
    in_place = cascade(net, {"a": 5, "b": 4}, X, calibrate(net, X, y))(X)
    net.run = lambda s, x: s.out((h := s.a(x)).relu() + s.b(h))
    assert torch.allclose(
        cascade(net, {"a": 5, "b": 4}, X, calibrate(net, X, y))(X), in_place, rtol=0, atol=0
    )


@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 1.0])
def test_the_refitted_dense_layer_is_a_ridge_regression(ridge):
    """min E ||y - W x' - b||^2 + ridge tr(C') / n ||W - W_0||^2, as least squares on augmented rows."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    X = 1 + torch.randn(200, 9, dtype=D)
    for size in (7, 200, 1000):
        small = cascade(net, {"0": 3}, X, calibrate(net, X), ridge=ridge, batch_size=size)
        with torch.no_grad():
            x, y = small[:2](X).numpy(), net(X).numpy()
        W0 = net[2].weight.detach().numpy()
        mean, weight = x.mean(0), np.sqrt(ridge * np.trace(np.cov(x.T, bias=True)) / 8 * 200)
        rows = np.vstack([x - mean, weight * np.eye(8)])
        wanted = np.linalg.lstsq(rows, np.vstack([y - y.mean(0), weight * W0.T]), rcond=None)[0].T
        assert type(small[2]) is nn.Linear
        assert np.allclose(small[2].weight.detach(), wanted, rtol=0, atol=1e-9)
        assert np.allclose(small[2].bias.detach(), y.mean(0) - wanted @ mean, rtol=0, atol=1e-9)
        assert not np.allclose(wanted, W0, rtol=0, atol=1e-3)


@pytest.mark.parametrize("stretch", [1.0, 1.1, 1.5, 9.0])
def test_a_refitted_weight_is_stretched_no_further(stretch):
    """W* is the ridge regression at the first half decade at which it is no longer than allowed."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    X = 1 + torch.randn(200, 9, dtype=D)
    moments, limit = calibrate(net, X), stretch * np.linalg.norm(net[2].weight.detach(), 2)
    chosen = cascade(net, {"0": 2}, X, moments, stretch=stretch)[2]
    for half_decades in range(19):
        wanted = cascade(net, {"0": 2}, X, moments, ridge=1e-3 * 10 ** (half_decades / 2))[2]
        if np.linalg.norm(wanted.weight.detach(), 2) <= limit:
            break
    else:  # from above it comes no nearer than this: the weight stays, and only the bias is refitted
        wanted.weight.data = net[2].weight.detach()
        wanted.bias.data = (net(X) - cascade(net, {"0": 2}, X, moments)[:2](X) @ net[2].weight.T).mean(0)
    assert (half_decades == 0) == (stretch == 9) and np.linalg.norm(
        chosen.weight.detach(), 2
    ) <= limit + 1e-12
    assert torch.allclose(chosen.weight, wanted.weight, rtol=0, atol=1e-9)
    assert torch.allclose(chosen.bias, wanted.bias, rtol=0, atol=1e-9)


def test_the_second_low_rank_layer_is_a_reduced_rank_regression():
    """Its output misses the dense one's by Izenman's optimum: residual of the regression, and its tail."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    X = 1 + torch.randn(200, 9, dtype=D)
    for r in (1, 2, 4, 6):
        small = cascade(net, {"0": 2, "2": r}, X, calibrate(net, X, target="inputs"), ridge=1e-12)
        with torch.no_grad():
            x, y, got = small[:2](X).numpy(), net(X).numpy(), small(X).numpy()
        x, centred = x - x.mean(0), y - y.mean(0)
        fitted = x @ np.linalg.lstsq(x, centred, rcond=None)[0]
        S = np.linalg.svd(fitted, compute_uv=False)
        optimum = ((centred - fitted) ** 2).sum() + (S[r:] ** 2).sum()
        assert abs(((got - y) ** 2).sum() / optimum - 1) < 1e-6
        factors = compress(net, {"2": r}, moments=calibrate(net, X, target="inputs"))[2]
        with torch.no_grad():
            assert ((factors(small[:2](X)).numpy() - y) ** 2).sum() > 1.01 * optimum


def test_layers_before_the_first_change_stay():
    net, X, y = deep(0)
    small = cascade(net, {"4": 3}, X, calibrate(net, X, y))
    for i in (0, 2):
        assert torch.equal(small[i].weight, net[i].weight) and torch.equal(small[i].bias, net[i].bias)
    assert type(small[6]) is nn.Linear and not torch.equal(small[6].weight, net[6].weight)
    first = compress(net, {"4": 3}, moments=calibrate(net, X, y))[4]
    assert torch.allclose(small[4].weight, first.weight, rtol=0, atol=1e-12)
    assert torch.allclose(small[4].bias, first.bias, rtol=0, atol=1e-12)


def test_dead_and_constant_inputs():
    """The first layer's ReLU passes nothing on: C' of the second layer is zero."""
    net, X, y = deep(0)
    net[0].bias.data.fill_(-1e6)
    small = cascade(net, {"0": 3, "2": 3}, X, calibrate(net, X, y))
    assert torch.allclose(full_outputs(small, X), full_outputs(net, X), rtol=0, atol=1e-9)


def test_float32_and_half_precision():
    net, X, y = deep(0)
    for dtype in (torch.float32, torch.bfloat16):
        low = deep(0)[0].to(dtype)
        for pivoted in (False, True):
            small = cascade(
                low, {"0": 6, "4": 3}, X.to(dtype), calibrate(low, X.to(dtype), y), pivoted=pivoted
            )
            assert {p.dtype for p in small.parameters()} == {dtype}
            assert torch.isfinite(small(X.to(dtype))).all()


def test_the_model_and_the_generators_stay():
    net, X, y = deep(0)
    net.train()[1].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    moments = calibrate(net, X, y)
    kept = {k: v.covariance.clone() for k, v in moments.items()}
    before = snapshot(net, X)
    small = cascade(net, {"0": 3, "4": 3}, X, moments)
    assert snapshot(net, X) == before and all(torch.equal(moments[k].covariance, kept[k]) for k in kept)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in small.modules())
    assert all(p.requires_grad for p in small.parameters())
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    assert own.isdisjoint(p.untyped_storage().data_ptr() for p in small.parameters())


NET = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
XS = torch.randn(30, 6)
MOMENTS = calibrate(NET, XS)
SHARED = Lambda(lambda s, x: s.a(s.b(x)), a=(same := nn.Linear(6, 6)), b=same)


@pytest.mark.parametrize(
    ("model", "ranks", "options", "error", "message"),
    [
        (NET, {"1": 2}, {}, ValueError, "ranks={'1': 2} must be of layers that have moments: ['0', '2']"),
        (NET, {"fc": 2}, {}, ValueError, "ranks={'fc': 2} must be of layers that have moments: ['0', '2']"),
        (NET, {"0": 0}, {}, ValueError, "ranks['0']=0 must be an integer from 1 to 5"),
        (NET, {"2": 5}, {}, ValueError, "ranks['2']=5 must be an integer from 1 to 4"),
        (NET, {"0": 1.5}, {}, TypeError, "ranks['0']=1.5 must be an integer from 1 to 5"),
        (NET, {"0": 2}, {"ridge": 0}, ValueError, "ridge=0.0 must be a finite number > 0"),
        (NET, {"0": 2}, {"stretch": 0.5}, ValueError, "stretch=0.5 must be a finite number >= 1"),
        (NET, {"0": 2}, {"memory_gb": -1}, ValueError, "memory_gb=-1.0 must be a finite number >= 0"),
        (NET, {"0": 2}, {"ridge": "a"}, TypeError, "ridge='a' must be a finite number > 0"),
        ("net", {"0": 2}, {}, TypeError, "model='net' must be a torch.nn.Module"),
    ],
)
def test_impossible_requests(model, ranks, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        cascade(model, ranks, XS, MOMENTS, **options)


def test_a_shared_layer():
    with pytest.raises(ValueError, match=r"^layer='a' must be one of .* but it shares its weight with"):
        cascade(SHARED, {"a": 2}, XS, {"a": MOMENTS["0"]})


class Counted(nn.Module):
    """Passes its input on, and counts over all copies how often it was called."""

    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return x


class Stage(nn.Module):
    """Two linear layers and what comes after them, with arithmetic in between that no module does."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.end = nn.Linear(6, 6), nn.Linear(6, 6), Counted()

    def forward(self, x):
        return self.end(2 * self.b(2 * torch.relu(self.a(x))))


def test_no_block_runs_further_than_to_the_layer_at_hand(monkeypatch):
    torch.manual_seed(0)
    net, X = nn.Sequential(*(Stage() for _ in range(3))), torch.randn(64, 6)
    moments = calibrate(net, X)
    as_it_is = SideBySide._joint
    calls, nets = {}, []
    for how in (None, False):
        Counted.calls = 0
        if how is not None:
            monkeypatch.setattr(SideBySide, "_joint", lambda *args, once: as_it_is(*args, once=False))
        nets.append(cascade(net, dict.fromkeys(moments, 3), X, moments))
        calls[how] = Counted.calls
    assert torch.equal(nets[0](X), nets[1](X))
    assert calls[None] == calls[False] - 2 * 5  # of six layers the first needs no run; two nets
