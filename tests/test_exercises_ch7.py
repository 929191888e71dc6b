"""Chapter 7's judges: right answers in many shapes, and the hint for each mistake that people make."""

import numpy as np
import pytest
import torch
from scipy.stats import t, ttest_rel

from lowrank_utils.exercises import check


def refit(x, h):
    """Covariances, as the chapter writes it."""
    dx, dh = x - x.mean(0), h - h.mean(0)
    C, K = dx.T @ dx / len(x), dh.T @ dx / len(x)
    W = torch.linalg.solve(C, K, left=False)
    return W, h.mean(0) - W @ x.mean(0)


def by_ones(x, h):
    """Least squares with a column of ones."""
    W = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1).to(x)], 1), h).solution.T
    return W[:, :-1], W[:, -1]


def by_numpy(x, h):
    """Pseudo-inverse, numpy arrays, a list."""
    x, h = x.numpy(), h.numpy()
    W = (np.linalg.pinv(x - x.mean(0)) @ (h - h.mean(0))).T
    return [W, h.mean(0) - W @ x.mean(0)]


def unbiased(x, h):
    """Sample covariances divide by N - 1; the ratio does not change."""
    n = x.shape[1]
    joint = torch.cov(torch.cat([x, h], 1).T)
    W = joint[n:, :n] @ torch.linalg.inv(joint[:n, :n])
    return W, (h - x @ W.T).mean(0)


def single(x, h):
    """In single precision."""
    return tuple(part.float() for part in by_ones(x, h))


def no_bias(x, h):
    return refit(x, h)[0], torch.zeros(h.shape[1])


def bias_of_means(x, h):
    return refit(x, h)[0], h.mean(0)


def through_zero(x, h):
    return torch.linalg.lstsq(x, h).solution.T, torch.zeros(h.shape[1])


def diagonal(x, h):
    dx, dh = x - x.mean(0), h - h.mean(0)
    W = dh.T @ dx / len(x) / dx.square().mean(0)
    return W, h.mean(0) - W @ x.mean(0)


def covariance_only(x, h):
    dx, dh = x - x.mean(0), h - h.mean(0)
    W = dh.T @ dx / len(x)
    return W, h.mean(0) - W @ x.mean(0)


def not_inverted(x, h):
    dx = x - x.mean(0)
    W = covariance_only(x, h)[0] @ (dx.T @ dx / len(x))
    return W, h.mean(0) - W @ x.mean(0)


def half_centred(x, h):
    dx, dh = x - x.mean(0), h - h.mean(0)
    W = torch.linalg.solve(x.T @ x, dh.T @ dx, left=False)
    return W, h.mean(0) - W @ x.mean(0)


def ridged(x, h):
    dx, dh = x - x.mean(0), h - h.mean(0)
    C = dx.T @ dx / len(x)
    C = C + 1e-3 * C.diagonal().mean() * torch.eye(len(C)).to(C)
    W = torch.linalg.solve(C, dh.T @ dx / len(x), left=False)
    return W, h.mean(0) - W @ x.mean(0)


def in_place(x, h):
    x -= x.mean(0)
    return refit(x, h)


def balanced(A, B):
    """By the SVD of the product, S shared."""
    U, S, Vh = torch.linalg.svd(A @ B, full_matrices=False)
    root = S[: len(B)].sqrt()
    return U[:, : len(B)] * root, root[:, None] * Vh[: len(B)]


def rotated(A, B):
    """Any rotation between balanced factors leaves them balanced."""
    P, Q = balanced(A, B)
    turn = torch.linalg.qr(torch.randn(len(B), len(B), dtype=P.dtype))[0]
    return P @ turn, turn.T @ Q


def by_qr(A, B):
    """Never forms the product; numpy, a list."""
    Qa, Ra = np.linalg.qr(A.numpy())
    Qb, Rb = np.linalg.qr(B.numpy().T)
    U, S, Vh = np.linalg.svd(Ra @ Rb.T)
    return [Qa @ (U * S**0.5), (S[:, None] ** 0.5 * Vh) @ Qb.T]


