"""compress_within: what the report says is true of the model returned; nothing else has changed."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from oracles import Lambda, plain_accuracy, plain_auc, snapshot
from torch import nn

from lowrank_utils import (
    LowRankLinear,
    PivotedLinear,
    Report,
    compress_within,
    count_macs,
    count_params,
    load_split,
    set_seed,
    train_nn,
)
from lowrank_utils.network import within
from lowrank_utils.network.allocate import ranks_within


def clusters(N, seed):
    """Five clusters in four dimensions, seen through 20 numbers and noise."""
    torch.manual_seed(seed)
    y = torch.arange(N) % 5
    centres, mix = (
        torch.randn(5, 4, generator=torch.Generator().manual_seed(1)),
        torch.randn(4, 20, generator=torch.Generator().manual_seed(2)),
    )
    return (2 * centres[y] + 0.8 * torch.randn(N, 4)) @ mix + 0.5 * torch.randn(N, 20), y


@pytest.fixture(scope="module")
def trained():
    X, y = clusters(600, 0)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 32),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(32, 24),
        nn.ReLU(),
        nn.Linear(24, 5),
    )
    train_nn(net, X, y, epochs=120, lr=0.05)
    return net, (X, y), clusters(400, 1)


def plain(model, X, y, metric=plain_accuracy):
    with torch.no_grad():
        return metric(model.eval()(X.clone()), y)


def check(report: Report, small, net, X, y, metric=plain_accuracy):
    """Each number of the report, counted anew from the model that came with it."""
    modes = [m.training for m in small.modules()], [m.training for m in net.modules()]
    assert modes[0] == modes[1]
    assert report.params == (count_params(net), count_params(small))
    assert report.baseline == pytest.approx(plain(net, X, y, metric), abs=1e-12)
    assert report.score == pytest.approx(plain(small, X, y, metric), abs=1e-12)
    for module, mode in zip((*small.modules(), *net.modules()), modes[0] + modes[1], strict=True):
        module.training = mode
    linears = {k: m for k, m in net.named_modules() if isinstance(m, nn.Linear)}
    assert [row.layer for row in report.layers] == list(linears)
    for row in report.layers:
        dense, now = linears[row.layer], small.get_submodule(row.layer)
        assert row.shape == tuple(dense.weight.shape)
        factors = isinstance(now, LowRankLinear | PivotedLinear)
        assert row.rank == (now.rank if factors else None)
        assert row.params == count_params(now) - (0 if now.bias is None else now.bias.numel())
        assert row.macs == count_macs(now, torch.zeros(1, row.shape[1])) and 0 <= row.error <= 1
        assert (row.error == 0) == (row.rank is None) or row.rank == min(row.shape)
    assert sum(row.macs for row in report.layers) == count_macs(small, X[:1])
    sizes, scores = list(report.frontier), [score for score, _ in report.frontier.values()]
    assert sizes == sorted(sizes) and len(sizes) == len(scores)
    fits = [
        size
        for size, (score, _) in report.frontier.items()
        if report.baseline - score <= report.max_drop + 1e-12
    ]
    fits = [size for size in fits if size < report.params[0]]
    assert report.feasible == bool(fits)
    assert list(report.tried) == sizes
    for size, rows in report.tried.items():
        assert {r.layer: r.rank for r in rows if r.rank is not None} == report.frontier[size][1]
        assert count_params(net) - size == sum(r.shape[0] * r.shape[1] - r.params for r in rows)
    if fits:  # the smallest that fits is the one returned
        assert report.tried[min(fits)] == report.layers
        assert report.params[1] == min(fits) and report.frontier[min(fits)][0] == report.score
        assert report.frontier[min(fits)][1] == {r.layer: r.rank for r in report.layers if r.rank is not None}


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("pivoted", [True, False])
@pytest.mark.parametrize("max_drop", [0.0, 0.01, 0.2])
def test_the_report_is_true(trained, max_drop, pivoted, refit):
    net, train, (X, y) = trained
    options = {"max_drop": max_drop, "pivoted": pivoted, "refit": refit, "calibration": train, "steps": 6}
    before = snapshot(net, X, y, *train)
    small, report = compress_within(net, X, y, **options)
    assert snapshot(net, X, y, *train) == before
    check(report, small, net, X, y)
    if max_drop == 0:  # one sample of 400 decides whether any of the budgets tried will do
        return
    assert report.feasible and report.baseline - report.score <= max_drop + 1e-12
    assert report.params[1] < 0.7 * report.params[0]
    kinds = {type(m) for m in small.modules() if isinstance(m, LowRankLinear | PivotedLinear)}
    assert kinds == {PivotedLinear if pivoted else LowRankLinear}


def test_none_of_the_first_budgets_need_fit(trained):
    """With two steps they are the least possible one, and all."""
    net, train, (X, y) = trained
    small, report = compress_within(net, X, y, max_drop=0.03, calibration=train, steps=2)
    assert report.feasible and report.params[1] == count_params(small) < count_params(net)
    assert min(report.frontier) < report.params[1]


def test_a_larger_drop_never_gives_a_larger_net(trained):
    net, train, (X, y) = trained
    sizes = [
        compress_within(net, X, y, max_drop=drop, calibration=train, steps=8)[1].params[1]
        for drop in (0.0, 0.01, 0.05, 0.3, 1.0)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    # every metric may be lost: the cheapest ranks there are, one each
    assert sizes[-1] == count_params(net) - sum(m * n - m - n for m, n in ((32, 20), (24, 32), (5, 24)))


@pytest.mark.parametrize("max_drop", [0.0, 0.01])
def test_auc(trained, max_drop):
    net, train, (X, y) = trained
    small, report = compress_within(net, X, y, max_drop=max_drop, metric="auc", calibration=train, steps=4)
    check(report, small, net, X, y, plain_auc)


def test_a_callable_metric_sees_an_eval_copy(trained):
    net, train, (X, y) = trained
    seen = []

    def metric(model, X, y):
        seen.append((model.training, model is net))
        score = plain_accuracy(model(X), y)
        for p in model.parameters():  # spoils what it was given
            p.data.zero_()
        return score

    before = snapshot(net.train(), X, y)
    small, report = compress_within(net, X, y, max_drop=0.02, metric=metric, calibration=train, steps=4)
    assert set(seen) == {(False, False)} and snapshot(net, X, y) == before
    check(report, small, net, X, y)


def test_batch_norm_s_statistics_stay():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)).train()
    X, y = clusters(100, 3)
    before = snapshot(net, X, y)
    compress_within(net, X, y, max_drop=1.0, metric=lambda m, X, y: plain_accuracy(m(X), y), steps=2)
    assert snapshot(net, X, y) == before


def test_nothing_feasible_says_so(trained):
    """A metric that punishes any change: minus the largest deviation from the dense net's outputs."""
    net, train, (X, y) = trained
    with torch.no_grad():
        wanted = net.eval()(X)
    metric = lambda model, X, y: 0.0 - float((model(X) - wanted).abs().max())  # noqa: E731
    before = snapshot(net, X, y)
    small, report = compress_within(net, X, y, max_drop=1e-6, metric=metric, calibration=train, steps=4)
    assert not report.feasible and report.score == report.baseline == 0 and report.frontier
    assert report.params == (count_params(net), count_params(net))
    assert all(row.rank is None and row.error == 0 for row in report.layers)
    last = "nothing smaller keeps the metric within 1e-06; the model is unchanged; score 0.0000 -> 0.0000"
    assert str(report).split("\n")[-1] == last
    assert small is not net and snapshot(net, X, y) == before
    own = {p.data_ptr() for p in net.parameters()}
    for p, q in zip(net.parameters(), small.parameters(), strict=True):
        assert torch.equal(p, q) and q.data_ptr() not in own


