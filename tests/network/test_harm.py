"""Measured harm against the cut model run as a whole, and ranks chosen by it against brute force."""

import copy
import importlib
import itertools

import joblib
import numpy as np
import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn
from zoo import ZOO, case

from lowrank_utils import (
    Harm,
    allocate_ranks,
    calibrate,
    compress,
    compress_within,
    low_rank_approximation,
    measure_harm,
    weighted_factors,
)
from lowrank_utils.layers.views import LayerView, layer_view
from lowrank_utils.network.harm import HarmCurve, harm_options
from lowrank_utils.network.measure import kl_divergence


def change(model, small, X):
    """Mean over samples of the squared change, in numpy."""
    with torch.no_grad():
        a, b = (m.eval()(X.clone()).double().numpy() for m in (small, model))
    return float(((a - b) ** 2).sum() / len(X))


def conv_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ZOO if name != "called twice"])
def test_what_is_measured_is_the_change_of_the_cut_model(name):
    model, layer, X, _, _ = case(name, 0, train=False)
    before = snapshot(model, X)
    harm = measure_harm(model, X, layers=[layer], points=3)
    (curve,) = harm.layers[layer].curves
    for i, h in curve.measured.items():
        wanted = change(model, compress(model, {layer: curve.ranks[i]}), X)
        assert h == pytest.approx(wanted, rel=2e-3, abs=1e-9)
    assert snapshot(model, X) == before
    batched = measure_harm(model, list(X.split(50)), layers=[layer], points=3).layers[layer].curves[0]
    assert batched.measured == pytest.approx(curve.measured, rel=2e-3, abs=1e-9)


def test_every_form_of_a_convolution_and_factors_by_the_data():
    net, X = conv_net(), torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    moments = calibrate(net, X)
    harm = measure_harm(net, X, moments=moments, points=4)
    assert [curve.form for curve in harm.layers["3"].curves] == [
        "",
        "channel",
        "input",
        "kernel",
        "spatial",
        "tucker2",
    ]
    assert harm.runs >= sum(len(curve.measured) for layer in harm.layers.values() for curve in layer.curves)
    for name, layer in harm.layers.items():
        for curve in layer.curves:
            for i, h in curve.measured.items():
                pick = curve.picks()[i]
                small = compress(net, {name: pick}, moments=moments)
                assert h == pytest.approx(change(net, small, X), rel=1e-3, abs=1e-9)
                weights = sum(
                    p.numel() for k, p in small.named_parameters() if k.startswith(name) and "bias" not in k
                )
                assert weights == curve.params[i]


def test_between_measurements_the_ratio_to_the_tail_is_interpolated():
    tails = (8.0, 4.0, 2.0, 1.0)
    curve = HarmCurve("", (1, 2, 3, 4), (9,) * 4, (9,) * 4, tails, {0: 16.0, 3: 0.5})  # ratios 2 and 1/2
    t = np.log([1, 2, 3, 4]) / np.log(4)
    assert curve.harms() == pytest.approx(2 * 4**-t * np.array(tails))
    rising = HarmCurve(
        "", (1, 2), (9,) * 2, (9,) * 2, (4.0, 1.0), {0: 1.0, 1: 3.0}
    )  # noise: the mean, 2, for both
    assert rising.harms() == pytest.approx([2.0, 2.0])
    no_tail = HarmCurve("", (1, 2), (9,) * 2, (9,) * 2, (3.0, 0.0), {0: 6.0, 1: 1e-20})
    assert no_tail.harms() == pytest.approx([6.0, 0.0])
    assert HarmCurve("", (1,), (9,), (9,), (0.0,), {0: 0.0}).harms() == pytest.approx([0.0])


def test_harms_never_rise_and_go_through_what_was_measured():
    model, layer, X, _, _ = case("mlp, middle", 0, train=True)
    exact, few = (measure_harm(model, X, layers=[layer], points=p).layers[layer].curves[0] for p in (None, 3))
    assert sorted(exact.measured) == list(range(len(exact.ranks))) and len(few.measured) == 3
    for curve in (exact, few):
        harms = curve.harms()
        assert (np.diff(harms) <= 0).all()
        for i, h in curve.measured.items():
            assert harms[i] <= h * (1 + 1e-9)


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("pivoted", [False, True])
def test_ranks_by_harm_lose_least_of_all(budget, pivoted):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 14), nn.ReLU(), nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 4))
    X = torch.randn(60, 9)
    harm = measure_harm(net, X, points=None)
    sizes = {"0": (14, 9), "2": (10, 14), "4": (4, 10)}
    every = []
    for name, (m, n) in sizes.items():
        ranks = range(1, min(m, n) + 1)
        costs = {r: r * (m + n - r * pivoted) for r in ranks}
        losses = dict(
            zip(harm.layers[name].curves[0].ranks, harm.layers[name].curves[0].harms(), strict=True)
        )
        every.append([(costs[r], losses[r]) for r in losses if costs[r] < m * n] + [(m * n, 0.0)])
    limit = int(budget * sum(m * n for m, n in sizes.values()))
    least = min(
        sum(h for _, h in c) for c in itertools.product(*every) if sum(cost for cost, _ in c) <= limit
    )
    ranks = allocate_ranks(net, budget, harm=harm, pivoted=pivoted)
    got = sum(harm.layers[k].curves[0].harms()[r - 1] for k, r in ranks.items())
    assert got == pytest.approx(least, rel=1e-9)