def by_means(A, B):
    """A M with M M^T = (A^T A)^-1 # (B B^T), the geometric mean of two matrices."""

    def root(X, power):
        values, vectors = torch.linalg.eigh(X)
        return vectors * values**power @ vectors.T

    G, H = A.T @ A, B @ B.T
    half, back = root(G, 0.5), root(G, -0.5)
    T = back @ root(half @ H @ half, 0.5) @ back
    M = torch.linalg.cholesky(T)
    return A @ M, torch.linalg.solve(M, B)


def norms_only(A, B):
    s = (B.norm() / A.norm()) ** 0.5
    return A * s, B / s


def all_right(A, B):
    U, S, Vh = torch.linalg.svd(A @ B, full_matrices=False)
    r = len(B)
    return U[:, :r], S[:r, None] * Vh[:r]


def all_left(A, B):
    U, S, Vh = torch.linalg.svd(A @ B, full_matrices=False)
    r = len(B)
    return U[:, :r] * S[:r], Vh[:r]


def both_all(A, B):
    U, S, Vh = torch.linalg.svd(A @ B, full_matrices=False)
    r = len(B)
    return U[:, :r] * S[:r], S[:r, None] * Vh[:r]


def rank_lost(A, B):
    P, Q = balanced(A, B)
    return P[:, :1], Q[:1]


def verdict(a, b, n_train, n_test):
    d = a - b
    half = t.ppf(0.975, len(d) - 1) * float(d.std()) * (1 / len(d) + n_test / n_train) ** 0.5
    if abs(float(d.mean())) <= half:
        return "undecided"
    return "a" if d.mean() > 0 else "b"


def by_interval(a, b, n_train, n_test):
    """Both ends of the interval, in numpy."""
    d = np.asarray(a) - np.asarray(b)
    half = t.ppf(0.975, d.size - 1) * np.sqrt(d.var(ddof=1) * (1 / d.size + n_test / n_train))
    low, high = d.mean() - half, d.mean() + half
    return {(True, True): "a", (False, False): "b"}.get((low > 0, high > 0), "undecided")


def by_p(a, b, n_train, n_test):
    """The p-value of the corrected t."""
    d = (a - b).numpy()
    shrink = (1 / len(d) / (1 / len(d) + n_test / n_train)) ** 0.5
    p = 2 * t.sf(abs(ttest_rel(a.numpy(), b.numpy()).statistic) * shrink, len(d) - 1)
    return "undecided" if p >= 0.05 else "a" if d.mean() > 0 else "b"


def in_points(a, b, n_train, n_test):
    return verdict(100 * a, 100 * b, n_train, n_test)


def swapped(a, b, n_train, n_test):
    return verdict(b, a, n_train, n_test)


def uncorrected(a, b, n_train, n_test):
    return verdict(a, b, 10**9, 1)


def larger_mean(a, b, n_train, n_test):
    return "a" if a.mean() > b.mean() else "b"


def unpaired(a, b, n_train, n_test):
    def half(x):
        return t.ppf(0.975, len(x) - 1) * float(x.std()) * (1 / len(x) + n_test / n_train) ** 0.5

    gap = float(a.mean() - b.mean())
    return "undecided" if abs(gap) <= half(a) + half(b) else "a" if gap > 0 else "b"


def normal_quantile(a, b, n_train, n_test):
    d = a - b
    half = 1.96 * float(d.std()) * (1 / len(d) + n_test / n_train) ** 0.5
    return "undecided" if abs(float(d.mean())) <= half else "a" if d.mean() > 0 else "b"


def upside_down(a, b, n_train, n_test):
    return verdict(a, b, n_test, n_train)


