"""Ranks from random-matrix theory: how many singular values stand out of the noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.svd import singular_values


def gavish_donoho_rank(W: Tensor, *, noise: float | None = None) -> int:
    r"""How many singular values exceed the optimal hard threshold, of W = signal + noise, white.

    With beta = min(m, n) / max(m, n) the threshold is lambda(beta) sqrt(max(m, n)) * noise, where
    lambda^2 = 2(beta + 1) + 8 beta / (beta + 1 + sqrt(beta^2 + 14 beta + 1)); with unknown noise it is
    lambda / sqrt(mu) times the median singular value, mu the median of the Marchenko-Pastur law.

    Args:
        W: Matrix (m, n).
        noise: Standard deviation of the noise in each entry, > 0; None estimates it.

    Returns:
        A rank from 0 (all noise) to min(m, n).

    Raises:
        TypeError: If W is no floating tensor or ``noise`` no number.
        ValueError: If W is no finite, non-empty matrix or ``noise`` is not above 0.

    Reference:
        Gavish & Donoho 2014.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> gavish_donoho_rank(torch.randn(100, 3) @ torch.randn(3, 80) + 0.1 * torch.randn(100, 80))
        3
    """
    W = _checks.matrix(W)
    short, long = sorted(W.shape)
    S, beta = singular_values(W).cpu().numpy(), short / long
    threshold = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    if noise is None:
        scale = float(np.median(S)) / math.sqrt(_marchenko_pastur_median(beta))
    else:
        scale = math.sqrt(long) * _checks.real(noise, "noise", low=0.0, open_low=True)
    # no signal: rounding of the entries, a noise of that norm at most, and of the SVD itself
    entries = torch.finfo(W.dtype).eps * math.hypot(*S) / math.sqrt(short)
    floor = max(entries, long * np.finfo(float).eps * float(S[0]))
    return int((max(threshold * scale, floor) < S).sum())


def _marchenko_pastur_median(beta: float) -> float:
    from scipy.integrate import quad
    from scipy.optimize import brentq  # slow to import, and for this rule alone

    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2

    def mass(x: float) -> float:  # of the density sqrt((high - t)(t - low)) / (2 pi beta t) up to x
        # t = centre - half cos(a) takes the square-root edges away
        centre, half = (low + high) / 2, (high - low) / 2
        angle = math.acos(min(1.0, max(-1.0, (centre - x) / half)))

        def density(a: float) -> float:
            return (half * math.sin(a)) ** 2 / max(centre - half * math.cos(a), 1e-300)

        return float(quad(density, 0, angle, limit=200)[0]) / (2 * math.pi * beta)

    return float(brentq(lambda x: mass(x) - 0.5, low, high))


def evbmf_rank(W: Tensor) -> int:
    r"""Rank of W by empirical variational Bayesian matrix factorisation, in its closed form.

    With L = min(m, n), M = max(m, n), alpha = L / M, the noise variance minimises the free energy over the
    singular values; those above sqrt(M variance (1 + tau)(1 + alpha / tau)), tau = 2.5129 sqrt(alpha), stay.

    Args:
        W: Matrix (m, n).

    Returns:
        A rank from 0 (all noise) to min(m, n).

    Raises:
        TypeError: If W is no floating tensor.
        ValueError: If W is no finite, non-empty matrix.

    Reference:
        Nakajima, Sugiyama, Babacan & Tomioka 2013, theorem 2 and corollary 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> evbmf_rank(torch.randn(100, 3) @ torch.randn(3, 80) + 0.1 * torch.randn(100, 80))
        3
    """
    from scipy.optimize import minimize_scalar  # slow to import

    W = _checks.matrix(W)
    L, M = sorted(W.shape)
    S = singular_values(W).cpu().numpy()  # (L,)
    if S[0] == 0:
        return 0
    energy = (S / S[0]) ** 2  # the rank does not depend on the scale, and no square leaves float64
    energy = energy / energy.sum()
    alpha = L / M
    tau = 2.5129 * math.sqrt(alpha)
    edge = (1 + tau) * (1 + alpha / tau)
    # the rank is below L / (1 + alpha), which bounds the noise from below
    most = min(math.ceil(L / (1 + alpha)) - 1, L - 1)
    tail = energy[most:]
    smallest = max(float(energy[most]) / (M * edge), float(tail.mean()) / M, 1e-15 / (L * M))
    largest = max(1 / (L * M), smallest * (1 + 1e-9))

    def at(v: float) -> float:
        return _free_energy(math.exp(v), energy, M, alpha, edge)

    grid = np.linspace(math.log(smallest), math.log(largest), 500)  # there may be several local minima
    best = int(np.argmin([at(v) for v in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, 499)]
    found = minimize_scalar(at, bounds=around, method="bounded", options={"xatol": 1e-9})
    return int((energy > M * math.exp(found.x) * edge).sum())


def _free_energy(variance: float, energy: NDArray[np.float64], M: int, alpha: float, edge: float) -> float:
    """The part of the free energy that depends on the noise variance, up to a factor and constants."""
    x = np.maximum(energy, 1e-100) / (M * variance)  # of an exact zero too it falls with the variance
    above = x[x > edge]
    below = x[x <= edge]
    shift = above - (1 + alpha)
    t = (shift + np.sqrt(np.maximum(shift**2 - 4 * alpha, 0))) / 2  # (15) of the reference
    signal = above - t + np.log((t + 1) / above) + alpha * np.log(t / alpha + 1)
    return float((below - np.log(below)).sum() + signal.sum())
