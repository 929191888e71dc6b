"""What to say to whoever missed marks: a typical mistake is known by the checks that it fails."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

MOST = 3  # hints shown for one question


@dataclass(frozen=True)
class Hint:
    """`say`, for a submission that misses just these checks of a question."""

    mistake: str
    question: str
    missed: frozenset[str]
    say: str


class Hints(list[Hint]):
    """The typical mistakes of one assignment; called, it adds one."""

    def __call__(self, mistake: str, question: str, missed: str, say: str) -> None:
        """`missed` names checks, separated by blanks; "visible" is the notebook's own tests."""
        self.append(Hint(mistake, question, frozenset(missed.split()), say))

    def for_question(self, question: str, missed: list[dict[str, Any]]) -> list[str]:
        """What is said of the mistakes that fail the most similar checks."""
        failed = frozenset(miss["check"] for miss in missed)
        ours = [(len(h.missed & failed) / len(h.missed | failed), h) for h in self if h.question == question]
        best = max((likeness for likeness, _ in ours), default=0.0)
        return list(dict.fromkeys(h.say for likeness, h in ours if likeness == best > 0))[:MOST]


def hints(assignment: str) -> Hints:
    """Those of one assignment."""
    found: Hints = import_module(f"assignments.{assignment}.hints").HINTS
    return found
