"""Rules for a rank, against counting."""

import math

import numpy as np
import pytest
import torch
from oracles import DTYPES, eps, with_spectrum

from lowrank_utils import break_even_rank, rank_for_energy

SIZES = [(m, n) for m in (1, 2, 3, 4, 10, 31) for n in (1, 2, 4, 7, 10, 64)]


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_break_even_by_counting(m, n):
    for core in (False, True):
        fits = [r for r in range(1, m + n) if r * (m + n) + core * r * r <= m * n]
        assert break_even_rank(m, n, core=core) == max(fits, default=0)


def test_known_break_evens():
    assert break_even_rank(10, 4) == 2 == break_even_rank(10, 4, core=True)
    assert break_even_rank(1024, 1024) == 512 and break_even_rank(1024, 1024, core=True) == 424
    assert break_even_rank(6, 3) == 2 and break_even_rank(6, 3, core=True) == 1  # 22 > 18 numbers at rank 2
    assert break_even_rank(1, 100) == 0  # a row can't be made smaller


def test_break_even_is_exact_where_floats_are_not():
    m = n = 3 * 10**15
    r = break_even_rank(m, n, core=True)
    assert r * r + r * (m + n) <= m * n < (r + 1) ** 2 + (r + 1) * (m + n)


@pytest.mark.parametrize(
    ("m", "n", "error", "message"),
    [
        (0, 3, ValueError, "m=0 must be an integer >= 1"),
        (3, -1, ValueError, "n=-1 must be an integer >= 1"),
        (2.0, 3, TypeError, "m=2.0 must be an integer >= 1"),
        (3, True, TypeError, "n=True must be an integer >= 1"),
        (3, math.nan, TypeError, "n=nan must be an integer >= 1"),
    ],
)
def test_impossible_sizes(m, n, error, message):
    with pytest.raises(error) as caught:
        break_even_rank(m, n)
    assert str(caught.value) == message


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("m", "n"), [(9, 5), (6, 6), (4, 11)])
def test_energy_by_cumulative_sum(m, n, seed):
    W = torch.from_numpy(np.random.default_rng(seed).standard_normal((m, n)))
    share = np.cumsum(np.linalg.svd(W.numpy(), compute_uv=False) ** 2)
    share /= share[-1]
    for energy in (1e-6, 0.1, 0.5, 0.8, 0.9, 0.99, 0.999):
        assert rank_for_energy(W, energy) == int(np.argmax(share >= energy)) + 1
    for r, kept in enumerate(share, start=1):  # just below and just above what rank r keeps
        assert rank_for_energy(W, kept - 1e-9) == r
        if r < len(share):
            assert rank_for_energy(W, kept + 1e-9) == r + 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(8, 5), (5, 5), (5, 8)])
def test_all_of_the_energy_is_the_numerical_rank(m, n, dtype):
    W = torch.zeros(m, n, dtype=dtype)
    W[0, 1], W[2, 0], W[3, 3] = 4.0, 2.0, 4 * max(m, n) * eps(dtype) * 1.5
    assert rank_for_energy(W, 1.0) == 3
    W[3, 3] = 4 * max(m, n) * eps(dtype) * 0.7  # below the rounding of W
    assert rank_for_energy(W, 1.0) == 2


def test_zero_repeated_and_full():
    assert rank_for_energy(torch.zeros(4, 3), 1.0) == 1 == rank_for_energy(torch.zeros(4, 3), 0.1)
    W = with_spectrum(6, 4, [2.0, 2.0, 2.0, 2.0])
    assert [rank_for_energy(W, e) for e in (0.2, 0.3, 0.6, 0.8, 1.0)] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e200])
def test_energy_has_no_scale(factor):
    W = factor * with_spectrum(5, 4, [4.0, 3.0, 2.0, 1.0])
    assert [rank_for_energy(W, e) for e in (0.5, 0.8, 0.95, 0.99)] == [1, 2, 3, 4]
    deficient = factor * with_spectrum(5, 4, [4.0, 3.0, 0.0, 0.0])
    assert [rank_for_energy(deficient, e) for e in (0.5, 0.8, 1.0)] == [1, 2, 2]
    diagonal = factor * torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0], dtype=torch.float64))  # zeros exactly
    assert [rank_for_energy(diagonal, e) for e in (0.5, 0.8, 1.0)] == [1, 2, 2]
    assert rank_for_energy(factor * torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)), 1.0) == 1


@pytest.mark.parametrize(
    ("energy", "error"),
    [
        (0, ValueError),
        (-0.1, ValueError),
        (1.0001, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (True, TypeError),
        ("0.9", TypeError),
        (None, TypeError),
    ],
)
def test_impossible_energies(energy, error):
    with pytest.raises(error, match=r"^energy=.* must be a finite number > 0 and <= 1$"):
        rank_for_energy(torch.eye(3), energy)


@pytest.mark.parametrize(
    ("W", "error"),
    [
        (torch.ones(3), ValueError),
        (torch.ones(1, 2, 3), ValueError),
        (torch.ones(0, 2), ValueError),
        (torch.full((2, 2), math.nan), ValueError),
        (torch.ones(2, 2).long(), TypeError),
        ([[1.0]], TypeError),
    ],
)
def test_impossible_matrices(W, error):
    with pytest.raises(error, match=r"^W"):
        rank_for_energy(W, 0.5)
