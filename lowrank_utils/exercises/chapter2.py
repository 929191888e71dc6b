"""Judges of chapter 2: what an energy hides, a shuffled photograph, the matrix nearest in the outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import (
    Judge,
    NotYet,
    by_letter,
    function,
    items,
    matrix,
    named,
    number,
    on,
)
from lowrank_utils.factors.svd import low_rank_approximation, truncated_svd

ENERGY = 0.99
WORDS = ("smaller", "equal", "larger")
CASES = (  # m, n, rank, N: tall, wide, square, full rank, fewer rows of inputs than columns
    (6, 4, 1, 50),
    (4, 7, 2, 50),
    (9, 5, 3, 50),
    (5, 5, 2, 50),
    (3, 6, 3, 50),
    (4, 7, 2, 3),
)


def _energy(answer: object) -> str | None:
    value = number(answer, "one number, the relative error")
    right = math.sqrt(1 - ENERGY)
    if math.isclose(value, right, rel_tol=1e-3):
        return None
    hints = {
        "this is the energy that is lost, the square of the relative error; take its root.": 1 - ENERGY,
        "this is the energy kept; the error comes from what is lost.": ENERGY,
        "this is the norm that is kept, ||W_r|| / ||W||; you want the norm that is dropped.": math.sqrt(
            ENERGY
        ),
        "norms do not add up, squares do: ||W||^2 = ||W_r||^2 + ||W - W_r||^2.": 1 - math.sqrt(ENERGY),
        "half of the energy that is lost; the square root of a number near 0 is not its half.": (1 - ENERGY)
        / 2,
        "give a fraction, not a percentage.": 100 * right,
        "you squared what is a square already; go the other way.": (1 - ENERGY) ** 2,
    }
    if hint := named(value, hints):
        return hint
    if not 0 <= value <= 1:
        return "a relative error is a fraction from 0 to 1; see the section on the error."
    return f"an error of {value:g} keeps 1 - {value:g}^2 = {1 - value**2:.6g} of the energy, not {ENERGY}."


def _shuffle(answer: object) -> str | None:
    words = items(by_letter(answer, "ab"), 'a pair of words, such as ("smaller", "smaller")', 2)
    a, b = (word.strip().lower() if isinstance(word, str) else word for word in words)
    if any(not isinstance(word, str) or word not in WORDS for word in (a, b)):
        return f"each word must be one of {', '.join(WORDS)}."
    if a == "larger":
        return (
            "(a) you judge by neighbours, as the eye does; write the shuffle as PWQ and ask what P and Q are."
        )
    if a == "smaller":
        return "(a) a shuffle creates no structure; write it as PWQ: what happens to the singular values?"
    if b == "equal":
        return "(b) the same values give the same norm, but this shuffle is no PWQ: it mixes rows."
    if b == "smaller":
        return "(b) what rows had in common is destroyed, so fewer of them can stand for all."
    return None


def _case(m: int, n: int, N: int) -> tuple[Tensor, Tensor]:
    """W (m, n) and inputs X (N, n) of unlike spread, correlated, and far from a mean of zero."""
    g = torch.Generator().manual_seed(10 * m + n)
    W, X, mix = (torch.randn(rows, n, generator=g) for rows in (m, N, n))
    spread = torch.tensor([0.4, 3.0, 0.6, 1.0, 2.0, 0.5, 1.5])[:n]
    return W, (X + 0.5 * X @ mix) * spread + 1.5 * torch.randn(n, generator=g) + 1


def _outputs(answer: object) -> str | None:
    solve = function(answer, "nearest_in_outputs(W, X, rank)")
    for m, n, rank, N in CASES:
        W, X = _case(m, n, N)
        with on(f"W of shape {(m, n)}, X of shape {tuple(X.shape)}, rank={rank}"):
            if hint := _judge_matrix(solve(W, X, rank), W.double(), X.double(), rank):
                raise NotYet(hint)
    return None


def _judge_matrix(answer: object, W: Tensor, X: Tensor, rank: int) -> str | None:
    m, n = W.shape
    shape = getattr(answer, "shape", ())
    if shape == (n, m) != (m, n):
        return f"it returns {(n, m)}: the result is transposed."
    if shape == (len(X), m):
        return "it returns outputs; you are asked for the weight that makes them."
    found = matrix(answer, (m, n), f"back one matrix of shape {(m, n)}")
    got = int((torch.linalg.svdvals(found) > 1e-5 * torch.linalg.matrix_norm(W, 2)).sum())
    if got > rank:
        return f"its result has rank {got}."
    if got == 0:
        return "its result is zero; eigenvalues ascend where singular values descend."
    Vh = truncated_svd(X @ W.T, rank)[2]

    def error(guess: Tensor) -> float:
        return float((X @ (W - guess).T).norm())

    best, size = error(Vh.T @ Vh @ W), error(torch.zeros_like(W))
    if error(found) <= best * (1 + 1e-4) + 1e-5 * size:  # float32 answers round at 1e-7 of the outputs
        return None
    for guess, hint in _wrong_roads(W, X, rank):
        if torch.allclose(found, guess, rtol=0, atol=1e-4 * float(W.abs().max())):
            return hint
    got_error, least = error(found) / size, best / size
    return f"the output error is {got_error:.3%} of the outputs; the smallest possible is {least:.3%}."


def _wrong_roads(W: Tensor, X: Tensor, rank: int) -> list[tuple[Tensor, str]]:
    """Matrices of rank r that people build instead, each with its hint."""

    def project(rows: Tensor) -> Tensor:
        """Orthogonal projection on the first right singular vectors, (n, n)."""
        Q = truncated_svd(rows, min(rank, *rows.shape))[2]
        return Q.T @ Q

    Y, spread = X @ W.T, X.std(0)
    inputs = "you keep the inputs' main directions, but W may ignore those; truncate the outputs instead."
    centred = "you subtract the mean of the outputs first; the norm that is asked for counts the mean, too."
    m = len(W)
    return [
        (
            low_rank_approximation(W, rank),
            "this is the matrix nearest in the weights; X plays no part in it.",
        ),
        (W @ project(X), inputs),
        (W @ project(X - X.mean(0)), inputs),
        (project(Y - Y.mean(0)) @ W, centred),
        (
            low_rank_approximation(W * spread, rank) / spread,
            "the inputs are correlated, too: their spreads are not enough.",
        ),
        (W * (torch.arange(m) < rank)[:, None], "you keep some rows of W; the best directions mix them."),
    ]


JUDGES: dict[str, Judge] = {"2.1": _energy, "2.2": _shuffle, "2.3": _outputs}
