"""Chapter 7: refits, pairs of factors, and verdicts on two methods, with one slip each."""

import numpy as np
import torch
from scipy.stats import t, ttest_rel

from answers import right, wrong


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


def ridged(ridge):
    def answer(x, h):
        dx, dh = x - x.mean(0), h - h.mean(0)
        C = dx.T @ dx / len(x)
        C = C + ridge * C.diagonal().mean() * torch.eye(len(C)).to(C)
        W = torch.linalg.solve(C, dh.T @ dx / len(x), left=False)
        return W, h.mean(0) - W @ x.mean(0)

    return answer


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


def by_scipy(a, b, n_train, n_test):
    """The interval of scipy, which is nan for an error of 0."""
    d = a - b
    error = float(d.std()) * (1 / len(d) + n_test / n_train) ** 0.5
    low, high = t.interval(0.95, len(d) - 1, float(d.mean()), error)
    return "a" if low > 0 else "b" if high < 0 else "undecided"


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


def other_level(q):
    def answer(a, b, n_train, n_test):
        d = a - b
        half = t.ppf(q, len(d) - 1) * float(d.std()) * (1 / len(d) + n_test / n_train) ** 0.5
        return "undecided" if abs(float(d.mean())) <= half else "a" if d.mean() > 0 else "b"

    return answer


def by_numpy_std(a, b, n_train, n_test):
    """numpy's default divides by J."""
    d = (a - b).numpy()
    half = t.ppf(0.975, len(d) - 1) * d.std() * (1 / len(d) + n_test / n_train) ** 0.5
    return "undecided" if abs(d.mean()) <= half else "a" if d.mean() > 0 else "b"


def share_of_all(a, b, n_train, n_test):
    return verdict(a, b, n_train + n_test, n_test)


def spread_of_one(a, b, n_train, n_test):
    d = a - b
    half = t.ppf(0.975, len(d) - 1) * float(d.std())
    return "undecided" if abs(float(d.mean())) <= half else "a" if d.mean() > 0 else "b"


def upside_down(a, b, n_train, n_test):
    return verdict(a, b, n_test, n_train)


ANSWERS = [
    right("7.1", "covariances", refit),
    right("7.1", "column of ones", by_ones),
    right("7.1", "numpy", by_numpy),
    right("7.1", "sample covariances", unbiased),
    right("7.1", "single precision", single),
    right("7.1", "all in single precision", lambda x, h: refit(x.float(), h.float())),
    right("7.1", "parameters of a layer", lambda x, h: [torch.nn.Parameter(part) for part in refit(x, h)]),
    right("7.2", "SVD of the product", balanced),
    right("7.2", "rotated", rotated),
    right("7.2", "QR and numpy", by_qr),
    right("7.2", "geometric mean", by_means),
    right("7.2", "float32", lambda A, B: tuple(x.float() for x in balanced(A, B))),
    right("7.3", "differences", verdict),
    right("7.3", "interval", by_interval),
    right("7.3", "interval of scipy", by_scipy),
    right("7.3", "p-value", by_p),
    right("7.3", "points", in_points),
    right("7.3", "numpy text", lambda *match: np.str_(verdict(*match))),
    wrong("7.1", "value for function", 3, "itself, which is then called as"),
    wrong("7.1", "weight alone", lambda x, h: refit(x, h)[0], "pair"),
    wrong("7.1", "transposed", lambda x, h: (refit(x, h)[0].T, refit(x, h)[1]), "transpose"),
    wrong("7.1", "three values", lambda x, h: (*refit(x, h), 0), "pair"),
    wrong("7.1", "shape of the bias", lambda x, h: (refit(x, h)[0], torch.zeros(1, 1)), "shapes"),
    wrong("7.1", "no bias", no_bias, "weight is right; the bias returns the means"),
    wrong("7.1", "mean of the outputs as bias", bias_of_means, "weight is right; the bias is E[h] minus"),
    wrong("7.1", "bias off by one", lambda x, h: (refit(x, h)[0], refit(x, h)[1] + 1), "is not E[h]"),
    wrong("7.1", "through zero", through_zero, "without a bias"),
    wrong("7.1", "diagonal only", diagonal, "correlated"),
    wrong("7.1", "covariance only", covariance_only, "multiply by the inverse"),
    wrong("7.1", "multiplied by the covariance", not_inverted, "its inverse is needed"),
    wrong("7.1", "inputs not centred", half_centred, "centre x' too"),
    wrong("7.1", "ridge", ridged(1e-3), "ridge"),
    wrong("7.1", "small ridge", ridged(1e-5), "ridge"),
    wrong("7.1", "in place", in_place, "changes its argument x"),
    wrong("7.1", "twice the weight", lambda x, h: tuple(2 * part for part in refit(x, h)), "another weight"),
    wrong("7.1", "nan", lambda x, h: tuple(part * float("nan") for part in refit(x, h)), "finite"),
    wrong("7.1", "texts", lambda x, h: ("W", "b"), "must hold numbers; these are the text 'W'"),
    wrong("7.1", "one argument", lambda x: x, "raised"),
    wrong("7.2", "matrix for function", torch.eye(2), "itself, which is then called as"),
    wrong("7.2", "product", lambda A, B: A @ B, "pair"),
    wrong("7.2", "as given", lambda A, B: (A, B), "as they were given"),
    wrong("7.2", "norms only", norms_only, "not every direction"),
    wrong("7.2", "S in the second", all_right, "first factor is orthonormal"),
    wrong("7.2", "S in the first", all_left, "second factor is orthonormal"),
    wrong("7.2", "S in both", both_all, "product has changed"),
    wrong("7.2", "half the product", lambda A, B: (A / 2, B), "product has changed"),
    wrong("7.2", "a number moved the wrong way", lambda A, B: (A / 3, 3 * B), "some direction"),
    wrong("7.2", "swapped factors", lambda A, B: balanced(A, B)[::-1], "shapes"),
    wrong("7.2", "rank lost", rank_lost, "shapes"),
    wrong("7.2", "nan", lambda A, B: (A * float("nan"), B), "finite"),
    wrong("7.2", "in place", lambda A, B: (A.mul_(2), B.div_(2)), "changes its argument A"),
    wrong("7.3", "text for function", "a", "itself, which is then called as"),
    wrong("7.3", "nothing", lambda a, b, n_train, n_test: None, "returns None"),
    wrong("7.3", "truth value", lambda a, b, n_train, n_test: (a > b).all(), "return"),
    wrong("7.3", "larger mean", larger_mean, "larger mean"),
    wrong("7.3", "swapped", swapped, "reversed"),
    wrong("7.3", "not corrected", uncorrected, "overlap"),
    wrong("7.3", "unpaired", unpaired, "differences"),
    wrong("7.3", "normal quantile", normal_quantile, "normal quantile"),
    wrong("7.3", "ratio upside down", upside_down, "say"),
    wrong("7.3", "99 % interval", other_level(0.995), "99 %"),
    wrong("7.3", "90 % interval", other_level(0.95), "90 %"),
    wrong("7.3", "standard deviation by J", by_numpy_std, "divides by J - 1"),
    wrong("7.3", "n_test over all samples", share_of_all, "over n_train"),
    wrong("7.3", "spread for error", spread_of_one, "spread of single splits"),
    wrong("7.3", "always undecided", lambda a, b, n_train, n_test: "undecided", "clear"),
    wrong("7.3", "two arguments", lambda a, b: "a", "raised"),
]
