"""Answers to the chapters' exercises, checked in the reader's own notebook: what is wrong, not only that."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable

from lowrank_utils import _checks
from lowrank_utils.exercises import record
from lowrank_utils.exercises.record import progress
from lowrank_utils.exercises.worked import hint, solution

__all__ = ["check", "hint", "progress", "solution"]

Judge = Callable[[object], str | None]
"""Takes an answer that is not None; returns None if it is right, else a hint in one sentence."""


def check(exercise: str, answer: object) -> None:
    r"""Print whether ``answer`` solves the exercise and, where it does not, what is wrong with it.

    Args:
        exercise: Number as in the chapter, ``"2.1"``.
        answer: Your answer, of the kind that the exercise asks for; None counts as not yet given.

    Raises:
        ValueError: If there is no such exercise.

    Example:
        >>> check("1.1", None)
        1.1: no answer yet.
    """
    judges = _judges(exercise)
    if exercise not in judges:
        _checks.value_error("exercise", exercise, "one of " + ", ".join(sorted(judges)))
    if answer is None:
        print(f"{exercise}: no answer yet.")
        return
    try:
        wrong = judges[exercise](answer)
    except Exception as error:  # an answer may be anything, and must not stop the notebook
        wrong = f"your answer raised {type(error).__name__}: {error}"
    print(f"{exercise}: right." if wrong is None else f"{exercise}: not yet: {wrong}")
    if wrong is None:
        record.solved(exercise)


def _whole(answer: object) -> int | None:
    """An answer that is a whole number of any kind, or None."""
    try:
        return None if isinstance(answer, bool) else operator.index(answer)  # type: ignore[arg-type]
    except TypeError:
        return None


def _judges(exercise: str) -> dict[str, Judge]:
    if not isinstance(exercise, str) or not exercise.partition(".")[0].isdigit():
        _checks.value_error("exercise", exercise, "a string such as '2.1'")
    chapter = int(exercise.partition(".")[0])
    try:
        module = importlib.import_module(f"lowrank_utils.exercises.chapter{chapter}")
    except ModuleNotFoundError:
        _checks.value_error("exercise", exercise, "an exercise of a chapter that exists")
    judges: dict[str, Judge] = module.JUDGES
    return judges
