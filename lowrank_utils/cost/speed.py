"""Speed that a model achieves, against the speed that the same machine has to offer."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.latency import measure_latency, synchronize
from lowrank_utils.cost.macs import count_macs

_ROUNDS = 5
_PRODUCTS = 6  # a round; short ones, as a long one is sure to be interrupted on a busy machine


@dataclass(frozen=True)
class Speed:
    """Speed of a model, and the peak measured beside it.

    Attributes:
        gflops: Billions of floating-point operations a second, of the model.
        peak_gflops: The same of the largest thing that runs at full speed here.
    """

    gflops: float
    peak_gflops: float

    @property
    def share(self) -> float:
        """Part of the peak that the model achieves."""
        return self.gflops / self.peak_gflops

    def __str__(self) -> str:
        return f"{self.gflops:.3g} of {self.peak_gflops:.3g} GFLOP/s ({self.share:.2%})"


@torch.no_grad()
def measure_speed(
    model: nn.Module, *inputs: Tensor, size: int = 512, min_run_time_s: float = 0.2, threads: int = 1
) -> Speed:
    r"""Speed of one forward, 2 x MACs / time, and of the largest thing that runs at full speed here.

    The peak is that of the product of two ``size`` x ``size`` matrices, 2 size^3 FLOPs, in the dtype and on
    the device of the model's first parameter (or of the first input): the fastest of 30 runs, while the
    model's speed is by its median. Both are timed in turns, so that a busy moment hits both. A model that
    spends its time in calls, in memory or in work that counts 0 stays far below the peak.

    Wall-clock: it varies from run to run and from machine to machine.

    Args:
        model: Any module; it is not changed.
        *inputs: What to call it with.
        size: Rows and columns of the square product. A graphics card needs 4096 or more to be busy.
        min_run_time_s: Seconds to spend on the model.
        threads: Threads that torch may use; the number in force is put back.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If a number is out of range, or nothing is there to tell dtype and device.

    Reference:
        Williams, Waterman & Patterson 2009 (the roofline).

    Example:
        >>> speed = measure_speed(nn.Linear(64, 64), torch.zeros(8, 64), size=128, min_run_time_s=0.01)
        >>> 0 < speed.gflops and 0 < speed.peak_gflops
        True
    """
    size = _checks.integer(size, "size", low=1)
    min_run_time_s = _checks.real(min_run_time_s, "min_run_time_s", low=0.0, open_low=True)
    threads = _checks.integer(threads, "threads", low=1)
    tensors = [*_checks.module(model).parameters(), *inputs]
    like = next((t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()), None)
    if like is None:
        _checks.value_error("inputs", inputs, "floating tensors, as the model has no floating parameter")
    flops = 2 * count_macs(model, *inputs)
    square = torch.ones(size, size, dtype=like.dtype, device=like.device)
    model_ms, peak_s = list[float](), list[float]()
    for _ in range(_ROUNDS):
        model_ms.append(
            measure_latency(model, *inputs, min_run_time_s=min_run_time_s / _ROUNDS, threads=threads)
        )
        peak_s.append(_seconds_of_product(square, threads))
    return Speed(flops / sorted(model_ms)[_ROUNDS // 2] / 1e6, 2 * size**3 / min(peak_s) / 1e9)


def _seconds_of_product(square: Tensor, threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = []
        for _ in range(_PRODUCTS):
            start = time.perf_counter()
            torch.mm(square, square)
            synchronize([square])
            times.append(time.perf_counter() - start)
        return min(times)
    finally:
        torch.set_num_threads(before)
