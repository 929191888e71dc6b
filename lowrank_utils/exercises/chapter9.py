"""Judges of chapter 9: rows that find their own, the matrix behind a head's scores, an encoder cut short."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lowrank_utils.exercises._answers import Judge, NotYet, function, matrix, named, number, on
from lowrank_utils.exercises._fewer_layers import without

SEARCHES = ((60, 4, 4), (45, 9, 1), (20, 5, 20))  # N, d, k: several, the nearest alone, all


def _rows() -> Iterator[tuple[Tensor, Tensor, int]]:
    """S and B (N, d) of negative mean, and k; rows differ in length, and no two cosines of one are close."""
    noise = torch.Generator().manual_seed(18)
    for N, d, k in SEARCHES:
        B = torch.randn(N, d, generator=noise) - 0.3
        S = B + 0.8 * torch.randn(N, d, generator=noise) - 0.5
        lengths = (0.8 * torch.randn(2, N, 1, generator=noise)).exp()
        yield lengths[0] * S, lengths[1] * B, k


def _cosines(S: Tensor, B: Tensor) -> Tensor:
    return normalize(S, dim=1) @ normalize(B, dim=1).T


def _recall(scores: Tensor, k: int) -> float:
    """The share of rows i in which fewer than k scores are larger than the i-th."""
    return float(((scores > scores.diagonal()[:, None]).sum(1) < k).double().mean())


def _recall_at(answer: object) -> str | None:
    recall_at = function(answer, "recall_at(S, B, k)")
    for S, B, k in _rows():
        with on(f"{len(S)} rows and k = {k}"):
            found = number(recall_at(S, B, k), "one number, the share of the rows")
            if hint := _why_not_the_share(found, S.double(), B.double(), k):
                raise NotYet(hint)
    return None


def _why_not_the_share(found: float, S: Tensor, B: Tensor, k: int) -> str | None:
    N, cosines = len(S), _cosines(S, B)
    right = _recall(cosines, k)
    if math.isclose(found, right, abs_tol=1e-5):
        return None
    once = cosines.argsort(1, descending=True).diagonal() < k
    rows = _cosines(S - S.mean(1, keepdim=True), B - B.mean(1, keepdim=True))
    slips = {
        "that is a percentage; a share lies between 0 and 1.": 100 * right,
        "that is how many rows find their own; the share is asked for.": N * right,
        "that is the share of rows that do not find their own.": 1 - right,
        "hits are divided by k as well; a row finds its own or not.": right / k,
        "long rows of B are found more often than short ones; the angle alone counts.": _recall(S @ B.T, k),
        "distances depend on the rows' lengths; the angle alone counts.": _recall(-torch.cdist(S, B), k),
        "the columns are scaled; it is the rows whose lengths must not count.": (
            _recall(normalize(S, dim=0) @ normalize(B, dim=0).T, k)
        ),
        "each row of B searches among those of S; it is S that searches, in B.": _recall(cosines.T, k),
        "that is the share whose nearest row is their own, whatever k is.": _recall(cosines, 1),
        "that is the share for k + 1.": _recall(cosines, k + 1),
        "that is the share for k - 1.": _recall(cosines, k - 1),
        "these are the k rows that are least similar.": _recall(-cosines, k),
        "opposite rows are far: the sign of the cosine counts.": _recall(cosines.abs(), k),
        "each row's mean is subtracted; cosine similarity takes a row as it is.": _recall(rows, k),
        "the average row is subtracted; cosine similarity takes a row as it is.": (
            _recall(_cosines(S - S.mean(0), B - B.mean(0)), k)
        ),
        "the row that stands at place i is not the place at which row i stands.": float(once.double().mean()),
        "no row finds its own: it must be among the candidates.": 0.0,
        "every row finds its own: is S searched in S, and not in B?": 1.0,
    }
    if hint := named(found, slips, rel_tol=1e-5, abs_tol=1e-9):
        return hint
    if abs(found - right) < 0.3 / N:
        return "that is rounded; give the share as it is."
    if k == N:
        return "among all rows each one finds its own."
    return f"{found:.4g} is not the share of rows that find their own."


HEADS = ((12, 3, 1), (10, 5, 4), (8, 2, 0), (5, 1, 0))  # E, heads, head: a size is no number of heads


def _head_scores_matrix(answer: object) -> str | None:
    head_scores_matrix = function(answer, "head_scores_matrix(W_q, W_k, head, heads)")
    noise = torch.Generator().manual_seed(9)
    for E, heads, head in HEADS:
        W_q, W_k = (torch.randn(E, E, generator=noise) + 0.3 for _ in "qk")
        with on(f"head {head} of {heads} and E = {E}"):
            given = head_scores_matrix(W_q, W_k, head, heads)
            shape, size = getattr(given, "shape", None), E // heads
            if shape == (size, size) and heads > 1:
                raise NotYet(f"that is {size} x {size}; x and z have E entries, and M is E x E.")
            if shape == (heads, E, E):
                raise NotYet("these are the matrices of all heads; one is asked for.")
            M = matrix(given, (E, E), f"a matrix of shape {(E, E)}")
            if hint := _why_not_the_scores(M, W_q.double(), W_k.double(), head, heads):
                raise NotYet(hint)
    return None


def _why_not_the_scores(M: Tensor, Q: Tensor, K: Tensor, head: int, heads: int) -> str | None:
    size = len(Q) // heads
    mine, heads_rows = slice(head * size, (head + 1) * size), slice(head * heads, (head + 1) * heads)
    before, after = slice(max(head - 1, 0) * size, head * size), slice(mine.stop, mine.stop + size)

    def of(rows: slice) -> Tensor:
        return Q[rows].T @ K[rows]

    def same(other: Tensor) -> bool:
        return bool((M - other).norm() <= 1e-4 * other.norm())

    right, (U, S, Vh) = of(mine), torch.linalg.svd(Q.T @ K)
    if same(right):
        return None
    slips = (
        (right.T, "that is z^T M x: x makes the query, and z the key."),
        (right / size**0.5, "that is divided by the root of the head's size, which is left out here."),
        (right / len(Q) ** 0.5, "that is divided by the root of E; nothing is divided here."),
        (Q.T @ K, "that is the sum over all heads."),
        (Q @ K.T, "that is neither one head nor a score: which side of W_q does x meet in W_q x?"),
        (Q[:, mine] @ K[:, mine].T, "these are columns, the inputs' side; a head owns outputs."),
        (of(slice(head, None, heads)), "a head's rows lie side by side; these are one in every few."),
        (of(heads_rows), "a head has E / heads rows, and not as many as there are heads."),
        (of(after), "that is the next head; heads are counted from 0."),
        (of(before), "that is the head before; heads are counted from 0."),
        (Q[mine].T @ Q[mine], "both sides are queries; keys come from W_k."),
        (K[mine].T @ K[mine], "both sides are keys; queries come from W_q."),
        ((right + right.T) / 2, "M need not be symmetric: the score of x and z is not that of z and x."),
        ((U[:, :size] * S[:size]) @ Vh[:size], "that is cut out of all heads; a head is no truncated SVD."),
    )
    for other, hint in slips:
        if same(other):
            return hint
    rank = int(torch.linalg.matrix_rank(M, rtol=1e-5))
    if rank != size:
        return f"its rank is {rank}, and a head has {size} rows."
    if same(right * ((M * right).sum() / right.square().sum())):
        return "that is a multiple of the right matrix."
    return "x^T M z is not this head's score."


JUDGES: dict[str, Judge] = {"9.1": _recall_at, "9.2": _head_scores_matrix, "9.3": without}