def test_a_layer_that_hardly_counts_is_cut_first():
    torch.manual_seed(0)
    net = Lambda(lambda s, x: s.a(x) + 0.01 * s.b(x), a=nn.Linear(12, 12), b=nn.Linear(12, 12))
    X = torch.randn(50, 12)
    by_energy, measured = allocate_ranks(net, 0.6), allocate_ranks(net, 0.6, harm=measure_harm(net, X))
    assert by_energy["a"] < 6 and "a" not in measured and measured["b"] == 1
    assert change(net, compress(net, measured), X) < change(net, compress(net, by_energy), X) / 100


def test_saved_and_read_again(tmp_path):
    net, X = conv_net(), torch.randn(20, 2, 6, 6)
    harm = measure_harm(net, X, points=3)
    harm.save(tmp_path / "harm.json")
    again = Harm.load(tmp_path / "harm.json")
    assert again == harm and str(again) == str(harm)
    for budget in (0.3, 0.7):
        assert allocate_ranks(net, budget, harm=again) == allocate_ranks(net, budget, harm=harm)


BACKENDS = ("loky", "threading", "multiprocessing")  # the last gives its results all at the end


@pytest.mark.parametrize("backend", BACKENDS)
def test_processes_change_no_number(backend):
    net, X = conv_net(), torch.randn(20, 2, 6, 6)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert measure_harm(net, X, points=3) == measure_harm(net, X, points=3, n_jobs=1)


class Noisy(nn.Module):
    """Draws random numbers, in eval mode too, before and after its second layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.a(x))
        h = torch.relu(self.b(h + 0.1 * torch.randn_like(h)))
        return self.c(h + 0.1 * torch.randn_like(h))


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_model_draws_is_no_harm(whole):
    torch.manual_seed(0)
    net, X = Noisy().double(), torch.randn(20, 8, dtype=torch.float64)
    state = torch.get_rng_state()
    data = X if whole else list(X.split(7))
    harm = measure_harm(net, data, points=None)
    assert torch.equal(torch.get_rng_state(), state)
    for backend in BACKENDS:
        with joblib.parallel_config(backend=backend, n_jobs=2):
            assert measure_harm(net, data, points=None) == harm
        assert torch.equal(torch.get_rng_state(), state)

    def run(model):
        torch.set_rng_state(state)
        with torch.no_grad():
            return torch.cat([model(x) for x in ([X] if whole else data)])

    for name in "abc":
        for i, value in harm.layers[name].curves[0].measured.items():
            small = copy.deepcopy(net)
            layer = small.get_submodule(name)
            layer.weight.data = low_rank_approximation(layer.weight, i + 1)
            wanted = float((run(small) - run(net)).square().sum()) / len(X)
            assert value == pytest.approx(wanted, rel=1e-9)


class Halved(nn.Module):
    """A layer of one's own: y = x W^T / 2, with numbers of the default dtype in its forward."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(7, 7)), None

    def forward(self, x):
        return x @ (self.weight.T @ (torch.eye(7) / 2))


def test_a_process_knows_the_callers_dtype_and_layers():
    """As in a notebook, whose classes are sent by value and whose views are registered nowhere else."""

    class Own(Halved):
        __module__ = "__main__"

        def forward(self, x):
            return super().forward(x)

    class OwnView(LayerView):
        __module__ = "__main__"

        @property
        def weight(self):
            return self.layer.weight.detach() / 2

    layer_view.register(Own, OwnView)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        net, X = nn.Sequential(Own(), nn.ReLU(), nn.Linear(7, 7)), torch.randn(20, 7)
        assert measure_harm(net, X, n_jobs=2) == measure_harm(net, X)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_threads_are_given_back(monkeypatch):
    seen, told = [], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", told.append)

    def measure(outputs, dense):
        seen.append(told[-1])
        if len(seen) == 3:
            raise ArithmeticError
        return 0.0

    net, X = nn.Sequential(nn.Linear(6, 5)), torch.randn(9, 6)
    measure_harm(net, X, measure=measure, points=2)
    assert told == [1, 7] and seen == [1, 1]
    with pytest.raises(ArithmeticError):
        measure_harm(net, X, measure=measure, points=2)
    assert told == [1, 7, 1, 7]


