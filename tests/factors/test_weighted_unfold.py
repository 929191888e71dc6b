"""Each form's data-aware factors: the optimum of the norm that is told, and no competitor below it."""

import math

import numpy as np
import pytest
import torch
from oracles import DTYPES, PATCHES, covariance_of, eps, kernel_of, work_eps

from lowrank_utils.factors.unfold import compose, factor_shapes, kernel_factors, largest_rank
from lowrank_utils.factors.weighted_unfold import (
    channel_covariance,
    tap_covariance,
    weighted_kernel_factors,
)

CLOSED = ("channel", "input", "kernel")
SHAPES = [(7, 4, 5), (4, 7, 3), (5, 5, 2, 3), (3, 4, 2, 2, 2), (1, 3, 4), (4, 1, 3), (2, 3, 1)]


def by_loops(Sigma, n):
    """C and T, entry by entry."""
    S = Sigma.numpy()
    K = len(S) // n
    C, T = np.zeros((n, n)), np.zeros((K, K))
    for i in range(n):
        for t in range(K):
            for j in range(n):
                C[i, j] += S[i * K + t, j * K + t] / K
            for s in range(K):
                T[t, s] += S[i * K + t, i * K + s] / n
    return C, T


def problem(W, Sigma, form):
    """The matrix of the form, with what is weighed along its second axis, and the weight."""
    n = W.shape[1]
    C, T = by_loops(Sigma, n)
    A = W.flatten(2).numpy()
    if form == "input":
        return A.transpose(0, 2, 1).reshape(-1, n), C
    return (A.reshape(-1, A.shape[2]), T) if form == "kernel" else (A.reshape(len(A), -1), Sigma.numpy())


def lost(E, S):
    return float(np.einsum("pi,ij,pj->", E, S, E))


