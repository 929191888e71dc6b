r"""A convolution's kernel W (m, n, *k) as a chain of smaller kernels: its unfoldings, and their factors.

Each form is a chain of convolutions whose composition is W. A stage slides over some axes of the kernel,
and is 1 wide along the others; K is the number of taps, and r the rank.

=========  ==========================================  ======================  =====================
form       stages                                      matrix of rank r        numbers, at one group
=========  ==========================================  ======================  =====================
channel    k: n to r, then 1: r to m                   (m, n K)                r (n K + m)
input      1: n to r, then k: r to m                   (n, m K)                r (n + m K)
kernel     k: r taps on each input, then 1: n r to m   (m n, K)                r (K + m n)
spatial    k_h x 1: n to r, then 1 x k_w: r to m       (n k_h, m k_w)          r (n k_h + m k_w)
tucker2    1: n to r_in, k: r_in to r_out, 1: to m     two: channel and input  n r_in + K r_in r_out + m r_out
cp         1: n to r, each axis by itself, 1: r to m   none: r outer products  r (n + k_1 + .. + m)
=========  ==========================================  ======================  =====================

With g groups, W is (m, n, *k) with n = in_channels / g, and each group of m / g outputs has factors of its
own; the r basis kernels of ``kernel`` serve all groups.

Reference:
    Denton et al. 2014 (channel); Jaderberg et al. 2014 (spatial); Lebedev et al. 2015 (cp); Kim et al. 2016
    (tucker2); De Lathauwer et al. 2000 (its truncated higher-order SVD).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.svd import leading_svd

FORMS = ("channel", "input", "kernel", "spatial", "tucker2", "cp")
Rank = int | tuple[int, int]
ALS_ROUNDS, ALS_TOLERANCE = 300, 1e-9  # at most, and the change of the error at which it stops


def unfolding(W: Tensor, form: str) -> Tensor:
    """The matrix of one group's kernel (m, n, *k) whose rank is the form's: see the table above."""
    if form == "channel":
        return W.flatten(1)  # (m, n K)
    if form == "input":
        return W.transpose(0, 1).flatten(1)  # (n, m K)
    if form == "kernel":
        return W.flatten(2).flatten(0, 1)  # (m n, K)
    m, n, k_h, k_w = W.shape
    return W.permute(1, 2, 0, 3).reshape(n * k_h, m * k_w)  # spatial


def sliding_axes(form: str, d: int) -> list[tuple[int, ...]]:
    """Axes of a d-dimensional kernel over which each stage of the form slides."""
    every = tuple(range(d))
    stages: dict[str, list[tuple[int, ...]]] = {
        "channel": [every, ()],
        "input": [(), every],
        "kernel": [every, ()],
        "spatial": [(0,), (1,)],
        "tucker2": [(), every, ()],
        "cp": [(), *((axis,) for axis in every), ()],
    }
    return stages[form]


def factor_shapes(shape: Sequence[int], rank: Rank, form: str, groups: int = 1) -> list[tuple[int, ...]]:
    """Shapes of the stages' kernels, first stage first, for W of this shape."""
    (m, n), k = shape[:2], shape[2:]
    r_out, r_in = rank if isinstance(rank, tuple) else (rank, rank)
    first = (groups * r_in, n)
    channels = {
        "kernel": [(r_in, 1), (m, n * r_in)],
        "tucker2": [first, (groups * r_out, r_in), (m, r_out)],
        "cp": [first, *[(groups * r_in, 1)] * len(k), (m, r_in)],
    }.get(form, [first, (m, r_in)])
    return [
        (*pair, *(size if axis in axes else 1 for axis, size in enumerate(k)))
        for pair, axes in zip(channels, sliding_axes(form, len(k)), strict=True)
    ]


def largest_rank(shape: Sequence[int], form: str, groups: int = 1) -> Rank:
    """The rank that reproduces any W of this shape; for ``cp`` one that is known to suffice."""
    m, n, K = shape[0] // groups, shape[1], math.prod(shape[2:])
    if form == "kernel":
        return min(m * groups * n, K)
    if form == "spatial":
        return min(n * shape[2], m * shape[3])
    if form == "cp":
        return m * n * K // max(m, n, *shape[2:])
    r_out, r_in = min(m, n * K), min(n, m * K)
    if form == "tucker2":
        return r_out, r_in
    return r_out if form == "channel" else r_in


def by_group(W: Tensor, groups: int) -> tuple[Tensor, ...]:
    """The kernel of each group, (m / g, n, *k)."""
    return W.reshape(groups, -1, *W.shape[1:]).unbind(0)


