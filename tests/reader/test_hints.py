"""Every exercise has hints: one or two steps, and not the solution."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reader_notebooks as reader  # noqa: E402

WORKED = reader.worked(reader.Book(ROOT))


@pytest.mark.parametrize("number", WORKED)
def test_hints_are_steps(number):
    hints = WORKED[number]["hints"]
    assert 1 <= len(hints) <= 2 and all(20 < len(hint) < 400 for hint in hints)
    code = [line.strip() for part in WORKED[number]["solution"] for line in part.get("code", "").splitlines()]
    assert [line for line in code if len(line) > 30 and any(line in hint for hint in hints)] == []
