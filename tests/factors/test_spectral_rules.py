"""Planted ranks found again; the closed forms against constants of the papers and a plain grid search."""

import re

import numpy as np
import pytest
import torch
from oracles import DTYPES, SHAPES
from scipy.optimize import brentq

from lowrank_utils import evbmf_rank, gavish_donoho_rank
from lowrank_utils.factors.spectral_rules import _marchenko_pastur_median

RULES = (gavish_donoho_rank, evbmf_rank)


def planted(m, n, rank, noise, seed):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    return torch.from_numpy(signal + noise * rng.standard_normal((m, n)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("m", "n"), [(120, 80), (90, 90), (60, 200)])
def test_90_of_90_planted_ranks(rule, m, n):
    for rank in (1, 2, 5, 10, 15):
        for noise in (0.03, 0.3, 1.0):
            for seed in range(2):
                W = planted(m, n, rank, noise, seed)
                assert rule(W) == rank
            assert rule(W.T) == rule(1e-6 * W) == rule(1e6 * W) == rank


@pytest.mark.parametrize("rule", RULES)
def test_noise_has_rank_zero_or_about(rule):
    ranks = [rule(planted(100, 60, 1, 1.0, s) - planted(100, 60, 1, 0.0, s)) for s in range(20)]
    assert max(ranks) <= 1 and sum(ranks) <= 1


def test_a_signal_below_the_noise_is_not_seen_and_one_above_is():
    """The Baik-Ben Arous-Peche edge is at n^1/2 (m n)^1/4; half of it is lost, five times it is found."""
    rng, n = np.random.default_rng(0), 200
    u, v = (np.linalg.qr(rng.standard_normal((n, 1)))[0] for _ in range(2))
    noise = rng.standard_normal((n, n))
    for rule in RULES:
        assert rule(torch.from_numpy(0.5 * np.sqrt(n) * u @ v.T + noise)) == 0
        assert rule(torch.from_numpy(5 * np.sqrt(n) * u @ v.T + noise)) == 1


def test_gavish_donoho_constants():
    """4 / sqrt 3 for a square matrix of known noise; 2.858 medians otherwise; and their polynomial."""
    n, S = 50, np.sort(np.random.default_rng(0).uniform(0.5, 4, 50))[::-1]
    for scale in (1.0, 1e-3):
        W = torch.diag(torch.from_numpy(scale * S))
        for noise in (0.05, 0.1, 0.3):
            assert (
                gavish_donoho_rank(W, noise=scale * noise)
                == (S > 4 / np.sqrt(3 * 1.0) * np.sqrt(n) * noise).sum()
            )
        assert gavish_donoho_rank(W) == (2.858 * np.median(S) < S).sum()
    for beta in np.linspace(0.05, 1, 20):
        rational = 8 * beta / (beta + 1 + np.sqrt(beta**2 + 14 * beta + 1))
        omega = np.sqrt((2 * (beta + 1) + rational) / _marchenko_pastur_median(float(beta)))
        assert abs(omega - (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43)) < 0.02


@pytest.mark.parametrize("beta", [0.1, 0.37, 0.8, 1.0])
def test_the_median_is_that_of_a_large_random_matrix(beta):
    M = 800
    S = np.linalg.svd(np.random.default_rng(0).standard_normal((int(beta * M), M)), compute_uv=False)
    assert abs(np.median(S**2) / M - _marchenko_pastur_median(int(beta * M) / M)) < 0.02


def evbmf_by_grid(W):
    """The same free energy, written as in Nakajima's paper, least on a grid of 1000 noise variances."""
    L, M = sorted(W.shape)
    s2 = np.linalg.svd(W.numpy(), compute_uv=False) ** 2
    alpha = L / M
    tau_bar = brentq(lambda t: np.log1p(t) / t - 0.5, 1, 5) * np.sqrt(alpha)  # 2.5129 sqrt(alpha)
    x_bar = (1 + tau_bar) * (1 + alpha / tau_bar)
    top = min(int(np.ceil(L / (1 + alpha)) - 1), L - 1)
    low, high = max(s2[top] / (M * x_bar), s2[top:].mean() / M), s2.sum() / (L * M)
    best = np.inf, 0.0
    for v in np.geomspace(low, high, 1000):
        x = s2 / (M * v)
        big, rest = x[x > x_bar], x[x <= x_bar]
        tau = (big - 1 - alpha + np.sqrt((big - 1 - alpha) ** 2 - 4 * alpha)) / 2
        energy = (rest - np.log(rest)).sum() + (big - tau).sum()
        energy += np.log((tau + 1) / big).sum() + alpha * np.log(tau / alpha + 1).sum()
        best = min(best, (energy, v))
    return int((s2 > M * best[1] * x_bar).sum())


def test_evbmf_is_the_least_free_energy():
    differs = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        m, n = rng.integers(8, 60, 2)
        spread = np.logspace(0, -rng.uniform(0, 2), min(m, n))
        U, _, Vh = np.linalg.svd(rng.standard_normal((m, n)), full_matrices=False)
        W = torch.from_numpy((U * spread * 3) @ Vh + 0.1 * rng.standard_normal((m, n)))
        differs.append(evbmf_rank(W) != evbmf_by_grid(W))
    assert not any(differs)


@pytest.mark.parametrize("tens", range(6))
def test_evbmf_is_the_least_free_energy_of_small_matrices(tens):
    """Few values: the bounds of the variance decide, where the signal's rank is all but full."""
    for seed in range(10 * tens, 10 * tens + 10):
        rng = np.random.default_rng(seed)
        m, n = rng.integers(2, 10, 2)
        k = int(rng.integers(1, min(m, n) + 1))
        signal = rng.standard_normal((m, k)) @ rng.standard_normal((k, n))
        W = torch.from_numpy(signal + 10 ** rng.uniform(-3, 0) * rng.standard_normal((m, n)))
        assert evbmf_rank(W) == evbmf_by_grid(W)


@pytest.mark.parametrize("rule", RULES)
def test_degenerate(rule):
    assert rule(torch.zeros(5, 7)) == 0
    for m, n in SHAPES:
        W = torch.from_numpy(np.random.default_rng(0).standard_normal((m, n)))
        assert 0 <= rule(W) <= min(m, n)
    exact = planted(60, 40, 3, 0.0, 0)  # no noise but rounding
    assert rule(exact) == rule(exact.float()) == 3
    zeros = torch.zeros(60, 40, dtype=torch.float64)  # but for three values the spectrum is zero exactly
    for rank in (3, 10, 1):
        zeros.zero_().diagonal()[:rank] = torch.arange(rank, 0, -1)
        assert rule(zeros) == rule(zeros.T) == rank
    kept = exact.clone()
    rule(exact)
    assert torch.equal(exact, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_every_dtype(rule, dtype):
    assert rule(planted(120, 80, 4, 0.5, 0).to(dtype)) == 4


BAD = [
    (torch.ones(3), {}, ValueError, "W=Tensor(shape=(3,), dtype=torch.float32) must be a non-empty matrix"),
    (
        torch.ones(2, 3, dtype=torch.int64),
        {},
        TypeError,
        "W=Tensor(shape=(2, 3), dtype=torch.int64) must be of a",
    ),
    (torch.full((2, 3), torch.inf), {}, ValueError, "W of shape (2, 3) has 6 entries that are nan or inf"),
    ([[1.0]], {}, TypeError, "W of type list must be a torch.Tensor"),
]


@pytest.mark.parametrize(("W", "options", "error", "message"), BAD)
@pytest.mark.parametrize("rule", RULES)
def test_impossible_matrices(rule, W, options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        rule(W, **options)


@pytest.mark.parametrize(("noise", "error"), [(0, ValueError), (-1.0, ValueError), ("1", TypeError)])
def test_impossible_noise(noise, error):
    with pytest.raises(error, match=r"^noise=.* must be a finite number > 0$"):
        gavish_donoho_rank(torch.eye(3), noise=noise)


def optimal_threshold(beta):
    """Where keeping a singular value costs as much as dropping it, in the limit of large matrices.

    A signal x is seen as y(x), its vectors turned by angles of known cosines (Benaych-Georges & Nadakuditi
    2012): keeping y costs x^2 + y^2 - 2 x y c, dropping it x^2.
    """

    def seen(x):
        return np.sqrt((x + 1 / x) * (x + beta / x))

    def gain(x):
        cosines = (x**4 - beta) / np.sqrt((x**4 + beta * x**2) * (x**4 + x**2))
        return seen(x) - 2 * x * cosines

    return seen(brentq(gain, beta**0.25 * (1 + 1e-9), 5))


@pytest.mark.parametrize(("m", "n"), [(40, 40), (60, 30), (16, 80), (90, 3)])
def test_the_threshold_is_where_keeping_costs_as_much_as_dropping(m, n):
    noise = 0.3
    edge = optimal_threshold(min(m, n) / max(m, n)) * np.sqrt(max(m, n)) * noise
    W = torch.zeros(m, n, dtype=torch.float64)
    for factor, rank in ((1 - 1e-6, 1), (1 + 1e-6, 2)):
        W[0, 0], W[1, 1], W[2, 2] = 9 * edge, factor * edge, 0.9 * edge
        assert gavish_donoho_rank(W, noise=noise) == rank


@pytest.mark.parametrize("beta", [0.02, 0.3, 0.7, 1.0])
def test_the_median_halves_the_density_of_marchenko_and_pastur(beta):
    low, high = (1 - np.sqrt(beta)) ** 2, (1 + np.sqrt(beta)) ** 2
    # steps that are fine at both edges, where the density has roots or, at beta = 1, a pole
    t = low + (high - low) * np.sin(np.linspace(0, np.pi / 2, 200_001)) ** 2
    middle = (t[1:] + t[:-1]) / 2
    mass = np.cumsum(np.sqrt((high - middle) * (middle - low)) / (2 * np.pi * beta * middle) * np.diff(t))
    assert abs(mass[-1] - 1) < 1e-5  # so it is a density
    assert np.interp(_marchenko_pastur_median(beta), t[1:], mass) == pytest.approx(0.5, abs=1e-5)


def test_without_noise_a_value_above_the_rounding_of_the_entries_counts():
    """The median is zero, and so is the threshold: what is left is the rounding of float32 and float64."""
    for dtype, least in ((torch.float32, 3e-7), (torch.float64, 1e-13)):
        for m, n in ((60, 40), (40, 60)):
            W = torch.zeros(m, n, dtype=dtype)
            W[0, 1], W[1, 0] = 1.0, least
            assert gavish_donoho_rank(W) == 2
            W[1, 0] = torch.finfo(dtype).eps / 100
            assert gavish_donoho_rank(W) == 1


@pytest.mark.parametrize(("m", "n"), [(40, 40), (30, 75), (60, 12)])
def test_evbmf_sees_a_spike_from_where_the_grid_does(m, n):
    """One value over a bulk of noise, known from the grid to a third of a percent."""
    rng = np.random.default_rng(m)
    U, bulk, Vh = np.linalg.svd(rng.standard_normal((m, n)), full_matrices=False)

    def with_spike(s):
        return torch.from_numpy((U * np.concatenate([[s], bulk[1:]])) @ Vh)

    low, high = bulk[0] * 0.8, bulk[0] * 2.0
    assert (evbmf_by_grid(with_spike(low)), evbmf_by_grid(with_spike(high))) == (0, 1)
    while high / low > 1.001:
        middle = (low + high) / 2
        low, high = (low, middle) if evbmf_by_grid(with_spike(middle)) else (middle, high)
    assert evbmf_rank(with_spike(0.99 * low)) == 0
    assert evbmf_rank(with_spike(1.01 * high)) == 1


@pytest.mark.parametrize("rule", [evbmf_rank, gavish_donoho_rank])
@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e160])
def test_the_rank_does_not_depend_on_the_scale(rule, scale):
    torch.manual_seed(0)
    W = torch.randn(60, 3).double() @ torch.randn(3, 40).double() + 0.1 * torch.randn(60, 40).double()
    assert rule(W) == rule(W * scale) == 3
