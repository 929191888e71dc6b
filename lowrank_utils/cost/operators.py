"""Multiply-adds of one operator, from the shapes that it was given: the formulas behind ``count_macs``."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor

# position of the left factor (..., k) of a product: each number that comes out took k multiply-adds
LEFT = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "_int_mm": 0, "linear": 0, "mkldnn_linear": 0}
LEFT |= {"addmm": 1, "baddbmm": 1, "addmv": 1, "_addmm_activation": 1}
_ATTENTION = re.compile(r"flex_attention|_scaled_dot_product_\w*attention(_\w+)?(?<!_backward)")
_RNN = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"}
# gradient of a product of vectors: an outer product, which autograd writes as an elementwise one
_OUTER = {"MvBackward0", "AddmvBackward0", "DotBackward0", "VdotBackward0"}
# what looks like a product but has no formula here: int4 and sparse kernels, some backwards, solvers
_PRODUCT = re.compile(
    r"(^|_)(\w*mm|conv(\dd)?|convolution|attention|matmul|cdist|pdist|quantized_gru|quantized_lstm|lstm_mps)(_|$)"
    r"|(rnn|linear)\w*_backward"
    r"|^_?linalg_(?!vector_norm|cross|diagonal|check_errors)|cholesky|triangular_solve|lu_solve|ormqr|orgqr|geqrf"
)
_PLAIN = {"aten", "prim", "prims", "profiler"}  # name spaces without products but those
# they move or make numbers, and reckon nothing
_MOVES = re.compile(
    r"_?(clone|copy|detach|alias|to_copy|lift_fresh|empty|new_|zeros|ones|full|fill|zero|scalar_tensor|arange"
    r"|cat|stack|index|gather|scatter|select|slice|embedding|repeat|roll|flip|unfold|constant_pad|pad"
    r"|local_scalar_dense|resize|set_|tril|triu|where|masked_fill|split|unsafe_view|reshape_alias|nonzero)"
)


def macs_of(name: str, args: tuple[Any, ...], out: Any, node: str = "") -> int | None:
    """Multiply-adds of aten::``name`` within autograd's ``node``, or None where it is no product."""
    if name in LEFT:
        return int(out.numel() * args[LEFT[name]].shape[-1])
    if name in ("convolution", "_convolution"):  # (x, weight, bias, stride, pad, dilation, transposed)
        x, weight, transposed = args[0], args[1], args[6]
        return int((x if transposed else out).numel() * weight[0].numel())
    if name == "convolution_backward":  # (dy, x, weight, ..., transposed, ..., (want dx, want dW, want db))
        dy, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
        return int((x if transposed else dy).numel() * weight[0].numel() * sum(wanted[:2]))
    if name == "addbmm":  # out (n, p) += sum_b x[b] (n, k) y[b] (k, p)
        return int(out.numel() * args[1].shape[-1] * args[1].shape[0])
    if name == "addr" or (name == "mul" and node in _OUTER):  # out (n, p) += x (n,) y (p,)
        return int(out.numel())
    if name == "_euclidean_dist":  # torch.cdist of many points: a product, the norms in two more columns
        return int(out.numel() * (args[0].shape[-1] + 2))
    if name == "conv_tbc":  # weight (width, c_in, c_out)
        return int(out.numel() * args[1].shape[:2].numel())
    if name == "_trilinear":
        return _trilinear(*args[:7])
    if name in _RNN:  # every weight meets every token once
        weights = args[1] if isinstance(args[1], list | tuple) else args[1:5]
        tokens = args[0].numel() // args[0].shape[-1]
        return int(tokens * sum(w.numel() for w in weights if w.ndim == 2))
    # fused attention, where the model itself insists on it, or is scripted
    if _ATTENTION.fullmatch(name):
        q, k, v = args[:3]  # (..., L, e), (..., S, e), (..., S, f)
        return int(q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    if name == "_native_multi_head_attention":  # (B, L, e), (B, S, e), (B, S, e), e
        q, k, v, width = args[:4]
        return int((2 * q.numel() + k.numel() + v.numel()) * width + 2 * q.numel() * k.shape[1])
    if name == "_transformer_encoder_layer_fwd":  # (B, L, e), e, ..., the weights of the two linears
        x, width, feed = args[0], args[1], args[14].numel() + args[16].numel()
        return int(x.numel() * (4 * width + 2 * x.shape[1]) + x.numel() // width * feed)
    return None


def _trilinear(
    a: Tensor, b: Tensor, c: Tensor, new_a: list[int], new_b: list[int], new_c: list[int], summed: list[int]
) -> int:
    """Sum of a * b * c over axes ``summed``, each given new axes: a * b first, then times c."""
    factors = []
    for factor, axes in ((a, new_a), (b, new_b), (c, new_c)):
        for axis in sorted(axes):
            factor = factor.unsqueeze(axis)
        factors.append((factor.shape, axes))
    size = [max(shape[axis] for shape, _ in factors) for axis in range(len(factors[0][0]))]
    in_a, in_b, in_c = ({*range(len(size))} - {*axes} for _, axes in factors)
    kept = (in_a | in_b) - ({*summed} - in_c)  # an axis that c has not is summed at once
    return sum(math.prod(size[axis] for axis in axes) for axes in (in_a | in_b, kept | in_c))


def may_hide_products(space: str, name: str) -> bool:
    """Whether an operator without a formula may hold products: ``space::name``."""
    return space not in _PLAIN or _PRODUCT.search(name) is not None


def reckons(name: str) -> bool:
    """Whether an operator without a formula computes at all, as a sum or a softmax does."""
    return _MOVES.match(name) is None
