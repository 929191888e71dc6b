"""Chapter 2: what an energy hides, a shuffle, and roads to the matrix nearest in the outputs."""

import math

import numpy as np
import torch
from torch import nn

from answers import right, wrong
from lowrank_utils import LowRankLinear, low_rank_approximation, truncated_svd


def nearest(W, X, rank):
    Vh = truncated_svd(X @ W.T, rank)[2]
    return Vh.T @ Vh @ W


def by_whitening(W, X, rank):
    """Truncate W C^1/2, then take C^1/2 away again: by its pseudo-inverse, as C may be singular."""
    S, V = torch.linalg.eigh(X.T.double() @ X.double())
    root = V * S.clamp_min(0).sqrt() @ V.T
    return low_rank_approximation(W.double() @ root, rank) @ torch.linalg.pinv(root, rtol=1e-6)


def by_cholesky(W, X, rank):
    """Needs more rows of inputs than columns: C has no inverse without."""
    L = torch.linalg.cholesky(X.T @ X)
    return low_rank_approximation(W @ L, rank) @ torch.linalg.inv(L)


def by_least_squares(W, X, rank):
    """Truncate the outputs, and solve for the weight that makes them."""
    return torch.linalg.lstsq(X, low_rank_approximation(X @ W.T, rank)).solution.T


def by_numpy(W, X, rank):
    W, X = W.numpy(), X.numpy()
    V = np.linalg.svd(X @ W.T)[2][:rank]
    return V.T @ V @ W


def by_eigenvectors(W, X, rank):
    """Eigenvectors of W C W^T, the last of which belong to the largest eigenvalues; in float64."""
    Y = (X @ W.T).double()
    V = torch.linalg.eigh(Y.T @ Y).eigenvectors[:, -rank:]
    return V @ V.T @ W.double()


def by_layer(W, X, rank):
    """The weight of a layer, with a gradient."""
    found = nearest(W, X, rank)
    U, S, Vh = truncated_svd(found, rank)
    return LowRankLinear.from_factors(U * S, Vh).weight


def by_triangle(W, X, rank):
    """R of the inputs' QR holds all that a norm of outputs needs."""
    R = torch.linalg.qr(X.double()).R
    return low_rank_approximation(W.double() @ R.T, rank) @ torch.linalg.pinv(R.T)


def every_other_row(W, X, rank):
    return nearest(W, X[::2], rank)


def by_random_directions(W, X, rank):
    """A quick, inexact SVD of the outputs: near the smallest error, not at it."""
    torch.manual_seed(0)
    V = torch.svd_lowrank(X @ W.T, q=rank, niter=1)[2]
    return V @ V.T @ W


def without_unscaling(W, X, rank):
    return low_rank_approximation(W @ torch.linalg.cholesky(X.T @ X), rank)


def by_covariance(W, X, rank):
    """C instead of its root: the inputs are counted twice."""
    C = X.T @ X
    return low_rank_approximation(W @ C, rank) @ torch.linalg.inv(C)


def by_spread(W, X, rank):
    return low_rank_approximation(W * X.std(0), rank) / X.std(0)


def inputs_pca(W, X, rank):
    Q = truncated_svd(X, min(rank, *X.shape))[2]
    return W @ Q.T @ Q


def centred(W, X, rank):
    """PCA as the textbooks have it: the mean is taken away first."""
    Y = X @ W.T
    Vh = truncated_svd(Y - Y.mean(0), rank)[2]
    return Vh.T @ Vh @ W


def last_eigenvectors(W, X, rank):
    Y = X @ W.T
    V = torch.linalg.eigh(Y.T @ Y).eigenvectors[:, :rank]
    return V @ V.T @ W


def left_vectors(W, X, rank):
    """U of the weight instead of V of the outputs."""
    U = truncated_svd(W, rank)[0]
    return U @ U.T @ W


def some_rows(W, X, rank):
    return W * (torch.arange(len(W)) < rank)[:, None]


def by_threshold(W, X, rank):
    """Drops what is not above the first singular value that must go: there is none at full rank."""
    U, S, Vh = torch.linalg.svd(X @ W.T, full_matrices=False)
    V = Vh[S > S[rank]]
    return V.T @ V @ W


def in_place(W, X, rank):
    found = nearest(W, X, rank)
    W.copy_(found)
    return W


def centres_in_place(W, X, rank):
    found = nearest(W, X, rank)
    X -= X.mean(0)
    return found


def with_nan(W, X, rank):
    found = nearest(W, X, rank)
    found[0, 0] = math.nan
    return found


