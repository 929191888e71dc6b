"""Whatever is handed in gets a mark and a sentence, and costs nobody else anything."""

import json
from pathlib import Path
from typing import Any

import pytest
from coursework.kit import Course, Notebook, cell, points
from nbformat import from_dict

from assignments import sandbox
from assignments.a1 import hidden

FULL = {"truncate-test": 6.0, "error-test": 5.0, "rank-for-test": 5.0, "search-test": 4.0, "output-test": 5.0}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return Course("a1", tmp_path_factory.mktemp("a1"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "SECONDS", 2)
    monkeypatch.setattr(sandbox, "GRACE", 1)


def without(name: str) -> dict[str, float]:
    return FULL | {name: 0.0}


def said(marks: dict[str, Any]) -> str:
    return " ".join([*marks["remarks"], *(s for q in marks["questions"].values() for s in q["missed"])])


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
    assert points(marks) == without("error-test") and marks["out_of"] == 25
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


@pytest.mark.parametrize("filename", ["Assignment 1 (final) FINAL.ipynb", "a1-1.ipynb"])
def test_renamed_file(course: Course, filename: str) -> None:
    assert points(course.mark(course.reference, filename)) == FULL


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
        (b" " * (301 * 2**20), "300 MB"),
    ],
)
def test_unreadable_file(course: Course, content: str | bytes, sentence: str) -> None:
    marks = course.mark(content)
    assert marks["points"] == 0 and marks["out_of"] == 25 and sentence in said(marks)


def test_notebook_with_100_mb_of_printed_text_is_marked(course: Course) -> None:
    def change(nb: Notebook) -> None:
        cell(nb, "search").outputs = [
            from_dict({"output_type": "stream", "name": "stdout", "text": "x" * 10**8})
        ]

    assert points(course.changed(change)) == FULL


def test_missing_file(course: Course) -> None:
    marks = course.mark("notes", "notes.txt")
    assert marks["points"] == 0 and "No notebook" in said(marks)


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
    "kills the server": ("import os; os.kill(os.getppid(), 9)\nraise KeyError", "KeyError"),
    "polite exit": ("import sys; sys.exit()", "SystemExit"),
    "100 GB of torch": ("big = torch.ones(100 * 2**30 // 4)", "memory"),
    "100 GB of bytes": ("big = b'x' * (100 * 2**30)", "MemoryError"),
    "asks": ("answer = input('your name?')", "waits for a keyboard"),
    "closes all files": ("import os; os.closerange(0, 99)", "ended the Python process"),
    "recursion": ("def f(): return f()\nf()", "RecursionError"),
}


@pytest.mark.parametrize("case", HARM)
def test_harmful_cell_costs_its_own_question(course: Course, case: str) -> None:
    code, sentence = HARM[case]
    marks = course.answered(search=code)
    assert points(marks) == without("search-test") and sentence in said(marks)


@pytest.mark.parametrize("case", ["infinite loop", "exits", "100 GB of bytes", "asks"])
def test_harmful_function_costs_its_own_question(course: Course, case: str) -> None:
    code, sentence = HARM[case]
    body = "\n".join("    " + line for line in code.split("\n"))
    marks = course.answered(search=f"def best_of_random(W, rank, trials, seed):\n{body}")
    assert points(marks) == without("search-test") and sentence in said(marks)


def test_every_answer_hangs_and_it_still_ends(course: Course) -> None:
    loops = {name: "while True: pass" for name in ("truncate", "error", "rank_for", "search", "output")}
    marks = course.answered(**loops)
    assert marks["points"] == 0 and "so much before it ran out of time" in said(marks)


def test_printing_100_mb_is_cut(course: Course) -> None:
    marks = course.answered(search="print('x' * 100 * 2**20)")
    assert points(marks) == without("search-test") and len(json.dumps(marks)) < 10_000


@pytest.mark.parametrize(
    "value", ["None", "'a'", "[]", "float('nan')", "object()", "{1: [2]}", "torch.zeros(0)", "10**400"]
)
def test_answer_of_another_form(course: Course, value: str) -> None:
    answer = f"def relative_error(W, rank): return {value}"
    assert points(course.answered(error=answer))["error-test"] == 0


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


def test_same_marks_again(course: Course) -> None:
    half = "def best_of_random(W, rank, trials, seed): return torch.rand(1).item()"
    assert course.answered(search=half) == course.answered(search=half)
