"""The table of one model by layer: who owns the parameters, the multiply-adds, the activations."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lowrank_utils import _checks
from lowrank_utils.cost.activations import saved_bytes
from lowrank_utils.cost.macs import tally
from lowrank_utils.cost.tables import aligned, listed


@dataclass(frozen=True)
class LayerCost:
    """One module's row of a ``LayerTable``: what it owns itself, without its parts.

    Attributes:
        layer: Dotted name; "" for the model itself.
        kind: Name of its class.
        calls: How often it was called.
        params: Its parameters.
        macs: Multiply-adds of the forward.
        backward_macs: Multiply-adds of the backward pass; None unless that was asked for.
        activation_bytes: Bytes saved for the backward pass; None unless that was asked for.
    """

    layer: str
    kind: str
    calls: int
    params: int
    macs: int
    backward_macs: int | None = None
    activation_bytes: int | None = None


@dataclass(frozen=True)
class LayerTable:
    """Rows of ``cost_by_layer``, found by the layer's name; prints as a table.

    Attributes:
        rows: One row a module that owns something, in the order of ``model.named_modules()``.
        total: The sums: equal to ``count_params``, ``count_macs`` and ``activation_bytes`` of the model.
        not_counted: ``{operator: calls}`` of what may hide products and counted 0.
        free: ``{operator: calls}`` of what the forward reckons besides products: 0 by convention.
    """

    rows: tuple[LayerCost, ...]
    total: LayerCost
    not_counted: Mapping[str, int]
    free: Mapping[str, int]

    def __getitem__(self, layer: str) -> LayerCost:
        for row in self.rows:
            if row.layer == layer:
                return row
        raise KeyError(f"layer={layer!r} must be one of {[row.layer for row in self.rows]}")

    def __str__(self) -> str:
        head = ("layer", "kind", "calls", "params", "MACs", "backward", "saved bytes")
        lines: list[tuple[str, ...]] = [head]
        for row in (*self.rows, self.total):
            numbers = (row.calls, row.params, row.macs, row.backward_macs, row.activation_bytes)
            cells = ("" if number is None else f"{number:,}" for number in numbers)
            lines.append((row.layer or "(model)", row.kind, *cells))
        if self.total.backward_macs is None:
            lines = [line[:5] for line in lines]
        text = aligned(lines, words=2)
        text += listed("NOT COUNTED", self.not_counted) + listed("free", self.free)
        return "\n".join(text)


def cost_by_layer(model: nn.Module, *inputs: Any, backward: bool = False) -> LayerTable:
    r"""Parameters and MACs of each layer; with ``backward``, its backward MACs and activations too.

    A row is a module that owns something itself: parameters that none of its parts holds, products that it
    runs outside of its parts (attention, a ``x @ self.A``), tensors that it is the first to save. So the
    rows add up to the totals exactly, and what is done outside of any layer stands in the row of the model.
    A shared parameter is counted in its first place only; what a scripted part runs is its caller's.
    Operators are counted as in ``count_macs``; those that may hide products are named in ``not_counted``,
    and the others that counted 0 in ``free``.

    Args:
        model: Any module that can be copied; it is not changed.
        *inputs: What to call it with; the batch counts.
        backward: Whether to count the backward pass and the bytes saved for it too.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If ``backward`` is asked of a model whose output has no gradient.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
        >>> print(cost_by_layer(net, torch.zeros(120, 4), backward=True))
        layer  kind    calls  params   MACs  backward  saved bytes
        0      Linear      1      50  4,800     4,800        1,920
        1      ReLU        1       0      0         0        4,800
        2      Linear      1      33  3,600     7,200            0
        total              3      83  8,400    12,000        6,720
        free: relu (1)
    """
    forward = tally(model, inputs, backward=False, by_layer=True)
    params, unknown = _own_params(model), forward.unknown.copy()
    back, saved = collections.Counter[str](), collections.Counter[str]()
    if backward:
        second = tally(model, inputs, backward=True, by_layer=True)
        back, saved = second.macs, saved_bytes(model, inputs)
        unknown += second.unknown
    kinds = {name: type(part).__name__ for name, part in _checks.module(model).named_modules()}
    everything = (params, forward.macs, back, saved)
    owning = {name for counts in everything for name, n in counts.items() if n}
    calls = forward.owners.calls

    def row(name: str, kind: str, called: int, numbers: list[int]) -> LayerCost:
        return LayerCost(name, kind, called, *(numbers if backward else numbers[:2]))

    rows = [
        row(name, kind, calls.get(name, 0), [counts[name] for counts in everything])
        for name, kind in kinds.items()
        if name in owning
    ]
    total = row("total", "", sum(r.calls for r in rows), [counts.total() for counts in everything])
    return LayerTable(tuple(rows), total, dict(unknown), dict(forward.free))


def _own_params(model: nn.Module) -> collections.Counter[str]:
    """{layer: numbers in the parameters that it holds itself}, each parameter once."""
    seen, counts = set[int](), collections.Counter[str]()
    for name, part in _checks.module(model).named_modules():
        for p in part.parameters(recurse=False):
            if id(p) not in seen:
                seen.add(id(p))
                counts[name] += p.numel()
    return counts
