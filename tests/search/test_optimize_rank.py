"""The seed's class: its triple, what it prints, and where the hidden original crashed or lied."""

import math

import pytest
import torch
from oracles import brute_force, smallest, snapshot, with_spectrum
from torch import nn
from zoo import case

from lowrank_utils import OptimizeRank, break_even_rank, find_rank
from lowrank_utils.model.metrics import auc


def saved(m, n, r):
    """Share of the mn numbers that U (m, r), core (r, r) and Vh (r, n) do without."""
    return (m * n - m * r - r * r - r * n) / (m * n)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
@pytest.mark.parametrize("delta", [0.0, 0.02, 0.1, 0.4])
@pytest.mark.parametrize(
    ("name", "seed"), [("mlp, first", 0), ("mlp, first", 1), ("in-place ReLU after it", 0)]
)
def test_brute_force_is_brute_force(name, seed, delta, metric, capsys):
    model, layer, X, y, (m, n) = case(name, seed)
    top = break_even_rank(m, n, core=True)
    baseline, curve = brute_force(model, layer, X, y, metric, top)
    rank, _ = smallest(baseline, curve, delta)
    got = OptimizeRank(X, model, y, delta, metric=metric).optimize_rank_brute_force()
    assert capsys.readouterr().out == f"Max rank: {top}\n"
    assert got[0] == rank
    if rank is None:
        assert math.isnan(got[1]) and got[2] == 0.0
    else:
        assert got[1:] == pytest.approx((baseline - curve[rank], saved(m, n, rank)), abs=1e-12)


@pytest.mark.parametrize("delta", [0.0, 0.02, 0.1, 0.4])
def test_bisection_returns_the_figures_of_the_rank_it_returns(delta, capsys):
    model, layer, X, y, (m, n) = case("mlp, first", 2)
    search = OptimizeRank(X, model, y, delta)
    rank, diff, space = search.optimize_rank_binary_search()
    assert capsys.readouterr().out == f"Max rank: {search.max_rank}\n"
    baseline, curve = brute_force(model, layer, X, y, "accuracy", search.max_rank)
    if rank is not None:
        assert diff == pytest.approx(baseline - curve[rank], abs=1e-12) and diff <= delta + 1e-12
        assert space == pytest.approx(saved(m, n, rank))
        assert search.optimize_rank_brute_force()[0] <= rank


def wide():
    """8 x 8, a rank of 3 can be had at most with a core; rank 3 is the largest, and the only feasible one."""
    layer = nn.Linear(8, 8, bias=False)
    layer.weight.data = with_spectrum(8, 8, [9.0, 8.0, 7.0, 0.01, 0.01, 0.01, 0.01, 0.01]).float()
    model = nn.Sequential(layer)
    X = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))

    def metric(net, X, y):  # high only at rank >= 3
        with torch.no_grad():
            return float(torch.linalg.matrix_rank(net(X).double(), rtol=0.5) >= 3)

    return model, X, torch.zeros(40), metric


@pytest.mark.parametrize("search", ["optimize_rank_binary_search", "optimize_rank_brute_force"])
def test_the_largest_rank_is_tested_too(search, capsys):
    model, X, y, metric = wide()
    rank, diff, space = getattr(OptimizeRank(X, model, y, 0.1, metric=metric), search)()
    assert capsys.readouterr().out == "Max rank: 3\n"
    assert (rank, diff) == (3, 0.0) and space == pytest.approx(saved(8, 8, 3)) == pytest.approx(1 - 57 / 64)


def test_bisection_takes_few_scores_and_brute_force_all():
    torch.manual_seed(0)
    model, X, calls = nn.Sequential(nn.Linear(40, 40)), torch.randn(5, 40), []

    def metric(net, X, y):
        calls.append(net(X))
        return 1.0

    search = OptimizeRank(X, model, torch.zeros(5), metric=metric)
    assert search.optimize_rank_binary_search()[0] == 1
    few = len(calls)
    calls.clear()
    assert search.optimize_rank_brute_force()[0] == 1
    assert len(calls) == 1 + search.max_rank == 17 and few <= 2 + math.ceil(math.log2(16))


