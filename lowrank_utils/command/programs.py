"""Exported programs: read, checked and written. None of it runs code of yours."""

from __future__ import annotations

import io
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowrank_utils.command.said import Refused, first_line
from lowrank_utils.layers.which import layers_of
from lowrank_utils.network.exported import from_exported


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


def floating_dtype(program: Any) -> torch.dtype:
    """The floating dtype of a program's weights."""
    floating = (t.dtype for t in program.state_dict.values() if t.is_floating_point())
    return next(floating, torch.float32)


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
