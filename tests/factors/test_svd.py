"""Factors against numpy's SVD, errors against the closed form of Eckart and Young."""

import math

import numpy as np
import pytest
import torch
from oracles import DTYPES, HALVES, SHAPES, eps, tail, truncated, with_spectrum, work_eps

from lowrank_utils import low_rank_approximation, relative_error, singular_values, truncated_svd
from lowrank_utils.factors.svd import balanced_factors

FUNCTIONS = [truncated_svd, low_rank_approximation, relative_error]


def matrix(m, n, dtype=torch.float64, seed=0):
    """Singular values k, k - 1, ..., 1: gaps of one, so that every truncation is unique."""
    return with_spectrum(m, n, list(range(min(m, n), 0, -1)), seed).to(dtype)


def ranks(m, n):
    k = min(m, n)
    return sorted({1, (k + 1) // 2, k})


CASES = [(m, n, r, d) for m, n in SHAPES for r in ranks(m, n) for d in DTYPES]


def product(factors):
    U, S, Vh = (f.double() for f in factors)
    return U * S @ Vh


def of_the_svd(W, dtype):
    """||W_r - computed W_r||: a backward error e = eps max(m, n) s_1 turns the spaces by 2 e / gap, gap 1."""
    s1 = float(np.linalg.svd(W.double().numpy(), compute_uv=False)[0])
    return work_eps(dtype) * max(W.shape) * s1 * (1 + 2 * s1)


@pytest.mark.parametrize(("m", "n", "r", "dtype"), CASES)
def test_truncated_svd_is_numpys(m, n, r, dtype):
    W = matrix(m, n, dtype)
    U, S, Vh = truncated_svd(W, r)
    assert (U.shape, S.shape, Vh.shape) == ((m, r), (r,), (r, n))
    assert U.dtype == Vh.dtype == dtype
    assert S.dtype == (torch.float32 if dtype == torch.float16 else dtype)  # float16 ends at 65504
    rounded = 1.5 * eps(dtype) * math.sqrt(r) * min(m, n)  # half an eps for each of three factors
    assert torch.linalg.norm(product((U, S, Vh)) - truncated(W, r)) <= of_the_svd(W, dtype) + rounded
    wanted = np.linalg.svd(W.double().numpy(), compute_uv=False)[:r]
    assert np.abs(S.double().numpy() - wanted).max() <= of_the_svd(W, dtype) + eps(dtype) * wanted[0]
    orthonormal = eps(dtype) * (max(m, n) + 2) * r
    for Q in (U.double(), Vh.double().T):
        assert torch.linalg.norm(Q.T @ Q - torch.eye(r)) <= orthonormal


@pytest.mark.parametrize(("m", "n", "r", "dtype"), CASES)
def test_low_rank_approximation_is_numpys(m, n, r, dtype):
    W = matrix(m, n, dtype)
    Wr = low_rank_approximation(W, r)
    assert Wr.shape == (m, n) and Wr.dtype == dtype
    rounded = eps(dtype) / 2 * float(torch.linalg.norm(truncated(W, r)))
    assert torch.linalg.norm(Wr.double() - truncated(W, r)) <= of_the_svd(W, dtype) + rounded
    if dtype not in HALVES:  # rounding to half precision makes the rank full again
        assert torch.linalg.matrix_rank(Wr) == r


@pytest.mark.parametrize(("m", "n", "r", "dtype"), CASES)
def test_relative_error_is_the_tail(m, n, r, dtype):
    W = matrix(m, n, dtype)
    norm = float(torch.linalg.norm(W.double()))
    got = relative_error(W, r)
    assert type(got) is float
    assert abs(got - tail(W, r) / norm) <= 4 * eps(torch.float64) * max(m, n)
    missed = torch.linalg.norm(W.double() - truncated(W, r)) / norm
    assert abs(got - float(missed)) <= 4 * eps(torch.float64) * max(m, n)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("m", "n"), [(9, 4), (6, 6), (4, 9)])
def test_no_other_matrix_of_that_rank_is_nearer(m, n, seed):
    torch.manual_seed(seed)
    W, r = torch.randn(m, n, dtype=torch.float64), 2
    best = torch.linalg.norm(W - low_rank_approximation(W, r))
    assert abs(best - tail(W, r)) <= 8 * eps(torch.float64) * max(m, n) * torch.linalg.norm(W, 2)
    U, S, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    other = torch.from_numpy((U[:, 1:3] * S[1:3]) @ Vh[1:3])  # the wrong two triplets
    assert torch.linalg.norm(W - other) > best
    A, B = torch.randn(m, r, dtype=torch.float64), torch.randn(r, n, dtype=torch.float64)
    for _ in range(20):  # alternating least squares comes near, and never below
        B = torch.linalg.lstsq(A, W).solution
        A = torch.linalg.lstsq(B.T, W.T).solution.T
        assert torch.linalg.norm(W - A @ B) >= best * (1 - 100 * eps(torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(6, 4), (4, 4), (4, 6)])
def test_zero_matrix(m, n, dtype):
    W = torch.zeros(m, n, dtype=dtype)
    for r in (1, 4):
        assert torch.equal(low_rank_approximation(W, r), W)
        assert torch.equal(truncated_svd(W, r)[1], torch.zeros(r, dtype=dtype))
        assert relative_error(W, r) == 0.0
    assert torch.equal(singular_values(W), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 5), (5, 7)])
