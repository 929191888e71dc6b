"""What a convolution costs and loses in each low-rank form, at each rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.unfold import (
    FORMS,
    Rank,
    by_group,
    factor_shapes,
    largest_rank,
    sliding_axes,
    unfolding,
)
from lowrank_utils.layers.stages import Conv, Stage

SHOWN = (0.1, 0.25, 0.5, 0.75, 1.0)  # shares of the dense numbers, for which a table shows each form


@dataclass(frozen=True)
class ConvOption:
    """One form at one rank, as ``conv_options`` lists them.

    Attributes:
        form: "channel", "input", "kernel", "spatial" or "tucker2".
        rank: r, or for "tucker2" the pair (r_out, r_in).
        params: Numbers in the kernels; a bias is the same in every form and not counted.
        macs: Multiply-adds of one sample, or of one output position if no size was given.
        error: What the kernel loses, relative to its Frobenius norm.
    """

    form: str
    rank: Rank
    params: int
    macs: int
    error: float


@dataclass(frozen=True)
class ConvOptions:
    """All forms of one convolution at all ranks that save something; ``print`` shows a table.

    Attributes:
        options: By form, and by rank within a form.
        params: Numbers in the dense kernel.
        macs: Multiply-adds of the dense convolution.
        size: The input's size along each axis, or None if multiply-adds are for one output position.
    """

    options: tuple[ConvOption, ...]
    params: int
    macs: int
    size: tuple[int, ...] | None

    def best(self, max_params: float) -> ConvOption | None:
        """The option of the least error that holds at most so many numbers, or None.

        Args:
            max_params: Largest number of entries in the kernels.

        Raises:
            TypeError: If ``max_params`` is no number.
            ValueError: If it is negative, nan or inf.
        """
        most = _checks.real(max_params, "max_params", low=0)
        fits = [option for option in self.options if option.params <= most]
        return min(fits, key=lambda option: (option.error, option.params), default=None)

    def _shown(self) -> Iterator[ConvOption]:
        """For each form, the largest option within each of a few shares of the dense numbers."""
        for form in dict.fromkeys(option.form for option in self.options):
            within = [
                max(
                    (o for o in self.options if o.form == form and o.params <= share * self.params),
                    key=lambda o: o.params,
                    default=None,
                )
                for share in SHOWN
            ]
            yield from dict.fromkeys(option for option in within if option is not None)

    def __str__(self) -> str:
        rows = [("form", "rank", "params", "", "MACs", "", "error")]
        dense = ConvOption("dense", 0, self.params, self.macs, 0.0)
        for o in (dense, *self._shown()):
            rank = "" if o is dense else "x".join(map(str, o.rank if isinstance(o.rank, tuple) else [o.rank]))
            shares = f"{o.params / self.params:.0%}", f"{o.macs / max(self.macs, 1):.0%}"
            rows.append(
                (o.form, rank, f"{o.params:,}", shares[0], f"{o.macs:,}", shares[1], f"{o.error:.3f}")
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                f"{cell:{'>' if i else '<'}{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)


@torch.no_grad()
def conv_options(conv: Conv, size: int | Sequence[int] | None = None) -> ConvOptions:
    r"""Numbers, multiply-adds and error of each low-rank form, at each rank that saves any of the first two.

    The error is ||W - W_r||_F / ||W||_F of the kernel that ``LowRankConv.from_conv`` makes, from the
    tails of its singular values, and for "tucker2" from the part of the full core that is cut off:
    exact but for rounding, and no bound. Tucker's pairs are the balanced ones, r_out / r_in as the full
    ranks; "cp" has no spectrum and is left out.

    Args:
        conv: Convolution with kernel (m, n, *k); it is not changed.
        size: The input's size along each axis, for the multiply-adds of one sample. Without it they
            are for one output position, far from the edges.

    Raises:
        TypeError: If ``conv`` is no convolution or ``size`` no integers.
        ValueError: If the weight is not finite, or ``size`` does not fit it.

    Reference:
        Denton et al. 2014; Jaderberg et al. 2014; Kim et al. 2016.

    Example:
        >>> from torch import nn
        >>> conv = nn.Conv1d(4, 4, 3)
        >>> _ = conv.weight.data.copy_(torch.eye(4)[:, :, None] * torch.tensor([1.0, 2.0, 1.0]))
        >>> best = conv_options(conv).best(max_params=24)  # one shape of tap, on four channels
        >>> best.form, best.rank, best.params, round(best.error, 6)
        ('kernel', 1, 19, 0.0)
    """
    conv = _checks.convolution(conv)
    W, g, d = _checks.kernel(conv.weight, conv.groups), conv.groups, conv.weight.ndim - 2
    ends = _positions(conv, size)
    dense = W.numel() * math.prod(out for _, out in ends)
    options = []
    for form in FORMS:
        if form == "cp" or (form == "spatial" and d != 2):
            continue
        for rank, error in _errors(W, form, g):
            shapes = factor_shapes(W.shape, rank, form, g)
            params, macs = sum(map(math.prod, shapes)), _macs(shapes, form, ends, conv.in_channels)
            if params < W.numel() or macs < dense:
                options.append(ConvOption(form, rank, params, macs, error))
    sizes = None if size is None else tuple(before for before, _ in ends)
    return ConvOptions(tuple(options), W.numel(), dense, sizes)


def _positions(conv: Conv, size: int | Sequence[int] | None) -> list[tuple[int, int]]:
    """Positions along each axis, before the convolution and after it."""
    d = conv.weight.ndim - 2
    if size is None:
        return [(stride, 1) for stride in conv.stride]
    sizes = _checks.sizes(size, "size", d)
    padding = conv.padding if isinstance(conv.padding, str) else tuple(conv.padding)
    k = tuple(conv.kernel_size)
    margins = Stage(k, conv.stride, padding, conv.dilation, conv.groups, conv.padding_mode).margins()
    ends = []
    for axis, before in enumerate(sizes):
        room = before + sum(margins[2 * (d - 1 - axis) :][:2])  # margins begin with the last axis
        span = conv.dilation[axis] * (k[axis] - 1) + 1
        if room < span:
            _checks.value_error("size", size, f"at least {before + span - room} along axis {axis}")
        ends.append((before, (room - span) // conv.stride[axis] + 1))
    return ends


def _macs(shapes: Sequence[tuple[int, ...]], form: str, ends: list[tuple[int, int]], in_channels: int) -> int:
    """Each stage's numbers times its positions: the output's along the axes that have been slid over."""
    total, slid = 0, set[int]()
    for i, (shape, axes) in enumerate(zip(shapes, sliding_axes(form, len(ends)), strict=True)):
        slid |= set(axes)
        places = math.prod(after if axis in slid else before for axis, (before, after) in enumerate(ends))
        channels = in_channels if form == "kernel" and i == 0 else 1  # the basis runs on each of them
        total += math.prod(shape) * places * channels
    return total


def _errors(W: Tensor, form: str, groups: int) -> Iterator[tuple[Rank, float]]:
    """Each rank of the form, and its relative error, in float64."""
    scale = float(W.abs().max())
    parts = (W,) if form == "kernel" else by_group(W, groups)
    parts = tuple(part.double() / (scale if scale > 0 else 1.0) for part in parts)  # squares stay in range
    total = float(sum(part.square().sum() for part in parts))
    top = largest_rank(W.shape, form, groups)
    if isinstance(top, tuple):
        energy = torch.stack([_core_energy(part)[: top[0], : top[1]] for part in parts]).sum(0)
        longer = max(top)
        for t in range(1, longer + 1):
            r_out, r_in = (-(-t * full // longer) for full in top)  # rounded up
            lost = float(energy[r_out:].sum() + energy[:r_out, r_in:].sum())
            yield (r_out, r_in), math.sqrt(lost / total) if total else 0.0
        return
    energy = torch.stack([_spectrum(unfolding(part, form)) for part in parts]).sum(0)  # (top,)
    tails = energy.flip(0).cumsum(0).flip(0).tolist()[1:] + [0.0]
    for rank, lost in enumerate(tails, 1):
        yield rank, math.sqrt(lost / total) if total else 0.0


def _spectrum(A: Tensor) -> Tensor:
    """Squared singular values, largest first, to rounding of the sum: all that a relative error asks for."""
    gram = A @ A.T if len(A) <= A.shape[1] else A.T @ A
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values.flip(0).clamp_min(0)


def _core_energy(W: Tensor) -> Tensor:
    """Of the full higher-order SVD, the energy (m, n) of each pair of output and input vectors."""
    left, right = (
        torch.linalg.eigh(A @ A.T).eigenvectors.flip(1) for A in (W.flatten(1), unfolding(W, "input"))
    )
    half = torch.tensordot(left.T, W, 1)  # (m, n, *k)
    core = torch.tensordot(half, right, ([1], [0]))  # (m, *k, n)
    energy: Tensor = core.flatten(1, -2).square().sum(1)
    return energy
