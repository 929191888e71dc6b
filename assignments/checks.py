"""A hidden test: a mark, a sentence for whoever misses it, a function that compares in this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from assignments.cases import TRAIL, Case
from assignments.sandbox import Student
from assignments.texts import quoted

VISIBLE = 1.0  # every question's mark for passing the tests that the student can see
Judge = Callable[[Student, dict[str, Any]], bool]


@dataclass(frozen=True)
class Check:
    """`points` if `judge(student, numbers)` is true, else the student reads `sentence`."""

    points: float
    sentence: str
    judge: Judge
    name: str = ""


@dataclass
class Miss:
    """A mark that was missed: what for, and the case that decided it."""

    points: float
    check: str
    sentence: str
    said: str = ""  # by the student's code
    case: Case | None = None


@dataclass
class Question:
    """What one question brought: points out of `out_of`, and what was missed."""

    points: float = 0.0
    out_of: float = 0.0
    missed: list[Miss] = field(default_factory=list)


class Checks(dict[str, list[Check]]):
    """Hidden checks by question; called as a decorator it adds one."""

    def __call__(
        self, question: str, points: float, sentence: str, name: str = ""
    ) -> Callable[[Judge], Judge]:
        """Register the decorated function as a check of `question` that is worth `points`."""

        def add(judge: Judge) -> Judge:
            check = Check(points, sentence, judge, name or judge.__name__)
            self.setdefault(question, []).append(check)
            return judge

        return add

    def points(self, question: str) -> float:
        """What a question is worth: its visible tests and its checks."""
        return VISIBLE + sum(check.points for check in self.get(question, []))

    def mark(self, question: str, student: Student, numbers: dict[str, Any]) -> Question:
        """Marks for `question`: one for its visible tests, then each check's points or its sentence."""
        result = Question(out_of=self.points(question))
        student.begin_question(question)
        error = student.errors.get(question, "it did not run")
        if error:
            line = student.lines.get(question, "")
            said = f"{quoted(error)}" + (f" in {quoted(line, 400)}" if line else "")
            result.missed.append(Miss(VISIBLE, "visible", "The tests in the notebook fail.", said))
        else:
            result.points += VISIBLE
        for check in self[question]:
            TRAIL.begin()
            student.begin_check()
            form = ""
            try:
                passed = bool(check.judge(student, numbers))
            except Exception as error:  # the comparison cannot read the answer's form: a wrong answer
                passed, form = False, f"unexpected form of answer, {quoted(type(error).__name__)}"
                TRAIL.miss(TRAIL.calls[-1][1] if TRAIL.calls else None, "an answer of the form in the text")
            if passed:
                result.points += check.points
                continue
            said = quoted(student.complaint) if student.complaint else form
            said += f" in {quoted(student.line, 400)}" if student.complaint and student.line else ""
            result.missed.append(Miss(check.points, check.name, check.sentence, said, TRAIL.case))
        return result


def raises(student: Student, call: str, *words: object, shown: str = "", **inputs: object) -> bool:
    """Whether `call` raises a ValueError whose text has all of `words`."""
    student.ask(call, shown, **inputs)
    said, student.complaint, student.line = student.complaint or "", None, ""
    if said.startswith("ValueError") and all(str(word) in said for word in words):
        return True
    text, value, _ = TRAIL.calls[-1] if TRAIL.calls else ("", None, None)
    if text:
        TRAIL.calls[-1] = (text, value, said or None)
    named = f" that names {' and '.join(str(word) for word in words)}" if words else ""
    return TRAIL.miss(value, f"a ValueError{named}")


def hidden(assignment: str) -> Any:
    """The module of hidden checks of one assignment: CHECKS, SECONDS and numbers(seed)."""
    return import_module(f"assignments.{assignment}.hidden")
