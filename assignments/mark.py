"""Marks for one submission: rebuilt, run in its own process, checked here."""

import contextlib
import ctypes
import logging
import re
import signal
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat

from assignments import forbidden, others, variants
from assignments.checks import hidden
from assignments.isolation import CannotRun
from assignments.rebuild import Unreadable, read, rebuild
from assignments.sandbox import Student
from assignments.texts import quoted

MARKER_LINE = re.compile(r"^<!-- Answer: .*-->$", re.M)
# student, questions {id: {points, out_of, missed}}, remarks, leaderboard, texts {manual question: answer},
# notebook (what was marked), failed (why there are no marks); points is None where a person marks
Marks = dict[str, Any]


def graded(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Question -> nbgrader's metadata of the cell that carries its points."""
    cells = (c.metadata.get("nbgrader", {}) for c in notebook.cells)
    return {meta.grade_id: meta for meta in cells if meta.get("grade")}


def run(name: str, seed: int, notebook: nbformat.NotebookNode, added: dict[str, str]) -> Marks:
    """Run all cells, those that the student added too, then mark every question."""
    assignment = hidden(name)
    cells: dict[str, str] = {}
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        if cell.id in added:
            cells[f"your cell before {cell.id}"] = added[cell.id]
        cells[cell.id] = cell.source
    if "the end" in added:
        cells["your last cell"] = added["the end"]
    numbers, checks = assignment.numbers(seed), assignment.CHECKS
    cohort = variants.names(name, seed)
    with Student(cells, seconds=assignment.SECONDS, tests=checks) as student:
        student.names = cohort
        questions = {question: asdict(checks.mark(question, student, numbers)) for question in checks}
        board: dict[str, float] = {}
        with contextlib.suppress(Exception):  # a figure is extra: no mark depends on it
            board = assignment.leaderboard(student, numbers)
        remarks = [
            f"{cell}: {quoted(error)}"
            + (f" in {quoted(line, 400)}." if (line := student.lines.get(cell)) else ".")
            for cell, error in student.errors.items()
            if error and cell not in checks
        ]
    return {"questions": questions, "remarks": remarks, "leaderboard": board}


def by_hand(release: nbformat.NotebookNode, notebook: nbformat.NotebookNode) -> tuple[Marks, dict[str, str]]:
    """Questions that a person marks, and what was written; an untouched answer has no points already."""
    handed_out = {c.id: c.source for c in release.cells}
    questions: Marks = {}
    texts: dict[str, str] = {}
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if not (meta.get("grade") and meta.get("solution")):
            continue
        text = MARKER_LINE.sub("", cell.source).strip()
        blank = text in {"", MARKER_LINE.sub("", handed_out[cell.id]).strip()}
        missed = [
            {
                "points": meta.points,
                "check": "visible",
                "sentence": "Nothing was written.",
                "said": "",
                "case": None,
            }
        ]
        questions[cell.id] = {
            "points": 0.0 if blank else None,
            "out_of": meta.points,
            "missed": missed if blank else [],
        }
        texts |= {} if blank else {cell.id: text}
    return questions, texts


def mark(name: str, seed: int, who: str, path: Path | None, release: nbformat.NotebookNode) -> Marks:
    """Marks of one submission, the notebook `path`; `release` is the student version of assignment `name`."""
    try:
        if path is None:
            raise Unreadable("No notebook (.ipynb) was handed in.")
        submitted = read(path)
        notebook, added, remarks = rebuild(submitted, release)
    except Unreadable as reason:
        lost = {
            question: {
                "points": 0.0,
                "out_of": meta.points,
                "missed": [
                    {"points": meta.points, "check": "", "sentence": str(reason), "said": "", "case": None}
                ],
            }
            for question, meta in graded(release).items()
        }
        return {"student": who, "questions": lost, "remarks": [str(reason)], "leaderboard": {}, "texts": {}}
    marks = run(name, seed, notebook, added)
    if other := variants.borrowed(name, seed, [c.source for c in notebook.cells if c.cell_type == "code"]):
        remarks.append(f"Defines {', '.join(other)}, which another cohort was asked for.")
    remarks += forbidden.remarks(name, notebook)
    manual, texts = by_hand(release, notebook)
    order = graded(release)
    questions = {q: (marks["questions"] | manual)[q] for q in order}
    if taken_for := others.looks_like(name, submitted, release):
        remarks, marks["remarks"] = [others.SENTENCE.format(taken_for, name)], []  # the rest follows from it
    return marks | {
        "student": who,
        "questions": questions,
        "remarks": remarks + marks["remarks"],
        "texts": texts,
        "notebook": nbformat.writes(notebook),
    }


def failed(who: str, reason: str) -> Marks:
    """No marks, and why: a teacher has to look."""
    return {"student": who, "questions": {}, "remarks": [], "leaderboard": {}, "texts": {}, "failed": reason}


def safely(name: str, seed: int, who: str, path: Path | None, release: nbformat.NotebookNode) -> Marks:
    """As `mark`; a fault of the marker itself, or of the disk, is no mark and not the end of the run."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        return mark(name, seed, who, path, release)
    except (Exception, CannotRun) as error:
        return failed(who, f"{type(error).__name__}: {quoted(error)}")


def die_with_parent() -> None:
    """For a process of the pool: a killed run leaves none behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
