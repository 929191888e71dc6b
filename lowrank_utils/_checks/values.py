"""Checks of numbers and names."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

import torch
from torch import Tensor

from lowrank_utils._checks.words import type_error, value_error


def integer(value: object, name: str, *, low: int, high: int | None = None, why: str = "") -> int:
    """Return ``value`` as an int with ``low <= value <= high``; a bool is no integer here."""
    limit = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    limit += f" ({why})" if why else ""
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        type_error(name, value, limit)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        type_error(name, value, limit)
    if number < low or (high is not None and number > high):
        value_error(name, number, limit)
    return number


def number(value: object, name: str, limit: str = "a number") -> float:
    """Return ``value`` as a float; a numpy scalar or one-element tensor is one, a bool or text is not."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        type_error(name, value, limit)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        type_error(name, value, limit)


def real(value: object, name: str, *, low: float, high: float = math.inf, open_low: bool = False) -> float:
    """Return ``value`` as a finite float with ``low <= value <= high`` (``low <`` if ``open_low``)."""
    limit = f"a finite number {'>' if open_low else '>='} {low:g}"
    limit += "" if high == math.inf else f" and <= {high:g}"
    x = number(value, name, limit)
    if not math.isfinite(x) or x < low or x > high or (open_low and x == low):
        value_error(name, x, limit)
    return x


def choice(value: object, name: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    options = sorted(allowed)
    if not isinstance(value, str) or value not in options:
        value_error(name, value, "one of " + ", ".join(map(repr, options)))
    return value


def rank(value: object, m: int, n: int, name: str = "rank") -> int:
    """Return ``value`` as a rank of an (m, n) matrix."""
    return integer(value, name, low=1, high=min(m, n), why=f"min(m, n) of a {m} x {n} matrix")


def sizes(value: object, name: str, d: int, *, low: int = 1) -> tuple[int, ...]:
    """Return ``value`` as ``d`` integers of at least ``low``; one stands for all."""
    if not isinstance(value, tuple | list | torch.Size):
        return (integer(value, name, low=low),) * d
    if len(value) != d:
        value_error(name, value, f"{d} integers, one for each axis")
    return tuple(integer(part, f"{name}[{i}]", low=low) for i, part in enumerate(value))
