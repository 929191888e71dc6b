"""The table that compares models: parameters, multiply-adds, bytes, latency."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.latency import measure_latency
from lowrank_utils.cost.macs import count_macs
from lowrank_utils.cost.size import count_params, size_bytes
from lowrank_utils.cost.tables import aligned

_ROUNDS = 5


@dataclass(frozen=True)
class Cost:
    """One model's row of a ``CostTable``.

    Attributes:
        name: The model's name.
        params: Parameters; one that is shared counts once.
        macs: Multiply-adds for the inputs given, the whole batch.
        size_bytes: Bytes of the saved state.
        latency_ms: Median milliseconds of one forward; None if not measured.
    """

    name: str
    params: int
    macs: int
    size_bytes: int
    latency_ms: float | None


@dataclass(frozen=True)
class CostTable:
    """Rows of ``cost_table``, found by name, ``table["dense"]``; prints as a table.

    Attributes:
        rows: A ``Cost`` a model, in the order given.
    """

    rows: tuple[Cost, ...]

    def __getitem__(self, name: str) -> Cost:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"name={name!r} must be one of {[row.name for row in self.rows]}")

    def __str__(self) -> str:
        lines = [("model", "params", "MACs", "bytes", "latency_ms")]
        for row in self.rows:
            latency = "" if row.latency_ms is None else f"{row.latency_ms:.3f}"
            lines.append((row.name, f"{row.params:,}", f"{row.macs:,}", f"{row.size_bytes:,}", latency))
        timed = any(row.latency_ms is not None for row in self.rows)
        return "\n".join(aligned(lines if timed else [line[:4] for line in lines]))


def cost_table(models: Mapping[str, nn.Module], *inputs: Tensor, latency: bool = True) -> CostTable:
    r"""Parameters, MACs, bytes on disk and latency of several models on the same inputs.

    Args:
        models: ``{name: model}``, at least one.
        *inputs: What to call each of them with.
        latency: Whether to measure wall-clock time, which varies: the median of interleaved rounds.

    Raises:
        TypeError: If ``models`` is no mapping, or a model no ``nn.Module``.
        ValueError: If ``models`` is empty, or one is on the meta device.

    Example:
        >>> import torch
        >>> models = {"dense": nn.Linear(4, 10)}
        >>> print(cost_table(models, torch.zeros(1, 4), latency=False))
        model  params  MACs  bytes
        dense      50    40  2,021
    """
    if not isinstance(models, Mapping):
        _checks.type_error("models", models, "a mapping {name: model}")
    if not models:
        _checks.value_error("models", models, "a mapping with at least one model")
    sizes = {name: size_bytes(_checks.module(net, f"models[{name!r}]")) for name, net in models.items()}
    times_ms: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS if latency else 0):  # interleaved: a busy moment hits all models alike
        for name, model in models.items():
            times_ms[name].append(measure_latency(model, *inputs, min_run_time_s=0.05))
    rows = []
    for name, model in models.items():
        median = statistics.median(times_ms[name]) if latency else None
        macs = count_macs(model, *inputs)
        rows.append(Cost(name, count_params(model), macs, sizes[name], median))
    return CostTable(tuple(rows))
