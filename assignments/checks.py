"""A hidden test: a mark, a sentence for whoever misses it, a function that compares in this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from assignments.sandbox import Student

VISIBLE = 1.0  # every question's mark for passing the tests that the student can see
Judge = Callable[[Student, dict[str, Any]], bool]


@dataclass(frozen=True)
class Check:
    """`points` if `judge(student, numbers)` is true, else the student reads `sentence`."""

    points: float
    sentence: str
    judge: Judge


@dataclass
class Question:
    """What one question brought: points out of `out_of`, and a line for each mark that was missed."""

    points: float = 0.0
    out_of: float = 0.0
    missed: list[str] = field(default_factory=list)


class Checks(dict[str, list[Check]]):
    """Hidden checks by question; called as a decorator it adds one."""

    def __call__(self, question: str, points: float, sentence: str) -> Callable[[Judge], Judge]:
        """Register the decorated function as a check of `question` that is worth `points`."""

        def add(judge: Judge) -> Judge:
            self.setdefault(question, []).append(Check(points, sentence, judge))
            return judge

        return add

    def points(self, question: str) -> float:
        """What a question is worth: its visible tests and its checks."""
        return VISIBLE + sum(check.points for check in self.get(question, []))

    def mark(self, question: str, student: Student, numbers: dict[str, Any]) -> Question:
        """Marks for `question`: one for its visible tests, then each check's points or its sentence."""
        result, student.hopeless = Question(), False
        error = student.errors.get(question, "it did not run")
        self._add(result, VISIBLE, not error, f"The tests in the notebook fail ({error}).")
        for check in self[question]:
            student.complaint = None
            try:
                passed = bool(check.judge(student, numbers))
            except Exception as form:  # the answer has a form that the comparison cannot read: a wrong answer
                passed = False
                student.complaint = student.complaint or f"unexpected form of answer, {type(form).__name__}"
            said = f" (Your code: {student.complaint}.)" if student.complaint else ""
            self._add(result, check.points, passed, check.sentence + said)
        return result

    @staticmethod
    def _add(result: Question, points: float, passed: bool, sentence: str) -> None:
        result.out_of += points
        result.points += points if passed else 0.0
        if not passed:
            result.missed.append(f"{points:g} missed: {sentence}")


def close(got: Any, want: Any, *, tolerance: float = 1e-4) -> bool:
    """Same shape, and nowhere further apart than `tolerance` times the largest wanted entry (at least 1)."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    scale = max(1.0, float(np.abs(want).max(initial=0.0)))
    return got.shape == want.shape and bool(np.all(np.abs(got - want) <= tolerance * scale))


def hidden(assignment: str) -> Any:
    """The module of hidden checks of one assignment: CHECKS, SECONDS and numbers(seed)."""
    return import_module(f"assignments.{assignment}.hidden")
