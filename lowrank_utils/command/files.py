"""What the commands read and write: exported programs, and arrays. None of it runs code of yours."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
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
    layers = list(layers_of(model))
    if not layers:
        raise Refused("MODEL", path, "a program with a layer that can have a rank")
    return layers


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
    arrays = read_arrays("--input", Path(told), program)
    return tuple(arrays.values())


def read_arrays(argument: str, path: Path, program: Any) -> dict[str, Tensor]:
    """Tensors of a file, {name: array} of .npz, one array of .npy: floating ones in the program's dtype."""
    limit = "a file NAME.npz or NAME.npy of numpy arrays"
    limit += ", or a shape such as 8x3x224x224" if argument == "--input" else ""
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        raise Refused(argument, path, limit)
    try:
        read = np.load(path, allow_pickle=False)
        arrays = dict(read) if path.suffix == ".npz" else {"X": read}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError, *_BROKEN) as error:
        raise Refused(argument, path, f"{limit} ({first_line(error)})") from error
    dtype = _dtype(program)
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


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
