"""Jobs for joblib, on any of its backends, and what a process of its own does not know of its caller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from joblib import Parallel  # type: ignore[import-untyped]
from joblib.parallel import get_active_backend  # type: ignore[import-untyped]


def in_parallel(jobs: Iterable[Any], n_jobs: int | None) -> Iterable[Any]:
    """The jobs' results in their order: one by one, or all at the end where the backend can no more.

    Args:
        jobs: As ``joblib.delayed`` makes them.
        n_jobs: As in ``joblib.Parallel``.
    """
    one_by_one = get_active_backend()[0].supports_return_generator
    results: Iterable[Any] = Parallel(n_jobs=n_jobs, return_as="generator" if one_by_one else "list")(jobs)
    return results


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Torch's default dtype for a while: that of the caller, which a process of its own has not."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
