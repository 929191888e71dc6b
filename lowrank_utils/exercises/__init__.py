"""Answers to the chapters' exercises, checked in the reader's own notebook: what is wrong, not only that."""

from __future__ import annotations

import importlib

import torch

from lowrank_utils import _checks
from lowrank_utils.exercises import record
from lowrank_utils.exercises._answers import Judge, NotYet, _words
from lowrank_utils.exercises.record import progress
from lowrank_utils.exercises.worked import hint, solution

__all__ = ["check", "hint", "progress", "solution"]


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
    judge = _judge(exercise)
    if answer is None:
        print(f"{exercise}: no answer yet.")
        return
    wrong = _verdict(judge, answer)
    print(f"{exercise}: right." if wrong is None else f"{exercise}: not yet: {wrong}")
    if wrong is None:
        record.solved(exercise)


def _verdict(judge: Judge, answer: object) -> str | None:
    """What the judge says, whatever the answer is or does; the global generator is as before."""
    with torch.random.fork_rng(devices=[]):
        try:
            return judge(answer)
        except NotYet as wrong:
            return str(wrong)
        except Exception as error:  # an answer may be anything, and must not stop the notebook
            return f"the answer cannot be read: {_words(error)}."


def _judge(exercise: str) -> Judge:
    if not isinstance(exercise, str) or not exercise.partition(".")[0].isdecimal():
        _checks.value_error("exercise", exercise, "a string such as '2.1'")
    name = f"lowrank_utils.exercises.chapter{int(exercise.partition('.')[0])}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        _checks.value_error("exercise", exercise, "an exercise of a chapter that exists")
    judges: dict[str, Judge] = module.JUDGES
    if exercise not in judges:
        _checks.value_error("exercise", exercise, "one of " + ", ".join(sorted(judges)))
    return judges[exercise]
