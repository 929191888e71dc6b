"""Arrays that the commands read, from files or of a shape. None of it runs code of yours."""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowrank_utils.command.programs import floating_dtype
from lowrank_utils.command.said import Refused, first_line

_SHAPE = re.compile(r"\d+(x\d+)*")
_BROKEN = (EOFError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)  # a file, to numpy


def read_inputs(told: str | None, program: Any) -> tuple[Any, ...]:
    """Inputs of one call: from a file, random ones of a shape, or those of the export."""
    if told is None:
        if program.example_inputs is None:
            raise Refused("--input", None, "a file or a shape: the program has no example of its own")
        args, kwargs = program.example_inputs
        if kwargs:
            raise Refused("MODEL", sorted(kwargs), "exported with inputs by position, not by name")
        return tuple(args)
    if _SHAPE.fullmatch(told):
        sizes = [int(size) for size in told.split("x")]
        if not all(sizes):
            raise Refused("--input", told, "a shape of positive sizes, such as 8x3x224x224")
        fixed = torch.Generator().manual_seed(0)
        try:
            return (torch.randn(sizes, generator=fixed, dtype=floating_dtype(program)),)
        except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
            limit = f"a shape whose numbers fit into memory ({first_line(error)})"
            raise Refused("--input", told, limit) from error
    return in_order(Arrays("--input", Path(told), program), program)


class Arrays(Mapping[str, Tensor]):
    """Tensors of a file, {name: array} of .npz, one array of .npy: each is read when it is asked for.

    Floating ones come in the program's dtype.

    Args:
        argument: Name of the argument that told the file.
        path: Of the file.
        program: What the arrays are for.
    """

    def __init__(self, argument: str, path: Path, program: Any) -> None:
        self._argument, self._path, self._dtype = argument, path, floating_dtype(program)
        if path.suffix not in (".npz", ".npy") or not path.is_file():
            raise Refused(argument, path, self._limit)
        with self._read():
            read = np.load(path, allow_pickle=False)
        if (path.suffix == ".npz") == isinstance(read, np.ndarray):
            raise Refused(argument, path, self._limit)
        self._arrays: Mapping[str, Any] = {"X": read} if isinstance(read, np.ndarray) else read

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._arrays:
            raise KeyError(name)
        with self._read(f"array {name!r}: "):
            found = torch.from_numpy(self._arrays[name])
        return found.to(self._dtype) if found.is_floating_point() else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def _limit(self) -> str:
        limit = "a file NAME.npz or NAME.npy of numpy arrays"
        return limit + (", or a shape such as 8x3x224x224" if self._argument == "--input" else "")

    @contextmanager
    def _read(self, what: str = "") -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError, RuntimeError, MemoryError, *_BROKEN) as error:
            limit = f"{self._limit} ({what}{first_line(error)})"
            raise Refused(self._argument, self._path, limit) from error


def in_order(arrays: Arrays, program: Any) -> tuple[Tensor, ...]:
    """The arrays as the inputs of one call: by the inputs' names, or in the order of ``numpy.savez``."""
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    if set(arrays) == set(names):
        return tuple(arrays[name] for name in names)
    by_place = [f"arr_{i}" for i in range(len(arrays))]
    if len(arrays) > 1 and list(arrays) != by_place:
        raise Refused(
            "--input", list(arrays), f"arrays with the names of the inputs, {names}, or arr_0, arr_1 .."
        )
    return tuple(arrays.values())


def pair(
    argument: str, arrays: Mapping[str, Tensor], part: str, *, needed: bool
) -> tuple[Tensor, Tensor] | None:
    """``X_part`` and ``y_part`` of a file, as many of one as of the other."""
    names = f"X_{part}", f"y_{part}"
    found = [arrays.get(name) for name in names]
    X, y = found
    if X is None and y is None and not needed:
        return None
    if X is None or y is None:
        raise Refused(argument, sorted(arrays), f"arrays among which are {names[0]} and {names[1]}")
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y) or len(X) == 0:
        shapes = f"{names[0]} {tuple(X.shape)} and {names[1]} {tuple(y.shape)}"
        raise Refused(argument, shapes, "arrays of as many samples, at least one")
    if y.is_floating_point():
        raise Refused(argument, f"{names[1]} of dtype {y.dtype}", "integers, the number of each class")
    return X, y
