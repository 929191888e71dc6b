"""One decomposition a layer serves every rank and every function, and changes no number."""

import collections

import numpy as np
import pytest
import torch
from oracles import truncated
from torch import nn

from lowrank_utils import allocate_ranks, calibrate, cascade, compress, compress_within, weighted_factors
from lowrank_utils.network import decomposed
from lowrank_utils.network.allocate import layer_options, ranks_within
from lowrank_utils.network.decomposed import LayerFactors

RANKS = {"0": 3, "2": 4, "4": 2}


def case(dtype=torch.float64):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(9, 14), nn.ReLU(), nn.Linear(14, 10, bias=False), nn.ReLU(), nn.Linear(10, 4)
    )
    X, y = torch.randn(150, 9), torch.randint(0, 4, (150,))
    return net.to(dtype), X.to(dtype), y


def same(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pivoted", [False, True])
def test_the_same_numbers_with_the_factors_at_hand(pivoted, dtype):
    net, X, y = case(dtype)
    moments = calibrate(net, X, y)
    for factors in (
        {name: weighted_factors(net[int(name)].weight, seen) for name, seen in moments.items()},
        LayerFactors(net, moments),
    ):
        given = {"factors": factors, "pivoted": pivoted}
        assert same(compress(net, RANKS, **given), compress(net, RANKS, moments=moments, pivoted=pivoted))
        for ranks in (RANKS, {"2": 4}):  # the first layer that is cut is the one that the factors are for
            assert same(
                cascade(net, ranks, X, moments, **given), cascade(net, ranks, X, moments, pivoted=pivoted)
            )
        for budget in (0.4, 0.7):
            options = layer_options(net, moments, **given)
            wanted = allocate_ranks(net, budget, moments=moments, pivoted=pivoted)
            assert ranks_within(options, budget) == wanted
            assert allocate_ranks(net, budget, moments=moments, **given) == wanted


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_without_moments_they_are_the_svd(dtype):
    net, _, _ = case(dtype)
    small = compress(net, RANKS, factors=LayerFactors(net, None))
    for i in (0, 2, 4):
        wanted = truncated(net[i].weight, RANKS[str(i)])
        room = 100 * torch.finfo(dtype).eps * float(wanted.norm())
        assert (small[i].weight.double() - wanted).norm() < room
        assert (small[i].bias is None) == (net[i].bias is None)
        assert small[i].bias is None or torch.equal(small[i].bias, net[i].bias)


@pytest.mark.parametrize("data", [True, False])
def test_compress_within_decomposes_a_layer_once(monkeypatch, data):
    net, X, y = case()
    calls = collections.Counter()

    def counted(real):
        def count(W, *args):
            calls[tuple(W.shape)] += 1
            return real(W, *args)

        return count

    for name in ("weighted_factors", "plain_factors"):
        monkeypatch.setattr(decomposed, name, counted(getattr(decomposed, name)))
    given = (net, X, y) if data else (net,)
    metric = {} if data else {"metric": lambda m: -float((m(X) - net(X)).square().mean())}
    _, report = compress_within(*given, max_drop=10.0, refit=False, **metric)
    assert len(report.frontier) > 3
    assert calls == {(14, 9): 1, (10, 14): 1, (4, 10): 1}


def test_factors_of_another_weight_are_refused():
    net, X, y = case()
    moments = calibrate(net, X, y)
    factors = {name: weighted_factors(net[int(name)].weight, seen) for name, seen in moments.items()}
    kept = factors["0"].at(2)
    net[0].weight.data[3, 2] += 1e-12
    for run in (
        lambda: compress(net, {"0": 2}, factors=factors),
        lambda: cascade(net, {"0": 2}, X, moments, factors=factors),
        lambda: allocate_ranks(net, 0.5, moments=moments, factors=factors),
    ):
        with pytest.raises(ValueError, match=r"^factors\['0'\] must be those of the layer's weight"):
            run()
    assert all(torch.equal(a, b) for a, b in zip(kept, factors["0"].at(2), strict=True))  # not of the net's
    del factors["2"]
    with pytest.raises(ValueError, match=r"^factors=\['0', '4'\] must be there for layer '2'"):
        compress(net, {"2": 2}, factors=factors)
    assert np.isfinite(float(compress(net, {"4": 2}, factors=factors)(X).sum()))
