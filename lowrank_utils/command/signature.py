"""The signature of a program: the sizes of its inputs, and which of them may change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from lowrank_utils.command.said import Refused, first_line

Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a program is called with, by place and by name


@dataclass(frozen=True)
class Axis:
    """One axis of one input.

    Attributes:
        input: Name of the input.
        place: Which axis of it.
        size: Its size where that is fixed, else None.
        low: Smallest size.
        high: Largest size; infinite where there is no limit.
    """

    input: str
    place: int
    size: int | None
    low: float
    high: float

    def __str__(self) -> str:
        if self.size is not None:
            return f"size {self.size}"
        return f"any size >= {self.low}" + ("" if self.high == math.inf else f" and <= {self.high}")

    def takes(self, other: Axis) -> bool:
        """Whether each size of the other axis may be a size of this one.

        Args:
            other: The same axis in another program.
        """
        if self.size is not None or other.size is not None:
            return self.size == other.size
        return self.low <= other.low and other.high <= self.high


def axes(program: Any) -> list[list[Axis]]:
    """The axes of each input of a program, in the order of a call; of what is no tensor none."""
    return [[_axis(program, name, i, n) for i, n in enumerate(sizes)] for name, sizes in _inputs(program)]


def example(program: Any, X: Tensor) -> Call:
    """What the program was exported with; where it does not know, as many samples of X as it takes."""
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        return tuple(args), dict(kwargs)
    first = next((input[0] for input in axes(program) if input), None)
    rows = 2 if first is None or first.size is None else first.size
    return (X[torch.arange(rows) % len(X)],), {}


def export_like(model: nn.Module, program: Any, path: Path, call: Call) -> Any:
    """Export a model with the signature of the program of a file; refuse where that cannot be kept."""
    wanted = axes(program)
    try:
        form = pytree.tree_structure(call)
        args, kwargs = pytree.tree_unflatten([_free(input) for input in wanted], form)
        free = (*args, *kwargs.values())
        made = torch.export.export(model, *call, dynamic_shapes=free if any(map(_any, wanted)) else None)
    except Exception as error:  # torch raises what it likes on what it cannot export
        raise Refused("MODEL", path, f"a program that can be exported again ({first_line(error)})") from error
    for before, after in zip(wanted, axes(made), strict=True):
        for old, new in zip(before, after, strict=True):
            if not new.takes(old):
                where = f"axis {old.place} of input {old.input!r}"
                raise Refused("MODEL", path, f"exported so that {where} can keep {old}; it would get {new}")
    return made


def _inputs(program: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Name and sizes of each input that is the caller's."""
    places = (node for node in program.graph.nodes if node.op == "placeholder")
    for node, told in zip(places, program.graph_signature.input_specs, strict=True):
        if told.kind == InputKind.USER_INPUT:
            value = node.meta.get("val")
            yield node.name, tuple(value.shape) if isinstance(value, Tensor) else ()


def _axis(program: Any, name: str, place: int, size: Any) -> Axis:
    if isinstance(size, int):
        return Axis(name, place, size, size, size)
    limits = program.range_constraints.get(size.node.expr)
    low, high = (-math.inf, math.inf) if limits is None else (_number(limits.lower), _number(limits.upper))
    return Axis(name, place, None, max(2, low), high)  # torch writes 0, 1 or 2 there, and takes all the same


def _number(limit: Any) -> float:
    """A limit of torch's as an integer, or as the infinite number that it is."""
    if limit.is_Integer:
        return int(limit)
    return math.inf if limit > 0 else -math.inf


def _any(input: list[Axis]) -> bool:
    return any(axis.size is None for axis in input)


def _free(input: list[Axis]) -> Any:
    """What torch.export is told of one input: which axes may change, and how far."""
    auto, told = torch.export.Dim.AUTO, {}
    for axis in input:
        if axis.size is None:
            low = None if axis.low == 2 else axis.low
            high = None if axis.high == math.inf else axis.high
            told[axis.place] = auto(min=low, max=high) if low or high else auto
    return told or None
