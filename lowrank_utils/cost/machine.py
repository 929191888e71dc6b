"""How long a linear layer takes on this machine, at any shape: timed at a few, and read off between them."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.layers.holding import linear_of
from lowrank_utils.layers.linear import LowRankLinear

BATCHES = (1, 4, 16, 64, 256)
THIN = 32  # factors are measured too: N/32 x N, and N x N/32
SQUARE = [(n, n) for n in (256, 512, 1024, 1536, 2048, 4096)]
WIDE = [(n // THIN, n) for n in (256, 512, 1024, 2048, 4096, 8192, 16384)]
TALL = [(m, n) for n, m in WIDE]
_PASSES = 2
_REPEAT = 5  # calls of a shape in a pass
_LONG_S = 1e-3  # a call that takes longer is timed once

Shape = tuple[int, int]


@dataclass(frozen=True)
class Machine:
    r"""What a machine has to offer a linear layer: time of a call, speed of its arithmetic and of its memory.

    A layer of m x n on a batch of B rows takes

        t = overhead + B m n / rate(m, n, B) .

    The roofline of Williams, Waterman & Patterson 2009 is a rate of two numbers, the peak and what the memory
    can feed. Real products leave it: a matrix that is packed for few rows, a thin one, one that fits into a
    cache. So the rate is measured for square layers and for two kinds of thin ones, at several sizes and
    batches, and read off between them on a logarithmic scale of m n, m / n and B. Outside, the nearest
    measured rate holds.

    Attributes:
        overhead_us: Microseconds that a call of an ``nn.Linear`` takes whatever it computes.
        pair_us: The same of a ``LowRankLinear``, which multiplies twice.
        times_ms: ``{(m, n, batch): milliseconds}`` as they were measured, overhead included.
        threads: Threads of torch that it was measured with.

    Reference:
        Williams, Waterman & Patterson 2009 (the roofline).

    Example:
        >>> machine = Machine(5.0, 9.0, {(256, 256, 1): 0.015, (256, 256, 64): 0.645})
        >>> round(machine.linear_ms(256, 256, 8), 3)  # between 10 us for 1 row and 640 us for 64
        0.085
    """

    overhead_us: float
    pair_us: float
    times_ms: dict[tuple[int, int, int], float] = field(repr=False)
    threads: int = 1

    @classmethod
    def measure(cls, *, seconds: float = 2.0, threads: int = 1) -> Self:
        """Time this machine's processor, in single precision.

        Of each shape the fastest call counts, since interruptions only ever add time; on one thread it is
        the processor's own time, in which other programs do not count, where the system has a fine clock.

        Args:
            seconds: About how long it may take; at least two passes over all shapes are made.
            threads: Threads that torch may use; the number in force is put back.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If a number is out of range.
        """
        seconds = _checks.real(seconds, "seconds", low=0.0, open_low=True)
        threads = _checks.integer(threads, "threads", low=1)
        fastest: dict[tuple[int, int, int], float] = {}
        clock, before = clock_for(threads), torch.get_num_threads()
        start = clock()
        torch.set_num_threads(threads)
        try:
            overheads = [
                min(_seconds(tiny, 1, clock) for _ in range(50))
                for tiny in (linear_of(torch.ones(1, 1), torch.zeros(1)), _pair())
            ]
            for done in itertools.count():
                for m, n in (*SQUARE, *WIDE, *TALL):
                    layer = linear_of(torch.full((m, n), 0.01), torch.zeros(m))
                    for batch in BATCHES:
                        took, key = _seconds(layer, batch, clock), (m, n, batch)
                        fastest[key] = min(took, fastest.get(key, math.inf))
                spent = clock() - start
                if done + 1 >= _PASSES and spent * (done + 2) / (done + 1) > seconds:
                    break
        finally:
            torch.set_num_threads(before)
        one, pair = (1e6 * took for took in overheads)
        return cls(one, pair, {key: 1e3 * took for key, took in fastest.items()}, threads)

    @functools.cached_property
    def _surfaces(self) -> list[tuple[float, list[float], list[float], np.ndarray]]:
        """For each aspect: log(m / n), logs of m n, logs of the batch, and logs of seconds a multiply-add."""
        kinds: dict[float, dict[Shape, dict[int, float]]] = {}
        for (m, n, batch), ms in self.times_ms.items():
            busy = max(ms * 1e-3 - self.overhead_us * 1e-6, 1e-8)  # of a tiny layer nothing may be left
            kinds.setdefault(round(math.log(m / n), 6), {}).setdefault((m, n), {})[batch] = busy / (m * n)
        found = []
        for aspect, shapes in sorted(kinds.items()):
            ordered = sorted(shapes, key=math.prod)
            batches = sorted(shapes[ordered[0]])
            rates = np.log([[shapes[shape][batch] for batch in batches] for shape in ordered])
            areas = [math.log(math.prod(shape)) for shape in ordered]
            found.append((aspect, areas, [math.log(batch) for batch in batches], rates))
        return found

    def linear_ms(self, m: int, n: int, batch: int = 1) -> float:
        """Predicted milliseconds of one call of an m x n ``nn.Linear``.

        Args:
            m: Outputs.
            n: Inputs.
            batch: Rows of the input.

        Raises:
            TypeError: If an argument is no integer.
            ValueError: If one is below 1.
        """
        m = _checks.integer(m, "m", low=1)
        n = _checks.integer(n, "n", low=1)
        batch = _checks.integer(batch, "batch", low=1)
        at = []
        for _, areas, batches, rates in self._surfaces:
            inside = min(max(math.log(batch), batches[0]), batches[-1])
            by_area = [np.interp(inside, batches, row) for row in rates]
            at.append(float(np.interp(math.log(m * n), areas, by_area)))
        aspects = [surface[0] for surface in self._surfaces]
        weight = math.exp(np.interp(math.log(m / n), aspects, at))
        most = math.exp(self._surfaces[0][2][-1])
        beyond = max(1.0, batch / most)  # more rows than were measured: as many more products
        return self.overhead_us * 1e-3 + 1e3 * m * n * weight * beyond

    def pair_ms(self, m: int, n: int, rank: int, batch: int = 1) -> float:
        """Predicted milliseconds of one call of an m x n ``LowRankLinear``.

        Args:
            m: Outputs.
            n: Inputs.
            rank: r, from 1 to min(m, n).
            batch: Rows of the input.

        Raises:
            TypeError: If an argument is no integer.
            ValueError: If one is out of range.
        """
        m = _checks.integer(m, "m", low=1)
        n = _checks.integer(n, "n", low=1)
        r = _checks.rank(rank, m, n)
        products = self.linear_ms(r, n, batch) + self.linear_ms(m, r, batch)
        return products + (self.pair_us - 2 * self.overhead_us) * 1e-3

    @property
    def peak_gflops(self) -> float:
        """Billions of floating-point operations a second, at the fastest shape measured."""
        return max(2e-6 * m * n * batch / ms for (m, n, batch), ms in self.times_ms.items())

    @property
    def memory_gb_s(self) -> float:
        """Billions of bytes of weights a second, for one row of the largest layer measured."""
        largest = max((shape[:2] for shape in self.times_ms), key=math.prod)
        least = min(batch for *shape, batch in self.times_ms if tuple(shape) == largest)
        return 4e-6 * math.prod(largest) / self.times_ms[*largest, least]

    def __str__(self) -> str:
        return (
            f"{self.overhead_us:.1f} us a call, {self.peak_gflops:.3g} GFLOP/s at best, "
            f"{self.memory_gb_s:.3g} GB/s for the weights of a large layer"
        )


def _pair() -> LowRankLinear:
    """The least of its kind; no generator moves."""
    return LowRankLinear.from_factors(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1))


def clock_for(threads: int) -> Callable[[], float]:
    """The processor's time on one thread, in which other programs do not count; else the wall clock."""
    fine = time.get_clock_info("thread_time").resolution < 1e-6
    return time.thread_time if threads == 1 and fine else time.perf_counter


@torch.no_grad()
def _seconds(layer: nn.Linear | LowRankLinear, batch: int, clock: Callable[[], float]) -> float:
    """The fastest of a few calls; of one, if that is long."""
    x = torch.zeros(batch, layer.in_features)
    fastest = math.inf
    for _ in range(_REPEAT):
        start = clock()
        layer(x)
        fastest = min(fastest, clock() - start)
        if fastest > _LONG_S:
            break
    return fastest


@functools.cache
def this_machine(threads: int = 1) -> Machine:
    """The machine, measured once a process."""
    return Machine.measure(threads=threads)
