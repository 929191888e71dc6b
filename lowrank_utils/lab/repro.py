"""Reproducibility: one seed and one thread for every source of randomness in use here."""

from __future__ import annotations

import random

import numpy as np
import torch

from lowrank_utils import _checks


def set_seed(seed: int, threads: int = 1) -> None:
    r"""Seed Python, NumPy and torch, and fix the number of threads of torch.

    A sum of floats depends on its order, and the order on the number of threads; so a number that
    should come out the same everywhere needs both.

    Args:
        seed: Seed for ``random``, ``numpy.random`` and ``torch``; from 0 to 2**32 - 1.
        threads: Threads that torch may use within one operation.

    Raises:
        TypeError: If ``seed`` or ``threads`` is no integer.
        ValueError: If ``seed`` or ``threads`` is out of range.

    Example:
        >>> set_seed(42)
        >>> round(torch.rand(()).item(), 4)
        0.8823
    """
    seed = _checks.integer(seed, "seed", low=0, high=2**32 - 1)
    torch.set_num_threads(_checks.integer(threads, "threads", low=1))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # seeds every CUDA device too
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
