"""What the commands read and write: exported programs, and arrays. None of it runs code of yours."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_utils.layers.which import layers_of
from lowrank_utils.network.exported import from_exported

_SHAPE = re.compile(r"\d+(x\d+)*")
_BROKEN = (EOFError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)  # a file, to numpy


class Refused(Exception):  # no error of the program, but the end of a command
    """An argument that cannot be used; its text names the argument, its value and the limit."""

    def __init__(self, argument: str, value: object, limit: str) -> None:
        super().__init__(f"argument {argument}: {value} must be {limit}")


def read_program(path: Path) -> tuple[Any, nn.Module]:
    """The exported program of a file, and its module with layers."""
    if path.suffix != ".pt2" or not path.is_file():
        raise Refused("MODEL", path, "a file NAME.pt2 that torch.export.save wrote")
    torch_says = logging.getLogger("torch.export")
    level = torch_says.level
    torch_says.setLevel(logging.ERROR)  # a traceback, where the file is none of its own
    try:
        program = torch.export.load(path)
        return program, from_exported(program)
    except Exception as error:  # torch raises what it likes on a file that is none of its own
        limit = f"a file NAME.pt2 that torch.export.save wrote ({first_line(error)})"
        raise Refused("MODEL", path, limit) from error
    finally:
        torch_says.setLevel(level)


def layers_in(model: nn.Module, path: Path) -> list[str]:
    """Names of the layers of a file's program that can have a rank."""
    layers = layers_of(model)
    if not layers:
        raise Refused("MODEL", path, "a program with a layer that can have a rank")
    for name, view in layers.items():
        if not bool(view.weight.isfinite().all()):
            raise Refused("MODEL", path, f"a program without nan and inf, which layer {name!r} has")
    return list(layers)


def warn_of_training(program: Any) -> None:
    """Warn of dropout that drops, and of norms by the batch where the model has statistics of its own."""
    found = set()
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        names = [argument.name for argument in schema.arguments]
        told = dict(zip(names, node.args, strict=False)) | node.kwargs
        in_training = told.get("train") is True or told.get("training") is True
        if in_training and told.get("running_mean", True) is not None:
            found.add(schema.name.partition("::")[2])
    if found:
        warnings.warn(
            f"exported in training mode: {', '.join(sorted(found))}, which make scores hang on the batch or "
            "on chance; call model.eval() before torch.export.export",
            stacklevel=2,
        )


def check_one_input(program: Any) -> None:
    """Check that a program is called with one tensor, by position, as a metric calls it."""
    inputs = list(program.graph_signature.user_inputs)
    by_name = program.example_inputs is not None and bool(program.example_inputs[1])
    if len(inputs) != 1 or by_name:
        raise Refused("MODEL", inputs, "the inputs of a program that takes one tensor, by position")


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
            return (torch.randn(sizes, generator=fixed, dtype=_dtype(program)),)
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
        self._argument, self._path, self._dtype = argument, path, _dtype(program)
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


def checked_output(path: Path) -> Path:
    """The path, if a program can be written there."""
    folder = path.absolute().parent
    places = [folder, path] if path.exists() else [folder]
    may_write = folder.is_dir() and all(os.access(place, os.W_OK) for place in places)
    if path.suffix != ".pt2" or path.is_dir() or not may_write:
        raise Refused(
            "--output", path, "a file NAME.pt2 in a folder that exists, where both can be written to"
        )
    return path


def write_program(program: Any, path: Path) -> None:
    """Save an exported program, whole or not at all: what the file held before is lost only when it is."""
    whole = io.BytesIO()  # torch's own writer leaves half a file, and ends the process, where a disk is full
    target = path.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        torch.export.save(program, whole)
        part.write_bytes(whole.getbuffer())
        part.replace(target)
    except (OSError, RuntimeError) as error:  # a full disk, a file of someone else's
        raise Refused("--output", path, f"a file that can be written ({first_line(error)})") from error
    finally:
        part.unlink(missing_ok=True)


def as_json(told: Mapping[str, Any]) -> str:
    """One object, with keys in the order given."""
    return json.dumps(told, indent=2, default=str)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _dtype(program: Any) -> torch.dtype:
    """The floating dtype of a program's weights."""
    floating = (t.dtype for t in program.state_dict.values() if t.is_floating_point())
    return next(floating, torch.float32)