ANSWERS = [
    right("2.1", "formula", (1 - 0.99) ** 0.5),
    right("2.1", "tensor", torch.tensor(0.1)),
    right("2.1", "numpy", np.float32(0.1)),
    right("2.1", "array of one", np.array([0.1])),
    right("2.1", "half precision", torch.tensor(0.1, dtype=torch.float16)),
    wrong("2.1", "lost energy", 0.01, "take its root"),
    wrong("2.1", "kept energy", 0.99, "energy kept"),
    wrong("2.1", "kept norm", 0.99**0.5, "dropped"),
    wrong("2.1", "norms add up", 1 - 0.99**0.5, "squares do"),
    wrong("2.1", "half for root", 0.005, "half of the energy"),
    wrong("2.1", "percentage", 10, "percentage"),
    wrong("2.1", "squared twice", 0.0001, "squared"),
    wrong("2.1", "guess", 0.3, "0.91 of the energy"),
    wrong("2.1", "nearly", 0.102, "of the energy"),
    wrong("2.1", "zero", 0.0, "keeps"),
    wrong("2.1", "negative root", -0.1, "from 0 to 1"),
    wrong("2.1", "text", "0.1", "one number, the relative error, not the text"),
    wrong("2.1", "truth value", True, "not True"),
    wrong("2.1", "nan", math.nan, "not nan"),
    wrong("2.1", "inf", math.inf, "not inf"),
    wrong("2.1", "pair with the rank", (0.1, 54), "a tuple of 2"),
    right("2.2", "list", ["equal", "larger"]),
    right("2.2", "capitals", ("Equal", " LARGER ")),
    right("2.2", "array", np.array(["equal", "larger"])),
    right("2.2", "dictionary", {"b": "larger", "a": "equal"}),
    right("2.2", "pair", ("equal", "larger")),
    wrong("2.2", "one word", "equal", "pair"),
    wrong("2.2", "one text", "equal, larger", "pair"),
    wrong("2.2", "set has no order", {"equal", "larger"}, "pair"),
    wrong("2.2", "three", ("equal", "larger", "equal"), "pair"),
    wrong("2.2", "other words", ("same", "larger"), "one of"),
    wrong("2.2", "numbers", (0.136, 0.473), "one of"),
    wrong("2.2", "tensors", torch.tensor([0.136, 0.473]), "one of"),
    wrong("2.2", "no words", (None, None), "one of"),
    wrong("2.2", "the eye's order", ("larger", "larger"), "neighbours"),
    wrong("2.2", "turned round", ("larger", "equal"), "neighbours"),
    wrong("2.2", "a shuffle helps", ("smaller", "larger"), "PWQ"),
    wrong("2.2", "nothing changes", ("equal", "equal"), "the same norm"),
    wrong("2.2", "noise is simple", ("equal", "smaller"), "destroyed"),
    right("2.3", "solution", nearest),
    right("2.3", "whitening", by_whitening),
    right("2.3", "least squares", by_least_squares),
    right("2.3", "numpy", by_numpy),
    right("2.3", "eigenvectors in float64", by_eigenvectors),
    right("2.3", "layer's weight", by_layer),
    right("2.3", "nested lists", lambda *a: nearest(*a).tolist()),
    right("2.3", "triangle of the inputs", by_triangle),
    wrong("2.3", "every other row", every_other_row, "smallest possible"),
    wrong("2.3", "inexact SVD", by_random_directions, "smallest possible"),
    right("2.3", "parameter", lambda *a: nn.Parameter(nearest(*a))),
    wrong("2.3", "value for function", 3, "the function nearest_in_outputs itself"),
    wrong("2.3", "layer for function", nn.Linear(4, 6), "the function nearest_in_outputs itself"),
    wrong("2.3", "returns nothing", lambda W, X, rank: None, "returns None"),
    wrong("2.3", "transposed", lambda *a: nearest(*a).T, "transposed"),
    wrong("2.3", "outputs", lambda W, X, rank: X @ W.T, "it returns outputs"),
    wrong("2.3", "outputs of rank r", lambda W, X, rank: low_rank_approximation(X @ W.T, rank), "outputs;"),
    wrong("2.3", "factors", lambda W, X, rank: truncated_svd(X @ W.T, rank), "one matrix of shape (6, 4)"),
    wrong("2.3", "two rows", lambda W, X, rank: W[:2], "(2, 4)"),
    wrong("2.3", "layer", lambda W, X, rank: nn.Linear(4, 6), "type Linear"),
    wrong("2.3", "text", lambda W, X, rank: "W", "the text 'W'"),
    wrong("2.3", "ragged lists", lambda W, X, rank: [[1.0], [1.0, 2.0]], "a list of 2"),
    wrong("2.3", "complex", lambda *a: nearest(*a) + 0j, "one matrix of shape"),
    wrong("2.3", "W itself", lambda W, X, rank: W, "rank 4"),
    wrong("2.3", "rank 1 always", lambda W, X, rank: nearest(W, X, 1), "smallest possible"),
    wrong("2.3", "rank 2 always", lambda W, X, rank: nearest(W, X, 2), "rank 2"),
    wrong("2.3", "zero", lambda W, X, rank: torch.zeros_like(W), "its result is zero"),
    wrong("2.3", "nearest in weights", lambda W, X, rank: low_rank_approximation(W, rank), "in the weights"),
    wrong("2.3", "the weight's own directions", left_vectors, "in the weights"),
    wrong("2.3", "inputs' directions", inputs_pca, "main directions"),
    wrong("2.3", "inputs centred", lambda W, X, rank: inputs_pca(W, X - X.mean(0), rank), "main directions"),
    wrong("2.3", "outputs centred", centred, "subtract the mean"),
    wrong(
        "2.3",
        "inputs centred, then outputs",
        lambda W, X, rank: nearest(W, X - X.mean(0), rank),
        "subtract the mean",
    ),
    wrong("2.3", "spreads only", by_spread, "correlated"),
    wrong("2.3", "Cholesky", by_cholesky, "X of shape (3, 7), rank=2: "),
    wrong("2.3", "not unscaled", without_unscaling, "smallest possible"),
    wrong("2.3", "covariance for its root", by_covariance, "smallest possible"),
    wrong("2.3", "smallest eigenvalues", last_eigenvectors, "eigenvalues ascend"),
    wrong("2.3", "some rows", some_rows, "some rows"),
    wrong("2.3", "fails at full rank", by_threshold, "rank=3: your function raised IndexError"),
    wrong("2.3", "changes W", in_place, "changes its argument W"),
    wrong("2.3", "changes X", centres_in_place, "changes its argument X"),
    wrong("2.3", "nan", with_nan, "1 entries"),
    wrong("2.3", "inf", lambda W, X, rank: W / 0, "nan or infinite"),
    wrong("2.3", "raises", lambda W, X, rank: W @ X, "raised RuntimeError"),
]
