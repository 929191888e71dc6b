"""Answers to the exercises, right and wrong: what a reader may well hand in, and what the judge must say.

A chapter N has its list in ``chapterN.py``, as ANSWERS; tests/exercises/test_judges.py runs them all.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """An answer, and a word that the hint must have; None where the answer is right."""

    exercise: str
    name: str
    answer: object
    word: str | None


def right(exercise: str, name: str, answer: object) -> Answer:
    """An answer that is right, though another type or road than the solution's."""
    return Answer(exercise, name, answer, None)


def wrong(exercise: str, name: str, answer: object, word: str) -> Answer:
    """An answer that is wrong; its name says which mistake it makes."""
    return Answer(exercise, name, answer, word)


def all_answers() -> list[Answer]:
    """The lists of all chapters."""
    files = sorted(Path(__file__).parent.glob("chapter*.py"))
    return [one for file in files for one in importlib.import_module(f"answers.{file.stem}").ANSWERS]
