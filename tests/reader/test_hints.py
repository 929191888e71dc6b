"""Every exercise has hints: one or two steps, and not the solution."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reader_notebooks as reader  # noqa: E402

from lowrank_utils.exercises import record  # noqa: E402

NUMBERS = [number for numbers in record._exercises().values() for number in numbers]


@pytest.fixture(scope="module")
def worked():
    """Hints and solutions of all exercises; it takes seconds, so not while tests are collected."""
    return reader.worked(reader.Book(ROOT))


def test_they_are_those_of_the_judges(worked):
    assert sorted(worked) == sorted(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_hints_are_steps(worked, number):
    hints = worked[number]["hints"]
    assert 1 <= len(hints) <= 2 and all(20 < len(hint) < 400 for hint in hints)
    code = [line.strip() for part in worked[number]["solution"] for line in part.get("code", "").splitlines()]
    assert [line for line in code if len(line) > 30 and any(line in hint for hint in hints)] == []
