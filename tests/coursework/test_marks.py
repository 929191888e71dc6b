"""Exact marks of the teacher's answers, of the untouched version, of typical mistakes, of nonsense."""

import ast
import inspect
import re
from collections.abc import Callable

import nbformat
import pytest
from coursework.kit import Course, answers, filled, first_cases, of_whole_numbers, packed, points, wrong
from coursework.test_release import secrets, squeeze

from assignments import release, variants
from assignments.checks import VISIBLE, hidden
from assignments.feedback import as_markdown
from assignments.final import final
from assignments.hints import hints
from assignments.mark import Marks, graded
from assignments.texts import plain

PACKS = [(name, tuple(pack)) for name in release.NAMES for pack in packed(wrong(name))]
Courses = Callable[..., Course]


def full(course: Course) -> dict[str, float]:
    """Points of a faultless submission, of the questions that are not marked by hand."""
    return {q: meta.points for q, meta in graded(course.blank).items() if not meta.get("solution")}


def feedback(course: Course, marks: Marks) -> str:
    """The student's page."""
    worth = {question: meta.points for question, meta in graded(course.blank).items()}
    row = final(marks, worth=worth, manual={}, entered={}, overrides={}, deadlines={}, when=None)
    return as_markdown(course.name, row)


def auto(marks: Marks, course: Course) -> dict[str, float]:
    """Points of the questions that are not marked by hand."""
    return {q: p for q, p in points(marks).items() if q in full(course)}


@pytest.mark.parametrize("name", release.NAMES)
def test_points_on_the_cells_are_those_of_the_checks(course_of: Courses, name: str) -> None:
    checks = hidden(name).CHECKS
    assert full(course_of(name)) == {q: VISIBLE + sum(c.points for c in checks[q]) for q in checks}


@pytest.mark.parametrize("name", release.NAMES)
def test_reference_gets_full_marks(course_of: Courses, name: str) -> None:
    course = course_of(name)
    marks = course.mark(course.reference)
    assert (auto(marks, course), marks["remarks"]) == (full(course), [])
    assert all(q["missed"] == [] for q in marks["questions"].values())


@pytest.mark.parametrize("name", release.NAMES)
def test_blank_gets_nothing(course_of: Courses, name: str) -> None:
    course = course_of(name)
    marks = course.untouched
    assert set(points(marks).values()) == {0.0} and set(points(marks)) >= set(full(course))
    assert all(q["missed"] for q in marks["questions"].values())


@pytest.mark.parametrize("name", release.NAMES)
def test_another_cohort_has_other_numbers_and_the_same_marks(course_of: Courses, name: str) -> None:
    course = course_of(name, 2027)
    assert course.blank != course_of(name).blank
    assert auto(course.mark(course.reference), course) == full(course)
    published = {key: text for key, text in answers(name).items() if key != "words"}
    marks = course.mark(filled(course.blank, published))  # the answers of another cohort, as they stand
    kept = {"review-test"} if name == "a0" else set()
    assert {q for q, points in auto(marks, course).items() if points} == kept
    assert "which another cohort was asked for" in " ".join(marks["remarks"])


@pytest.mark.parametrize("name", release.NAMES)
def test_names_of_a_cohort_are_new_and_nowhere_else(name: str) -> None:
    """No name that the notebook already uses for something else, and no old one left."""
    cells = [c.source for c in release.source(name, 0).cells if c.cell_type == "code"]
    used = {n.id for c in cells for n in ast.walk(ast.parse(c)) if isinstance(n, ast.Name)}
    for seed in (1, 2):
        new = variants.names(name, seed)
        assert len(set(new.values())) == len(new) == len(hidden(name).NAMES) and not used & set(new.values())
        for cell in release.source(name, seed).cells:
            if cell.cell_type == "code":
                tree = ast.parse(cell.source)
                assert not [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in new]
                assert not [
                    n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in new
                ]
            for old in new:
                assert f"`{old}(" not in cell.source


