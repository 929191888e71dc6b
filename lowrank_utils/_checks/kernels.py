"""Checks of convolutions and their kernels."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from lowrank_utils._checks.tensors import matrix
from lowrank_utils._checks.values import choice, integer
from lowrank_utils._checks.words import type_error, value_error


def kernel(W: object, groups: object = 1, name: str = "W") -> Tensor:
    """Return ``W`` detached, if it is a finite floating kernel (m, n, *k) with m divisible by ``groups``."""
    if not isinstance(W, Tensor):
        raise TypeError(f"{name} of type {type(W).__name__} must be a torch.Tensor")
    if W.ndim not in (3, 4, 5) or W.numel() == 0:
        value_error(name, W, "a non-empty kernel of shape (m, n, *k) with one to three axes k")
    matrix(W.flatten(1), name)
    g = integer(groups, "groups", low=1)
    if len(W) % g:
        value_error("groups", g, f"a divisor of the {len(W)} outputs")
    return W.detach()


def kernel_form(value: object, allowed: Iterable[str], d: int) -> str:
    """Return ``value`` if it is a form for kernels with ``d`` axes."""
    form = choice(value, "form", allowed)
    if form == "spatial" and d != 2:
        value_error("form", form, f"a form for {d}-D kernels; spatial is for 2-D ones")
    return form


def kernel_rank(value: object, form: str, limit: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return ``value`` as a rank of a kernel's form: an integer, or a pair if the limit is one."""
    if isinstance(limit, int):
        return integer(value, "rank", low=1, high=limit, why=f"the full rank of form {form!r}")
    if not isinstance(value, tuple | list) or len(value) != 2:
        type_error("rank", value, f"a pair (r_out, r_in) for form {form!r}")
    out, inner = (
        integer(part, f"rank[{i}]", low=1, high=high, why=f"the full rank of form {form!r}")
        for i, (part, high) in enumerate(zip(value, limit, strict=True))
    )
    return out, inner


def convolution(value: object, name: str = "conv") -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """Return ``value`` if it is a convolution that computes what nn.Conv1d, nn.Conv2d or nn.Conv3d does."""
    for plain in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if isinstance(value, plain):
            own = type(value)
            if own.forward is not plain.forward or own._conv_forward is not plain._conv_forward:
                type_error(name, value, f"an nn.{plain.__name__} with its own forward, not {own.__name__}'s")
            if isinstance(value.weight, nn.parameter.UninitializedParameter):
                type_error(name, value, "a convolution with a weight; run the lazy one on an input first")
            return value
    type_error(name, value, "an nn.Conv1d, nn.Conv2d or nn.Conv3d")
