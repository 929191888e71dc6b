"""Whatever is handed in gets a mark and a sentence, and costs nobody else anything."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from coursework.kit import Course, Notebook, cell, points, said
from nbformat import from_dict

from assignments import sandbox
from assignments.a1 import hidden
from assignments.mark import safely

FULL = {"truncate-test": 6.0, "error-test": 5.0, "rank-for-test": 5.0, "search-test": 4.0, "output-test": 5.0}


@pytest.fixture(scope="module")
def course(course_of: Callable[..., Course]) -> Course:
    return course_of("a1")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "SECONDS", 2)
    monkeypatch.setattr(sandbox, "GRACE", 1)


def without(name: str) -> dict[str, float]:
    return FULL | {name: 0.0}


def strip(notebook: Notebook, *, ids: bool) -> None:
    for c in notebook.cells:
        c.metadata = {}
        if ids:
            del c["id"]
    notebook.nbformat_minor = 4 if ids else 5


def test_duplicated_answer_the_last_edited_copy_counts(course: Course) -> None:
    def change(nb: Notebook) -> None:
        wrong = dict(
            cell(nb, "truncate"), id="copy", source="# Answer: truncate\ndef truncate(W, rank): return W"
        )
        nb.cells.insert(2, from_dict(wrong))
        blank = dict(cell(course.blank, "truncate"), id="again")
        nb.cells.append(from_dict(blank))

    marks = course.changed(change)
    assert points(marks) == FULL and "'truncate' is there 2 times" in said(marks)


def test_duplicated_tests(course: Course) -> None:
    assert (
        points(
            course.changed(lambda nb: nb.cells.append(from_dict(dict(cell(nb, "truncate-test"), id="twice"))))
        )
        == FULL
    )


@pytest.mark.parametrize("gone", ["truncate-test", "setup", "title"])
def test_deleted_given_cell_is_put_back(course: Course, gone: str) -> None:
    assert points(course.changed(lambda nb: nb.cells.remove(cell(nb, gone)))) == FULL


def test_deleted_answer_costs_its_question(course: Course) -> None:
    marks = course.changed(lambda nb: nb.cells.remove(cell(nb, "search")))
    assert points(marks) == without("search-test") and "'search' was missing" in said(marks)


def test_reordered(course: Course) -> None:
    assert points(course.changed(lambda nb: nb.cells.reverse())) == FULL


def test_tampered_test_is_restored(course: Course) -> None:
    def change(nb: Notebook) -> None:
        cell(nb, "error").source = "# Answer: error (keep this line)\ndef relative_error(W, rank): return 0.0"
        cell(nb, "error-test").source = "pass"
        cell(nb, "error-test").metadata.nbgrader.points = 1000

    marks = course.changed(change)
    assert points(marks) == without("error-test")
    assert sum(q["out_of"] for q in marks["questions"].values()) == 25
    assert "'error-test' was changed" in said(marks)


@pytest.mark.parametrize("ids", [False, True])
def test_stripped_metadata(course: Course, ids: bool) -> None:
    assert points(course.changed(lambda nb: strip(nb, ids=ids))) == FULL


def test_answer_moved_into_a_cell_of_ones_own(course: Course) -> None:
    def change(nb: Notebook) -> None:
        answer = cell(nb, "truncate")
        answer.metadata, answer["id"], answer.source = {}, "mine", "\n".join(answer.source.split("\n")[1:])

    assert points(course.changed(change)) == FULL


def test_own_helper_cells_run_where_they_stand(course: Course) -> None:
    def change(nb: Notebook) -> None:
        helper = dict(
            cell_type="code", id="own", metadata={}, source="half = 0.5", outputs=[], execution_count=None
        )
        nb.cells.insert(nb.cells.index(cell(nb, "error")), from_dict(helper))
        answer = cell(nb, "error")
        answer.source = answer.source.replace("S = ", "S = 2 * half * ")

    assert points(course.changed(change)) == FULL


def test_windows_line_ends(course: Course) -> None:
    def change(nb: Notebook) -> None:
        for c in nb.cells:
            c.source = c.source.replace("\n", "\r\n")

    assert points(course.changed(change)) == FULL


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a notebook"),
        (b"\x00\xff" * 999, "not a notebook"),
        ("{}", "not a notebook"),
        (json.dumps({"cells": [{}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}), "not a notebook"),
        (json.dumps({"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}), "not a notebook"),
        ("[" * 100_000, "not a notebook"),
    ],
)
def test_unreadable_file(course: Course, content: str | bytes, sentence: str) -> None:
    marks = course.mark(content)
    assert set(points(marks).values()) == {0.0} and sentence in said(marks)


def test_notebook_with_100_mb_of_printed_text_is_marked(course: Course) -> None:
    def change(nb: Notebook) -> None:
        cell(nb, "search").outputs = [
            from_dict({"output_type": "stream", "name": "stdout", "text": "x" * 10**8})
        ]

    assert points(course.changed(change)) == FULL


def test_missing_file(course: Course) -> None:
    marks = safely("a1", 0, "student", None, course.blank)
    assert set(points(marks).values()) == {0.0} and "No notebook" in said(marks)


HARM = {
    "syntax error": ("def truncate(W, rank) return W", "SyntaxError"),
    "infinite loop": ("while True: pass", "longer than the time limit"),
    "infinite loop that catches all": (
        "while True:\n    try:\n        pass\n    except BaseException: pass",
        "longer than the time limit",
    ),
    "sleeps": ("import time; time.sleep(1000)", "longer than the time limit"),
    "exits": ("import os; os._exit(0)", "ended the Python process"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", "ended the Python process"),
    "stops itself": ("import os; os.kill(os.getpid(), 19)", "longer than the time limit"),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "ended the Python process"),
    "kills its parent": ("import os; os.kill(os.getppid(), 9)\nraise KeyError", "tests in the notebook fail"),
    "polite exit": ("import sys; sys.exit()", "SystemExit"),
    "100 GB of torch": ("big = torch.ones(100 * 2**30 // 4)", "memory"),
    "100 GB of bytes": ("big = b'x' * (100 * 2**30)", "MemoryError"),
    "asks": ("answer = input('your name?')", "waits for a keyboard"),
    "closes all files": ("import os; os.closerange(0, 99)", "ended the Python process"),
    "recursion": ("def f(): return f()\nf()", "RecursionError"),
}


QUESTIONS = {
    "truncate": "truncate-test",
    "error": "error-test",
    "rank-for": "rank-for-test",
    "search": "search-test",
}


def in_threes(cases: list[str]) -> list[list[str]]:
    """Three cases share a submission, each in a question of its own: what one does stays in its question."""
    return [cases[i : i + 3] for i in range(0, len(cases), 3)]


@pytest.mark.parametrize("cases", in_threes(list(HARM)), ids="+".join)
def test_harmful_cell_costs_its_own_question(course: Course, cases: list[str]) -> None:
    places = dict(zip(list(QUESTIONS)[1:], cases, strict=False))
    marks = course.answered(**{place: HARM[case][0] for place, case in places.items()})
    assert points(marks) == FULL | {QUESTIONS[place]: 0.0 for place in places}
    for place, case in places.items():
        part = marks["questions"][QUESTIONS[place]] | {"remarks": []}
        about = " ".join([said({"questions": {"": part}, "remarks": []}), *marks["remarks"]])
        assert HARM[case][1] in about, case


def test_harmful_functions_cost_their_own_questions(course: Course) -> None:
    """Patience is per question: four that hang, end or fill the memory, and the fifth has its marks."""
    places = dict(zip(QUESTIONS, ["infinite loop", "exits", "100 GB of bytes", "sleeps"], strict=True))
    sources = {c.id: c.source for c in course.reference.cells if c.id in QUESTIONS}
    heads = {place: re.search("^def .*", source, re.M)[0] for place, source in sources.items()}  # type: ignore[index]
    bodies = {place: HARM[case][0].replace("\n", "\n    ") for place, case in places.items()}
    marks = course.answered(**{place: f"{heads[place]}\n    {bodies[place]}" for place in places})
    assert points(marks) == dict.fromkeys(FULL, 0.0) | {"output-test": 5.0}
    for place, case in places.items():
        assert HARM[case][1] in said({"questions": {"": marks["questions"][QUESTIONS[place]]}, "remarks": []})


def test_a_function_that_hangs_once_keeps_the_rest_of_its_question(course: Course) -> None:
    """What comes after an answer that hung is tried in a fresh process, with less time, and may be right."""
    right = next(c.source for c in course.reference.cells if c.id == "rank-for")
    hangs = (
        "\n_right = rank_for_error\n\ndef rank_for_error(W, tolerance):\n    while tolerance == 0.11: pass\n"
    )
    marks = course.answered(rank_for=right + hangs + "    return _right(W, tolerance)\n")
    assert points(marks) == FULL | {"rank-for-test": 3.0}
    (miss,) = marks["questions"]["rank-for-test"]["missed"]
    assert miss["check"] == "smallest" and "longer than the time limit" in miss["said"]


def test_every_answer_hangs_and_it_still_ends(course: Course) -> None:
    loops = {name: "while True: pass" for name in ("truncate", "error", "rank_for", "search", "output")}
    marks = course.answered(**loops)
    assert marks["questions"]["output-test"]["out_of"] == 5 and set(points(marks).values()) == {0.0}


@pytest.mark.parametrize("magic", ["%%time", "%%capture out", "%%timeit -n 1", "# my answer\n%%time"])
def test_magic_that_watches_a_cell_is_obeyed(course: Course, magic: str) -> None:
    def change(nb: Notebook) -> None:
        cell(nb, "truncate").source = f"{magic}\n{cell(nb, 'truncate').source}"
        cell(nb, "search").source = cell(nb, "search").source.replace("\ndef", "\n%time half = 0.5\n\ndef")
        cell(nb, "search").source += "\nassert half == 0.5\n%matplotlib inline\n!ls\n"
        strip(nb, ids=True)

    assert points(course.changed(change)) == FULL


def test_printing_100_mb_is_cut(course: Course) -> None:
    marks = course.answered(search="print('x' * 100 * 2**20)")
    marks.pop("notebook")
    assert points(marks) == without("search-test") and len(json.dumps(marks)) < 10_000


def test_switching_off_the_tests_gains_the_visible_mark_only(course: Course) -> None:
    cheat = "torch.allclose = torch.equal = lambda *a, **k: True\ntorch.linalg.matrix_rank = lambda W: rank\n"
    marks = course.answered(truncate=cheat + "def truncate(W, rank): return torch.zeros_like(W)")
    assert points(marks)["truncate-test"] <= 2


def test_the_students_folder_holds_no_answers(course: Course) -> None:
    look = "import os, sys\nraise RuntimeError(os.listdir() + [m for m in sys.modules if 'assign' in m])"
    assert "RuntimeError: []" in said(course.answered(search=look))


def test_the_channel_runs_no_code_of_the_student(course: Course, tmp_path: Path) -> None:
    """What comes back is JSON and plain arrays: a pickle in an answer is not loaded."""
    bomb = f"""
