"""Files that are whole or not there, names that every disk takes, tables that teachers edit."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from assignments.texts import cell, encodable


class BadTable(ValueError):
    """A teacher's table cannot be used; str() names file, row and what is wanted."""


def write(path: Path, text: str) -> None:
    """Write through a temporary file: whoever reads `path` sees the old text or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.part")
    part.write_text(encodable(text), encoding="utf-8")
    os.replace(part, path)


def safe_name(student: str) -> str:
    """A file name for a student: the same, if it is short and plain; else cut, and told apart by a digest."""
    name = re.sub(r"[/\\\x00-\x1f]", "_", student)
    if name == student and len(name.encode()) <= 120 and not name.startswith("."):
        return name
    start = name.lstrip(".").encode()[:100].decode("utf-8", "ignore")
    return f"{start}-{hashlib.sha256(student.encode()).hexdigest()[:8]}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file's text; numbers without needless zeros, None as an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in [header, *rows]:
        writer.writerow(
            "" if x is None else f"{x:g}" if isinstance(x, int | float) else cell(str(x)) for x in row
        )
    return out.getvalue()


def read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a teacher's CSV file, as a spreadsheet saves it; none if there is no such file."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTable(f"{path} must be a CSV file in UTF-8 ({type(error).__name__})") from None
    first = text.split("\n", 1)[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if first.count(";") > first.count(",") else ",")
    names = [(name or "").strip() for name in rows.fieldnames or []]
    if missing := [name for name in needed if name not in names]:
        raise BadTable(f"{path} has the columns {', '.join(names)}; it needs {', '.join(missing)} too")
    return [
        {(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str | None)}
        for row in rows
        if any(isinstance(v, str) and v.strip() for v in row.values())
    ]


def number(path: Path, row: dict[str, str], column: str) -> float | None:
    """A cell as a number; None if it is empty."""
    try:
        return float(row.get(column, "").replace(",", ".")) if row.get(column) else None
    except ValueError:
        raise BadTable(
            f"{path}: {column}={row[column]} of {row.get('student', '')} must be a number"
        ) from None
