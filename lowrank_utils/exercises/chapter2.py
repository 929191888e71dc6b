"""Chapter 2: what an energy hides, a shuffled photograph, the matrix nearest in the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from lowrank_utils.exercises import Judge
from lowrank_utils.svd import low_rank_approximation, truncated_svd

ENERGY = 0.99
WORDS = ("smaller", "equal", "larger")


def _energy(answer: object) -> str | None:
    try:
        value = float(cast(float, answer))
    except (TypeError, ValueError):
        return f"give one number, the relative error, not {type(answer).__name__}."
    right = math.sqrt(1 - ENERGY)
    hints = {
        1 - ENERGY: "this is the energy that is lost, the square of the relative error; take its root.",
        ENERGY: "this is the energy kept; the error comes from what is lost.",
        math.sqrt(
            ENERGY
        ): "this is the norm that is kept, ||W_r|| / ||W||; you want the norm that is dropped.",
        1 - math.sqrt(ENERGY): "norms do not add up, squares do: ||W||^2 = ||W_r||^2 + ||W - W_r||^2.",
        100 * right: "give a fraction, not a percentage.",
        (1 - ENERGY) ** 2: "you squared what is a square already; go the other way.",
    }
    if math.isclose(value, right, rel_tol=1e-3):
        return None
    for wrong, hint in hints.items():
        if math.isclose(value, wrong, rel_tol=1e-3):
            return hint
    if not 0 <= value <= 1:
        return "a relative error is a fraction from 0 to 1; see the section on the error."
    return f"an error of {value:g} keeps 1 - {value:g}^2 = {1 - value**2:.4g} of the energy, not {ENERGY}."


def _shuffle(answer: object) -> str | None:
    if isinstance(answer, str) or not isinstance(answer, tuple | list) or len(answer) != 2:
        return 'give a pair of words, such as ("smaller", "smaller").'
    if any(word not in WORDS for word in answer):
        return f"each word must be one of {', '.join(WORDS)}."
    a, b = answer
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


def _case(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    W = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    X = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    X = X * torch.tensor([0.1, 3.0, 0.5, 1.0], dtype=torch.float64)  # the data prefer other directions than W
    Vh = truncated_svd(X @ W.T, rank)[2]
    return W, X, Vh.T @ Vh @ W


def _outputs(answer: object) -> str | None:
    if not callable(answer):
        return "give a function (W, X, rank) -> W', without calling it."
    solve = cast(Callable[[Tensor, Tensor, int], object], answer)
    for rank in (1, 2):
        W, X, best = _case(rank)
        given = W.clone(), X.clone()
        hint = _judge_matrix(solve(*given, rank), W, X, best, rank)
        if hint:
            return hint
        if not (torch.equal(given[0], W) and torch.equal(given[1], X)):
            return "your function changes W or X in place; work on copies."
    return None


def _judge_matrix(found: object, W: Tensor, X: Tensor, best: Tensor, rank: int) -> str | None:
    m, n = W.shape
    if not isinstance(found, Tensor):
        return f"the function must return a tensor, not {type(found).__name__}."
    if found.shape == (n, m):
        return f"for W of shape {(m, n)} it returns {(n, m)}: the result is transposed."
    if found.shape == (len(X), m):
        return "it returns the outputs of rank r; you are asked for the weight that makes them."
    if found.shape != W.shape:
        return f"for W of shape {(m, n)} it returns the shape {tuple(found.shape)}."
    S = torch.linalg.svdvals(found.detach().double())
    got = int((S > 1e-6 * S[0]).sum())
    if got > rank:
        return f"at rank={rank} its result has rank {got}."
    found = found.detach().double()

    def error(guess: Tensor) -> float:
        return float((X @ (W - guess).T).norm())

    if error(found) <= error(best) * (1 + 1e-4):
        return None
    if torch.allclose(found, low_rank_approximation(W, rank), atol=1e-4):
        return "this is the matrix nearest in the weights; X plays no part in it."
    Q = truncated_svd(X, rank)[2]  # principal directions of the inputs
    if torch.allclose(found, W @ Q.T @ Q, atol=1e-4):
        return "you keep the inputs' main directions, but W may ignore those; truncate the outputs instead."
    excess = error(found) / error(best) - 1
    return f"at rank={rank} the output error is {excess:.1%} above the smallest possible."


JUDGES: dict[str, Judge] = {"2.1": _energy, "2.2": _shuffle, "2.3": _outputs}
