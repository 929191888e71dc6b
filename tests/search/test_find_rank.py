"""find_rank against brute force: a deep copy with numpy's truncated weight for every rank."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from oracles import (
    PLAIN,
    brute_force,
    full_outputs,
    plain_accuracy,
    smallest,
    snapshot,
    truncated,
    with_spectrum,
)
from torch import nn
from zoo import ZOO, case

from lowrank_utils import RankSearch, accuracy, break_even_rank, find_rank, load_split
from lowrank_utils.search.find_rank import score, within

DROPS = (0.0, 0.004, 0.02, 0.07, 0.31)


def own_accuracy(model, X, y):
    with torch.no_grad():
        return plain_accuracy(model(X), y)


# 18 models x 2 seeds x 5 drops by accuracy, and 20 combinations by AUC, for which scikit-learn takes 10 ms

CASES = [(name, seed, "accuracy", DROPS) for name in ZOO for seed in (0, 1)]
CASES += [(name, 2, "auc", (0.02,)) for name in ZOO] + [("mlp, last", 3, "auc", DROPS[1:4])]


@pytest.mark.parametrize(("name", "seed", "metric", "drops"), CASES)
def test_scan_is_brute_force(name, seed, metric, drops):
    model, layer, X, y, (m, n) = case(name, seed, train=True)
    k = min(m, n)
    baseline, curve = brute_force(model, layer, X, y, metric, k)
    assert len(set(curve.values())) > 1  # the rank matters here
    # float64: an accuracy is the same count; an AUC is a mean of ratios of counts
    room = 0.0 if metric == "accuracy" else 1e-12
    for max_drop in drops:
        found = find_rank(model, layer, X, y, max_drop=max_drop, metric=metric, max_rank=k)
        assert list(found.curve) == list(range(1, k + 1))
        assert found.curve == pytest.approx(curve, abs=room) and found.baseline == pytest.approx(
            baseline, abs=room
        )
        assert (found.rank, found.safe_rank) == smallest(baseline, curve, max_drop)
        assert (found.layer, found.max_drop, found.max_rank) == (layer, max_drop, k)
        assert found.feasible is (found.rank is not None)


def test_there_are_enough_combinations():
    assert sum(len(drops) for *_, drops in CASES) >= 190


@pytest.mark.parametrize("name", ZOO)
def test_a_callable_metric_gives_the_same_curve(name):
    model, layer, X, y, (m, n) = case(name, 2)
    named = find_rank(model, layer, X, y, max_drop=0.02, max_rank=min(m, n))
    called = find_rank(model, layer, X, y, max_drop=0.02, max_rank=min(m, n), metric=own_accuracy)
    assert called == named


@pytest.mark.parametrize("name", ["mlp, middle", "in a fused transformer", "residual, hooks"])
def test_the_cheap_ways_are_seen(name):
    """The two shortcuts this test exists for: never replace the weight; skip the biggest triplet."""
    model, layer, X, y, (m, n) = case(name, 0)
    _, curve = brute_force(model, layer, X, y, "accuracy", min(m, n))
    same = plain_accuracy(full_outputs(model, X), y)
    assert any(score != same for score in curve.values())
    found = find_rank(model, layer, X, y, max_drop=0.0, max_rank=min(m, n))
    assert found.curve == curve and found.curve[1] != found.baseline


def test_these_curves_are_not_monotone():
    dips = 0
    for name in ("residual, prefix in place", "after convolutions", "called twice"):
        for seed in range(4):
            model, layer, X, y, (m, n) = case(name, seed)
            scores = list(find_rank(model, layer, X, y, max_drop=0.0, max_rank=min(m, n)).curve.values())
            dips += any(b < a for a, b in zip(scores, scores[1:], strict=False))
    assert dips >= 6


def test_a_trained_net_on_digits():
    split = load_split("digits", val_size=0.2, stratify=True)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(split.X_train), split.y_train).backward()
        optimizer.step()
    net.double()
    X, y = split.X_val.double(), split.y_val
    found = find_rank(net, "0", X, y, max_drop=0.01)
    baseline, curve = brute_force(net, "0", X, y, "accuracy", 32)
    assert found.max_rank == 32 == break_even_rank(64, 64) and found.curve == curve and found.baseline > 0.85
    assert (found.rank, found.safe_rank) == smallest(baseline, curve, 0.01) and 3 < found.rank < 32


# a metric that reads the rank off the outputs: any curve one likes


def table(scores):
    """Model whose layer has the singular values k, ..., 1, and a metric that is scores[rank - 1]."""
    k = len(scores)
    layer = nn.Linear(k, k, bias=False, dtype=torch.float64)
    layer.weight.data = with_spectrum(k, k, list(range(k, 0, -1)), seed=k)

    def metric(model, X, y):
        with torch.no_grad():
            return scores[int(torch.linalg.matrix_rank(model(X), rtol=1e-9)) - 1]

    return nn.Sequential(layer), torch.eye(k, dtype=torch.float64), torch.arange(k), metric


@pytest.mark.parametrize("block", range(8))
def test_any_curve_scan_is_right_and_binary_is_never_wrong(block):
    generator, missed = random.Random(block), 0
    for _ in range(25):
        k = generator.randint(2, 9)
        scores = [generator.choice([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) for _ in range(k)]
        if generator.random() < 0.3:
            scores.sort()  # some monotone ones
        max_drop, top = generator.choice([0.0, 0.05, 0.1, 0.3]), generator.randint(1, k)
        model, X, y, metric = table(scores)
        options = {"max_drop": max_drop, "metric": metric, "max_rank": top}
        scan = find_rank(model, "0", X, y, method="scan", **options)
        wanted = dict(enumerate(scores[:top], start=1))
        assert scan.curve == wanted and scan.baseline == scores[-1]
        assert (scan.rank, scan.safe_rank) == smallest(scores[-1], wanted, max_drop)
        binary = find_rank(model, "0", X, y, method="binary", **options)
        assert binary.safe_rank is None and binary.baseline == scan.baseline
        assert binary.curve.items() <= wanted.items() and list(binary.curve) == sorted(binary.curve)
        assert len(binary.curve) <= 2 + math.ceil(math.log2(top))
        if binary.rank is not None:
            assert scores[-1] - binary.curve[binary.rank] <= max_drop + 1e-12
            assert scan.rank <= binary.rank
        if scores == sorted(scores):
            assert binary.rank == scan.rank
        missed += binary.rank != scan.rank
    assert missed > 0  # bisection does miss the smallest rank where the score dips


def test_bisection_scores_few_ranks():
    scores = [0.1] * 13 + [1.0] * 19
    model, X, y, metric = table(scores)
    found = find_rank(model, "0", X, y, max_drop=0.1, metric=metric, max_rank=32, method="binary")
    assert found.rank == 14 and len(found.curve) <= 6


def test_a_dip_parts_rank_from_safe_rank():
    model, X, y, metric = table([0.2, 1.0, 0.4, 1.0, 1.0])
    found = find_rank(model, "0", X, y, max_drop=0.1, metric=metric, max_rank=5)
    assert (found.rank, found.safe_rank) == (2, 4)
    assert find_rank(model, "0", X, y, max_drop=0.1, metric=metric, max_rank=3).safe_rank is None


def test_the_drop_is_absolute_and_its_end_counts():
    """0.3 is exactly allowed although 1 - 0.7 = 0.30000000000000004; a relative drop would allow more."""
    model, X, y, metric = table([0.69, 0.7, 1.0])
    assert find_rank(model, "0", X, y, max_drop=0.3, metric=metric, max_rank=3).rank == 2
    model, X, y, metric = table([2.5, 4.0])  # a metric need not be a share
    assert find_rank(model, "0", X, y, max_drop=0.5, metric=metric, max_rank=2).rank == 2
    assert find_rank(model, "0", X, y, max_drop=1.5, metric=metric, max_rank=2).rank == 1
    assert within(0.5, 0.9, 0.0) and not within(0.9, 0.9 - 1e-9, 0.0)


@pytest.mark.parametrize(
    ("baseline", "score", "kept"),
    [
        (1.0, -math.inf, False),  # a log-likelihood, where one class has been given up
        (1.0, math.inf, True),
        (math.inf, 1.0, False),
        (math.inf, math.inf, True),
        (-math.inf, -math.inf, True),
        (-math.inf, 0.0, True),
    ],
)
def test_an_infinite_score_is_not_taken_for_rounding(baseline, score, kept):
    model, X, y, metric = table([score, baseline])
    found = find_rank(model, "0", X, y, max_drop=0.1, metric=metric, max_rank=1)
    assert found.curve == {1: score} and found.rank == (1 if kept else None)
    assert found.safe_rank == found.rank


@pytest.mark.parametrize("method", ["scan", "binary"])
def test_nothing_feasible_is_a_result(method):
    model, X, y, metric = table([0.1, 0.2, 0.3, 1.0])
    found = find_rank(model, "0", X, y, max_drop=0.5, metric=metric, max_rank=3, method=method)
    assert (found.rank, found.safe_rank, found.feasible) == (None, None, False)
    assert str(found) == "0: baseline 1.0000, drop of at most 0.5: no rank from 1 to 3 is feasible"


def test_a_result_prints_its_figures():
    model, X, y, metric = table([0.2, 0.9, 1.0])
    found = find_rank(model, "0", X, y, max_drop=0.1, metric=metric, max_rank=3)
    assert str(found) == "0: baseline 1.0000, drop of at most 0.1: rank 2 of 3 scores 0.9000; safe rank 2"
    found = find_rank(model, "0", X, y, max_drop=0.1, metric=metric, max_rank=3, method="binary")
    assert str(found).endswith("safe rank not known") and isinstance(found, RankSearch)
    model, X, y, metric = table([0.2, 0.95, 0.8, 0.9])
    found = find_rank(model, "0", X, y, max_drop=0.05, metric=metric, max_rank=3)
    assert found.rank == 2 and str(found).endswith("scores 0.9500; safe rank none")  # the last one fails


@pytest.mark.parametrize("method", ["scan", "binary"])
def test_no_rank_saves_anything_in_a_row(method):
    found = find_rank(nn.Linear(5, 1), "", torch.ones(4, 5), torch.zeros(4), max_drop=1.0, method=method)
    assert (found.rank, found.max_rank, found.curve) == (None, 0, {})
    assert str(found).endswith("drop of at most 1: no rank saves anything in this layer")


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1), torch.tensor(0.5), torch.ones(1), 1, -3.5])
def test_a_metric_may_give_any_number(value):
    found = find_rank(nn.Linear(4, 4), "", torch.ones(3, 4), torch.zeros(3), max_drop=0, metric=_calls(value))
    assert found.rank == 1 and set(found.curve.values()) == {float(value)}
    assert all(type(score) is float for score in found.curve.values())


def _calls(value):
    def metric(model, X, y):
        model(X)
        return value

    return metric


# one SVD


@pytest.mark.parametrize("method", ["scan", "binary"])
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("mlp, middle", "accuracy"),
        ("mlp, middle", own_accuracy),
        ("mlp, last", "auc"),
        ("called twice", "accuracy"),
        ("called twice", own_accuracy),
        ("3-D inputs", "accuracy"),
    ],
)
def test_one_svd_for_all_ranks(monkeypatch, name, metric, method):
    model, layer, X, y, (m, n) = case(name, 0)
    calls = []
    for function in ("svd", "svdvals", "eigh", "qr"):
        original = getattr(torch.linalg, function)
        monkeypatch.setattr(
            torch.linalg,
            function,
            lambda *a, original=original, function=function, **k: calls.append(function) or original(*a, **k),
        )
    monkeypatch.setattr(torch, "svd", lambda *a, **k: pytest.fail("torch.svd is deprecated"))
    options = {"max_drop": 0.02, "metric": metric, "max_rank": min(m, n)}
    found = find_rank(model, layer, X, y, method=method, **options)
    assert calls == ["svd"]
    assert method == "binary" or list(found.curve) == list(range(1, min(m, n) + 1))


# the model is left alone


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        *((name, metric) for name in ZOO for metric in ("accuracy", own_accuracy)),
        ("after convolutions", "auc"),
    ],
)
def test_the_model_is_bit_for_bit_the_same(name, metric, train):
    model, layer, X, y, _ = case(name, 0, train=train)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    if not train:
        list(model.modules())[-1].train()  # a mode of its own is put back too
    before = snapshot(model, X, y)
    find_rank(model, layer, X, y, max_drop=0.02, metric=metric, max_rank=2)
    find_rank(model, layer, X, y, max_drop=0.02, metric=metric, max_rank=2, method="binary")
    assert snapshot(model, X, y) == before


@pytest.mark.parametrize("method", ["scan", "binary"])
@pytest.mark.parametrize("name", ["mlp, middle", "after convolutions", "residual, hooks", "called twice"])
def test_also_when_the_metric_raises_halfway(name, method):
    model, layer, X, y, _ = case(name, 0, train=True)
    before, calls = snapshot(model, X, y), []

    def metric(net, X, y):
        calls.append(own_accuracy(net, X, y))
        if len(calls) == 4:  # the baseline and two ranks are done
            raise ZeroDivisionError("halfway")
        return calls[-1]

    with pytest.raises(ZeroDivisionError, match="halfway"):
        find_rank(model, layer, X, y, max_drop=1.0, metric=metric, max_rank=8, method=method)
    assert len(calls) == 4 and snapshot(model, X, y) == before


def test_also_when_a_metric_meddles():
    model, layer, X, y, _ = case("after convolutions", 0, train=True)
    before = snapshot(model, X, y)

    def metric(net, X, y):
        net(X)
        net.train()
        for p in net.parameters():
            p.zero_()
        return 1.0

    find_rank(model, layer, X, y, max_drop=0.0, metric=metric)
    assert snapshot(model, X, y) == before


def test_it_is_scored_in_eval_mode():
    model, layer, X, y, _ = case("after convolutions", 0, train=True)
    with torch.no_grad():
        train_mode = plain_accuracy(copy.deepcopy(model)(X), y)
    found = find_rank(model, layer, X, y, max_drop=0.0)
    assert found.baseline == plain_accuracy(full_outputs(model, X), y) != train_mode
    seen = []
    find_rank(
        model, layer, X, y, max_drop=0.0, metric=lambda net, *_: (net(X), seen.append(net.training), 1.0)[2]
    )
    assert len(seen) > 2 and not any(seen)


def test_the_result_does_not_alias_the_model():
    model, layer, X, y, _ = case("mlp, middle", 0)
    private = []
    find_rank(model, layer, X, y, max_drop=0.0, metric=lambda net, *_: (net(X), private.append(net), 1.0)[2])
    mine = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert all(p.untyped_storage().data_ptr() not in mine for p in private[0].parameters())


# what is impossible


def net():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


X6, Y6 = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def _shared():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def _tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


def _broken():
    model = net()
    model[0].weight.data[1, 2] = math.nan
    return model


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layer": "fc1"}, ValueError, "layer='fc1' must be one of the layers ['0', '2']"),
        ({"layer": 0}, ValueError, "layer=0 must be one of the layers ['0', '2']"),
        (
            {"layer": "1"},
            ValueError,
            "layer='1' must be one of the layers ['0', '2'], but it is ReLU",
        ),
        (
            {"model": _shared(), "layer": "0"},
            ValueError,
            "layer='0' must be one of the layers [], but it shares",
        ),
        (
            {"model": _tied(), "layer": "1"},
            ValueError,
            "layer='1' must be one of the layers [], but it shares",
        ),
        (
            {"model": Idle(), "layer": "idle"},
            ValueError,
            "layer='idle' must be called in the model's forward",
        ),
        (
            {"model": Idle(), "layer": "idle", "metric": own_accuracy},
            ValueError,
            "layer='idle' must be called in",
        ),
        ({"model": "net"}, TypeError, "model='net' must be a torch.nn.Module"),
        ({"model": _broken()}, ValueError, "0.weight of shape (6, 4) has 1 entries that are nan or inf"),
        ({"y": Y6[:5]}, ValueError, "y has 5 labels, but must have one for each of the 6 samples of X"),
        ({"y": Y6[:0]}, ValueError, "X of shape (6, 4) and y of shape (0,) must not be empty"),
        ({"X": X6[:0], "y": Y6[:0]}, ValueError, "X of shape (0, 4) and y of shape (0,) must not be empty"),
        ({"y": Y6[:, None]}, ValueError, "y of shape (6, 1) must match the logits' (6,)"),
        ({"y": Y6.tolist()}, TypeError, "X and y must be tensors, not Tensor and list"),
        ({"y": Y6 * 0, "metric": "auc"}, ValueError, "y must hold every one of the 3 classes for an AUC"),
        ({"max_drop": -0.1}, ValueError, "max_drop=-0.1 must be a finite number >= 0"),
        ({"max_drop": math.nan}, ValueError, "max_drop=nan must be a finite number >= 0"),
        ({"max_drop": math.inf}, ValueError, "max_drop=inf must be a finite number >= 0"),
        ({"max_drop": "0.1"}, TypeError, "max_drop='0.1' must be a finite number >= 0"),
        ({"max_drop": None}, TypeError, "max_drop=None must be a finite number >= 0"),
        ({"max_drop": True}, TypeError, "max_drop=True must be a finite number >= 0"),
        (
            {"max_rank": 0},
            ValueError,
            "max_rank=0 must be an integer from 1 to 4 (min(m, n) of a 6 x 4 matrix)",
        ),
        (
            {"max_rank": 5},
            ValueError,
            "max_rank=5 must be an integer from 1 to 4 (min(m, n) of a 6 x 4 matrix)",
        ),
        ({"max_rank": 1.5}, TypeError, "max_rank=1.5 must be an integer from 1 to 4"),
        ({"max_rank": True}, TypeError, "max_rank=True must be an integer from 1 to 4"),
        ({"method": "bisect"}, ValueError, "method='bisect' must be one of 'binary', 'scan'"),
        ({"metric": "f1"}, ValueError, "metric='f1' must be one of 'accuracy', 'auc'"),
        ({"metric": None}, ValueError, "metric=None must be one of 'accuracy', 'auc'"),
        (
            {"metric": _calls(math.nan)},
            ValueError,
            "metric's value of the full model is nan; it must be a number",
        ),
        ({"metric": _calls(None)}, TypeError, "metric's value of the full model=None must be a number"),
        ({"metric": _calls("0.9")}, TypeError, "metric's value of the full model='0.9' must be a number"),
        ({"metric": _calls(True)}, TypeError, "metric's value of the full model=True must be a number"),
        ({"metric": _calls(torch.ones(2))}, TypeError, "metric's value of the full model=Tensor(shape=(2,)"),
    ],
)
@pytest.mark.parametrize("method", ["scan", "binary"])
def test_impossible_requests(changes, error, message, method):
    arguments = {"model": net(), "layer": "0", "X": X6, "y": Y6, "max_drop": 0.1, "method": method, **changes}
    model = arguments["model"]
    before = snapshot(model, X6, Y6) if isinstance(model, nn.Module) else None
    with pytest.raises(error) as caught:
        find_rank(**arguments)
    assert str(caught.value).startswith(message)
    assert before is None or snapshot(model, X6, Y6) == before


@pytest.mark.parametrize("bad", [math.nan, None, "0.9"])
def test_a_metric_that_fails_later_names_the_rank(bad):
    values = iter([1.0, 1.0, 0.9, bad])

    def metric(model, X, y):
        model(X)
        return next(values)

    error = ValueError if isinstance(bad, float) else TypeError
    with pytest.raises(error, match=r"^metric's value at rank 3"):
        find_rank(net(), "0", X6, Y6, max_drop=0.5, metric=metric, max_rank=4)


def test_the_default_limit_is_break_even():
    assert find_rank(net(), "0", X6, Y6, max_drop=1.0).max_rank == break_even_rank(6, 4) == 2
    assert find_rank(net(), "0", X6, Y6, max_drop=1.0, max_rank=4).max_rank == 4


def test_a_metric_is_given_a_copy_in_eval_mode_and_the_data_in_their_order():
    model, _, X, y, _ = case("mlp, last", 3)
    model.train()

    def metric(net, first, second):
        assert net is not model and not net.training
        return 2.0 * (first is X) + (second is y)

    assert score(model, X, y, metric) == 3.0 and model.training
    assert score(model, None, None, lambda net: float(net is model)) == 0.0


def test_the_packages_own_score_is_a_metric():
    model, layer, X, y, _ = case("mlp, last", 3)
    named = find_rank(model, layer, X, y, max_drop=0.1)
    assert find_rank(model, layer, X, y, max_drop=0.1, metric=accuracy) == named


@pytest.mark.parametrize("method", ["scan", "binary"])
def test_a_callable_metric_meets_every_batch_of_a_one_shot_iterable_at_every_rank(method):
    model, layer, X, y, _ = case("mlp, last", 3)
    pairs = list(zip(X.split(7), y.split(7), strict=True))

    def right(net, data, _):
        return sum(int((net(inputs).argmax(1) == labels).sum()) for inputs, labels in data)

    options = {"max_drop": 5.0, "metric": right, "method": method}
    expected = find_rank(model, layer, pairs, **options)
    assert expected.baseline > 0 and min(expected.curve.values()) > 0
    for once in (iter(pairs), (pair for pair in pairs)):
        assert find_rank(model, layer, once, **options) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_gives_the_curve_of_its_own_truncations(dtype):
    """Weights that are whole numbers, so that half precision has room: rank 2 of 4 in every dtype."""
    layer = nn.Linear(4, 4, bias=False)
    layer.weight.data = torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0]))
    model, X, y = nn.Sequential(layer).to(dtype), torch.eye(4).to(dtype), torch.arange(4)
    found = find_rank(model, "0", X, y, max_drop=0.0, max_rank=4)
    assert found.curve == {
        r: PLAIN["accuracy"](X.float() @ truncated(layer.weight, r).float().T, y) for r in found.curve
    }
    assert found.rank == 4 and found.baseline == 1.0
