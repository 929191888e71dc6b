"""The SVD of float32 matrices, made in float64: at the optimum for every spectrum, scale, shape and rank."""

import math

import numpy as np
import pytest
import torch
from oracles import eps, with_spectrum
from torch import nn

from lowrank_utils import truncated_svd
from lowrank_utils.factors import svd

SPECTRA = {
    "flat": lambda k: np.ones(k),
    "slow": lambda k: 1 / np.sqrt(np.arange(1, k + 1)),
    "harmonic": lambda k: 1 / np.arange(1, k + 1),
    "fast": lambda k: 0.8 ** np.arange(k),
    "very fast": lambda k: 0.3 ** np.arange(k),
    "to a hundred-thousandth": lambda k: np.geomspace(1, 1.2e-5, k),
    "a step": lambda k: np.where(np.arange(k) < 10, 1.0, 1e-2),
    "a tall step": lambda k: np.where(np.arange(k) < 10, 1.0, 1e-5),
    "two spikes": lambda k: np.where(np.arange(k) < 2, 1.0, 1e-8),
    "one large": lambda k: np.where(np.arange(k) < 1, 1e4, 1.0),
    "rank 10": lambda k: np.where(np.arange(k) < 10, 1.0, 0.0),
    "zero": lambda k: np.zeros(k),
}
SHAPES = [(160, 120), (120, 160), (128, 128), (4, 10), (10, 4), (1, 5), (5, 1)]


def excess(W, U, S, Vh):
    """How far U S Vh is above the optimum, relative to it, and the optimum relative to ||W||."""
    W, r = W.double(), len(S)
    scale = float(W.abs().max()) or 1.0
    spectrum = np.linalg.svd(W.numpy() / scale, compute_uv=False)
    best, norm = np.sqrt((spectrum[r:] ** 2).sum()), np.sqrt((spectrum**2).sum())
    missed = float(torch.linalg.norm(W / scale - (U * (S / scale)) @ Vh))
    return missed - best, best, norm


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_at_the_optimum_with_orthonormal_factors(name, m, n, scale):
    k = min(m, n)
    W = (scale * with_spectrum(m, n, SPECTRA[name](k).tolist())).float()
    for r in sorted({1, 2, 5, 10, 15, k // 2, k} - {0}):
        if r > k:
            continue
        U, S, Vh = svd.leading_svd(W, r)
        assert (U.shape, S.shape, Vh.shape) == ((m, r), (r,), (r, n))
        assert {U.dtype, S.dtype, Vh.dtype} == {torch.float64}
        assert torch.all(S[:-1] >= S[1:] * (1 - 1e-7)) and torch.all(S >= 0)
        # two rows are orthogonal to eps64 s_1^2 / (s_i s_j), and s_i, s_j > 1e-4 s_1 at each level
        room = 10 * eps(torch.float64) / 1e-8
        for Q in (U, Vh.T):
            assert (Q.T @ Q - torch.eye(r)).abs().max() <= room
        above, best, norm = excess(W, U, S, Vh)
        # a relative 1e-6, down to what joining two levels leaves: rows of 1e-4 s_1 that are orthogonal to
        # eps64 / 1e-8, which is 3e-12 sqrt(k) s_1, a ten-thousandth of what float32 holds
        assert above <= 1e-6 * best + 4 * math.sqrt(k) * eps(torch.float64) * 1e4 * norm


@pytest.mark.parametrize("shape", [(300, 300), (200, 500)])
def test_spikes_over_tiny_entries(shape):
    """A float32 SVD is 0.3 % above the optimum here: the spikes' rounding is as large as the rest."""
    torch.manual_seed(0)
    m, n = shape
    spikes = torch.zeros(shape)
    spikes[3, 5], spikes[7, 1] = 1.0, 0.5
    W = spikes + 1e-8 * torch.randn(shape)
    above, best, _ = excess(W, *svd.leading_svd(W, 2))
    assert above <= 1e-6 * best
    U, S, Vh = (
        t[..., :2] if i < 2 else t[:2] for i, t in enumerate(torch.linalg.svd(W, full_matrices=False))
    )
    assert excess(W, U.double(), S.double(), Vh.double())[0] > 1e-6 * best  # so the test can fail


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_factored_in_double_too(dtype):
    W = with_spectrum(30, 20, SPECTRA["harmonic"](20).tolist()).to(dtype)
    above, best, norm = excess(W, *svd.leading_svd(W, 5))
    assert above <= 1e-6 * best


@pytest.mark.parametrize("name", ["harmonic", "two spikes", "rank 10"])
def test_a_factor_is_rounded_once(name):
    """The float32 factor is the nearest to that of a float64 SVD of the same numbers, almost everywhere."""
    W = with_spectrum(60, 40, SPECTRA[name](40).tolist()).float()
    got = truncated_svd(W, 2)[1]
    wanted = torch.from_numpy(np.linalg.svd(W.double().numpy(), compute_uv=False)[:2])
    assert got.dtype == torch.float32 and torch.equal(got, wanted.float())


def test_float64_keeps_lapacks_svd():
    W = with_spectrum(30, 20, SPECTRA["harmonic"](20).tolist())
    U, S, Vh = svd.leading_svd(W, 4)
    plain = torch.linalg.svd(W, full_matrices=False)
    assert torch.equal(S, plain.S[:4]) and torch.allclose((U * S) @ Vh, (plain.U[:, :4] * S) @ plain.Vh[:4])


def test_an_orthogonal_layer():
    """LAPACK's subset of equal eigenvalues can be empty."""
    W = nn.init.orthogonal_(torch.empty(256, 256))
    for r in (1, 20, 64):
        U, S, Vh = svd.leading_svd(W, r)
        missed = torch.linalg.norm(W.double() - (U * S) @ Vh)
        assert abs(float(missed) - math.sqrt(256 - r)) <= 256 * eps(torch.float32)


def test_a_large_layer():
    """Random entries: neighbouring values are all but equal. The error is known from the energy kept."""
    torch.manual_seed(0)
    W = torch.randn(512, 520) / math.sqrt(520)
    kept = W.clone()
    U, S, Vh = truncated_svd(W, 32)
    assert torch.equal(W, kept)
    above, best, norm = excess(W, U.double(), S.double(), Vh.double())
    # a rounded factor moves the product by 1.5 eps of its norm at most, at right angles to the rest
    assert above <= (1.5 * eps(torch.float32) * norm) ** 2 / best + 1e-6 * best
    rows = U.abs().argmax(0)
    assert torch.all(U[rows, torch.arange(32)] > 0)  # signs as everywhere
    assert U.untyped_storage().nbytes() == 4 * 512 * 32 and Vh.untyped_storage().nbytes() == 4 * 520 * 32
