"""Data-aware factors: the error of the output itself, on the samples, against the closed form's optimum."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from oracles import SHAPES, eps, snapshot, truncated
from torch import Tensor, nn

from lowrank_utils import Moments, calibrate, compress, weighted_factors
from lowrank_utils.factors.weighted import plain_factors

D = torch.float64
KINDS = ("full", "correlated", "rank-deficient", "one moves", "constant")


def inputs(kind: str, N: int, n: int, rng: np.random.Generator) -> np.ndarray:
    z, offset = rng.standard_normal((N, n)), rng.standard_normal(n)
    if kind == "correlated":
        z = z * np.logspace(0, -3, n) @ rng.standard_normal((n, n))
    if kind == "rank-deficient":
        k = (n + 1) // 2
        z = z[:, :k] @ rng.standard_normal((k, n))
    if kind == "one moves":
        z[:, 1:] = 0
    return offset + (0 * z if kind == "constant" else z)


def moments_of(x: np.ndarray, g: np.ndarray | None = None) -> Moments:
    C = np.cov(x.T, bias=True).reshape(x.shape[1], x.shape[1])
    G = None if g is None else torch.from_numpy(g.T @ g / len(g))
    return Moments(len(x), len(x), torch.from_numpy(x.mean(0)), torch.from_numpy(C), G)


def output_error(W, A, B, change, x, g=None, damping=0.0):
    """E ||(Wx) - (ABx + change)||^2 over the samples, or E of its square in the directions of all g."""
    miss = x @ (W - A @ B).T - change  # (N, m)
    if g is None:
        return float((miss**2).sum() / len(x))
    G = g.T @ g / len(g)
    G = G + damping * np.trace(G) / len(G) * np.eye(len(G))
    return float(np.einsum("ni,ij,nj->", miss, G, miss) / len(x))


def numpy_factors(W, moments, rank, **options):
    found = weighted_factors(torch.from_numpy(W), moments, **options).at(rank)
    return [t.numpy() for t in found]


def optimum(W, x, rank, g=None, damping=0.0):
    """Squared tail of the singular values of L^T W X_c / sqrt(N); L from g by an eigenvalue root."""
    M = W @ (x - x.mean(0)).T / np.sqrt(len(x))
    if g is not None:
        G = g.T @ g / len(g)
        values, vectors = np.linalg.eigh(G + damping * np.trace(G) / len(G) * np.eye(len(G)))
        M = np.sqrt(values.clip(0))[:, None] * vectors.T @ M
    S = np.linalg.svd(M, compute_uv=False)
    return float((S[rank:] ** 2).sum()), float((S**2).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n"), [*SHAPES, (20, 6), (6, 20), (12, 12)])
def test_the_error_is_the_optimum_at_every_rank(m, n, kind):
    rng = np.random.default_rng(m * 100 + n)
    W, x, g = rng.standard_normal((m, n)), inputs(kind, 60, n, rng), rng.standard_normal((60, m))
    for weights in (None, g):
        moments, damping = moments_of(x, weights), 0.0 if weights is None else 1e-3
        for r in range(1, min(m, n) + 1):
            A, B, change = numpy_factors(W, moments, r)
            assert (A.shape, B.shape, change.shape) == ((m, r), (r, n), (m,))
            best, total = optimum(W, x, r, weights, damping)
            # the eigenvectors of a matrix of norm <= total are known to eps; a mean of size 3 is subtracted
            room = 1e3 * eps(D) * max(total, 9 * n)
            assert abs(output_error(W, A, B, change, x, weights, damping) - best) <= room / min(
                damping or 1, 1
            )
        S = weighted_factors(torch.from_numpy(W), moments).S.numpy()
        assert np.all(S[:-1] >= S[1:]) and len(S) == min(m, n)
        for r in range(len(S)):
            assert abs((S[r:] ** 2).sum() - optimum(W, x, r, weights, damping)[0]) <= 1e3 * eps(D) * total


def cases(count):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        m, n, N = rng.integers(1, 16, 2).tolist() + [40]
        W = rng.standard_normal((m, n)) * np.logspace(0, -rng.integers(0, 3), n)
        x, g = inputs(KINDS[seed % 4], N, n, rng), rng.standard_normal((N, m)) * np.logspace(0, -2, m)
        yield W, x, g, int(rng.integers(1, min(m, n) + 1))


def test_never_above_the_svd():
    lower = 0
    for W, x, g, r in cases(300):
        A, B, change = numpy_factors(W, moments_of(x), r)
        ours, W_r = output_error(W, A, B, change, x), truncated(torch.from_numpy(W), r).numpy()
        mean = x.mean(0)
        eye = np.eye(len(W))
        by_svd = output_error(W, eye, W_r, 0 * change, x)
        by_svd_and_bias = output_error(W, eye, W_r, (W - W_r) @ mean, x)
        room = 1e-12 * optimum(W, x, 0)[1]
        assert ours <= by_svd_and_bias + room <= by_svd + 2 * room
        lower += ours < 0.99 * by_svd_and_bias
        # weighted by G, the two-sided ones win; one-sided ones are the cheap setting
        A2, B2, change2 = numpy_factors(W, moments_of(x, g), r, damping=0.0)
        weighted = output_error(W, A2, B2, change2, x, g)
        assert weighted <= output_error(W, A, B, change, x, g) + 1e-9 * optimum(W, x, 0, g)[1]
    assert lower > 150  # otherwise there would be nothing to win


def test_one_sided_factors_fail_in_the_gradients_measure():
    worse = []
    for W, x, g, r in cases(300):
        best, total = optimum(W, x, r, g)
        if best > 1e-3 * total:
            A, B, change = numpy_factors(W, moments_of(x, g), r, two_sided=False)
            worse.append(output_error(W, A, B, change, x, g) / best)
    assert len(worse) > 30 and np.median(worse) > 1.05 and max(worse) > 2


def test_ten_times_below_the_svd_where_inputs_are_rank_deficient():
    """128 inputs that span 16 dimensions: rank 16 is exact, and rank 8 far better."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        W = rng.standard_normal((64, 128)) / 11
        x = rng.standard_normal((500, 16)) @ rng.standard_normal((16, 128)) + rng.standard_normal(128)
        for r, floor in ((14, 10), (15, 20), (16, 1e6)):
            by_svd = output_error(W, np.eye(64), truncated(torch.from_numpy(W), r).numpy(), np.zeros(64), x)
            assert output_error(W, *numpy_factors(W, moments_of(x), r), x) < by_svd / floor


