"""What a model costs: parameters, bytes, latency, and the table that compares models."""

from __future__ import annotations

import copy
import io
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.macs import count_macs
from lowrank_utils.tables import aligned

_ROUNDS = 5


def count_params(model: nn.Module) -> int:
    r"""Number of parameters; one that is shared counts once.

    Args:
        model: Any module.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.

    Example:
        >>> count_params(nn.Linear(4, 10))
        50
    """
    return sum(p.numel() for p in _checks.module(model).parameters())


def size_bytes(model: nn.Module) -> int:
    r"""Bytes of the file that ``torch.save(model.state_dict(), ...)`` writes, container included.

    A tensor that is a view is written with its whole storage: clone a slice before you keep it.

    Args:
        model: Any module.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.

    Example:
        >>> size_bytes(nn.Linear(100, 100)) > 4 * 10_100
        True
    """
    file = io.BytesIO()
    torch.save(_checks.module(model).state_dict(), file)
    return file.tell()


def synchronize(tensors: Iterable[object]) -> None:
    """Wait until the graphics cards that hold these tensors are done: they are called, and run on alone."""
    for device in {t.device for t in tensors if isinstance(t, Tensor)}:
        if device.type in ("cuda", "xpu", "mps"):
            getattr(torch, device.type).synchronize(*() if device.type == "mps" else (device,))


@torch.no_grad()
def measure_latency(
    model: nn.Module, *inputs: Tensor, min_run_time_s: float = 0.2, threads: int = 1
) -> float:
    r"""Median milliseconds of one forward in eval mode, without gradients.

    Wall-clock: it varies from run to run and from machine to machine. Compare ratios that were
    measured side by side. On a graphics card each call is timed until the card is done.

    Args:
        model: Any module; it is not changed.
        *inputs: What to call it with.
        min_run_time_s: Seconds to spend on it, after one warm-up call; at least 3 calls are timed.
        threads: Threads that torch may use; the number in force is put back.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If a number is out of range.

    Example:
        >>> measure_latency(nn.Linear(4, 10), torch.zeros(1, 4), min_run_time_s=0.01) > 0
        True
    """
    _checks.module(model)
    min_run_time_s = _checks.real(min_run_time_s, "min_run_time_s", low=0.0, open_low=True)
    threads = _checks.integer(threads, "threads", low=1)
    small = copy.deepcopy(model, {id(p): p for p in model.parameters()}).eval()
    before, times_s = torch.get_num_threads(), list[float]()
    places = [*small.parameters(), *small.buffers(), *inputs]
    torch.set_num_threads(threads)
    try:
        small(*inputs)
        synchronize(places)
        while len(times_s) < 3 or sum(times_s) < min_run_time_s:
            start = time.perf_counter()
            small(*inputs)
            synchronize(places)
            times_s.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return statistics.median(times_s) * 1e3


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
        TypeError: If a model is no ``nn.Module``.
        ValueError: If ``models`` is empty.

    Example:
        >>> models = {"dense": nn.Linear(4, 10)}
        >>> print(cost_table(models, torch.zeros(1, 4), latency=False))
        model  params  MACs  bytes
        dense      50    40  2,021
    """
    if not models:
        _checks.value_error("models", models, "a mapping with at least one model")
    times_ms: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS if latency else 0):  # interleaved: a busy moment hits all models alike
        for name, model in models.items():
            times_ms[name].append(measure_latency(model, *inputs, min_run_time_s=0.05))
    rows = []
    for name, model in models.items():
        median = statistics.median(times_ms[name]) if latency else None
        macs = count_macs(model, *inputs)
        rows.append(Cost(name, count_params(model), macs, size_bytes(model), median))
    return CostTable(tuple(rows))