def test_layers_that_no_rank_makes_smaller():
    net, (X, y) = nn.Sequential(nn.Linear(20, 1, bias=False), nn.Linear(1, 5)), clusters(50, 0)
    small, report = compress_within(net, X, y, max_drop=1.0)
    assert not report.feasible and report.frontier == {} and torch.equal(small(X), net(X))
    assert "nothing smaller" in str(report)


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_the_model_stays_though_the_metric_raises(trained, fails_at):
    net, train, (X, y) = trained
    calls = []

    def metric(model, X, y):
        calls.append(1)
        if len(calls) == fails_at:
            raise KeyError("metric")
        return plain_accuracy(model(X), y)

    before = snapshot(net.train(), X, y)
    with pytest.raises(KeyError):
        compress_within(net, X, y, metric=metric, calibration=train, steps=4, max_drop=0.1)
    assert snapshot(net, X, y) == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_networks_of_one_size_the_better_one_is_kept(monkeypatch, order):
    torch.manual_seed(0)
    net, (X, y) = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 5)), clusters(100, 0)
    tries = [[{"0": 3, "1": 2}, {"0": 2, "1": 3}][i] for i in order]
    allocated = iter(tries * 10)
    monkeypatch.setattr(within, "ranks_within", lambda *_: next(allocated))

    def metric(model, X, y):  # likes the first layer at rank 3, and does with it at rank 2
        return {20: 1.0, 3: 1.0, 2: 0.95}[torch.linalg.matrix_rank(model[0].weight).item()]

    small, report = compress_within(net, X, y, metric=metric, max_drop=0.1, steps=4)
    assert report.score == metric(small, X, y) == 1.0 and small[0].rank == 3 == report.layers[0].rank
    assert list(report.frontier.values()) == [(1.0, {"0": 3, "1": 2})]