@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize(("m", "n"), [(9, 5), (6, 6), (5, 9)])
def test_a_minimum(m, n, weigh):
    """Slopes vanish, small steps in any direction rise, and neither ALS nor Adam gets below it."""
    rng, r, damping = np.random.default_rng(m), 2, 1e-3 if weigh else 0.0
    W, x = rng.standard_normal((m, n)), inputs("full", 50, n, rng)
    g = rng.standard_normal((50, m)) * np.logspace(0, -1, m) if weigh else None
    found = numpy_factors(W, moments_of(x, g), r)
    least = output_error(W, *found, x, g, damping)

    h = 1e-4
    for i, t in enumerate(found):
        for at in np.ndindex(t.shape):
            values = []
            for sign in (1, -1):
                moved = [f.copy() for f in found]
                moved[i][at] += sign * h
                values.append(output_error(W, *moved, x, g, damping))
            assert abs(values[0] - values[1]) / (2 * h) < 1e-6 * max(1, least)
            assert min(values) >= least * (1 - 1e-12)
    for _ in range(200):
        step = 10 ** rng.uniform(-6, 0)
        moved = [f + step * rng.standard_normal(f.shape) for f in found]
        assert output_error(W, *moved, x, g, damping) >= least * (1 - 1e-12)

    G = torch.eye(m, dtype=D) if g is None else torch.from_numpy(g.T @ g / 50)
    G = G + damping * G.trace() / m * torch.eye(m, dtype=D)
    Wt, xt = torch.from_numpy(W), torch.from_numpy(x)

    def loss(A: Tensor, B: Tensor, change: Tensor) -> Tensor:
        miss = xt @ (Wt - A @ B).T - change
        return (miss @ G * miss).sum() / 50

    for seed in range(2):
        torch.manual_seed(seed)
        free = [torch.randn(t.shape, dtype=D, requires_grad=True) for t in found]
        optimizer = torch.optim.Adam(free, lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            value = loss(*free)
            value.backward()
            optimizer.step()
        assert value.item() >= least * (1 - 1e-9)
    G, C, mean, by_als = G.numpy(), np.cov(x.T, bias=True), x.mean(0), []
    for _ in range(3):  # alternating least squares from a random start: each half is solved exactly
        B = rng.standard_normal((r, n))
        for _ in range(300):
            A = W @ C @ B.T @ np.linalg.pinv(B @ C @ B.T)
            B = np.linalg.pinv(A.T @ G @ A) @ A.T @ G @ W
        by_als.append(output_error(W, A, B, (W - A @ B) @ mean, x, g, damping))
    assert min(by_als) >= least * (1 - 1e-9)
    assert min(by_als) <= least * (1 + 1e-3)  # it comes near: the comparison is sharp


@pytest.mark.parametrize("k", [1, 3, 7])
def test_a_singular_G(k):
    """Gradients that span k of 7 dimensions, undamped: what they do not see costs next to nothing."""
    rng = np.random.default_rng(k)
    W, x = rng.standard_normal((7, 9)), rng.standard_normal((60, 9))
    g = rng.standard_normal((60, k)) @ rng.standard_normal((k, 7))
    for r in range(1, 8):
        A, B, change = numpy_factors(W, moments_of(x, g), r, damping=0.0)
        best, total = optimum(W, x, r, g)
        # the ridge is 7 eps of the mean diagonal; its root divides what rounding makes of the factors
        assert output_error(W, A, B, change, x, g) - best <= 1e-6 * total


@pytest.mark.parametrize("damping", [0.0, 1e-6, 1e-3, 1.0, 1e6])
def test_damping_is_relative_to_the_mean_diagonal(damping):
    rng = np.random.default_rng(0)
    W, x, g = rng.standard_normal((5, 7)), rng.standard_normal((60, 7)), rng.standard_normal((60, 5))
    for scale in (1.0, 1e-8, 1e8):
        factors = weighted_factors(torch.from_numpy(W), moments_of(x, scale * g), damping=damping)
        got = (factors.S**2).sum()
        assert abs(got / optimum(W, x, 0, scale * g, damping)[1] - 1) < 1e-10
    if damping == 1e6:  # then G is the identity
        A, B, _ = numpy_factors(W, moments_of(x, g), 2, damping=damping)
        A1, B1, _ = numpy_factors(W, moments_of(x), 2)
        assert np.allclose(A @ B, A1 @ B1, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype_is_computed_in_float64(dtype):
    W, x = torch.randn(5, 6).to(dtype), np.random.default_rng(0).standard_normal((30, 6))
    A, B, change = weighted_factors(W, moments_of(x)).at(5)
    assert A.dtype == B.dtype == change.dtype == D
    assert torch.allclose(A @ B, W.double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["rank-deficient", "one moves", "constant"])
@pytest.mark.parametrize(("m", "n"), [(12, 9), (9, 9), (9, 12)])
def test_a_singular_covariance_gives_zeros_and_no_nan(m, n, kind):
    """Some of its eigenvalues are below zero by rounding, and so are those of W C W^T."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        W, x = torch.from_numpy(rng.standard_normal((m, n))), inputs(kind, 40, n, rng)
        found = weighted_factors(W, moments_of(x)).S
        assert bool((found >= 0).all()) and bool(found.isfinite().all())


def test_the_default_damping_is_a_thousandth_and_both_sides_count():
    rng = np.random.default_rng(1)
    W, x, g = rng.standard_normal((5, 7)), rng.standard_normal((60, 7)), rng.standard_normal((60, 5))
    W[0] *= 100  # of the five outputs this one weighs most, and the gradients see it least
    g[:, 0] *= 1e-3
    found = weighted_factors(torch.from_numpy(W), moments_of(x, g)).S
    assert abs((found**2).sum() / optimum(W, x, 0, g, 1e-3)[1] - 1) < 1e-10
    for damping in (0.9e-3, 1.1e-3):
        assert abs((found**2).sum() / optimum(W, x, 0, g, damping)[1] - 1) > 1e-2  # so the test can fail


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, D])
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_plain_factors_are_the_truncated_svd(m, n, dtype):
    W = torch.from_numpy(np.random.default_rng(0).standard_normal((m, n))).to(dtype)
    kept = W.clone()
    found = plain_factors(W)
    assert found.are_of(W) and not found.are_of(W + 1)
    W.zero_()  # the factors hold a copy
    assert found.are_of(kept) and not found.are_of(W)
    # float16 is factored in double, float64 by LAPACK: eps of the norm, which is below m n
    room = 10 * eps(D) / 1e-8 if dtype != D else 10 * eps(D) * m * n
    spectrum = np.linalg.svd(kept.double().numpy(), compute_uv=False)
    assert np.abs(found.S.numpy() - spectrum).max() <= room and found.S.dtype == D
    for r in range(1, min(m, n) + 1):
        A, B, change = found.at(r)
        assert (A.shape, B.shape) == ((m, r), (r, n)) and A.dtype == B.dtype == D
        assert float((A @ B - truncated(kept, r)).norm()) <= room
        assert torch.equal(change, torch.zeros(m, dtype=D))


def test_weighted_factors_hold_a_copy():
    """Neither a float64 weight that is trained on nor moments that go on change what was decomposed."""
    rng = np.random.default_rng(0)
    W, x = torch.from_numpy(rng.standard_normal((4, 6))), rng.standard_normal((30, 6))
    moments = moments_of(x)
    kept, found = W.clone(), weighted_factors(W, moments)
    before = found.at(2)
    W.zero_()
    moments.add(torch.full((9, 6), 5.0))  # in float32
    assert float(moments.mean.min()) > 0.5
    assert found.are_of(kept) and not found.are_of(W)
    assert all(torch.equal(a, b) for a, b in zip(found.at(2), before, strict=True))
    A, B, _ = found.at(4)
    assert torch.allclose(A @ B, kept, rtol=0, atol=1e-12)


def test_what_was_found_cannot_be_set_anew():
    found = plain_factors(torch.eye(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.S = torch.zeros(3)


def test_arguments_stay():
    rng = np.random.default_rng(0)
    W = torch.from_numpy(rng.standard_normal((4, 6))).requires_grad_()
    moments = moments_of(rng.standard_normal((30, 6)), rng.standard_normal((30, 4)))
    kept = [t.clone() for t in (W, moments.mean, moments.covariance, moments.gradient)]
    A, B, change = weighted_factors(W, moments).at(4)
    A.zero_(), B.zero_(), change.zero_()
    for t, k in zip((W, moments.mean, moments.covariance, moments.gradient), kept, strict=True):
        assert torch.equal(t, k)


@pytest.mark.parametrize("pivoted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_compress_with_moments_has_that_error(bias, pivoted):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 7, bias=bias)).double()
    X = 1 + torch.randn(80, 9, dtype=D) @ torch.randn(9, 9, dtype=D)
    moments = calibrate(net, X, target="inputs")
    before = snapshot(net, X)
    W = net[0].weight.detach().numpy()
    for r in range(1, 7):
        small = compress(net, {"0": r}, moments=moments, pivoted=pivoted)
        with torch.no_grad():
            error = float((small(X) - net(X)).square().sum() / 80)
        best, total = optimum(W, X.numpy(), r)
        assert abs(error - best) <= 1e-12 * total
        with torch.no_grad():
            assert float((compress(net, {"0": r})(X) - net(X)).square().sum() / 80) > 1.05 * best
    assert snapshot(net, X) == before


GOOD = moments_of(np.random.default_rng(0).standard_normal((9, 3)))


@pytest.mark.parametrize(
    ("W", "options", "rank", "error", "message"),
    [
        (
            torch.ones(2, 4),
            {},
            1,
            ValueError,
            "moments.covariance=Tensor(shape=(3, 3), dtype=torch.float64) must",
        ),
        (torch.ones(2, 3), {"damping": -1.0}, 1, ValueError, "damping=-1.0 must be a finite number >= 0"),
        (torch.ones(2, 3), {"damping": None}, 1, TypeError, "damping=None must be a finite number >= 0"),
        (torch.ones(2, 3), {}, 0, ValueError, "rank=0 must be an integer from 1 to 2"),
        (torch.ones(2, 3), {}, 3, ValueError, "rank=3 must be an integer from 1 to 2"),
        (torch.ones(2, 3), {}, 1.0, TypeError, "rank=1.0 must be an integer from 1 to 2"),
        (
            torch.full((2, 3), torch.nan),
            {},
            1,
            ValueError,
            "W of shape (2, 3) has 6 entries that are nan or inf",
        ),
        (
            torch.ones(2, 3, dtype=torch.int64),
            {},
            1,
            TypeError,
            "W=Tensor(shape=(2, 3), dtype=torch.int64) must",
        ),
        (
            torch.ones(3),
            {},
            1,
            ValueError,
            "W=Tensor(shape=(3,), dtype=torch.float32) must be a non-empty matrix",
        ),
    ],
)
def test_impossible_requests(W, options, rank, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        weighted_factors(W, GOOD, **options).at(rank)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"gradient": torch.eye(4, dtype=D)},
            "moments.gradient=Tensor(shape=(4, 4), dtype=torch.float64) must be of shape (2, 2)",
        ),
        (
            {"gradient": torch.full((2, 2), torch.nan, dtype=D)},
            "moments.gradient of shape (2, 2) has 4 entries that are nan",
        ),
        (
            {"mean": torch.zeros(4, dtype=D)},
            "moments.mean=Tensor(shape=(4,), dtype=torch.float64) must be finite and of",
        ),
        (
            {"mean": torch.full((3,), torch.inf, dtype=D)},
            "moments.mean=Tensor(shape=(3,), dtype=torch.float64) must be",
        ),
        (
            {"covariance": torch.full((3, 3), torch.nan, dtype=D)},
            "moments.covariance of shape (3, 3) has 9 entries",
        ),
        (
            {"covariance": torch.eye(2, dtype=D)},
            "moments.covariance=Tensor(shape=(2, 2), dtype=torch.float64) must be",
        ),
    ],
)
def test_moments_that_do_not_fit(changes, message):
    moments = Moments(1, 1, torch.zeros(3, dtype=D), torch.eye(3, dtype=D), torch.eye(2, dtype=D))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        weighted_factors(torch.ones(2, 3), dataclasses.replace(moments, **changes))


def test_moments_in_single_precision_are_taken_in_double():
    single = Moments(1, 1, torch.arange(3.0), torch.diag(torch.arange(3.0)), torch.diag(torch.ones(2)))
    double = Moments(1, 1, single.mean.double(), single.covariance.double(), single.gradient.double())
    W = torch.randn(2, 3)
    pairs = zip(weighted_factors(W, single).at(1), weighted_factors(W, double).at(1), strict=True)
    assert all(torch.equal(a, b) and a.dtype == D for a, b in pairs)
