"""Judges of chapter 10: gradients of an adapter, the sum of two, and one taken out of an update."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, NotYet, function, items, matrix, on

SHAPES = (
    (7, 4, 3),
    (3, 8, 2),
    (5, 5, 1),
)  # m, n, r: tall, wide, square; no two sizes of a case agree but there


def _draw(*shapes: tuple[int, int], seed: int) -> Iterator[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=noise, dtype=torch.float64) + 0.3 for shape in shapes)


def _same(found: Tensor, wanted: Tensor) -> bool:
    """Equal but for the rounding of single precision."""
    return bool((found - wanted).norm() <= 1e-4 * wanted.norm())


def _pair(
    answer: object, wanted: str, shapes: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Two matrices of these shapes, with a word if they stand the other way round."""
    pair = items(answer, wanted, 2)
    told = [tuple(shape) if (shape := getattr(each, "shape", None)) is not None else None for each in pair]
    if told == [*shapes[::-1]] and shapes[0] != shapes[1]:
        raise NotYet("return what belongs to A first, then what belongs to B.")
    first = matrix(pair[0], shapes[0], f"first a matrix of shape {shapes[0]}, for A")
    return first, matrix(pair[1], shapes[1], f"second a matrix of shape {shapes[1]}, for B")


def _gradients(answer: object) -> str | None:
    gradients = function(answer, "gradients(G, A, B, alpha)")
    for (m, n, r), alpha in zip(SHAPES, (5.0, 0.7, 3.0), strict=True):
        G, A, B = _draw((m, n), (r, n), (m, r), seed=m)
        scale = alpha / r
        with on(f"A of {r} x {n} and B of {m} x {r}"):
            found = _pair(gradients(G, A, B, alpha), "the pair of gradients, by A and by B", ((r, n), (m, r)))
        dA, dB = B.T @ G, G @ A.T
        if all(map(_same, found, (scale * dA, scale * dB))):
            continue
        hints = (
            (1.0, 1.0, "the scale is missing: the update is alpha / r times B A."),
            (alpha, alpha, "the scale is alpha / r, and not alpha."),
            (scale**2, scale**2, "the scale is there twice: each gradient has it once."),
            (1 / scale, 1 / scale, "these are divided by alpha / r: a larger scale makes a larger gradient."),
            (scale, 1.0, "the gradient by B has no scale."),
            (1.0, scale, "the gradient by A has no scale."),
            (-scale, -scale, "that is the step downhill; the gradient has the other sign."),
            (
                scale / len(G),
                scale / len(G),
                "nothing is averaged here: G has summed over the samples already.",
            ),
        )
        for a, b, hint in hints:
            if all(map(_same, found, (a * dA, b * dB))):
                return hint
        if not _same(found[0], scale * dA):
            return "the gradient by A is another one: how does the weight change with one entry of A?"
        return "the gradient by B is another one: how does the weight change with one entry of B?"
    return None


def _add(answer: object) -> str | None:
    add = function(answer, "add(first, second, weights)")
    for (m, n, r), r2, alphas, weights in zip(
        SHAPES,
        (2, 4, 1),
        ((6.0, 5.0), (1.0, 8.0), (2.0, 0.5)),
        ((0.4, 3.0), (1.0, -1.0), (0.3, 0.7)),
        strict=True,
    ):
        A1, B1, A2, B2 = _draw((r, n), (m, r), (r2, n), (m, r2), seed=10 * m)
        first, second = (A1, B1, alphas[0]), (A2, B2, alphas[1])
        with on(f"ranks {r} and {r2}"):
            pair = items(add(first, second, weights), "the pair (A, B)", 2)
            shapes = (r + r2, n), (m, r + r2)
            if r == r2 and [tuple(getattr(each, "shape", ())) for each in pair] == [(r, n), (m, r)]:
                raise NotYet("a sum of two products is not the product of two sums: its rank is r1 + r2.")
            A, B = _pair(pair, "the pair (A, B)", shapes)
        s1, s2 = alphas[0] / r, alphas[1] / r2
        w1, w2 = weights
        one, two = B1 @ A1, B2 @ A2
        if _same(B @ A, w1 * s1 * one + w2 * s2 * two):
            continue
        slips = (
            (w1 * one + w2 * two, "the scales alpha / r are missing: the result's own scale is 1."),
            (w1 * alphas[0] * one + w2 * alphas[1] * two, "the scales are alpha / r, and not alpha."),
            (w1 * s1**2 * one + w2 * s2**2 * two, "the scales are in both factors: give them to one."),
            (w1**2 * s1 * one + w2**2 * s2 * two, "the weights are in both factors: give them to one."),
            (
                (w1 * s1) ** 2 * one + (w2 * s2) ** 2 * two,
                "weights and scales are in both factors: once is enough.",
            ),
            (s1 * one + s2 * two, "the weights are missing."),
            (w2 * s1 * one + w1 * s2 * two, "each weight is at the other adapter."),
            (w1 * s2 * one + w2 * s1 * two, "each scale is at the other adapter."),
            (
                w1 * alphas[0] / (r + r2) * one + w2 * alphas[1] / (r + r2) * two,
                "the rank in alpha / r is that of the adapter itself, and not that of the sum.",
            ),
        )
        for wrong, hint in slips:
            if _same(B @ A, wrong):
                return hint
        return "the shapes are right, and the product is not the weighted sum of the two updates."
    return None