@pytest.mark.parametrize(("name", "pack"), PACKS)
def test_typical_mistakes(course_of: Courses, name: str, pack: tuple[str, ...]) -> None:
    """Each costs its own question's marks, and the feedback says the case, and what to do next."""
    course = course_of(name)
    marks = course.mistakes(pack)
    want = full(course)
    for case in pack:
        want |= wrong(name)[case][1]
    assert auto(marks, course) == want
    text = feedback(course, marks)
    for case in pack:
        said = {hint.question: hint.say for hint in hints(name) if hint.mistake == case}
        assert set(said) == set(wrong(name)[case][1])
        for question, say in said.items():
            part = text.split(f"## {question}:")[1].split("\n## ")[0]
            assert say.replace("<", "&lt;") in part, (case, part)


@pytest.mark.parametrize("name", release.NAMES)
def test_three_typical_mistakes_for_each_question(course_of: Courses, name: str) -> None:
    guide = (release.HERE / name / "guide.md").read_text()
    questions = [question for _, lost in wrong(name).values() for question in lost]
    assert {q: questions.count(q) >= 3 for q in full(course_of(name))} == dict.fromkeys(
        full(course_of(name)), True
    )
    assert all(expected for _, expected in wrong(name).values())
    assert not [hint.say for hint in hints(name) if hint.say not in guide]


@pytest.mark.parametrize("name", release.NAMES)
def test_every_question_has_a_case_to_look_at(course_of: Courses, name: str) -> None:
    untold = {"review-test"} if name == "a0" else set()  # it would tell the answer
    assert {question for _, question in first_cases(name)} == set(full(course_of(name))) - untold


@pytest.mark.parametrize("name", release.NAMES)
def test_feedback_shows_the_case_that_failed(course_of: Courses, name: str) -> None:
    """One wrong submission for each question: the call with shapes, what came, what was wanted."""
    course = course_of(name)
    for pack in packed(wrong(name)):
        cases = [key for key in first_cases(name) if key[0] in pack]
        if not cases:
            continue
        text = plain(feedback(course, course.mistakes(pack)).replace("`", "").replace("\n", " "))
        for case, question in cases:
            part = text.split(f"## {question}:")[1].split(" ## ")[0]
            pieces = first_cases(name)[case, question]
            assert [piece for piece in pieces if piece not in part] == [], (case, part)
            assert "Next:" in part


@pytest.mark.parametrize("name", release.NAMES)
def test_feedback_holds_no_answer(course_of: Courses, name: str) -> None:
    """Nor does it show the code of a hidden test: sentences, calls and the student's own errors only."""
    course = course_of(name)
    for marks in (course.untouched, course.mistakes(packed(wrong(name))[0])):
        text = feedback(course, marks)
        assert len(text) > 100
        assert not [s for s in secrets(name) if s in squeeze(text) and "CHECKS" not in s]
        assert not any(word in text for word in ("hidden.py", "student.ask", "Traceback"))


@pytest.mark.parametrize("name", release.NAMES)
def test_a_question_can_be_answered_alone(course_of: Courses, name: str) -> None:
    """Whoever answers only the last question gets its marks."""
    course = course_of(name)
    solved = [c for c in course.reference.cells if c.metadata.get("nbgrader", {}).get("solution")]
    last = list(full(course))[-1]
    after = [c.id for c in course.blank.cells]
    answer = [c for c in solved if c.cell_type == "code" and after.index(c.id) < after.index(last)][-1]
    marks = points(course.mark(filled(course.blank, {answer.id: answer.source})))
    assert marks[last] >= full(course)[last] - VISIBLE


# Nonsense: the teacher's functions, with every number of what they return made another one

SPOIL = """
KEEPS = False


def _spoil(value):
    import torch
    if isinstance(value, torch.Tensor):
        return INT(value) if KEEPS and not value.is_floating_point() else value * BAD
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return INT(value)
    if isinstance(value, float):
        return BAD
    if isinstance(value, dict):
        return {k: _spoil(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_spoil(v) for v in value)
    if isinstance(value, torch.nn.Module):
        for p in value.parameters():
            p.data.fill_(BAD)
    return value


def _wrapped(function):
    return lambda *args, **kwargs: _spoil(function(*args, **kwargs))

"""
KINDS = {
    "nan": "BAD, INT = float('nan'), lambda value: float('nan')\n",
    "inf": "BAD, INT = float('inf'), lambda value: float('inf')\n",
    "minus-inf": "BAD, INT = -float('inf'), lambda value: -float('inf')\n",
    "huge": "BAD, INT = 1e30, lambda value: 10**30\n",
    "nan-but-for-whole-numbers": "KEEPS = True\nBAD, INT = float('nan'), lambda value: value\n",
    "empty": "def _wrapped(function): return lambda *a, **k: __import__('torch').zeros(0)\n",
    "wrong-type": "def _wrapped(function): return lambda *a, **k: {'a': [None, 'b']}\n",
    "none": "def _wrapped(function): return lambda *a, **k: None\n",
}


