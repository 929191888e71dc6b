"""Judges of chapter 8: multiply-adds of a strided separable layer, shared taps, a test of a replacement."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, NotYet, function, items, matrix, named, on, whole
from lowrank_utils.exercises._replacement import keeps

# m, n, k_h, k_w, r, and the pixels before and after: no two sizes agree, and no two strides of a layer; of
# the last shape neither stride divides, so that what was made of before // after is seen
SHAPES = (
    (24, 10, 3, 5, 4, (30, 28), (15, 7)),
    (7, 32, 5, 3, 2, (27, 24), (9, 12)),
    (6, 13, 3, 5, 3, (31, 26), (11, 7)),
)


def _spatial_macs(answer: object) -> str | None:
    macs = function(answer, "spatial_macs(m, n, k_h, k_w, r, before, after)")
    for m, n, k_h, k_w, r, before, after in SHAPES:
        found = whole(macs(m, n, k_h, k_w, r, before, after), "one whole number, the multiply-adds", low=0)
        (h, w), (h_out, w_out) = before, after
        first, second = r * n * k_h, r * m * k_w
        right = first * h_out * w + second * h_out * w_out
        if found == right:
            continue
        hints = {
            "these are the numbers of the layer; each works at many places.": first + second,
            "that is the dense layer.": m * n * k_h * k_w * h_out * w_out,
            "both stages at the places of the output: the first one has not stepped along the width yet.": (
                (first + second) * h_out * w_out
            ),
            "both stages at the places of the input: the output is smaller, and a stage counts what it puts "
            "out.": (first + second) * h * w,
            "the first stage puts out fewer rows than it takes in: it has stepped along the height.": (
                first * h * w + second * h_out * w_out
            ),
            "the first stage slides along the height, so it has stepped there and not along the width.": (
                first * h * w_out + second * h_out * w_out
            ),
            "these are FLOPs, or two multiply-adds for each: one MAC is a product and its sum.": 2 * right,
            "that has k_w in the first stage and k_h in the second: the first one slides along the height.": (
                r * n * k_w * h_out * w + r * m * k_h * h_out * w_out
            ),
            "that slides along the width first: here the first stage is k_h x 1, along the height.": (
                r * n * k_w * h * w_out + r * m * k_h * h_out * w_out
            ),
            "that has m in the first stage and n in the second: the first one takes the n inputs.": (
                r * m * k_h * h_out * w + r * n * k_w * h_out * w_out
            ),
            "that has strides of before // after, rounded down: the sizes are given, so use them.": (
                first * (h // (h // h_out)) * w + second * (h // (h // h_out)) * (w // (w // w_out))
            ),
            "that has strides rounded down in the first stage: its rows are those of the output.": (
                first * (h // (h // h_out)) * w + second * h_out * w_out
            ),
            "that is one stage of the two; the layer has both.": first * h_out * w,
            "that is one stage of the two, too; the layer has both.": second * h_out * w_out,
        }
        hint = named(float(found), {told: float(value) for told, value in hints.items()}, rel_tol=1e-9)
        return hint or f"with m={m}, n={n}, {k_h} x {k_w} and r={r} another number is right."
    return None


def _kernels() -> Iterator[tuple[Tensor, int]]:
    """Kernels (m, n, k_h, k_w) of full rank with a mean that is not zero, and a rank; no two sizes agree."""
    noise = torch.Generator().manual_seed(8)
    for shape, r in (((6, 5, 3, 4), 3), ((2, 3, 5, 2), 4), ((9, 4, 1, 7), 1)):
        yield torch.randn(shape, generator=noise, dtype=torch.float64) + 0.7, r


def _best_taps(W: Tensor, r: int, shift: float | Tensor = 0.0) -> Tensor:
    """The nearest kernel whose filters are mixtures of r of their own size; ``shift`` is left out of it."""
    A = W.flatten(2).flatten(0, 1) - shift
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    best: Tensor = (U[:, :r] * S[:r]) @ Vh[:r]
    return best.reshape(W.shape)


def _basis(answer: object) -> str | None:
    shared = function(answer, "basis(W, r)")
    for W, r in _kernels():
        m, n, k_h, k_w = W.shape
        with on(f"a kernel of {m} x {n} x {k_h} x {k_w} at r = {r}"):
            pair = items(shared(W, r), "the pair (taps, mixing)", 2)
            shapes = (r, k_h, k_w), (m, n, r)
            if all(
                getattr(each, "shape", None) == shape for each, shape in zip(pair, shapes[::-1], strict=True)
            ):
                raise NotYet("return the taps first, then the mixing.")
            taps = matrix(pair[0], shapes[0], f"taps of shape {shapes[0]}")
            mixing = matrix(pair[1], shapes[1], f"a mixing of shape {shapes[1]}")
            made = torch.einsum("oir,rhw->oihw", mixing, taps)
            if hint := _why_not_nearest(W, made, r):
                return hint
    return None


def _why_not_nearest(W: Tensor, made: Tensor, r: int) -> str | None:
    """A hint for a kernel that mixes r taps, if another one is nearer to W."""
    missed, least = float((W - made).norm()), float((W - _best_taps(W, r)).norm())
    if missed <= least * (1 + 1e-5):
        return None

    def same(kernel: Tensor) -> bool:
        return torch.allclose(made, kernel, rtol=1e-4, atol=1e-5 * float(W.norm()))

    A = W.flatten(2).flatten(0, 1)
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    U, S, Vh = U[:, :r], S[:r], Vh[:r]
    first = Vh.new_zeros(A.shape)
    first[:, :r] = A[:, :r]
    hints = (
        (U @ Vh, "the singular values are missing: neither factor has them."),
        (U * S.square() @ Vh, "the singular values are in both factors: give them to one, or each its root."),
        (U * S.sqrt() @ Vh, "one factor has the root of the singular values, the other nothing of them."),
        (
            _best_taps(W, r, A.mean(0)).flatten(2).flatten(0, 1),
            "the mean was subtracted, and is nowhere added.",
        ),
        (first, "the first r taps alone are no basis that fits these filters best: take singular vectors."),
    )
    for wrong, hint in hints:
        if same(wrong.reshape(W.shape)):
            return hint
    for axes in itertools.permutations(range(4)):
        B = W.permute(axes).reshape(A.shape)
        U, S, Vh = torch.linalg.svd(B, full_matrices=False)
        if same(((U[:, :r] * S[:r]) @ Vh[:r]).reshape(W.shape)):
            return f"your unfolding is that of W.permute{axes}, in the shape of W's: reshape W itself."
    if float((W - made).norm()) > float(W.norm()):
        return (
            "the mixed taps are further from W than nothing at all: do the rows of your unfolding belong to "
            "filters, and its columns to taps?"
        )
    shares = missed / float(W.norm()), least / float(W.norm())
    digits = next(d for d in range(2, 9) if d == 8 or f"{shares[0]:.{d}f}" != f"{shares[1]:.{d}f}")
    mine, best = (f"{share:.{digits}f}" for share in shares)
    return f"your kernel misses {mine} of W, and taps that fit better {best}."


JUDGES: dict[str, Judge] = {"8.1": _spatial_macs, "8.2": _basis, "8.3": keeps}
