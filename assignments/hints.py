"""What to say to whoever missed marks: a typical mistake is known by the checks that it fails."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from assignments.sandbox import ENDED, LARGE
from assignments.texts import OPEN, SHUT

MOST = 3  # hints shown for one question
RAISED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Iteration))(?:: .*)?", re.S)
STUCK = {"it ran longer": "ran out of time", ENDED: "ended Python", LARGE: "returned too much"}
FIRST = {
    "NameError": "A name is not defined yet where it is used. Restart the kernel and run all cells: the "
    "first error that you see is the one to mend.",
    "ran out of time": "Your code ran out of time. Time the call on a small example, and look for the loop "
    "or the wait that takes it.",
    "ended Python": "Your code ended the Python process. Restart the kernel and run all cells: find the line "
    "that does it.",
    "returned too much": "Your answer is larger than any that is asked for. Print its shape.",
}
ELSE = "Your code stopped with {}. Make it run first: repeat the call that is shown above."


@dataclass(frozen=True)
class Hint:
    """`say`, for a submission that misses just these checks of a question."""

    mistake: str
    question: str
    missed: frozenset[str]
    say: str
    raises: frozenset[str] = frozenset()  # errors that belong to the mistake; others are no sign of it


def trouble(missed: Iterable[dict[str, Any]]) -> list[str]:
    """How the student's code failed to answer: the errors it raised, or a word of FIRST. A failed assert, or
    an answer that was left out, is no such failure.
    """
    found = []
    for said in (miss["said"] for miss in missed if miss["said"].startswith(OPEN)):
        text = said[1:].split(SHUT)[0]
        stuck = [word for start, word in STUCK.items() if text.startswith(start)]
        raised = RAISED.fullmatch(text)
        found += stuck or ([raised[1]] if raised else [])
    return [kind for kind in dict.fromkeys(found) if kind not in {"AssertionError", "NotImplementedError"}]


class Hints(list[Hint]):
    """The typical mistakes of one assignment; called, it adds one."""

    def __call__(self, mistake: str, question: str, missed: str, say: str, raises: str = "") -> None:
        """`missed` names checks, separated by blanks; "visible" is the notebook's own tests.

        `raises` names the errors that code with this mistake stops with, if it does.
        """
        self.append(Hint(mistake, question, frozenset(missed.split()), say, frozenset(raises.split())))

    def for_question(self, question: str, missed: list[dict[str, Any]]) -> list[str]:
        """What is said of the mistakes that fail the most similar checks.

        Code that raised or hung has computed nothing wrong: of that alone, unless a mistake is known by it.
        """
        failed, kinds = frozenset(miss["check"] for miss in missed), trouble(missed)
        ours = [
            (len(h.missed & failed) / len(h.missed | failed), h)
            for h in self
            if h.question == question and h.raises >= set(kinds)
        ]
        if kinds and not any(likeness for likeness, _ in ours):
            known = [FIRST[kind] for kind in kinds if kind in FIRST]
            return known[:1] or [ELSE.format(f"{OPEN}{kinds[0]}{SHUT}")]
        best = max((likeness for likeness, _ in ours), default=0.0)
        return list(dict.fromkeys(h.say for likeness, h in ours if likeness == best > 0))[:MOST]


def hints(assignment: str) -> Hints:
    """Those of one assignment."""
    found: Hints = import_module(f"assignments.{assignment}.hints").HINTS
    return found
