"""What must hold for every matrix, model and budget, by hypothesis: 200 drawn examples each.

`make properties` draws 10 000.

Each property has an oracle of its own: a competitor, brute force, a loop that counts, the argument itself.
"""

import itertools
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import snapshot
from torch import nn

from lowrank_utils import (
    LowRankConv,
    LowRankLinear,
    PivotedLinear,
    accuracy,
    allocate_ranks,
    calibrate,
    cascade,
    compress,
    count_macs,
    count_params,
    find_rank,
    low_rank_approximation,
    relative_error,
    truncated_svd,
    weighted_factors,
)
from lowrank_utils.network.knapsack import cheapest_choice

settings.register_profile(
    "book",
    max_examples=int(os.environ.get("EXAMPLES", "200")),
    deadline=None,
    derandomize="EXAMPLES" not in os.environ,  # the same examples in each run of `make test`
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
settings.load_profile("book")
EPS = torch.finfo(torch.float64).eps
sizes, seeds = st.integers(1, 9), st.integers(0, 2**31 - 1)


@st.composite
def matrices(draw):
    """A matrix with a spectrum of any kind, at any scale; with zeros and repeated values among them."""
    m, n, seed = draw(sizes), draw(sizes), draw(seeds)
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    S = torch.tensor(draw(st.lists(st.sampled_from([0.0, 1e-6, 0.5, 1.0, 1.0, 3.0]), min_size=k, max_size=k)))
    U = torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q
    return 10.0 ** draw(st.integers(-12, 12)) * ((U * S.double()) @ V.T)


@st.composite
def networks(draw):
    """A small multilayer perceptron, samples and labels."""
    widths = draw(st.lists(st.integers(2, 7), min_size=3, max_size=4))
    torch.manual_seed(draw(seeds))
    layers = []
    for n, m in itertools.pairwise(widths):
        layers += [nn.Linear(n, m, bias=draw(st.booleans())), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).double().eval()
    X = torch.randn(draw(st.integers(2, 20)), widths[0], dtype=torch.float64)
    return net, X, torch.randint(0, widths[-1], (len(X),))


def names(net):
    return [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]


@given(matrices(), seeds, st.data())
def test_no_competitor_of_that_rank_is_nearer(W, seed, data):
    m, n = W.shape
    r = data.draw(st.integers(1, min(m, n)))
    best = torch.linalg.norm(W - low_rank_approximation(W, r))
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(m, r, generator=generator, dtype=torch.float64)
    B = torch.linalg.lstsq(A, W, driver="gelsd").solution  # the best partner of a random factor
    assert best <= torch.linalg.norm(W - A @ B) * (1 + 1e-9) + 100 * EPS * torch.linalg.norm(W)


@given(matrices())
def test_the_error_falls_with_the_rank_and_ends_at_nothing(W):
    k = min(W.shape)
    errors = [relative_error(W, r) for r in range(1, k + 1)]
    assert all(a >= b for a, b in itertools.pairwise(errors)) and 0 <= errors[-1] <= 1e-12
    assert torch.linalg.norm(low_rank_approximation(W, k) - W) <= 100 * EPS * torch.linalg.norm(W)
    U, S, Vh = truncated_svd(W, k)
    assert torch.allclose(U.T @ U, torch.eye(k).double(), atol=1e-12)
    assert torch.allclose(Vh @ Vh.T, torch.eye(k).double(), atol=1e-12)
    assert bool((S.diff() <= 0).all())


@given(matrices(), st.data())
def test_the_approximation_is_a_projection(W, data):
    r = data.draw(st.integers(1, min(W.shape)))
    kept = W.clone()
    once = low_rank_approximation(W, r)
    assert torch.linalg.norm(low_rank_approximation(once, r) - once) <= 100 * EPS * torch.linalg.norm(W)
    U, _, Vh = truncated_svd(W, r)
    assert torch.linalg.norm(U @ (U.T @ W @ Vh.T) @ Vh - once) <= 100 * EPS * torch.linalg.norm(W)
    assert torch.equal(W, kept)


@given(sizes, sizes, seeds, st.data())
def test_layers_at_full_rank_are_the_layer_and_back(m, n, seed, data):
    torch.manual_seed(seed)
    linear, x = nn.Linear(n, m).double(), torch.randn(3, n, dtype=torch.float64)
    wanted = linear(x)
    for form in (LowRankLinear, PivotedLinear):
        layer = form.from_linear(linear, min(m, n))
        for same in (layer, layer.to_linear(), layer.to_sequential()):
            assert torch.allclose(same(x), wanted, atol=1e-9)
    r = data.draw(st.integers(1, min(m, n)))
    two, pivoted = (form.from_linear(linear, r) for form in (LowRankLinear, PivotedLinear))
    assert torch.allclose(two(x), pivoted(x), atol=1e-8)
    assert count_params(two) == r * (m + n) + m and count_params(pivoted) == r * (m + n - r) + m


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    seeds,
    st.sampled_from(["channel", "input", "kernel"]),
)
def test_convolutions_at_full_rank_are_the_convolution(m, n, k, seed, form):
    torch.manual_seed(seed)
    conv, x = nn.Conv1d(n, m, k, padding=1).double(), torch.randn(2, n, 7, dtype=torch.float64)
    full = {"channel": min(m, n * k), "input": min(n, m * k), "kernel": min(k, m * n)}[form]
    assert torch.allclose(LowRankConv.from_conv(conv, full, form)(x), conv(x), atol=1e-9)


