"""Ranks under a budget against every combination there is; spectra and costs by numpy alone."""

import itertools
import re
import time

import numpy as np
import pytest
import torch
from oracles import Lambda, snapshot, with_spectrum
from torch import nn

from lowrank_utils import Moments, allocate_ranks, calibrate, compress, count_macs, count_params
from lowrank_utils.network.allocate import ranks_within
from lowrank_utils.network.choices import Choices
from lowrank_utils.network.knapsack import cheapest_choice

D = torch.float64


def brute_force(layers, limit):
    """Least loss of all combinations within the limit, or None."""
    costs = sum(np.meshgrid(*[c for c, _ in layers], indexing="ij"))
    losses = sum(np.meshgrid(*[x for _, x in layers], indexing="ij"))
    return float(losses[costs <= limit].min()) if (costs <= limit).any() else None


def lagrangian(layers, limit):
    """Best loss that any single multiplier reaches: all crossings of two options of a layer are tried."""
    slopes = {0.0, 1e30}
    for costs, losses in layers:
        for i, j in itertools.combinations(range(len(costs)), 2):
            if costs[i] != costs[j]:
                slopes.add(max(0.0, (losses[i] - losses[j]) / (costs[j] - costs[i])))
    found = []
    for slope in sorted(slopes):
        for side in (slope * (1 - 1e-9), slope * (1 + 1e-9)):
            chosen = [int(np.argmin(losses + side * costs)) for costs, losses in layers]
            if sum(c[i] for (c, _), i in zip(layers, chosen, strict=True)) <= limit:
                found.append(sum(x[i] for (_, x), i in zip(layers, chosen, strict=True)))
    return min(found, default=np.inf)


def totals(layers, chosen):
    return tuple(float(sum(t[k][i] for t, i in zip(layers, chosen, strict=True))) for k in (0, 1))


def random_options(rng):
    """Any costs and losses, in any order: not only what layers give."""
    for _ in range(rng.integers(2, 5)):
        k = int(rng.integers(1, 7))
        yield rng.integers(1, 40, k), np.round(rng.random(k), int(rng.integers(1, 12)))


def test_any_options_400_cases():
    beaten = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        layers = list(random_options(rng))
        low, high = (sum(int(f(c)) for c, _ in layers) for f in (np.min, np.max))
        limit = int(rng.integers(low - 1, high + 2))
        chosen, best = cheapest_choice(layers, limit), brute_force(layers, limit)
        if best is None:
            assert chosen is None
            continue
        cost, loss = totals(layers, chosen)
        assert cost <= limit and loss <= best + 1e-12
        beaten += lagrangian(layers, limit) > best + 1e-9
    assert beaten > 25  # the relaxed solution is not enough


def test_the_relaxed_solution_is_beaten():
    """Two equal layers and room for one: every multiplier takes both or none."""
    layers = [(np.array([1, 10, 19]), np.array([10.0, 5.5, 0.0]))] * 2
    assert lagrangian(layers, 21) == 20 and cheapest_choice(layers, 21) in ([0, 2], [2, 0])
    assert totals(layers, cheapest_choice(layers, 20)) == (20, 10)
    assert totals(layers, cheapest_choice(layers, 19)) == (11, 15.5)  # off the hull: no multiplier finds it
    assert lagrangian(layers, 19) == 20


@pytest.mark.parametrize("scale", [1e-200, 1e-40, 1.0, 1e40, 1e200])
def test_the_size_of_the_losses_does_not_matter(scale):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        layers = list(random_options(rng))
        limit = int(rng.integers(sum(int(c.min()) for c, _ in layers), 120))
        scaled = [(c, scale * losses) for c, losses in layers]
        best = brute_force(layers, limit)
        assert totals(layers, cheapest_choice(scaled, limit))[1] <= best + 1e-12


def test_the_limit_of_a_relaxed_solution_itself():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        layers = list(random_options(rng))
        slope = 10 ** rng.uniform(-4, 2)
        chosen = [int(np.argmin(losses + slope * costs)) for costs, losses in layers]
        limit = int(totals(layers, chosen)[0])
        assert totals(layers, cheapest_choice(layers, limit))[1] <= brute_force(layers, limit) + 1e-12


