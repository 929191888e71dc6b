"""Judges of chapter 7: an affine least-squares refit, balanced factors, who won over overlapping splits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, describe, function
from lowrank_utils.exercises._who_won import verdict


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
    samples = len(x)
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
    rest = K - W @ C  # with a ridge t it is t W, as W (C + t I) = K
    t = float((rest * W).sum() / W.square().sum().clamp_min(1e-30))
    if t > 0 and bool((rest - t * W).norm() <= 1e-3 * rest.norm()):
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
        if not bool(error <= least * (1 + 1e-10)):  # single precision adds 1e-11, a ridge of 1e-5 more
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


JUDGES: dict[str, Judge] = {"7.1": _refit, "7.2": _balance, "7.3": verdict}