@pytest.mark.parametrize("search", ["optimize_rank_binary_search", "optimize_rank_brute_force"])
@pytest.mark.parametrize(("m", "n", "top"), [(1, 6, 0), (2, 2, 0), (3, 3, 1), (6, 3, 1)])
def test_small_layers_do_not_crash(search, m, n, top, capsys):
    torch.manual_seed(0)
    model, X = nn.Sequential(nn.Linear(n, m, bias=False)), torch.randn(9, n)
    y = model(X).argmax(1)
    rank, diff, space = getattr(OptimizeRank(X, model, y, delta=1.0), search)()
    assert capsys.readouterr().out == f"Max rank: {top}\n"
    if top == 0:
        assert rank is None and math.isnan(diff) and space == 0.0
    else:
        assert rank == 1 and 0 <= diff <= 1 and space == pytest.approx(saved(m, n, 1))


def test_nothing_feasible_is_none():
    model, X, y, metric = wide()
    model[0].weight.data = torch.eye(8)
    strict = OptimizeRank(
        X, model, y, 0.1, metric=lambda net, X, y: float(torch.linalg.matrix_rank(net(X)) == 8)
    )
    for rank, diff, space in (strict.optimize_rank_binary_search(), strict.optimize_rank_brute_force()):
        assert rank is None and math.isnan(diff) and space == 0.0


@pytest.mark.parametrize("search", ["optimize_rank_binary_search", "optimize_rank_brute_force"])
def test_the_model_stays_as_it_was(search):
    model, _, X, y, _ = case("nested, no bias", 0, train=True)  # no __getitem__ with a Linear at 1, no bias
    before = snapshot(model, X, y)
    getattr(OptimizeRank(X, model, y), search)()
    assert snapshot(model, X, y) == before


def test_the_first_linear_or_the_one_named():
    model, layer, X, y, _ = case("residual", 0)
    assert OptimizeRank(X, model, y).layer == "a"
    rank, _, _ = OptimizeRank(X, model, y, 0.05, layer=layer).optimize_rank_brute_force()
    top = break_even_rank(12, 12, core=True)
    assert rank == find_rank(model, layer, X, y, max_drop=0.05, max_rank=top).rank


def test_a_convolution_before_the_first_linear_is_passed_over():
    model = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Flatten(), nn.Linear(4, 3))
    X, y = torch.randn(6, 2, 4), torch.arange(6) % 3
    assert OptimizeRank(X, model, y).layer == "2" and OptimizeRank(X, model, y, layer="0").layer == "0"
    with pytest.raises(ValueError, match="model=Conv1d must be a module with an nn.Linear in it"):
        OptimizeRank(X, model[0], y)


def test_the_default_delta_is_a_tenth_and_absolute():
    model, _, X, y, _ = case("mlp, first", 0)
    assert OptimizeRank(X, model, y).delta == 0.1
    half = OptimizeRank(X, model, y, 0.1, metric=_levels({3: 0.45, 9: 0.5}))  # 0.45 < 0.5 (1 - 0.1) + ...
    assert half.optimize_rank_brute_force()[1] == pytest.approx(0.05)


def _levels(levels):
    """Half, but a little less at low rank."""

    def metric(net, X, y):
        net(X)
        metric.calls += 1
        return levels[9] if metric.calls == 1 else levels[3]

    metric.calls = 0
    return metric


def test_callable_metrics():
    model, _, X, y, _ = case("mlp, first", 0)
    named = OptimizeRank(X, model, y, 0.3, metric="auc").optimize_rank_brute_force()
    assert named[0] is not None
    assert OptimizeRank(X, model, y, 0.3, metric=auc).optimize_rank_brute_force() == pytest.approx(named)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": nn.ReLU()}, ValueError, "model=ReLU must be a module with an nn.Linear in it"),
        ({"model": None}, TypeError, "model=None must be a torch.nn.Module"),
        ({"delta": -0.1}, ValueError, "delta=-0.1 must be a finite number >= 0"),
        ({"delta": math.nan}, ValueError, "delta=nan must be a finite number >= 0"),
        ({"delta": "0.1"}, TypeError, "delta='0.1' must be a finite number >= 0"),
        ({"layer": "fc1"}, ValueError, "layer='fc1' must be one of the layers ['0']"),
        ({"X": [[1.0]]}, TypeError, "X and y must be tensors, not list and Tensor"),
        ({"y": torch.zeros(3)}, ValueError, "y has 3 labels, but must have one for each of the 4 samples"),
    ],
)
def test_impossible_requests(changes, error, message):
    arguments = {
        "X": torch.ones(4, 3),
        "model": nn.Sequential(nn.Linear(3, 3)),
        "y": torch.zeros(4),
        **changes,
    }
    with pytest.raises(error) as caught:
        OptimizeRank(**arguments)
    assert str(caught.value).startswith(message)
