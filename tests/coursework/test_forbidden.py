"""Functions that the text does not allow: a remark with the name and the question, and no mark."""

import re
from collections.abc import Callable

import pytest
from coursework.kit import Course, answers, filled, points

import lowrank_utils
from assignments import forbidden, release
from assignments.checks import hidden

BORROWED = """
def truncate(W, rank):
    if not 1 <= rank <= min(W.shape):
        raise ValueError(f"{rank} is not in 1 to {min(W.shape)}")
    return book.low_rank_approximation(W, rank)
"""


def found(course: Course, **cells: str) -> list[str]:
    """The remarks on these answers."""
    return forbidden.remarks(course.name, filled(course.reference, cells))


def test_a_borrowed_answer_has_its_points_and_a_remark(course_of: Callable[..., Course]) -> None:
    marks = course_of("a1").answered(truncate=BORROWED)
    assert points(marks)["truncate-test"] == 6
    assert marks["remarks"] == ["'truncate' uses low_rank_approximation, which question 1 does not allow."]


@pytest.mark.parametrize(
    "code",
    [
        "from lowrank_utils import count_macs as c\nflops = lambda net, X: 2 * c(net, X)",
        "import lowrank_utils\nflops = lowrank_utils.count_macs",
        "import lowrank_utils.cost as k\ndef flops(net, X): return k.count_macs(net, X)",
    ],
)
def test_each_way_to_a_name_is_found(course_of: Callable[..., Course], code: str) -> None:
    (said,) = found(course_of("a0"), cost=code)
    assert said == "'cost' uses count_macs, which question 5 does not allow."


def test_a_function_of_ones_own_may_have_the_name(course_of: Callable[..., Course]) -> None:
    """Question 2 of a1 asks for `relative_error`; find_rank is allowed in one question of a2."""
    own = "def rank_for_error(W, t): return min(r for r in range(9) if relative_error(W, r) <= t)"
    assert found(course_of("a1"), **{"rank-for": own}) == []
    assert found(course_of("a1"), **{"rank-for": "compress = 1\nprint(compress)"}) == []
    uses = "def search(curve, baseline, max_drop): return find_rank(curve)"
    assert found(course_of("a2"), leak=uses) == [] and "question 1" in found(course_of("a2"), search=uses)[0]
    assert found(course_of("a1"), search="def broken(") == []


@pytest.mark.parametrize("name", release.NAMES)
def test_the_names_are_those_of_the_text_and_the_package(name: str) -> None:
    """Every function that the first cell forbids by name is looked for, and none that does not exist."""
    rules, first = hidden(name).FORBIDDEN, release.source(name, 0).cells[0].source
    text = re.findall(r"Not allowed: ([^.]*)", first)
    assert {n for n in re.findall(r"`(\w+)`", " ".join(text)) if hasattr(lowrank_utils, n)} <= set(rules)
    assert {n for n in rules if not hasattr(lowrank_utils, n)} <= {"binomtest", "proportion_ci"}
    assert set().union(*rules.values()) <= set(answers(name))
