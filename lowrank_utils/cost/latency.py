"""How long a model takes for one call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.layers.copying import copied


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
        model: Any module; it is not changed: a copy runs, which needs its memory once more. Generators that
            it draws from are put back.
        *inputs: What to call it with; a copy, made before the clock runs, serves every call.
        min_run_time_s: Seconds to spend on it, after one warm-up call; at least 3 calls are timed.
        threads: Threads that torch may use; the number in force is put back.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If a number is out of range, or anything is on the meta device, where nothing is computed.

    Example:
        >>> measure_latency(nn.Linear(4, 10), torch.zeros(1, 4), min_run_time_s=0.01) > 0
        True
    """
    _checks.module(model)
    min_run_time_s = _checks.real(min_run_time_s, "min_run_time_s", low=0.0, open_low=True)
    threads = _checks.integer(threads, "threads", low=1)
    small, inputs = copied((model, inputs))  # the model may write into its weights, and into the inputs
    small.eval()
    before, times_s = torch.get_num_threads(), list[float]()
    places = [*small.parameters(), *small.buffers(), *inputs]
    if any(isinstance(t, Tensor) and t.is_meta for t in places):
        _checks.value_error("model", model, "on a device that computes, as its inputs are, and not on meta")
    torch.set_num_threads(threads)
    try:
        with generators_kept():  # how often a model that draws is called, hangs on the clock
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