def layer_tables(model, moments, by_macs, pivoted):
    """Costs and losses of rank 1, 2, ... and dense of each layer, from the formulas, by numpy."""
    tables = {}
    for name, linear in model.named_modules():
        if not isinstance(linear, nn.Linear) or (moments is not None and name not in moments):
            continue
        W = linear.weight.detach().double().numpy()
        m, n = W.shape
        rows, energy = 1.0, np.linalg.svd(W, compute_uv=False) ** 2
        if moments is None:
            energy = energy / energy.sum() if energy.sum() else energy
        else:
            seen = moments[name]
            G = np.eye(m) if seen.gradient is None else seen.gradient.numpy()
            if seen.gradient is not None:
                G = G + 1e-3 * np.trace(G) / m * np.eye(m)
            energy = np.linalg.eigvals(W.T @ G @ W @ seen.covariance.numpy()).real
            rows = seen.rows / seen.samples
            energy = np.sort(energy.clip(0))[::-1][: min(m, n)] * rows
        options = []
        for r in range(1, min(m, n) + 1):
            cost = r * (m + n - r) if pivoted else r * (m + n)
            if cost < m * n:
                options.append((cost, energy[r:].sum()))
        options.append((m * n, 0.0))
        scale = rows if by_macs else 1.0
        tables[name] = (
            np.array([np.ceil(c * scale) for c, _ in options]).astype(int),
            np.array([e for _, e in options]),
        )
    return tables


def small_model(rng):
    sizes = rng.integers(1, 9, rng.integers(3, 6))
    layers = [nn.Linear(int(a), int(b)).double() for a, b in itertools.pairwise(sizes)]
    for layer in layers:
        with torch.no_grad():
            layer.weight *= float(10 ** rng.uniform(-1, 1))
    return nn.Sequential(*layers)


def random_moments(model, rng):
    found = {}
    for name, layer in model.named_children():
        m, n = layer.weight.shape
        x, g = torch.randn(30, n, dtype=D), torch.randn(30, m, dtype=D) * 10.0 ** -rng.integers(0, 6)
        rows = int(30 * rng.choice([1, 1, 2, 7]))
        found[name] = Moments(rows, 30, x.mean(0), torch.cov(x.T, correction=0).reshape(n, n), g.T @ g / 30)
    return found


@pytest.mark.parametrize("norm", [1, 2.5])
@pytest.mark.parametrize("pivoted", [False, True])
@pytest.mark.parametrize("cost", ["plain", "params", "macs"])
def test_60_models_each(cost, pivoted, norm):
    dense = ranked = beaten = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        model = small_model(rng)
        moments = None if cost == "plain" else random_moments(model, rng)
        tables = layer_tables(model, moments, cost == "macs", pivoted)
        largest = max(float(losses.max()) for _, losses in tables.values()) or 1.0
        tables = {name: (c, (losses / largest) ** norm) for name, (c, losses) in tables.items()}
        total = sum(c[-1] for c, _ in tables.values())
        budget = float(rng.uniform(0.05, 1)) if seed % 10 else 1.0
        best = brute_force(list(tables.values()), int(budget * total))
        options = {"moments": moments, "cost": "macs" if cost == "macs" else "params", "pivoted": pivoted}
        options["norm"] = norm
        if best is None:
            least = sum(c.min() for c, _ in tables.values()) / total
            with pytest.raises(ValueError, match=re.escape(f"must be at least {least:.4g}")):
                allocate_ranks(model, budget, **options)
            continue
        ranks = allocate_ranks(model, budget, **options)
        chosen = [ranks.get(name, 0) - 1 for name in tables]
        spent, loss = totals(list(tables.values()), chosen)
        worst = sum(float(losses.max()) for _, losses in tables.values())
        assert spent <= budget * total and loss <= best + 1e-10 * worst
        assert budget < 1 or ranks == {} or loss <= 1e-12 * worst
        dense, ranked = dense + len(tables) - len(ranks), ranked + len(ranks)
        beaten += lagrangian(list(tables.values()), int(budget * total)) > best + 1e-6 * worst
    # all of it did happen; powers fall more steeply, so the relaxed choice is seldom beaten
    assert min(dense, ranked) > 3 and beaten > (3 if norm == 1 else 0)


