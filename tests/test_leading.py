"""The fast SVD for a small rank: within 0.1 % of the optimum where it is taken, the full SVD elsewhere."""

import math

import numpy as np
import pytest
import torch
from oracles import tail, with_spectrum
from torch import nn

from lowrank_utils import svd, truncated_svd

SPECTRA = {
    "flat": lambda k: np.ones(k),
    "slow": lambda k: 1 / np.sqrt(np.arange(1, k + 1)),
    "harmonic": lambda k: 1 / np.arange(1, k + 1),
    "fast": lambda k: 0.8 ** np.arange(k),
    "very fast": lambda k: 0.3 ** np.arange(k),
    "a step": lambda k: np.where(np.arange(k) < 10, 1.0, 1e-2),
    "a tall step": lambda k: np.where(np.arange(k) < 10, 1.0, 1e-5),
    "one large": lambda k: np.where(np.arange(k) < 1, 1e4, 1.0),
    "rank 10": lambda k: np.where(np.arange(k) < 10, 1.0, 0.0),
    "zero": lambda k: np.zeros(k),
}
SURE = ("slow", "harmonic")


def error(W, U, S, Vh):
    return float((W.double() - (U.double() * S.double()) @ Vh.double()).norm())


@pytest.mark.parametrize("scale", [1e-24, 1.0, 1e24])
@pytest.mark.parametrize(("m", "n"), [(160, 120), (120, 160), (128, 128)])
@pytest.mark.parametrize("name", SPECTRA)
def test_within_a_thousandth_or_not_at_all(name, m, n, scale):
    W = (scale * with_spectrum(m, n, SPECTRA[name](min(m, n)).tolist())).float()
    for r in (1, 5, 10, 15):
        found = svd._leading(W, r)
        if found is None:  # then the full SVD does it
            assert name not in SURE
            continue
        U, S, Vh = found
        assert (U.shape, S.shape, Vh.shape) == ((m, r), (r,), (r, n)) and torch.all(S[:-1] >= S[1:])
        assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in found)
        eye, room = torch.eye(r), 1e-5
        assert torch.allclose(U.T @ U, eye, atol=room)
        if S.any():
            assert torch.allclose(Vh @ Vh.T, eye, atol=room)
        assert error(W, *found) <= 1.001 * tail(W, r) + 1e-6 * scale * r


def test_an_orthogonal_layer():
    """LAPACK's subset of equal eigenvalues can be empty."""
    W = nn.init.orthogonal_(torch.empty(1024, 1024))
    for r in (1, 100):
        assert error(W, *truncated_svd(W, r)) <= 1.001 * math.sqrt(1024 - r)


def test_where_the_energy_of_the_tail_is_lost_in_rounding_the_full_svd_is_taken():
    for name in ("a tall step", "rank 10"):
        W = with_spectrum(128, 160, SPECTRA[name](128).tolist()).float()
        assert svd._leading(W, 10) is None


@pytest.mark.parametrize(
    ("shape", "rank", "dtype", "fast"),
    [
        ((1024, 1024), 128, torch.float32, True),
        ((1024, 1100), 16, torch.float32, True),
        ((1100, 1024), 1, torch.float32, True),
        ((1024, 1024), 129, torch.float32, False),
        ((1023, 2048), 8, torch.float32, False),
        ((1024, 1024), 8, torch.float64, False),
        ((1024, 1024), 8, torch.bfloat16, False),
    ],
)
def test_when_it_is_taken(monkeypatch, shape, rank, dtype, fast):
    m, n = shape
    taken = []

    def leading(W, r):
        taken.append("fast")
        return torch.ones(m, r), torch.ones(r), torch.ones(r, n)

    def thin(W):
        taken.append("full")
        return torch.ones(m, min(m, n)), torch.ones(min(m, n)), torch.ones(min(m, n), n)

    monkeypatch.setattr(svd, "_leading", leading)
    monkeypatch.setattr(svd, "thin_svd", thin)
    truncated_svd(torch.zeros(shape, dtype=dtype), rank)
    assert taken == (["fast"] if fast else ["full"])
    monkeypatch.setattr(svd, "_leading", lambda W, r: taken.append("in vain"))
    truncated_svd(torch.zeros(shape, dtype=dtype), rank)
    assert taken[1:] == (["in vain", "full"] if fast else ["full"])


def test_a_large_layer():
    """Random entries: neighbouring values are all but equal. The error is known from the energy kept."""
    torch.manual_seed(0)
    W = torch.randn(1024, 1040) / math.sqrt(1040)
    kept = W.clone()
    U, S, Vh = truncated_svd(W, 32)
    assert torch.equal(W, kept)
    best = torch.lobpcg(W @ W.T, k=32, niter=200, tol=1e-4)[0].double().sum()
    assert error(W, U, S, Vh) ** 2 <= 1.002 * float(W.double().square().sum() - best)
    rows = U.abs().argmax(0)
    assert torch.all(U[rows, torch.arange(32)] > 0)  # signs as everywhere
    assert U.untyped_storage().nbytes() == 4 * 1024 * 32 and Vh.untyped_storage().nbytes() == 4 * 1040 * 32