def kernel_factors(W: Tensor, rank: Rank, form: str = "channel", *, groups: int = 1) -> list[Tensor]:
    r"""The kernels of the form's stages at this rank, first stage first, whose composition is close to W.

    The closest of its form for the four that are matrices; ``tucker2`` cuts W by the leading r_out
    and r_in vectors of its two channel unfoldings, and ``cp`` runs tensorly's alternating least squares.
    Factored in float64, rounded once.

    Args:
        W: Kernel (m, n, *k), n the inputs of one group.
        rank: r, or for ``tucker2`` the pair (r_out, r_in); of each group.
        form: "channel", "input", "kernel", "spatial" (2-D kernels only), "tucker2" or "cp".
        groups: g, which divides m.

    Shape:
        As ``factor_shapes`` says, in W's dtype and on its device, new storage.

    Raises:
        TypeError: If W is no floating tensor or ``rank`` no integer (or pair of integers).
        ValueError: If W is not finite or an argument is out of range.
        ImportError: If ``form`` is "cp" and tensorly is not installed.

    Reference:
        Denton et al. 2014; Jaderberg et al. 2014; Kim et al. 2016; Lebedev et al. 2015.

    Example:
        >>> [tuple(K.shape) for K in kernel_factors(torch.ones(8, 4, 3, 3), 2)]
        [(2, 4, 3, 3), (8, 2, 1, 1)]
    """
    W = _checks.kernel(W, groups)
    _checks.kernel_form(form, FORMS, W.ndim - 2)
    rank = _checks.kernel_rank(rank, form, largest_rank(W.shape, form, groups))
    shapes = factor_shapes(W.shape, rank, form, groups)
    parts = (W,) if form == "kernel" else by_group(W, groups)
    stages = zip(*(_of_one_group(part, rank, form) for part in parts), strict=True)
    return [
        torch.cat(stage).reshape(shape).to(W.dtype).contiguous()
        for stage, shape in zip(stages, shapes, strict=True)
    ]


def compose(kernels: Sequence[Tensor], form: str) -> Tensor:
    """W (m, n, *k) of a chain of stages: the one kernel that does what they do one after another."""
    if form == "kernel":
        basis, mixing = kernels  # (r, 1, *k), (m, n r, *1)
        C = mixing.reshape(len(mixing), -1, len(basis))  # (m, n, r)
        return torch.einsum("onr,r...->on...", C, basis[:, 0])
    W = kernels[0]
    for kernel in kernels[1:]:
        c = kernel.shape[1]  # inputs of each of the stage's q groups
        inner = W.reshape(-1, c, *W.shape[1:])  # (q, c, n, *k)
        outer = kernel.reshape(len(inner), -1, *kernel.shape[1:])  # (q, o, c, *k); either k may be 1
        W = torch.einsum("qoc...,qcn...->qon...", outer, inner).flatten(0, 1)
    return W


def _of_one_group(W: Tensor, rank: Rank, form: str) -> list[Tensor]:
    """Float64 factors of one group's kernel, outputs first in each; the caller shapes them."""
    if isinstance(rank, tuple):
        return _tucker2_factors(W, *rank)
    if form == "cp":
        return _cp_factors(W, rank)
    U, S, Vh = leading_svd(unfolding(W, form), rank)
    root = S.double().sqrt()  # both factors share the singular values
    U, Vh = U * root, root[:, None] * Vh
    if form == "channel":
        return [Vh, U]  # (r, n K), (m, r)
    if form == "input":
        return [U.T, Vh.reshape(rank, len(W), -1).transpose(0, 1)]  # (r, n), (m, r, K)
    if form == "kernel":
        return [Vh, U]  # (r, K), (m n, r)
    return [U.T, Vh.reshape(rank, len(W), -1).transpose(0, 1)]  # (r, n k_h), (m, r, k_w)


def _tucker2_factors(W: Tensor, r_out: int, r_in: int) -> list[Tensor]:
    """Truncated higher-order SVD of one group: U_in^T (r_in, n), core (r_out, r_in, *k), U_out (m, r_out)."""
    left = leading_svd(unfolding(W, "channel"), r_out)[0].double()  # (m, r_out)
    right = leading_svd(unfolding(W, "input"), r_in)[0].double()  # (n, r_in)
    half = torch.einsum("mo,mn...->on...", left, W.double())  # (r_out, n, *k)
    core = torch.einsum("ni,on...->oi...", right, half)  # (r_out, r_in, *k)
    return [right.T, core, left]


def _cp_factors(W: Tensor, r: int) -> list[Tensor]:
    """The outer products of tensorly's parafac, each factor with an even share of their size."""
    try:
        from tensorly import backend_context
        from tensorly.decomposition import parafac
    except ImportError as error:
        raise ImportError(_checks.needs("form", "cp", "tensorly")) from error
    scale = float(W.abs().max())
    if scale == 0:
        return [W.new_zeros(r, size).double() for size in W.shape[1:]] + [W.new_zeros(len(W), r).double()]
    target = W.double() / scale  # squares neither overflow nor vanish
    with backend_context("numpy", local_threadsafe=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Trying to compute SVD")  # a rank above an axis's size is no fault
        weights, raw = parafac(
            target.cpu().numpy(), r, n_iter_max=ALS_ROUNDS, tol=ALS_TOLERANCE, init="svd", random_state=0
        )
    sizes = [torch.as_tensor(factor).to(target) for factor in raw]  # (m, r), (n, r), (k_1, r), ...
    norms = torch.stack([factor.norm(dim=0) for factor in sizes])  # (d + 2, r)
    total = torch.as_tensor(weights).to(target) * norms.prod(0) * scale
    even = total ** (1 / len(sizes))
    sizes = [factor / norm.clamp_min(1e-300) * even for factor, norm in zip(sizes, norms, strict=True)]
    out = sizes[0]  # (m, r)
    stages = [factor.T for factor in sizes[1:]]  # (r, n), (r, k_1), ...
    shapes = factor_shapes(W.shape, r, "cp")
    composed = compose([f.reshape(s) for f, s in zip([*stages, out], shapes, strict=True)], "cp")
    missed = float((composed / scale - target).norm() / target.norm())
    if not missed <= 1:  # nan too: no better than no kernel at all
        _checks.value_error(
            "rank", r, f"one at which parafac converges; it misses {missed:.3g} of the kernel"
        )
    return [*stages, out]