def test_kl_is_that_of_torch():
    a, b = torch.randn(7, 3, 5), torch.randn(7, 3, 5)
    wanted = nn.functional.kl_div(a.log_softmax(-1), b.log_softmax(-1), log_target=True, reduction="sum") / 7
    assert kl_divergence(a, b) == pytest.approx(float(wanted), rel=1e-5)
    net, X = nn.Sequential(nn.Linear(6, 5)), torch.randn(9, 6)
    curve = measure_harm(net, X, measure="kl", points=None).layers["0"].curves[0]
    for rank, h in zip(curve.ranks, curve.measured.values(), strict=True):
        assert h == pytest.approx(kl_divergence(compress(net, {"0": rank})(X), net(X)), rel=1e-4)


def test_a_measure_of_your_own_gets_outputs_and_dense_outputs():
    net, X = nn.Sequential(nn.Linear(6, 5)), torch.randn(9, 6)

    def worst(outputs, dense):
        return (outputs - dense).abs().max()

    harm = measure_harm(net, X, measure=worst, points=2)
    wanted = float((compress(net, {"0": 1})(X) - net(X)).detach().abs().max())
    assert harm.measure == "worst" and harm.layers["0"].curves[0].measured[0] == pytest.approx(
        wanted, rel=1e-5
    )