@given(networks(), st.floats(0.05, 1.0), st.sampled_from([None, "moments", "pivoted"]))
def test_an_allocation_keeps_its_budget_and_equals_brute_force(net_and_data, budget, kind):
    net, X, y = net_and_data
    moments = calibrate(net, X, y) if kind == "moments" else None
    pivoted = kind == "pivoted"
    shapes = {name: net.get_submodule(name).weight.shape for name in names(net)}
    options = {}
    for name, (m, n) in shapes.items():
        W = net.get_submodule(name).weight.detach()
        if moments is None:
            energy = np.linalg.svd(W.numpy(), compute_uv=False) ** 2
            energy = energy / energy.sum()
        else:
            energy = weighted_factors(W, moments[name]).S.square().numpy()
        cost = [r * (m + n - r * pivoted) for r in range(1, min(m, n) + 1)]
        options[name] = [(c, float(energy[r + 1 :].sum())) for r, c in enumerate(cost) if c < m * n]
        options[name].append((m * n, 0.0))
    total = sum(m * n for m, n in shapes.values())
    fits = [c for c in itertools.product(*options.values()) if sum(x for x, _ in c) <= budget * total]
    if not fits:
        with pytest.raises(ValueError, match="^budget="):
            allocate_ranks(net, budget, moments=moments, pivoted=pivoted)
        return
    ranks = allocate_ranks(net, budget, moments=moments, pivoted=pivoted)
    chosen = [options[name][ranks[name] - 1] if name in ranks else options[name][-1] for name in shapes]
    least = min(sum(loss for _, loss in c) for c in fits)
    assert sum(cost for cost, _ in chosen) <= budget * total
    assert sum(loss for _, loss in chosen) <= least + 1e-9 * max(1.0, least)


@given(st.data())
def test_the_knapsack_is_exact(data):
    option = st.tuples(st.integers(1, 12), st.floats(0, 10, allow_nan=False))
    layers = data.draw(st.lists(st.lists(option, min_size=1, max_size=5), min_size=1, max_size=4))
    limit = data.draw(st.integers(1, 40))
    fits = [c for c in itertools.product(*layers) if sum(x for x, _ in c) <= limit]
    arrays = [tuple(np.array(column) for column in zip(*layer, strict=True)) for layer in layers]
    choice = cheapest_choice(arrays, limit)
    assert (choice is None) == (not fits)
    if choice is not None:
        cost = sum(layer[i][0] for layer, i in zip(layers, choice, strict=True))
        loss = sum(layer[i][1] for layer, i in zip(layers, choice, strict=True))
        least = min(sum(x for _, x in c) for c in fits)
        assert cost <= limit and loss <= least + 1e-12 * max(1.0, sum(max(x for _, x in a) for a in layers))


@given(networks(), st.floats(0, 0.5), st.sampled_from(["scan", "binary"]), st.data())
def test_a_search_never_claims_what_is_not_so(net_and_data, max_drop, method, data):
    net, X, y = net_and_data
    layer = data.draw(st.sampled_from(names(net)))
    full = min(net.get_submodule(layer).weight.shape)
    before = snapshot(net, X, y)
    found = find_rank(net, layer, X, y, max_drop=max_drop, max_rank=full, method=method)
    assert snapshot(net, X, y) == before
    right = {r: accuracy(compress(net, {layer: r}), X, y) for r in range(1, full + 1)}
    assert all(score == right[r] for r, score in found.curve.items())
    feasible = {r for r, score in right.items() if accuracy(net, X, y) - score <= max_drop + 1e-12}
    if found.rank is not None:
        assert found.rank in feasible
    if method == "scan":
        assert found.rank == min(feasible, default=None)
        safe = next((r for r in range(1, full + 1) if feasible >= set(range(r, full + 1))), None)
        assert found.safe_rank == safe


@given(networks(), st.data())
def test_counters_agree_with_a_loop_that_counts(net_and_data, data):
    net, X, _ = net_and_data
    ranks = {
        name: data.draw(st.integers(1, min(net.get_submodule(name).weight.shape))) for name in names(net)
    }
    small = compress(net, ranks, pivoted=data.draw(st.booleans()))
    macs = params = 0
    for layer in small:
        for p in layer.parameters():
            params += math.prod(p.shape)
            if p.ndim == 2:
                macs += len(X) * math.prod(p.shape)
    assert (count_macs(small, X), count_params(small)) == (macs, params)


@given(networks(), st.booleans(), st.data())
def test_a_refit_at_full_rank_changes_nothing(net_and_data, labelled, data):
    net, X, y = net_and_data
    before = snapshot(net, X, y)
    moments = calibrate(net, X, y if labelled else None)
    assume(len(moments) == len(names(net)))
    ranks = {name: min(net.get_submodule(name).weight.shape) for name in names(net)}
    pivoted = data.draw(st.booleans())
    for small in (
        compress(net, ranks, moments=moments, pivoted=pivoted),
        cascade(net, ranks, X, moments, pivoted=pivoted),
    ):
        with torch.no_grad():
            assert torch.allclose(small(X), net(X), atol=1e-5)
    assert snapshot(net, X, y) == before