def ranks(shape, form):
    top = largest_rank(shape, form)
    return sorted({1, (top + 1) // 2, top})


@pytest.mark.parametrize("shape", SHAPES)
def test_covariances_entry_by_entry(shape):
    Sigma = covariance_of(shape, "skewed")
    C, T = by_loops(Sigma, shape[1])
    assert np.allclose(channel_covariance(Sigma, shape[1]), C, rtol=1e-13)
    assert np.allclose(tap_covariance(Sigma, shape[1]), T, rtol=1e-13)
    power = Sigma.trace()
    assert float(C.trace()) * math.prod(shape[2:]) == pytest.approx(float(power))
    assert float(T.trace()) * shape[1] == pytest.approx(float(power))


@pytest.mark.parametrize("kind", PATCHES)
@pytest.mark.parametrize("form", CLOSED)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_optimum_and_no_competitor_below_it(shape, form, kind):
    W, Sigma = kernel_of(shape), covariance_of(shape, kind)
    A, S = problem(W, Sigma, form)
    values, vectors = np.linalg.eigh(S)
    spectrum = np.linalg.svd(A @ vectors * np.sqrt(values.clip(0)), compute_uv=False)
    room = 1e3 * eps(torch.float64) * max((spectrum**2).sum(), np.finfo(float).tiny)
    rng = np.random.default_rng(3)
    for r in ranks(shape, form):
        kernels = weighted_kernel_factors(W, r, form, Sigma)
        assert [tuple(K.shape) for K in kernels] == factor_shapes(shape, r, form)
        made, _ = problem(compose(kernels, form), Sigma, form)
        assert np.linalg.matrix_rank(made, tol=1e-10 * np.linalg.norm(made)) <= r
        got = lost(A - made, S)
        assert abs(got - (spectrum[r:] ** 2).sum()) <= room
        plain, _ = problem(compose(kernel_factors(W, r, form), form), Sigma, form)
        assert got <= lost(A - plain, S) + room
        for size in (1e-4, 1e-2, 1.0):
            left, right = (rng.standard_normal(s) for s in ((len(A), r), (r, A.shape[1])))
            near = made + size * left @ right  # a competitor: cut to the rank again
            U, s, Vh = np.linalg.svd(near, full_matrices=False)
            assert lost(A - (U[:, :r] * s[:r]) @ Vh[:r], S) >= got - room
    if kind == "skewed" and min(A.shape) > 2:
        r = ranks(shape, form)[0]
        plain, _ = problem(compose(kernel_factors(W, r, form), form), Sigma, form)
        assert lost(A - plain, S) > 1.01 * (spectrum[r:] ** 2).sum()  # the weight is needed


@pytest.mark.parametrize("form", ["input", "kernel"])
def test_the_norm_is_the_error_of_the_outputs_where_it_is_said_to_be(form):
    shape, rng = (5, 4, 6), np.random.default_rng(0)
    part = rng.standard_normal((4, 4) if form == "input" else (6, 6))
    part = part @ part.T
    Sigma = np.kron(part, np.eye(6)) if form == "input" else np.kron(np.eye(4), part)
    W = kernel_of(shape)
    E = W - compose(weighted_kernel_factors(W, 2, form, torch.from_numpy(Sigma)), form)
    mine, S = problem(E, torch.from_numpy(Sigma), form)
    assert lost(E.flatten(1).numpy(), Sigma) == pytest.approx(lost(mine, S))


@pytest.mark.parametrize("form", [*CLOSED, "tucker2"])
@pytest.mark.parametrize("shape", SHAPES)
def test_uncorrelated_patches_give_the_plain_form(shape, form):
    W, size = kernel_of(shape), math.prod(shape[1:])
    top = largest_rank(shape, form)
    rank = tuple((t + 1) // 2 for t in top) if form == "tucker2" else (top + 1) // 2
    Sigma = 3.0 * torch.eye(size, dtype=torch.float64)
    got, plain = (
        float((W - compose(kernels, form)).norm())
        for kernels in (weighted_kernel_factors(W, rank, form, Sigma), kernel_factors(W, rank, form))
    )
    room = 1e-12 * float(W.norm())
    assert got <= plain + room and (form == "tucker2" or got >= plain - room)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [*CLOSED, "tucker2"])
def test_full_rank_loses_nothing_in_any_dtype(form, dtype):
    shape = (6, 4, 3)
    W = kernel_of(shape).to(dtype)
    rank = largest_rank(shape, form)
    for kind in PATCHES:
        kernels = weighted_kernel_factors(W, rank, form, covariance_of(shape, kind))
        assert all(K.dtype == dtype and K.is_contiguous() for K in kernels)
        off = (compose([K.double() for K in kernels], form) - W.double()).norm()
        if form != "tucker2" and kind in ("one moves", "constant", "rank-deficient"):
            continue  # below: what no patch shows is free
        # each of three factors of norm ||W||^1/3 .. is rounded once; Cholesky of a condition of 1e3
        assert float(off) <= (24 * eps(dtype) + 1e5 * work_eps(torch.float64)) * float(W.double().norm())


def test_silent_channels_and_taps_take_no_rank():
    """What never moves may hold anything: rank 1 is enough for the rest."""
    W = kernel_of((5, 4, 3))
    heard = torch.zeros(4, 3, dtype=torch.float64)
    heard[1] = 1.0
    made = compose(weighted_kernel_factors(W, 1, "input", heard.flatten().diag()), "input")
    assert torch.allclose(made[:, 1], W[:, 1]) and not torch.allclose(made[:, 0], W[:, 0])
    heard = torch.zeros(4, 3, dtype=torch.float64)
    heard[:, 2] = 1.0
    made = compose(weighted_kernel_factors(W, 1, "kernel", heard.flatten().diag()), "kernel")
    assert torch.allclose(made[..., 2], W[..., 2]) and not torch.allclose(made[..., 0], W[..., 0])


def test_nothing_is_changed_or_aliased():
    for form in (*CLOSED, "tucker2"):
        W, Sigma = kernel_of((4, 3, 2)).requires_grad_(), covariance_of((4, 3, 2), "full")
        kept = W.detach().clone(), Sigma.clone()
        for K in weighted_kernel_factors(W, largest_rank(W.shape, form), form, Sigma):
            assert not K.requires_grad
            K.zero_()
        assert torch.equal(W, kept[0]) and torch.equal(Sigma, kept[1])


ONES, ONE = torch.ones(4, 2, 3), torch.eye(6).double()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((ONES, 0, "channel", ONE), ValueError, "rank=0 must be an integer from 1 to 4"),
        ((ONES, 3, "input", ONE), ValueError, "rank=3 must be an integer from 1 to 2"),
        ((ONES, 1.0, "kernel", ONE), TypeError, "rank=1.0"),
        ((ONES, 1, "tucker2", ONE), TypeError, "must be a pair (r_out, r_in)"),
        ((ONES, 1, "cp", ONE), ValueError, "form='cp' must be one of 'channel', 'input', 'kernel'"),
        ((torch.ones(4, 2, 3, 3), 1, "spatial", ONE), ValueError, "form='spatial' must be one of"),
        ((ONES, 1, "kernel", ONE[:3, :3]), ValueError, "must be of shape (6, 6), the numbers in a patch"),
        (
            (ONES, 1, "kernel", ONE * torch.nan),
            ValueError,
            "covariance of shape (6, 6) has 36 entries that are",
        ),
        ((ONES, (1, 1), "tucker2", ONE * torch.inf), ValueError, "covariance of shape (6, 6) has 36 entries"),
        ((ONES, 1, "input", ONE.numpy()), TypeError, "covariance of type ndarray must be a torch.Tensor"),
        ((ONES, 1, "channel", None), TypeError, "covariance of type NoneType must be a torch.Tensor"),
        ((ONES * torch.inf, 1, "channel", ONE), ValueError, "24 entries that are nan or inf"),
        (([[1.0]], 1, "channel", ONE), TypeError, "W of type list must be a torch.Tensor"),
    ],
)
def test_impossible_requests(arguments, error, said):
    with pytest.raises(error) as caught:
        weighted_kernel_factors(*arguments)
    assert said in str(caught.value)