def _updates() -> Iterator[tuple[Tensor, Tensor, float, int]]:
    """(old, new, share, rank): neither weight has the rank that the update has."""
    for (m, n, _), share in zip(((9, 6, 0), (5, 8, 0), (6, 6, 0)), (0.9, 0.6, 0.97), strict=True):
        left, right, old = _draw((m, m), (n, n), (m, n), seed=m + n)
        k = min(m, n)
        U, V = torch.linalg.qr(left)[0][:, :k], torch.linalg.qr(right)[0][:, :k]
        S = 2 * torch.tensor([1.0, 0.8, 0.7, 0.3, 0.2, 0.1], dtype=torch.float64)[:k]
        kept = S.square().cumsum(0) / S.square().sum()
        old = 3 * old
        yield old, old + (U * S) @ V.T, share, int((kept < share).sum()) + 1


def _extract(answer: object) -> str | None:
    extract = function(answer, "extract(old, new, share)")
    for old, new, share, rank in _updates():
        (m, n), D = old.shape, new - old
        U, S, Vh = torch.linalg.svd(D, full_matrices=False)
        with on(f"an update of {m} x {n} and a share of {share}"):
            pair = items(extract(old, new, share), "the pair (A, B)", 2)
            r = getattr(pair[0], "shape", (None,))[0]
            if r != rank and isinstance(r, int) and getattr(pair[1], "shape", None) == (m, r):
                raise NotYet(_other_rank(old, new, share, r, rank))
            A, B = _pair(pair, "the pair (A, B)", ((rank, n), (m, rank)))
        made, best = B @ A, (U[:, :rank] * S[:rank]) @ Vh[:rank]
        if (D - made).norm() <= (D - best).norm() * (1 + 1e-5):
            continue
        u, s, vh = torch.linalg.svd(new, full_matrices=False)
        slips = (
            (-best, "that is old minus new: added to the old weight it leads away from the new one."),
            (U[:, :rank] @ Vh[:rank], "the singular values are missing: neither factor has them."),
            ((U[:, :rank] * S[:rank].square()) @ Vh[:rank], "the singular values are in both factors."),
            (
                (U[:, :rank] * S[:rank].sqrt()) @ Vh[:rank],
                "one factor has the root of the singular values, and the other nothing of them.",
            ),
            ((u[:, :rank] * s[:rank]) @ vh[:rank], "that is cut out of the new weight; cut the difference."),
            ((U[:, -rank:] * S[-rank:]) @ Vh[-rank:], "these are the smallest singular values."),
        )
        for wrong, hint in slips:
            if _same(made, wrong):
                return hint
        return "another product of this rank is nearer to the update: take its truncated SVD."
    return None


def _other_rank(old: Tensor, new: Tensor, share: float, r: int, rank: int) -> str:
    """Why the rank is another one."""
    S = torch.linalg.svdvals(new - old)
    sums = S.cumsum(0) / S.sum()
    if r == int((sums < share).sum()) + 1:
        return "energy is the sum of the squares of the singular values, and not of the values."
    whole = torch.linalg.svdvals(new).square()
    if r == int((whole.cumsum(0) / whole.sum() < share).sum()) + 1:
        return "that is the rank of the new weight; the update has another one."
    if r == rank - 1:
        return "this rank holds a little less than the share: one more is needed."
    if r == len(S):
        return "all singular values are there; a smaller rank holds the share."
    return f"rank {r} is not the smallest that holds the share."


JUDGES: dict[str, Judge] = {"10.1": _gradients, "10.2": _add, "10.3": _extract}
