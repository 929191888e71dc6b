"""Judges of chapter 7: an affine least-squares refit, balanced factors, who won over overlapping splits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from scipy.stats import t
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, describe, function


def _tensors(found: object, what: str, shapes: list[tuple[int, ...]]) -> list[Tensor] | str:
    """The members of a pair as float64 tensors, or what is wrong with it."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        return f"return the pair {what}, not {describe(found)}."
    try:
        pair = [torch.as_tensor(each).detach().to(torch.float64) for each in found]
    except (TypeError, ValueError, RuntimeError):
        return f"{what} must hold numbers; these are {describe(found[0])} and {describe(found[1])}."
    for each, shape in zip(pair, shapes, strict=True):
        if tuple(each.shape) != shape:
            return f"{what} must have shapes {shapes[0]} and {shapes[1]}; one has {tuple(each.shape)}."
        if not bool(each.isfinite().all()):
            return f"a number in {what} is not finite."
    return pair


def _regressions() -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs x (N, n) of mean not zero, and targets h (N, m) that no affine map reaches; tall and wide."""
    noise = torch.Generator().manual_seed(7)
    for samples, n, m in ((200, 5, 3), (90, 4, 7), (60, 6, 1)):
        mix = torch.randn(n, n, generator=noise, dtype=torch.float64)
        x = torch.randn(samples, n, generator=noise, dtype=torch.float64) @ mix + 2.0
        h = x @ torch.randn(n, m, generator=noise, dtype=torch.float64) - 3.0
        h = h + x[:, :1].square() / 2 + torch.randn(samples, m, generator=noise, dtype=torch.float64)
        yield x, h


def _why_not_least(W: Tensor, b: Tensor, x: Tensor, h: Tensor) -> str:
    """A hint for W (m, n), b (m,) that are not the least-squares fit of h on x."""
    mu, nu = x.mean(0), h.mean(0)
    dx, dh = x - mu, h - nu
    best = torch.linalg.lstsq(dx, dh).solution.T  # (m, n)
    through_zero = torch.linalg.lstsq(x, h).solution.T
    n, samples = x.shape[1], len(x)
    C, K = dx.T @ dx / samples, dh.T @ dx / samples

    def same(A: Tensor, B: Tensor) -> bool:
        return torch.allclose(A, B, rtol=1e-5, atol=1e-7)

    hints = (
        (through_zero, "that is the fit without a bias: subtract both means before you regress."),
        (K, "that is Cov(h, x') itself; multiply by the inverse of Cov(x')."),
        (K @ C, "that multiplies by Cov(x'); its inverse is needed."),
        (K / C.diagonal(), "the inputs are correlated: the whole of Cov(x') is inverted, not its diagonal."),
        (torch.linalg.solve(x.T @ x / samples, K, left=False), "E[x' x'^T] is no covariance: centre x' too."),
    )
    for wrong, hint in hints:
        if same(W, wrong) and not same(wrong, best):
            return hint
    if same(W, best):
        if same(b, torch.zeros_like(b)):
            return "the weight is right; the bias returns the means: E[h] - W* E[x']."
        if same(b, nu):
            return "the weight is right; the bias is E[h] minus what W* makes of E[x']."
        return "the weight is right; the bias is not E[h] - W* E[x']."
    ridge = torch.linalg.solve(C + 1e-3 * C.trace() / n * torch.eye(n).to(C), K, left=False)
    if same(W, ridge):
        return "that has a ridge in it; this exercise asks for plain least squares."
    return "another weight fits the outputs better on the data tried."


def _refit(answer: object) -> str | None:
    refit = function(answer, "refit(x, h)")
    for x, h in _regressions():
        m, n = h.shape[1], x.shape[1]
        found = refit(x, h)
        transposed = _tensors(found, "(W, b)", [(n, m), (m,)])
        if m != n and not isinstance(transposed, str):
            return f"W must be (outputs, inputs), here ({m}, {n}), as in nn.Linear: transpose it."
        pair = _tensors(found, "(W, b)", [(m, n), (m,)])
        if isinstance(pair, str):
            return pair
        W, b = pair
        error = (h - x @ W.T - b).square().sum()
        design = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # an oracle of its own: x and a column of ones
        least = (h - design @ torch.linalg.lstsq(design, h).solution).square().sum()
        if not bool(error <= least * (1 + 1e-6)):
            return _why_not_least(W, b, x, h)
    return None


def _factor_pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """A (m, r), B (r, n) of unequal size, neither with orthogonal columns; tall, wide and rank 1."""
    noise = torch.Generator().manual_seed(8)
    for m, n, r, scale in ((7, 5, 3, 30.0), (4, 9, 2, 0.02), (6, 6, 1, 5.0)):
        A = scale * torch.randn(m, r, generator=noise, dtype=torch.float64)
        yield A, torch.randn(r, n, generator=noise, dtype=torch.float64)


def _balance(answer: object) -> str | None:
    balance = function(answer, "balance(A, B)")
    for A, B in _factor_pairs():
        found = balance(A, B)
        pair = _tensors(found, "(A, B)", [tuple(A.shape), tuple(B.shape)])
        if isinstance(pair, str):
            return pair
        P, Q = pair
        W = A @ B
        if not torch.allclose(P @ Q, W, rtol=1e-4, atol=1e-5 * float(W.norm())):
            return "the product has changed; what one factor gains the other must lose."
        size = float(torch.linalg.matrix_norm(W, "nuc"))  # balanced factors have |P|^2 = |Q|^2 = nuclear norm
        gap = float((P.T @ P - Q @ Q.T).norm())
        if gap <= 1e-4 * size:
            continue
        if torch.allclose(P, A, rtol=1e-6) and torch.allclose(Q, B, rtol=1e-6):
            return "these are the factors as they were given."
        r = len(Q)
        if torch.allclose(P.T @ P, torch.eye(r).to(P), atol=1e-5):
            return "the first factor is orthonormal, so the second holds all of S; give each its square root."
        if torch.allclose(Q @ Q.T, torch.eye(r).to(Q), atol=1e-5):
            return "the second factor is orthonormal, so the first holds all of S; give each its square root."
        if math.isclose(float(P.norm()), float(Q.norm()), rel_tol=1e-4):
            return "the two norms agree, but not every direction: A^T A must equal B B^T."
        return "A^T A and B B^T of your factors differ: some direction is larger in one than in the other."
    return None


def _said(gap: Tensor, half: float | Tensor) -> str:
    return "undecided" if abs(float(gap)) <= float(half) else ("a" if float(gap) > 0 else "b")


def _half(x: Tensor, n_train: int, n_test: int, *, q: float = 0.975, less: int = 1, df: int = 0) -> float:
    """Half of the corrected 95 % interval; the options are slips: another level, J - less, other df."""
    error = float(x.std(correction=less)) * math.sqrt(1 / len(x) + n_test / n_train)
    return float(t.ppf(q, df or len(x) - 1)) * error


def _verdict_of(a: Tensor, b: Tensor, n_train: int, n_test: int, **slip: Any) -> str:
    return _said((a - b).mean(), _half(a - b, n_train, n_test, **slip))


def _unpaired(a: Tensor, b: Tensor, n_train: int, n_test: int) -> str:
    return _said(a.mean() - b.mean(), sum(_half(x, n_train, n_test) for x in (a, b)))


def _matches() -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """Scores of two methods on the same splits, and the sizes of the training and test part."""
    easy = torch.tensor([0.90, 0.84, 0.95, 0.88, 0.81, 0.92], dtype=torch.float64)  # splits differ in ease
    small = torch.tensor([0.012, 0.008, 0.011, 0.009, 0.010, 0.010], dtype=torch.float64)
    loose = torch.tensor([0.011, 0.001, 0.013, 0.002, 0.012, 0.003], dtype=torch.float64)
    yield easy, easy - small, 700, 200  # clear only in pairs
    yield easy - small, easy, 700, 200
    yield easy, easy - loose, 500, 500  # clear only for splits that do not overlap
    yield easy - loose, easy, 500, 500
    yield easy, easy - loose + loose.mean(), 700, 200  # level
    three = torch.tensor([0.024, 0.008, 0.016], dtype=torch.float64)
    yield easy[:3], easy[:3] - three, 900, 1  # clear by the normal quantile, not by Student's
    yield easy[:3], easy[:3] - three + 0.0045, 900, 1  # 2.5 errors: nor by a 90 % interval of Student's
    bigger = torch.tensor([0.06, 0.04, 0.05, 0.07, 0.05], dtype=torch.float64)
    yield easy[:5] - bigger, easy[:5], 400, 100
    yield easy, easy - 10 * bigger.mean(), 700, 200  # clear in every way
    unit = (loose - loose.mean()) / loose.std() * 0.01
    # 2.57 errors decide; 3.9 here are 2.62 standard deviations, and less than the 4.03 of a 99 % interval
    for times, n_train, n_test in ((3.0, 700, 200), (3.9, 700, 200), (2.45, 700, 200), (2.2, 500, 500)):
        error = 0.01 * (1 / 6 + n_test / n_train) ** 0.5
        yield easy, easy - unit - times * error, n_train, n_test


def _verdict(answer: object) -> str | None:
    verdict = function(answer, "verdict(a, b, n_train, n_test)")
    cases = list(_matches())
    found = [verdict(a, b, *sizes) for a, b, *sizes in cases]
    right = [_verdict_of(*case) for case in cases]
    odd = [said for said in found if not isinstance(said, str) or said not in ("a", "b", "undecided")]
    if odd:
        return f'return "a", "b" or "undecided", not {odd[0]!r}.'
    if found == right:
        return None
    for wrong, hint in (
        (
            [{"a": "b", "b": "a"}.get(x, x) for x in right],
            "the sign is reversed: a wins where a - b is above zero.",
        ),
        (
            [_unpaired(*case) for case in cases],
            "the splits are the same: take the interval of the differences.",
        ),
        (
            [_verdict_of(a, b, 1, 0) for a, b, *_ in cases],
            "the splits overlap: add n_test / n_train to 1 / J.",
        ),
        (["a" if a.mean() > b.mean() else "b" for a, b, *_ in cases], "the larger mean need not win."),
        (["undecided"] * len(cases), "some of the matches are clear."),
        (
            [_verdict_of(*case, q=0.995) for case in cases],
            "that is a 99 % interval; 95 % of Student's t lie within its quantile 0.975.",
        ),
        (
            [_verdict_of(*case, q=0.95) for case in cases],
            "that is a 90 % interval; 95 % of Student's t lie within its quantile 0.975.",
        ),
        (
            [_verdict_of(*case, df=10**9) for case in cases],
            "that is the normal quantile; for few splits take Student's t with J - 1 degrees of freedom.",
        ),
        (
            [_verdict_of(*case, less=0) for case in cases],
            "that divides by J; a standard deviation of J differences divides by J - 1.",
        ),
        (
            [_verdict_of(a, b, n + m, m) for a, b, n, m in cases],
            "add n_test over n_train, not over all samples.",
        ),
        (
            [_said((a - b).mean(), 2.57 * (a - b).std()) for a, b, *_ in cases],
            "that is the spread of single splits; the error of their mean is smaller.",
        ),
    ):
        if found == wrong:
            return hint
    (a, b, *sizes), said, true = next(
        (case, x, y) for case, x, y in zip(cases, found, right, strict=True) if x != y
    )
    d = [round(float(x), 3) for x in a - b]
    return f'for differences {d}, {sizes[0]} and {sizes[1]} samples, say "{true}", not "{said}".'


JUDGES: dict[str, Judge] = {"7.1": _refit, "7.2": _balance, "7.3": _verdict}
