"""Chapter 2's judges: the right answer passes, each typical slip gets the hint that names it."""

import pytest
import torch

from lowrank_utils import low_rank_approximation, truncated_svd
from lowrank_utils.exercises.chapter2 import JUDGES


def nearest(W, X, rank):
    Vh = truncated_svd(X @ W.T, rank)[2]
    return Vh.T @ Vh @ W


def by_whitening(W, X, rank):
    """Another road to the same matrix: truncate W C^1/2, then take C^1/2 away again."""
    L = torch.linalg.cholesky(X.T @ X)
    return low_rank_approximation(W @ L, rank) @ torch.linalg.inv(L)


def in_place(W, X, rank):
    out = nearest(W, X, rank)
    W.zero_()
    return out


def without_unscaling(W, X, rank):
    return low_rank_approximation(W @ torch.linalg.cholesky(X.T @ X), rank)


def inputs_pca(W, X, rank):
    Q = truncated_svd(X, rank)[2]
    return W @ Q.T @ Q


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("2.1", 0.1),
        ("2.1", (1 - 0.99) ** 0.5),
        ("2.1", torch.tensor(0.1)),
        ("2.2", ("equal", "larger")),
        ("2.2", ["equal", "larger"]),
        ("2.3", nearest),
        ("2.3", by_whitening),
    ],
)
def test_right(exercise, answer):
    """A right answer, in any form, has no hint."""
    assert JUDGES[exercise](answer) is None


@pytest.mark.parametrize(
    ("exercise", "answer", "word"),
    [
        ("2.1", 0.01, "root"),
        ("2.1", 0.99, "kept"),
        ("2.1", 0.99**0.5, "dropped"),
        ("2.1", 1 - 0.99**0.5, "squares do"),
        ("2.1", 10, "percentage"),
        ("2.1", 0.0001, "squared"),
        ("2.1", 0.3, "0.91 of the energy"),
        ("2.1", "abc", "one number"),
        ("2.1", -3, "from 0 to 1"),
        ("2.2", "equal", "pair"),
        ("2.2", ("equal", "larger", "equal"), "pair"),
        ("2.2", ("same", "larger"), "one of"),
        ("2.2", ("larger", "larger"), "neighbours"),
        ("2.2", ("smaller", "larger"), "PWQ"),
        ("2.2", ("equal", "equal"), "norm"),
        ("2.2", ("equal", "smaller"), "destroyed"),
        ("2.3", 3, "function"),
        ("2.3", lambda W, X, rank: None, "NoneType"),
        ("2.3", lambda W, X, rank: nearest(W, X, rank).T, "transposed"),
        ("2.3", lambda W, X, rank: low_rank_approximation(X @ W.T, rank), "outputs"),
        ("2.3", lambda W, X, rank: W[:2], "shape"),
        ("2.3", lambda W, X, rank: W, "rank 4"),
        ("2.3", lambda W, X, rank: nearest(W, X, 1), "smallest possible"),
        ("2.3", lambda W, X, rank: low_rank_approximation(W, rank), "weights"),
        ("2.3", inputs_pca, "inputs"),
        ("2.3", without_unscaling, "smallest possible"),
        ("2.3", in_place, "in place"),
    ],
)
def test_hint_names_the_slip(exercise, answer, word):
    """Each typical slip gets a hint of one sentence with its key word."""
    hint = JUDGES[exercise](answer)
    assert hint is not None and word in hint and "\n" not in hint