class Bomb:
    def __reduce__(self): return (open, ({str(tmp_path / "x")!r}, "w"))
import numpy
def relative_error(W, rank): return numpy.array([Bomb()], dtype=object)
"""
    assert points(course.answered(error=bomb))["error-test"] == 0
    assert not (tmp_path / "x").exists()


def test_a_notebook_of_another_assignment_is_called_that(
    course: Course, course_of: Callable[..., Course]
) -> None:
    """One remark, not one for each cell that it has not."""
    marks = course.mark(course_of("a2").blank)
    assert set(points(marks).values()) == {0.0}
    assert marks["remarks"] == ["This looks like a2: the notebook of a1 was asked for."]


def test_same_marks_again(course: Course) -> None:
    half = "def best_of_random(W, rank, trials, seed): return torch.rand(1).item()"
    assert course.answered(search=half) == course.answered(search=half)


@pytest.mark.parametrize("source", ["", "from lowrank_utils import train_nn", "SGD = torch.optim.SGD"])
def test_a_notebook_that_trains_finds_torchs_compiler_imported(source: str) -> None:
    """An optimizer asks for it, and importing it takes longer than marking: the server does it once."""
    with sandbox.Student({"setup": "import sys, torch", "train": source}, seconds=20) as student:
        loaded = student.ask("'torch._dynamo' in sys.modules")
        assert loaded or not source
        assert student.ask("[torch.optim.SGD([torch.zeros(1)]), 'torch._dynamo' in sys.modules][1]")