def test_bad_calls():
    net, X = nn.Sequential(nn.Linear(6, 5)), torch.randn(9, 6)
    never = Lambda(lambda s, x: s.a(x), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    other = nn.Sequential(nn.Linear(7, 5))
    for call, error, words in [
        (lambda: measure_harm(net, X, measure="mse"), ValueError, "measure='mse' must be one of"),
        (lambda: measure_harm(net, X, points=1), ValueError, "points=1 must be an integer >= 2"),
        (lambda: measure_harm(net, X[:0]), ValueError, "X has no samples"),
        (lambda: measure_harm(nn.ReLU(), X), ValueError, "model=ReLU must be"),
        (lambda: measure_harm(never, X), ValueError, "layer='b' must be called"),
        (lambda: measure_harm(net, X, measure=lambda *_: float("nan")), ValueError, "'0' as A B of rank 1"),
        (lambda: measure_harm(net, X, measure=lambda *_: -1.0), ValueError, r"dense\)=-1.0 must be"),
        (lambda: measure_harm(net, X, measure=lambda *_: None), TypeError, r"dense\)=None must be a number"),
        (
            lambda: allocate_ranks(other, 0.9, harm=measure_harm(net, X)),
            ValueError, r"harm=\(5, 6\) must be of '0', which is 5 x 7",
        ),
    ]:  # fmt: skip
        with pytest.raises(error, match=words):
            call()


def labelled():
    net, X = conv_net(), torch.randn(120, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return net, X, net(X).argmax(1)


@pytest.mark.parametrize("refit", [False, True])
def test_compress_within_by_measured_harm(refit):
    net, X, y = labelled()
    small, report = compress_within(net, X, y, max_drop=0.2, refit=refit, harm="measured", steps=5)
    assert report.feasible and report.score >= 0.8 and "conv" not in str(report)
    harm = measure_harm(net, X, moments=calibrate(net, X, y))  # fewer than 256: all were measured
    limit = sum(row.params for row in report.layers)
    chosen = {row.layer: row.rank for row in report.layers if row.rank is not None}
    loss = sum(
        dict(zip(harm_options(layer).picks, harm_options(layer).losses, strict=False))[chosen[name]]
        for name, layer in harm.layers.items() if name in chosen
    )  # fmt: skip
    every = [harm_options(layer) for layer in harm.layers.values()]
    least = min(
        sum(c.losses[i] for c, i in zip(every, pick, strict=True))
        for pick in itertools.product(*(range(len(c.costs)) for c in every))
        if sum(c.costs[i] for c, i in zip(every, pick, strict=True)) <= limit
    )
    assert loss == pytest.approx(least, rel=1e-6)
    assert sum(p.numel() for k, p in small.named_parameters() if "1." not in k and "bias" not in k) == limit


def test_harm_is_measured_on_samples_that_the_moments_have_not_seen(monkeypatch):
    net, X, y = labelled()
    (A, a), (B, b) = (X[:60], y[:60]), (X[60:], y[60:])
    within, seen = importlib.import_module("lowrank_utils.network.within"), []

    def watched(model, samples, **told):
        seen.append(samples)
        return measure_harm(model, samples, **told)

    monkeypatch.setattr(within, "measure_harm", watched)
    told = {"max_drop": 0.2, "harm": "measured", "steps": 2}
    compress_within(net, B, b, calibration=(A, a), **told)
    compress_within(net, metric=lambda model: 1.0, calibration=(A, a), **told)
    compress_within(net, B, b, **told)
    assert [torch.equal(got, wanted) for got, wanted in zip(seen, (B, A, B), strict=True)] == [True] * 3


def test_a_harm_by_weights_needs_no_moments(monkeypatch):
    net, X, y = labelled()
    harm = measure_harm(net, X)

    def never(*args, **kwargs):
        raise AssertionError("moments were taken")

    monkeypatch.setattr("lowrank_utils.network.within.calibrate", never)

    def score(model):
        return float((model(X).argmax(1) == y).double().mean())

    small, report = compress_within(
        net, metric=score, max_drop=0.5, refit=False, harm=harm, calibration=X, steps=5
    )
    ranks = {row.layer: row.rank for row in report.layers if row.rank is not None}
    assert any(isinstance(rank, tuple) for rank in ranks.values())
    with torch.no_grad():
        assert torch.allclose(
            small(X), compress(net, ranks, calibration=X)(X), atol=1e-5
        )  # norms brought back
        assert not torch.allclose(small(X), compress(net, ranks)(X), atol=1e-3)
    for row in report.layers:
        if row.rank is not None:
            W = net.get_submodule(row.layer).weight.detach()
            cut = compress(net, {row.layer: row.rank}).get_submodule(row.layer).weight.detach()
            assert row.error == pytest.approx(float((W - cut).norm() / W.norm()), rel=1e-4)


def test_bad_harm_for_compress_within():
    net, X, y = labelled()
    by_data = measure_harm(net, X, moments=calibrate(net, X))
    for kwargs, words in [
        ({"harm": "guessed"}, "harm='guessed' must be a Harm, 'measured' or None"),
        ({"harm": "measured"}, "calibration=None must be given for harm='measured'"),
        ({"harm": by_data}, "calibration=None must be given for a harm that was measured with moments"),
    ]:
        with pytest.raises(ValueError, match=words):
            compress_within(net, metric=lambda model: 1.0, **kwargs)


def test_outputs_that_are_complex():
    """The squared change is that of both parts."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, x):
            y = self.layer(x)
            return torch.complex(torch.zeros_like(y), y)

    torch.manual_seed(0)
    model, X = Turned(), torch.randn(20, 6)
    [curve] = measure_harm(model, X, points=None).layers["layer"].curves
    [plain] = measure_harm(model.layer, X, points=None).layers[""].curves
    assert curve.measured == pytest.approx(plain.measured, rel=1e-6) and min(curve.measured.values()) > 0


def test_factors_at_hand_are_the_ones_that_it_would_make():
    X = torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    net = conv_net().double()
    moments = calibrate(net, X)
    factors = {k: weighted_factors(layer_view(net.get_submodule(k)).weight, moments[k]) for k in moments}
    told = {"moments": moments, "points": 3}
    made, given = (measure_harm(net, X, **told, **more) for more in ({}, {"factors": factors}))
    assert given.by_data
    for name, layer in made.layers.items():
        for a, b in zip(layer.curves, given.layers[name].curves, strict=True):
            assert (a.form, a.ranks) == (b.form, b.ranks)
            assert a.measured.keys() == b.measured.keys()
            # outputs of size 1 in double, made of factors that another thread count may round otherwise
            h = np.array([[a.measured[i], b.measured[i]] for i in a.measured])
            assert h.min() > 1e-9 and np.ptp(np.sqrt(h), axis=1).max() < 1e-12


def test_factors_are_used_and_not_made_again(monkeypatch):
    net, X = conv_net(), torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    moments = calibrate(net, X)
    names = "lowrank_utils.network.measure", "lowrank_utils.network.decomposed"
    made = []

    def counting(W, seen, **how):
        made.append(W.shape)
        return weighted_factors(W, seen, **how)

    for name in names:
        monkeypatch.setattr(importlib.import_module(name), "weighted_factors", counting)
    compress_within(
        net, X, metric=lambda model, *_: -float(model(X).var()), max_drop=9, steps=2, harm="measured"
    )
    assert len(made) == len(moments)  # each layer once, for harm, ranks and factors


def test_factors_of_another_weight_or_without_moments_are_refused():
    net, X = nn.Sequential(nn.Linear(6, 6)), torch.eye(6)
    moments = calibrate(net, X)
    factors = {"0": weighted_factors(net[0].weight + 1, moments["0"])}
    with pytest.raises(ValueError, match=r"^factors\['0'\] must be those of the layer's weight"):
        measure_harm(net, X, moments=moments, factors=factors)
    with pytest.raises(ValueError, match=r"^factors=\[\] must be there"):
        measure_harm(net, X, moments=moments, factors={})
    with pytest.raises(ValueError, match="^moments=None must be given with factors"):
        measure_harm(net, X, factors=factors)
