"""Pairs of texts that belong together, for free: the first line of a docstring, and what follows it."""

from __future__ import annotations

import ast
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lowrank_utils import _checks

UNDERLINE = re.compile(r"^ *[-=~^]{3,} *\n", re.MULTILINE)
LISTED = Path(__file__).with_name("docstrings.txt")  # file, name and CRC-32 of each; none of its text


@dataclass(frozen=True)
class Docstring:
    """A docstring in two parts.

    Attributes:
        name: Of the function or class, with its file: ``"numpy/lib/_npyio_impl.py load"``.
        summary: Its first line.
        body: What follows, without the lines under its headings.
    """

    name: str
    summary: str
    body: str


def load_docstrings(count: int = 2200) -> list[Docstring]:
    """The first ``count`` of 2200 docstrings, of numpy, scipy, scikit-learn and matplotlib in random order.

    The order is fixed. They are read from the installed packages, whose files are parsed and not run. A model
    that embeds sentences should put a summary next to its own body: labels that nobody had to write.

    Args:
        count: Between 1 and 2200.

    Returns:
        Docstrings, no two of which share a summary or the first 60 characters of a body.

    Raises:
        TypeError: If ``count`` is no integer.
        ValueError: If ``count`` is out of range, or a docstring is not the one that was listed: the packages
            are of another version then.
        ModuleNotFoundError: If one of the packages is not installed.

    Example:
        >>> load_docstrings(1)[0].summary
        'Context manager for setting print options.'
    """
    listed = [line.split() for line in LISTED.read_text(encoding="utf-8").splitlines()]
    count = _checks.integer(count, "count", low=1, high=len(listed))
    files: dict[str, dict[str, str]] = {}
    found = []
    for file, name, checksum in listed[:count]:
        if file not in files:
            files[file] = _docstrings(file)
        summary, body = _parts(files[file].get(name, ""))
        if zlib.crc32(f"{summary}\n{body}".encode()) != int(checksum, 16):
            package = file.partition("/")[0]
            raise ValueError(f"{name} of {file} has another docstring; this list needs the pinned {package}")
        found.append(Docstring(f"{file} {name}", summary, body))
    return found


def _parts(text: str) -> tuple[str, str]:
    """Summary and body."""
    summary, _, body = text.partition("\n\n")
    return " ".join(summary.split()), UNDERLINE.sub("", body)


def _docstrings(file: str) -> dict[str, str]:
    """{dotted name: docstring} of every function and class in a file of an installed package."""
    package = file.partition("/")[0]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; load_docstrings reads its docstrings")
    path = Path(spec.origin).parents[1] / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return dict(_named(tree, ""))


def _named(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, str]]:
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            if text := ast.get_docstring(child):  # the setter of a property has none
                yield prefix + child.name, text
            if isinstance(child, ast.ClassDef):
                yield from _named(child, f"{prefix}{child.name}.")
