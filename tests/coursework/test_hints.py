"""What the next step says: of code that did not run, only that."""

from collections.abc import Callable

import pytest
from coursework.kit import Course, filled

from assignments import sandbox
from assignments.a1 import hidden
from assignments.hints import FIRST, hints, trouble

LATER = "def error_of(W): return helper(W)\ndef relative_error(W, rank): return helper(W)"
SLEEPS = "import time\ndef rank_for_error(W, tolerance): time.sleep(99)"
ODD = "def best_of_random(W, rank, trials, seed): return {}[rank]"
DIES = "import os\ndef truncate_for(W, X, rank): os._exit(0)"


@pytest.fixture(scope="module")
def said(course_of: Callable[..., Course]) -> dict[str, list[str]]:
    """Question -> what is said next of code that raises, sleeps or ends."""
    course = course_of("a1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden, "SECONDS", 1)
        patch.setattr(sandbox, "GRACE", 1)
        wrong = {"error": LATER, "rank-for": SLEEPS, "search": ODD, "output": DIES}
        marks = course.mark(filled(course.reference, wrong))
    return {q: hints("a1").for_question(q, part["missed"]) for q, part in marks["questions"].items()}


def test_code_that_did_not_run_is_told_so_and_nothing_else(said: dict[str, list[str]]) -> None:
    assert said["truncate-test"] == []
    assert said["error-test"] == [FIRST["NameError"]]
    assert said["rank-for-test"] == [FIRST["ran out of time"]]
    assert said["output-test"] == [FIRST["ended Python"]]
    (odd,) = said["search-test"]
    assert "stopped with \x02KeyError\x03" in odd


def test_an_error_that_a_mistake_is_known_by_keeps_its_hint() -> None:
    missed = [{"check": "few_samples", "said": "\x02_LinAlgError: not positive-definite\x03"}]
    assert "no Cholesky factor" in hints("a1").for_question("output-test", missed)[0]
    missed[0]["said"] = "\x02NameError: name 'S' is not defined\x03"
    assert hints("a1").for_question("output-test", missed) == [FIRST["NameError"]]


def test_a_failed_assert_and_an_open_answer_are_no_trouble() -> None:
    texts = [
        "\x02AssertionError: no\x03",
        "\x02NotImplementedError\x03",
        "\x022378 parameters, 0.68 right\x03",
        "",
    ]
    assert trouble({"said": f"\x02{text}\x03"} for text in texts) == []