def spoiled(answer: str, kind: str) -> str:
    """An answer whose functions return nonsense."""
    code = SPOIL + KINDS[kind]
    tree = ast.parse(answer)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    wraps = "".join(f"{name} = _wrapped({name})\n" for name in names)
    if not names:  # the review: a dict
        wraps = "diagnosis = dict.fromkeys(diagnosis, BAD)\n"
        code += "BAD = None\n" if "BAD" not in KINDS[kind] else ""
    return f"{answer}\n{code}\n{wraps}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", release.NAMES)
def test_only_finite_right_answers_pass(course_of: Courses, name: str, kind: str) -> None:
    """Every question of every assignment, answered with nonsense of every kind."""
    course = course_of(name)
    cells = {c.id: c for c in course.reference.cells if c.metadata.get("nbgrader", {}).get("solution")}
    code = {key: spoiled(c.source, kind) for key, c in cells.items() if c.cell_type == "code"}
    marks = course.mark(filled(course.reference, code))
    kept = of_whole_numbers(name) if kind == "nan-but-for-whole-numbers" else {}
    assert auto(marks, course) == dict.fromkeys(full(course), 0.0) | kept


def loose(source: str) -> list[str]:
    """Comparisons that nan slips through: a bound in the condition of an `if` that turns an answer away."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.If) or not isinstance(node.body[-1], ast.Return | ast.Raise):
            continue
        last = node.body[-1]
        if isinstance(last, ast.Return) and not (
            isinstance(last.value, ast.Constant) and not last.value.value
        ):
            continue
        stack: list[tuple[ast.AST, bool]] = [(node.test, True)]
        while stack:
            part, plain = stack.pop()
            if isinstance(part, ast.Compare) and plain:
                if any(isinstance(op, ast.Gt | ast.GtE | ast.Lt | ast.LtE) for op in part.ops):
                    found.append(ast.unparse(part))
            flip = isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.Not)
            stack += [(child, plain != flip) for child in ast.iter_child_nodes(part)]
    return found


@pytest.mark.parametrize("name", release.NAMES)
def test_no_comparison_lets_nan_through(name: str) -> None:
    assert loose(inspect.getsource(hidden(name))) == []


def test_the_lint_can_fail() -> None:
    bad = "def f(x):\n    if g(x) or abs(x - 1) > 0.1:\n        return False\n    return True\n"
    good = "def f(x):\n    if not (abs(x - 1) <= 0.1):\n        return False\n    return x > 0\n"
    assert loose(bad) == ["abs(x - 1) > 0.1"] and loose(good) == []


def test_teachers_notebooks_are_clean() -> None:
    for name in release.NAMES:
        notebook = nbformat.read(release.HERE / name / f"{name}.ipynb", as_version=4)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert all(not c.outputs and c.execution_count is None for c in code)
        assert all(c.metadata.nbgrader.grade_id == c.id for c in code)
        assert len({c.id for c in notebook.cells}) == len(notebook.cells)


def test_a_diagnosis_may_be_written_in_other_letters(course_of: Courses) -> None:
    course = course_of("a0")
    right = {letter: name for letter, (name, _) in hidden("a0").PASSAGES.items()}
    for spelt in (
        {letter.lower(): name for letter, name in right.items()},
        {letter: f"{name} " for letter, name in right.items()},
        {f" {letter}": name.title() for letter, name in right.items()},
    ):
        notebook = filled(course.blank, {"review": f"diagnosis = {spelt}"})  # the other answers take seconds
        assert points(course.mark(notebook))["review-test"] == 5


def test_guide_has_the_rubric() -> None:
    guide = (release.HERE / "a0" / "guide.md").read_text()
    for question, rubric in hidden("a0").RUBRIC.items():
        for worth, text in rubric:
            assert re.search(rf"\| {worth:g} \| {re.escape(text)} \|", guide), (question, text)