def test_the_ranks_tried_are_those_of_the_norm(trained, monkeypatch):
    """Their squares never add up to more than those of the least sum's ranks, and once to less."""
    net, (X, y), val = trained
    tried = {}

    def squares(options, ranks):
        lost = [c.losses[c.picks.index(ranks[n])] for n, c in options.items() if n in ranks]
        return sum(x**2 for x in lost)

    def noted(options, budget, norm):
        ranks = ranks_within(options, budget, norm)
        tried[budget] = squares(options, ranks), squares(options, ranks_within(options, budget))
        return ranks

    monkeypatch.setattr(within, "ranks_within", noted)
    compress_within(net, *val, calibration=(X, y), steps=4, max_drop=0.1, norm=2, refit=False)
    assert all(ours <= theirs * (1 + 1e-12) for ours, theirs in tried.values())
    assert any(ours < theirs for ours, theirs in tried.values())


def test_a_network_that_is_no_smaller_is_not_taken(monkeypatch):
    """A refitted layer has a bias, though it had none: 24 + 6 and 36 + 6 numbers are as many as two of 36."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    monkeypatch.setattr(within, "ranks_within", lambda *_: {"0": 2})
    X, y = torch.randn(50, 6), torch.arange(50) % 6
    metric = lambda model, X, y: float(count_params(model) >= 72)  # noqa: E731
    small, report = compress_within(net, X, y, metric=metric, max_drop=0.0)
    assert report.frontier[72][0] == 1.0  # it was tried
    assert not report.feasible and report.params == (72, 72) and small[0].bias is None


def test_3d_inputs_and_the_macs_of_a_sample():
    torch.manual_seed(0)
    net = Lambda(
        lambda s, x: s.out(s.token(x.view(-1, 5, 4)).relu().mean(1)),
        token=nn.Linear(4, 16),
        out=nn.Linear(16, 5),
    )
    X, y = clusters(200, 0)
    small, report = compress_within(net, X, y, max_drop=0.05, steps=5)
    assert sum(row.macs for row in report.layers) == count_macs(small, X[:1])
    token = report.layers[0]
    assert token.macs == 5 * token.params


@pytest.mark.parametrize("bias", [True, False])
def test_a_model_that_is_the_layer(bias):
    torch.manual_seed(0)
    net, (X, y) = nn.Linear(20, 10, bias=bias), clusters(200, 0)
    small, report = compress_within(net, X, y, max_drop=1.0)
    assert isinstance(small, LowRankLinear) and small.rank == 1 == report.layers[0].rank
    assert report.params[1] == count_params(small)


def test_prints_as_a_table(trained):
    net, train, (X, y) = trained
    _, report = compress_within(net, X, y, max_drop=0.02, calibration=train, steps=4)
    head, *rows, last = str(report).split("\n")
    assert head.split() == ["layer", "shape", "rank", "params", "MACs", "error"]
    assert len({len(line) for line in (head, *rows)}) == 1 and len(rows) == 3
    for text, row in zip(rows, report.layers, strict=True):
        m, n = row.shape
        assert text.split() == [row.layer, str(m), "x", str(n), str(row.rank or "dense"), f"{row.params:,}",
                                f"{row.macs:,}", f"{row.error:.1%}"]  # fmt: skip
    before, after = report.params
    scores = f"score {report.baseline:.4f} -> {report.score:.4f}"
    assert last == f"{before:,} -> {after:,} parameters ({after / before:.1%}); {scores}"
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.score = 1.0


def test_the_same_every_time(trained):
    net, train, (X, y) = trained
    one, two = (compress_within(net, X, y, calibration=train, steps=4) for _ in range(2))
    assert one[1] == two[1]
    for p, q in zip(one[0].parameters(), two[0].parameters(), strict=True):
        assert torch.equal(p, q)


NET, (XS, YS) = nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 5)), clusters(20, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((NET, XS, YS), {"max_drop": -0.1}, ValueError, "max_drop=-0.1 must be a finite number >= 0"),
        ((NET, XS, YS), {"max_drop": np.inf}, ValueError, "max_drop=inf must be a finite number >= 0"),
        ((NET, XS, YS), {"max_drop": "1%"}, TypeError, "max_drop='1%' must be a finite number >= 0"),
        ((NET, XS, YS), {"norm": 0}, ValueError, "norm=0.0 must be a finite number >= 1 and <= 16"),
        ((NET, XS, YS), {"steps": 1}, ValueError, "steps=1 must be an integer >= 2"),
        ((NET, XS, YS), {"steps": 3.0}, TypeError, "steps=3.0 must be an integer >= 2"),
        ((NET, XS, YS), {"metric": "loss"}, ValueError, "metric='loss' must be one of 'accuracy', 'auc'"),
        ((NET, XS, YS), {"metric": lambda *_: np.nan}, ValueError, "metric's value of the model is nan"),
        ((NET, XS, YS), {"metric": lambda *_: "0.9"}, TypeError, "metric's value of the model='0.9' must be"),
        (
            (NET, XS, YS[:3]),
            {},
            ValueError,
            "y has 3 labels, but must have one for each of the 20 samples of X",
        ),
        ((NET, XS[:0], YS[:0]), {}, ValueError, "X of shape (0, 20) and y of shape (0,) must not be empty"),
        (
            (NET, XS, YS),
            {"calibration": (XS, YS[:3])},
            ValueError,
            "y has 3 labels, but must have one for each",
        ),
        (
            (nn.ReLU(), XS, YS),
            {},
            ValueError,
            "model=ReLU must be a module with a layer that can have a rank",
        ),
        (("net", XS, YS), {}, TypeError, "model='net' must be a torch.nn.Module"),
    ],
)
def test_impossible_requests(arguments, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        compress_within(*arguments, **options)


@pytest.mark.parametrize("seed", range(3))
def test_the_network_returned_can_be_trained_on(seed):
    """As one that was not refitted; one after a free refit, which stretches its weights, forgets first."""
    data = load_split("digits", val_size=0.2, seed=seed, stratify=True)
    set_seed(seed)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    train_nn(net, data.X_train, data.y_train, epochs=40, lr=0.2, momentum=0.9)
    guessing = math.log(10)
    scores, worst = [], []
    for how in ({}, {"refit": False}, {"stretch": None}):
        options = {"max_drop": 0.02, "calibration": (data.X_train, data.y_train), "steps": 6}
        small, _ = compress_within(net, data.X_val, data.y_val, **options, **how)
        for layer in (layer for layer in small if isinstance(layer, LowRankLinear)):
            A, B = layer.left.detach().double(), layer.right.detach().double()
            assert torch.allclose(A.T @ A, B @ B.T, atol=1e-5 * float((A.T @ A).trace()))  # balanced
        set_seed(0)
        losses = train_nn(small, data.X_train, data.y_train, epochs=20, lr=0.02, momentum=0.9, batch_size=32)
        worst.append(max(losses) if math.isfinite(sum(losses)) else math.inf)
        with torch.no_grad():
            finite = bool(small(data.X_test).isfinite().all())
        scores.append(plain(small, data.X_test, data.y_test) if finite else 0.0)
    ours, not_refitted, free = scores
    assert ours > 0.9 and ours > not_refitted - 0.05
    assert ours > free and max(worst[:2]) < guessing < worst[2] / 2  # 0.8 and 7.8 or more, under noise too