RIGHT = [
    ("7.1", refit),
    ("7.1", by_ones),
    ("7.1", by_numpy),
    ("7.1", unbiased),
    ("7.1", single),
    ("7.2", balanced),
    ("7.2", rotated),
    ("7.2", by_qr),
    ("7.2", by_means),
    ("7.2", lambda A, B: tuple(x.float() for x in balanced(A, B))),
    ("7.3", verdict),
    ("7.3", by_interval),
    ("7.3", by_p),
    ("7.3", in_points),
]

WRONG = [
    ("7.1", 3, "function"),
    ("7.1", lambda x, h: refit(x, h)[0], "pair"),
    ("7.1", lambda x, h: (refit(x, h)[0].T, refit(x, h)[1]), "transpose"),
    ("7.1", lambda x, h: (*refit(x, h), 0), "pair"),
    ("7.1", lambda x, h: (refit(x, h)[0], torch.zeros(1, 1)), "shapes"),
    ("7.1", no_bias, "weight is right; the bias returns the means"),
    ("7.1", bias_of_means, "weight is right; the bias is E[h] minus"),
    ("7.1", lambda x, h: (refit(x, h)[0], refit(x, h)[1] + 1), "is not E[h]"),
    ("7.1", through_zero, "without a bias"),
    ("7.1", diagonal, "correlated"),
    ("7.1", covariance_only, "multiply by the inverse"),
    ("7.1", not_inverted, "its inverse is needed"),
    ("7.1", half_centred, "centre x' too"),
    ("7.1", ridged, "ridge"),
    ("7.1", in_place, "changed the data"),
    ("7.1", lambda x, h: tuple(2 * part for part in refit(x, h)), "another weight"),
    ("7.1", lambda x, h: tuple(part * float("nan") for part in refit(x, h)), "finite"),
    ("7.1", lambda x: x, "raised"),
    ("7.2", torch.eye(2), "function"),
    ("7.2", lambda A, B: A @ B, "pair"),
    ("7.2", lambda A, B: (A, B), "as they were given"),
    ("7.2", norms_only, "not every direction"),
    ("7.2", all_right, "first factor is orthonormal"),
    ("7.2", all_left, "second factor is orthonormal"),
    ("7.2", both_all, "product has changed"),
    ("7.2", lambda A, B: (A / 2, B), "product has changed"),
    ("7.2", lambda A, B: (A / 3, 3 * B), "some direction"),
    ("7.2", lambda A, B: balanced(A, B)[::-1], "shapes"),
    ("7.2", rank_lost, "shapes"),
    ("7.2", lambda A, B: (A * float("nan"), B), "finite"),
    ("7.2", lambda A, B: (A.mul_(2), B.div_(2)), "changed the factors"),
    ("7.3", "a", "function"),
    ("7.3", lambda a, b, n_train, n_test: None, "not None"),
    ("7.3", lambda a, b, n_train, n_test: (a > b).all(), "return"),
    ("7.3", larger_mean, "larger mean"),
    ("7.3", swapped, "reversed"),
    ("7.3", uncorrected, "overlap"),
    ("7.3", unpaired, "differences"),
    ("7.3", normal_quantile, "say"),
    ("7.3", upside_down, "say"),
    ("7.3", lambda a, b, n_train, n_test: "undecided", "clear"),
    ("7.3", lambda a, b: "a", "raised"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_right_answers(exercise, answer, capsys):
    check(exercise, answer)
    assert capsys.readouterr().out == f"{exercise}: right.\n"


@pytest.mark.parametrize(("exercise", "answer", "word"), WRONG)
def test_wrong_answers_get_their_hint(exercise, answer, word, capsys):
    check(exercise, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"{exercise}: not yet: "), out
    assert word in out


def test_the_judges_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for exercise, answer in RIGHT:
        if answer is not rotated:  # which draws its own rotation
            check(exercise, answer)
    assert torch.equal(torch.rand(3), expected)
