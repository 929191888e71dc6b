"""Exact marks of the teacher's answers, of the untouched student version and of typical mistakes."""

from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from coursework.kit import Course, filled, points

from assignments import release
from assignments.checks import VISIBLE, hidden

WRONG = {name: import_module(f"coursework.{name}_wrong").WRONG for name in release.NAMES}
CASES = [(name, case) for name, wrong in WRONG.items() for case in wrong]


@pytest.fixture(scope="module")
def courses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Course]:
    return {name: Course(name, tmp_path_factory.mktemp(name)) for name in release.NAMES}


def full(course: Course) -> dict[str, float]:
    """Points of a faultless submission."""
    nb = [c.metadata.get("nbgrader", {}) for c in course.blank.cells]
    return {m["grade_id"]: m["points"] for m in nb if m.get("grade")}


@pytest.mark.parametrize("name", release.NAMES)
def test_points_on_the_cells_are_those_of_the_checks(courses: dict[str, Course], name: str) -> None:
    checks = hidden(name).CHECKS
    assert full(courses[name]) == {q: VISIBLE + sum(c.points for c in checks[q]) for q in checks}


@pytest.mark.parametrize("name", release.NAMES)
def test_reference_gets_full_marks(courses: dict[str, Course], name: str) -> None:
    marks = courses[name].mark(courses[name].reference)
    assert (points(marks), marks["remarks"]) == (full(courses[name]), [])
    assert all(q["missed"] == [] for q in marks["questions"].values())


@pytest.mark.parametrize("name", release.NAMES)
def test_blank_gets_nothing(courses: dict[str, Course], name: str) -> None:
    marks = courses[name].mark(courses[name].blank)
    assert marks["points"] == 0 and marks["out_of"] == sum(full(courses[name]).values())
    assert all(q["missed"] for q in marks["questions"].values())


@pytest.mark.parametrize("name", release.NAMES)
def test_another_cohort_has_other_numbers_and_the_same_marks(name: str, tmp_path: Path) -> None:
    course = Course(name, tmp_path, seed=2027)
    assert course.blank != release.assign(name, 0, tmp_path / "zero")
    assert points(course.mark(course.reference)) == full(course)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_typical_mistake(courses: dict[str, Course], name: str, case: str) -> None:
    course, (answers, expected) = courses[name], WRONG[name][case]
    assert points(course.mark(filled(course.reference, answers))) == full(course) | expected


@pytest.mark.parametrize("name", release.NAMES)
def test_there_are_four_typical_mistakes_and_they_cost_marks(name: str) -> None:
    assert len(WRONG[name]) >= 4
    assert all(expected for _, expected in WRONG[name].values())


@pytest.mark.parametrize("name", release.NAMES)
def test_a_question_can_be_answered_alone(courses: dict[str, Course], name: str) -> None:
    """Whoever answers only the last question gets its marks."""
    course = courses[name]
    solved = [c for c in course.reference.cells if c.metadata.get("nbgrader", {}).get("solution")]
    last = list(full(course))[-1]
    after = [c.id for c in course.blank.cells]
    answer = [c for c in solved if after.index(c.id) < after.index(last)][-1]
    marks = points(course.mark(filled(course.blank, {answer.id: answer.source})))
    assert marks[last] >= full(course)[last] - VISIBLE


def test_teachers_notebooks_are_clean() -> None:
    for name in release.NAMES:
        notebook = nbformat.read(release.HERE / name / f"{name}.ipynb", as_version=4)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert all(not c.outputs and c.execution_count is None for c in code)
        assert all(c.metadata.nbgrader.grade_id == c.id for c in code)
        assert len({c.id for c in notebook.cells}) == len(notebook.cells)