@pytest.mark.parametrize("pivoted", [False, True])
def test_the_model_that_comes_of_it_keeps_the_budget(pivoted):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 5))
    X, y = torch.randn(50, 30), torch.randint(0, 5, (50,))
    moments, before = calibrate(net, X, y), snapshot(net, X, y)
    weights = count_params(net) - 49
    for budget in (0.2, 0.5, 0.9):
        for given in (None, moments):
            small = compress(
                net, allocate_ranks(net, budget, moments=given, pivoted=pivoted), pivoted=pivoted
            )
            assert count_params(small) - 49 <= budget * weights
        by_macs = allocate_ranks(net, budget, moments=moments, cost="macs", pivoted=pivoted)
        small = compress(net, by_macs, pivoted=pivoted)
        assert count_macs(small, X[:1]) <= budget * count_macs(net, X[:1])
    assert snapshot(net, X, y) == before


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_a_high_norm_makes_the_largest_loss_as_small_as_can_be(scale):
    """By every combination there is; the scale of the losses does not matter."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        layers = [(np.sort(rng.integers(1, 40, 6)), rng.permutation(6) / 5) for _ in range(3)]
        options = {str(i): Choices(c, x * scale, list(range(6))) for i, (c, x) in enumerate(layers)}
        low, total = (sum(int(c[i]) for c, _ in layers) for i in (0, -1))
        limit = int(rng.integers(low, total))
        picks = ranks_within(options, (limit + 0.5) / total, 16)
        chosen = [layers[i][1][picks[str(i)]] for i in range(3)]
        spent = sum(layers[i][0][picks[str(i)]] for i in range(3))
        costs = sum(np.meshgrid(*[c for c, _ in layers], indexing="ij"))
        worst = np.maximum.reduce(np.meshgrid(*[x for _, x in layers], indexing="ij"))
        assert spent <= limit and max(chosen) == worst[costs <= limit].min()


def test_monotone_in_the_budget():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 10), nn.Linear(10, 9), nn.Linear(9, 11), nn.Linear(11, 4))
    tables = layer_tables(net, None, False, False)
    losses = []
    for budget in np.linspace(0.25, 1, 60):
        ranks = allocate_ranks(net, float(budget))
        losses.append(totals(list(tables.values()), [ranks.get(name, 0) - 1 for name in tables])[1])
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses)) and losses[-1] == 0
    assert len(set(losses)) > 20


def test_a_layer_stays_dense_where_that_is_best():
    """A flat spectrum loses with every rank; two layers of rank 2 lose nothing."""
    net = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20)).double()
    with torch.no_grad():
        net[0].weight.copy_(with_spectrum(20, 20, [3.0, 1.0] + [0.0] * 18))
        net[1].weight.copy_(with_spectrum(20, 20, [1.0] * 20))
        net[2].weight.copy_(with_spectrum(20, 20, [9.0, 1.0] + [0.0] * 18))
    # 400 + 2 x 80 of 1200 numbers
    assert allocate_ranks(net, 560 / 1200 + 1e-9) == {"0": 2, "2": 2}
    assert allocate_ranks(net, 559 / 1200) != {"0": 2, "2": 2}
    # r (40 - r): 400 + 2 x 76, which the other form does not fit
    assert allocate_ranks(net, 552 / 1200 + 1e-9, pivoted=True) == {"0": 2, "2": 2}


def test_zero_weights_cost_as_little_as_they_can():
    net = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    nn.init.zeros_(net[0].weight)
    assert allocate_ranks(net, 0.6) == {"0": 1}


def test_only_layers_with_moments_are_ranked():
    net = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    moments = calibrate(net, torch.randn(30, 10))
    assert set(allocate_ranks(net, 0.5, moments={"1": moments["1"]})) == {"1"}


def test_tails_of_layers_that_see_different_numbers_of_rows_can_be_added():
    """Seven independent tokens, averaged: a tail is E (sum_t g_t . miss_t)^2 of a sample."""
    torch.manual_seed(0)
    tokens, N = 7, 20000
    net = Lambda(
        lambda s, x: s.head(s.token(x).mean(1)), token=nn.Linear(6, 6), head=nn.Linear(6, 3)
    ).double()
    X, y = torch.randn(N, tokens, 6, dtype=D), torch.randint(0, 3, (N,))
    moments = calibrate(net, X, y, temperature=1e6)  # p is then 1/3: no product of p and x in g
    for name in ("token", "head"):  # g spans two dimensions, so rank 1 is all that loses anything
        _, losses = layer_tables(net, moments, False, False)[name]
        small = compress(net, {name: 1}, moments=moments)
        with torch.no_grad():
            miss = (small(X) - net(X)) / 1e6
        g = torch.full((N, 3), 1 / 3, dtype=D) - nn.functional.one_hot(y, 3)
        rise = float(((g[torch.randperm(N)] * miss).sum(1) ** 2).mean())
        assert 0.9 < losses[0] / rise < 1.1
    # the package's allocation rests on these same tables: test_60_models_each


@pytest.mark.parametrize("kind", ["different", "alike", "equal", "square", "pivoted", "odd rows"])
def test_a_hundred_layers_of_500_options(kind):
    """In seconds (0.1 to 1 here), and within what is left of the bound by linear relaxation."""
    rng, layers = np.random.default_rng(1), []
    for _ in range(100):
        n = {"different": int(rng.integers(512, 3000)), "square": 512}.get(kind, 2048)
        s = np.sort(rng.random(512))[::-1] if kind in ("different", "odd rows") else 1 / np.arange(1, 513)
        s = s * (1 + 1e-3 * rng.random()) if kind == "alike" else s
        s = np.sort(rng.lognormal(0, 1, 512))[::-1] if kind in ("square", "pivoted") else s
        r = np.arange(1, 513)
        costs = r * (512 + n - r) if kind == "pivoted" else r * (512 + n)
        losses = np.append(np.cumsum(s[::-1] ** 2)[::-1][1:], 0.0)
        kept = costs < 512 * n
        costs = np.append(costs[kept], 512 * n) * (rng.uniform(1, 50) if kind == "odd rows" else 1)
        layers.append((np.ceil(costs).astype(np.int64), np.append(losses[kept], 0.0)))
    limit = int(0.05 * sum(int(c[-1]) for c, _ in layers))
    start = time.process_time()
    chosen = cheapest_choice(layers, limit)
    assert time.process_time() - start < 10
    cost, loss = totals(layers, chosen)
    bound = max(
        sum(float((losses + slope * costs).min()) for costs, losses in layers) - slope * limit
        for slope in np.geomspace(1e-9, 1e-1, 500) * (1 if kind != "odd rows" else 0.02)
    )
    assert cost <= limit and bound <= loss < 1.03 * bound


NET = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
SHARED = nn.Sequential(NET[0], NET[0])


@pytest.mark.parametrize(
    ("model", "budget", "options", "error", "message"),
    [
        (NET, 0, {}, ValueError, "budget=0.0 must be a finite number > 0 and <= 1"),
        (NET, 1.5, {}, ValueError, "budget=1.5 must be a finite number > 0 and <= 1"),
        (NET, float("nan"), {}, ValueError, "budget=nan must be a finite number > 0 and <= 1"),
        (NET, "0.5", {}, TypeError, "budget='0.5' must be a finite number > 0 and <= 1"),
        (NET, True, {}, TypeError, "budget=True must be a finite number > 0 and <= 1"),
        (NET, 0.1, {}, ValueError, "budget=0.1 must be at least 0.3333, which the cheapest ranks cost"),
        (NET, 0.3, {"pivoted": True}, ValueError, "budget=0.3 must be at least 0.3056, which the cheapest"),
        (NET, 0.5, {"norm": 0.5}, ValueError, "norm=0.5 must be a finite number >= 1 and <= 16"),
        (NET, 0.5, {"norm": np.inf}, ValueError, "norm=inf must be a finite number >= 1 and <= 16"),
        (NET, 0.5, {"cost": "flops"}, ValueError, "cost='flops' must be one of 'macs', 'params'"),
        (NET, 0.5, {"cost": "macs"}, ValueError, "moments=None must be given for cost='macs'"),
        (NET, 0.5, {"factors": {}}, ValueError, "moments=None must be given with factors"),
        (nn.ReLU(), 0.5, {}, ValueError, "model=ReLU must be a module with a layer that can have a rank"),
        (
            NET,
            0.5,
            {"moments": {}},
            ValueError,
            "moments=[] must be of a layer that takes part, one of ['0', ",
        ),
        (NET, 0.5, {"skip": ["0", "1"]}, ValueError, "skip=['0', '1'] must be such that a layer takes part"),
        (NET, 0.5, {"layers": []}, ValueError, "layers=[] must be such that a layer takes part"),
        (SHARED, 0.5, {}, ValueError, "model=Sequential must be a module with a layer that can have a rank"),
        ("net", 0.5, {}, TypeError, "model='net' must be a torch.nn.Module"),
    ],
)
def test_impossible_requests(model, budget, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        allocate_ranks(model, budget, **options)


def test_a_layer_without_options():
    with pytest.raises(ValueError, match=r"^options of a layer=0 must be an integer >= 1$"):
        cheapest_choice([(np.array([], dtype=int), np.array([]))], 5)