def test_rank_deficient_matrix(m, n, dtype):
    W = with_spectrum(m, n, [4.0, 2.0, 0.0, 0.0, 0.0]).to(dtype)
    noise = eps(dtype) * math.sqrt(m * n) * 4.0
    for r in (2, 3, 5):
        assert torch.linalg.norm(low_rank_approximation(W, r).double() - W.double()) <= 2 * noise
        assert relative_error(W, r) <= noise
    assert relative_error(W, 1) == pytest.approx(math.sqrt(4 / 20), abs=2 * noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n"), [(8, 5), (5, 5), (5, 8)])
def test_repeated_singular_values(m, n, dtype):
    """W_2 is not unique here, but its error is."""
    W = with_spectrum(m, n, [3.0, 3.0, 3.0, 1.0, 1.0]).to(dtype)
    for r, left in ((1, 20.0), (2, 11.0), (3, 2.0), (4, 1.0), (5, 0.0)):
        missed = torch.linalg.norm(W.double() - low_rank_approximation(W, r).double())
        # LAPACK promises p(n) eps ||W||_F with a modest p; 3.7 n was seen over three processors
        room = 10 * eps(dtype) * max(m, n) * math.sqrt(29)
        assert abs(float(missed) - math.sqrt(left)) <= room
        assert abs(relative_error(W, r) - math.sqrt(left / 29)) <= room


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e200])
def test_relative_error_has_no_scale(factor):
    W = matrix(6, 4)
    assert relative_error(factor * W, 2) == pytest.approx(math.sqrt(5 / 30), rel=1e-13)


def test_a_half_precision_product_does_not_overflow():
    W = torch.full((600, 600), 200.0, dtype=torch.float16)  # s_1 = 120000 is beyond float16
    assert torch.allclose(low_rank_approximation(W, 1), W, rtol=eps(torch.float16), atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_singular_values_are_float64_and_sorted(dtype):
    W = matrix(7, 4, dtype)
    S = singular_values(W)
    assert S.dtype == torch.float64 and S.shape == (4,)
    wanted = np.linalg.svd(W.double().numpy(), compute_uv=False)
    assert np.abs(S.numpy() - wanted).max() <= 4 * eps(torch.float64) * 7 * wanted[0]
    assert (S[:-1] >= S[1:]).all()


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
@pytest.mark.parametrize(
    "least", [0.5, 1.1e-4, 0.9e-4, 1.1e-5, 1e-6]
)  # the Gram matrix serves down to 1e-4 s_1
@pytest.mark.parametrize(("m", "n"), [(90, 60), (60, 60), (60, 90)])
def test_singular_values_of_float32_lose_nothing_that_float32_holds(m, n, least, scale):
    W = (scale * with_spectrum(m, n, np.geomspace(1, least, 60).tolist())).float()
    wanted = np.linalg.svd(W.double().numpy(), compute_uv=False)
    assert np.abs(singular_values(W).numpy() / wanted - 1).max() < eps(torch.float32) / 4
    gram = W.double().numpy() / wanted[0] @ W.double().numpy().T / wanted[0]
    cheap = np.sqrt(np.linalg.eigvalsh(gram.astype(np.float32)).clip(0))[::-1][:60] * wanted[0]
    assert least == 0.5 or np.abs(cheap / wanted - 1).max() > 1e-3  # a float32 Gram matrix would not do


@pytest.mark.parametrize(("m", "n"), [(90, 60), (60, 60), (60, 90)])
def test_singular_values_of_float64_are_lapacks(m, n):
    """All to a few eps of the largest; a Gram matrix would lose eps s_1^2 / s_k, a thousand times as much."""
    W = with_spectrum(m, n, np.geomspace(1, 2e-4, 60).tolist())
    wanted = np.linalg.svd(W.numpy(), compute_uv=False)
    assert np.abs(singular_values(W).numpy() - wanted).max() <= 60 * eps(torch.float64)


@pytest.mark.parametrize(
    ("diagonal", "errors"),
    [([4.0, 3.0, 0.0], [0.6, 0.0, 0.0]), ([1.0, 1.0], [math.sqrt(0.5), 0.0]), ([5.0, 0.0], [0.0, 0.0])],
)
def test_relative_error_of_a_diagonal_matrix(diagonal, errors):
    """Zeros among the singular values, and ones, are exact here."""
    for dtype in (torch.float32, torch.float64):
        W = torch.diag(torch.tensor(diagonal, dtype=dtype))
        got = [relative_error(W, r) for r in range(1, len(diagonal) + 1)]
        assert got == pytest.approx(errors, rel=4 * eps(torch.float64), abs=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_sign_is_a_rule_and_not_lapacks_mood(seed):
    torch.manual_seed(seed)
    W = torch.randn(8, 6, dtype=torch.float64)
    U, S, Vh = truncated_svd(W, 6)
    assert (U.gather(0, U.abs().argmax(0, keepdim=True)) > 0).all()
    minus = truncated_svd(-W, 6)
    assert torch.allclose(minus[0], U, atol=1e-12) and torch.allclose(minus[2], -Vh, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 5), (5, 7)])
