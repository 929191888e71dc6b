"""Many independent tasks, one for each point of a grid: on one core, on many, or on a cluster."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joblib import delayed  # type: ignore[import-untyped]
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.layers.copying import copied
from lowrank_utils.search.parallel import default_dtype, in_parallel

Point = dict[str, Any]
_ONE = threading.RLock()
_this_thread = threading.local()


@dataclass(frozen=True)
class Sweep:
    """What ``sweep`` found.

    Attributes:
        points: The grid's points in order, each ``{axis: value}``.
        values: What the task returned at each of them, None where it failed.
        failed: ``{position in points: the last error's words}``.
        tries: Calls of the task at each point, 1 where the first one did.
    """

    points: tuple[Point, ...]
    values: tuple[Any, ...]
    failed: Mapping[int, str]
    tries: tuple[int, ...]

    def over(self, axis: str) -> dict[tuple[Any, ...], list[Any]]:
        """Values along one axis, such as the seeds, without failures: ``{the other axes' values: [values]}``.

        What cannot be a key stands there as tuples: a list, a mapping by its pairs.

        Args:
            axis: Name of the axis.

        Raises:
            ValueError: If the grid has no such axis.
        """
        _checks.choice(axis, "axis", self.points[0])
        found: dict[tuple[Any, ...], list[Any]] = {}
        for i, (point, value) in enumerate(zip(self.points, self.values, strict=True)):
            key = tuple(_key(v) for name, v in point.items() if name != axis)
            along = found.setdefault(key, [])
            if i not in self.failed:
                along.append(value)
        return found


def sweep(
    task: Callable[..., Any],
    axes: Mapping[str, Iterable[Any]],
    *,
    n_jobs: int | None = None,
    retries: int = 1,
) -> Sweep:
    r"""``task(**point)`` at every point of a grid, such as layer x rank x seed.

    Each call starts from generators (torch, numpy, random) seeded by its own point, on one thread, with the
    caller's default dtype: what it returns hangs neither on the order nor on who runs it, and is the same on
    one core and on a cluster. The seed is taken of what the values print as, a function being its qualified
    name. A task that raises is tried again, and noted if it keeps failing; the others go on.

    ``joblib`` runs the tasks, so its backends do: ``with joblib.parallel_config(backend="dask"): ...`` sends
    them to a Dask cluster; for Ray call ``ray.util.joblib.register_ray()`` first. Threads of one process
    share its generators, so they run one task at a time, and so does a sweep within a task.

    Args:
        task: Called with copies of the point's values, by name. For processes of their own it must be a
            function of a module, and what it closes over is sent along.
        axes: ``{name: values}``; the last axis varies fastest. Values print as the same in every process:
            numbers, texts, functions, classes, objects with a ``__repr__`` of their own.
        n_jobs: Processes, as in ``joblib.Parallel``; None for what ``joblib.parallel_config`` says, else one.
        retries: How often a task that raised is tried again.

    Raises:
        TypeError: If an argument is of the wrong type, or a value prints as an address in memory.
        ValueError: If there is no axis, one has no values, or a number is out of range.

    Example:
        >>> found = sweep(lambda rank, seed: rank * 10 + seed, {"rank": [1, 2], "seed": [0, 1]})
        >>> found.over("seed")
        {(1,): [10, 11], (2,): [20, 21]}
    """
    if not callable(task):
        _checks.type_error("task", task, "a function")
    if not isinstance(axes, Mapping):
        _checks.type_error("axes", axes, "a mapping {name: values}")
    retries = _checks.integer(retries, "retries", low=0)
    for name, values in axes.items():
        if not isinstance(values, Iterable) or isinstance(values, str | bytes):
            _checks.type_error(f"axes[{name!r}]", values, "a list of values")
    lists = {name: list(values) for name, values in axes.items()}
    if not lists or not all(lists.values()):
        _checks.value_error("axes", lists, "a mapping with at least one axis, and values on each")
    points = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    texts = {
        name: [_text(value, f"axes[{name!r}][{i}]") for i, value in enumerate(values)]
        for name, values in lists.items()
    }
    seeds = [_seed_of(dict(zip(texts, told, strict=True))) for told in itertools.product(*texts.values())]
    dtype = torch.get_default_dtype()
    jobs = (delayed(_tried)(task, *where, retries, dtype) for where in zip(points, seeds, strict=True))
    values, failed, tries = [], dict[int, str](), []
    results: Iterable[Any]
    if _in_a_task():  # threads of its own would wait for this very task
        results = (call(*told, **options) for call, told, options in jobs)
    else:
        results = in_parallel(jobs, n_jobs)
    with tqdm(points, desc="sweep", unit="task", leave=False, delay=1.0) as bar:
        for i, (_, (value, error, calls)) in enumerate(zip(bar, results, strict=True)):
            values.append(value)
            tries.append(calls)
            if error:
                failed[i] = error
    return Sweep(tuple(points), tuple(values), failed, tuple(tries))


def _tried(
    task: Callable[..., Any], point: Point, seed: int, retries: int, dtype: torch.dtype
) -> tuple[Any, str, int]:
    """What the task returns, the last error's words, and the number of calls."""
    error = ""
    with _alone(), generators_kept(), default_dtype(dtype):
        for calls in range(1, retries + 2):
            _start(seed)
            try:
                return task(**_own(point)), "", calls
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
    return None, error, retries + 1


def _own(point: Point) -> Point:
    """The values as the caller gave them: another task, or another try, may have changed its own."""
    with contextlib.suppress(TypeError):  # what cannot be copied, such as a lock, is handed on
        return copied(point)
    return point


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One task at a time in a process, on one thread: its generators are shared by all its threads."""
    with _ONE:
        threads, within = torch.get_num_threads(), _in_a_task()
        torch.set_num_threads(1)
        _this_thread.runs_a_task = True
        try:
            yield
        finally:
            _this_thread.runs_a_task = within
            torch.set_num_threads(threads)


def _in_a_task() -> bool:
    return getattr(_this_thread, "runs_a_task", False)


def _key(value: Any) -> Any:
    """The value, or where it cannot be the key of a dict, its parts as tuples."""
    try:
        hash(value)
    except TypeError:
        if isinstance(value, Mapping):
            return tuple((key, _key(part)) for key, part in value.items())
        if isinstance(value, Iterable):
            return tuple(map(_key, sorted(value, key=repr) if isinstance(value, set) else value))
        raise
    return value


def _text(value: Any, name: str) -> str:
    """What a value prints as, the same in every process: that of a plain value is its repr."""
    if isinstance(value, np.generic):
        value = value.item()  # 0, and not np.int64(0)
    if isinstance(value, types.FunctionType) or _of_a_class(value):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value) in (tuple, list):
        inner = [_text(part, f"{name}[{i}]") for i, part in enumerate(value)]
        if type(value) is list:
            return f"[{', '.join(inner)}]"
        return f"({inner[0]},)" if len(inner) == 1 else f"({', '.join(inner)})"
    if type(value) is dict:
        pairs = (f"{_text(key, name)}: {_text(part, f'{name}[{key!r}]')}" for key, part in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, set | frozenset) and value:  # texts have another order in each process
        return f"{type(value).__name__}{sorted(_text(part, name) for part in value)}"
    text = repr(value)
    if " at 0x" in text and not isinstance(value, str | bytes):
        limit = (
            "a number, a text, a function, or what has a __repr__ of its own, without an address in memory"
        )
        _checks.type_error(name, value, limit)
    return text


def _of_a_class(value: Any) -> bool:
    """Whether this is a function like torch.relu: written in C, and a method of a class, not of an object."""
    return isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, type | None)


def _seed_of(texts: Mapping[str, str]) -> int:
    """A seed from the point alone; Python's own hash of a text differs from process to process."""
    told = ", ".join(f"({name!r}, {texts[name]})" for name in sorted(texts))
    return int.from_bytes(hashlib.sha256(f"[{told}]".encode()).digest()[:4], "big")


def _start(seed: int) -> None:
    """Every generator from this seed."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
