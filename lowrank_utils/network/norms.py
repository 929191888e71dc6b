"""Batch norms after the cut: their statistics brought back to what they were for the dense model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.which import hooked_input
from lowrank_utils.model.batches import Batch, batches, call
from lowrank_utils.model.metrics import mode


@plainly()
@torch.no_grad()
def recalibrate_norms(small: nn.Module, dense: nn.Module, X: Any, *, batch_size: int = 256) -> nn.Module:
    r"""A copy of ``small`` whose batch norms give each channel the mean and variance it has in ``dense``.

    A batch norm subtracts a stored mean mu and divides by the root of a stored variance s. If the channel
    before it has mean a and variance v in the dense model, and a' and v' in the small one, the same
    normalised channel comes from s' = s v' / v and mu' = a' - (a - mu) (s' / s)^1/2. Nothing else changes,
    and no labels are needed. The norms are mended one after the other, each with those before it mended: one
    run for all where X is one batch, else one up to each. Of a norm that is called twice only the first call
    counts.

    After ``cascade`` leave the norms alone: its layers are least-squares predictions, which vary less than
    what they predict, and to stretch them to the old variance stretches their errors too.

    Args:
        small: A compressed copy of ``dense``; it is not changed.
        dense: The model that it was made of; it is not changed.
        X: Samples (N, ...) without labels, or batches, as in ``calibrate``.
        batch_size: Samples a batch, if X holds all samples.

    Returns:
        A copy; without a batch norm that keeps statistics, an unchanged one.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there are no samples, or a norm is not there in both models.

    Example:
        >>> dense = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
        >>> small = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
        >>> X = torch.randn(50, 2)
        >>> mended = recalibrate_norms(small, dense, X)
        >>> bool((mended(X).mean(0) - dense(X).mean(0)).abs().max() < 1e-5)
        True
    """
    small, dense = copied(_checks.module(small, "small")), copied(_checks.module(dense, "dense")).eval()
    data = [batch for batch in batches(X, size=batch_size) if len(batch)]
    if not data:
        _checks.no_samples()
    with mode(small, training=False):
        _mend(small, dense, data)
    return small


def _mend(small: nn.Module, dense: nn.Module, data: Sequence[Batch]) -> None:
    """Set the statistics of ``small`` itself, one norm after the other."""
    wanted, theirs, ours = _inputs_of_norms(dense, data), _norms(dense), _norms(small)
    for name in wanted:
        if name not in ours:
            _checks.value_error("small", small, f"a copy of dense with a batch norm {name!r}")
    waiting = set(wanted)

    def bring_back(name: str, a: Tensor, v: Tensor) -> None:
        if name in wanted:
            _set(name, ours[name], theirs[name], wanted[name], (a, v))
        waiting.discard(name)
        if not waiting:
            raise _Reached

    if len(data) == 1:  # each is mended on the way, before it is applied
        seen = _inputs_of_norms(small, data, reached=bring_back)
    else:
        seen = {}
        for name in wanted:
            seen |= _inputs_of_norms(small, data, last=name)
            if name in seen:
                _set(name, ours[name], theirs[name], wanted[name], seen[name])
    for name in wanted:
        if name not in seen:
            _checks.value_error("small", small, f"a model that calls its batch norm {name!r}, as dense does")


def _set(name: str, new: Any, norm: Any, wanted: tuple[Tensor, Tensor], seen: tuple[Tensor, Tensor]) -> None:
    """The statistics of one norm, from the mean and variance of its channels in the dense model, and now."""
    (mean, variance), (a, v) = wanted, seen
    _checks.finite_in(name, "inputs", variance + v)
    old = norm.running_var.double() + norm.eps
    s = old * v / variance.clamp_min(torch.finfo(old.dtype).tiny)
    alive = (variance > 0) & (v > 0)  # a channel that never moves keeps its variance
    s = torch.where(alive, s, old)
    new.running_var.copy_((s - norm.eps).clamp_min(0))
    new.running_mean.copy_(a - (mean - norm.running_mean.double()) * (s / old).sqrt())


def _norms(model: nn.Module) -> dict[str, Any]:
    """The batch norms that keep statistics."""
    return {k: m for k, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_var is not None}


class _Reached(Exception):  # no error: the rest of the run is not needed
    """The norm that was waited for has been called."""


def _inputs_of_norms(
    model: nn.Module,
    data: Sequence[Batch],
    last: str | None = None,
    reached: Callable[[str, Tensor, Tensor], None] | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance (C,) of each channel before each batch norm's first call, in the order of the calls.

    Args:
        model: In eval mode.
        data: Not empty.
        last: A run ends at this norm, and no other is recorded.
        reached: Called with a norm's name, mean and variance, before it is applied for the first time.
    """
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}  # values a channel, mean, sum of squares about it
    called: set[str] = set()  # in this run

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            if name in called:
                return
            called.add(name)
            rows = hooked_input(args, kwargs).movedim(1, -1).flatten(0, -2).double()  # (N ..., C)
            mean = rows.mean(0)
            squares = (rows - mean).square().sum(0)
            if name in sums:  # pairwise update of Chan et al.
                count, old, before = sums[name]
                total = count + len(rows)
                squares = squares + before + (mean - old).square() * (count * len(rows) / total)
                mean = old + (mean - old) * (len(rows) / total)
                sums[name] = total, mean, squares
            else:
                sums[name] = len(rows), mean, squares
                if reached is not None:
                    reached(name, mean, squares / len(rows))
            if name == last:
                raise _Reached

        return hook

    names = _norms(model) if last is None else [last]
    handles = [
        model.get_submodule(name).register_forward_pre_hook(record(name), with_kwargs=True) for name in names
    ]
    try:
        for batch in data:
            called.clear()
            with suppress(_Reached):
                call(model, batch.on(model).inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (mean, squares / count) for name, (count, mean, squares) in sums.items()}