def test_balanced_factors_share_the_singular_values(m, n, dtype):
    W = matrix(m, n, dtype)
    for r in ranks(m, n):
        A, B = balanced_factors(W, r)
        assert (A.shape, B.shape) == ((m, r), (r, n)) and A.dtype == B.dtype == dtype
        room = of_the_svd(W, dtype) + 2 * eps(dtype) * r * 5  # two roundings of a product of norm 5
        assert torch.linalg.norm(A.double() @ B.double() - truncated(W, r)) <= room
        S = torch.diag(torch.from_numpy(np.linalg.svd(W.double().numpy(), compute_uv=False)[:r].copy()))
        for Gram in (A.double().T @ A.double(), B.double() @ B.double().T):
            assert torch.linalg.norm(Gram - S) <= room * 2


def test_new_storage_as_small_as_its_tensor():
    W = torch.randn(40, 30)
    for factor in truncated_svd(W, 3):
        assert factor.untyped_storage().nbytes() == factor.numel() * 4
        assert factor.is_contiguous() or factor.T.is_contiguous()
    whole = torch.linalg.svd(W, full_matrices=False)[0][:, :3]
    assert whole.untyped_storage().nbytes() == 40 * 30 * 4  # the trap: a view keeps, and saves, all of it


def test_the_argument_is_left_alone():
    W = torch.nn.Parameter(matrix(5, 4))
    before = W.detach().clone()
    results = [*truncated_svd(W, 4), low_rank_approximation(W, 4), singular_values(W)]
    for result in results:
        assert not result.requires_grad
        assert result.untyped_storage().data_ptr() != W.untyped_storage().data_ptr()
        result.zero_()
    assert torch.equal(W.detach(), before) and W.requires_grad


def test_a_strided_matrix_is_as_good():
    W = matrix(8, 10)
    view = W.T[::2, 1:]
    assert torch.allclose(low_rank_approximation(view, 2), truncated(view, 2), atol=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("rank", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (4, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        (math.nan, TypeError),
        (math.inf, TypeError),
        ("1", TypeError),
        (None, TypeError),
        (1.0, TypeError),
    ],
)
def test_impossible_ranks(function, rank, error):
    with pytest.raises(error) as caught:
        function(torch.ones(5, 3), rank)
    message = f"rank={rank!r} must be an integer from 1 to 3 (min(m, n) of a 5 x 3 matrix)"
    assert str(caught.value) == message


@pytest.mark.parametrize("function", [*FUNCTIONS, lambda W, _: singular_values(W)])
@pytest.mark.parametrize(
    ("W", "error", "parts"),
    [
        (torch.ones(3), ValueError, ("W=", "(3,)", "(m, n)")),
        (torch.ones(2, 2, 2), ValueError, ("W=", "(2, 2, 2)", "(m, n)")),
        (torch.ones(0, 2), ValueError, ("W=", "(0, 2)", "non-empty")),
        (torch.full((2, 2), math.nan), ValueError, ("W ", "(2, 2)", "4 entries", "finite")),
        (torch.tensor([[1.0, math.inf]]), ValueError, ("W ", "(1, 2)", "1 entries", "finite")),
        (torch.ones(2, 2, dtype=torch.int32), TypeError, ("W=", "torch.int32", "floating")),
        (np.ones((2, 2)), TypeError, ("W ", "ndarray", "torch.Tensor")),
    ],
)
def test_impossible_matrices(function, W, error, parts):
    with pytest.raises(error) as caught:
        function(W, 1)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
