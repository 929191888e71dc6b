"""Submissions for the tests: the student version, the teacher's answers, and whatever is done to them."""

import copy
import functools
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat

from assignments import release
from assignments.mark import Marks, safely

Notebook = nbformat.NotebookNode
Wrong = dict[str, tuple[dict[str, str], dict[str, float]]]


def answers(name: str, seed: int = 0) -> dict[str, str]:
    """The teacher's answer cells."""
    cells = release.source(name, seed).cells
    return {c.id: c.source for c in cells if c.metadata.get("nbgrader", {}).get("solution")}


def filled(blank: Notebook, answers: dict[str, str]) -> Notebook:
    """The student version with these answers in it, each below its first line."""
    notebook = copy.deepcopy(blank)
    for cell in notebook.cells:
        if cell.id in answers:
            marker = cell.source.split("\n")[0]
            cell.source = marker + "\n" + answers[cell.id].removeprefix(marker).strip("\n") + "\n"
    return notebook


def cell(notebook: Notebook, name: str) -> Notebook:
    """The cell of that name."""
    return next(c for c in notebook.cells if c.id == name)


def wrong(name: str) -> Wrong:
    """Typical mistakes of one assignment: the answers, and the marks of the questions that they cost."""
    found: Wrong = import_module(f"coursework.{name}_wrong").WRONG
    return found


def first_cases(name: str) -> dict[tuple[str, str], list[str]]:
    """(mistake, question) -> what the feedback shows of the first case that failed."""
    found: dict[tuple[str, str], list[str]] = import_module(f"coursework.{name}_wrong").FIRST
    return found


def of_whole_numbers(name: str) -> dict[str, float]:
    """Question -> points that stay where every other number is nan."""
    found: dict[str, float] = import_module(f"coursework.{name}_wrong").WHOLE
    return found


def packed(cases: Wrong) -> list[list[str]]:
    """Mistakes in different questions, put into as few submissions as possible: no question needs another."""
    packs: list[tuple[set[str], list[str]]] = []
    for case, (cells, _) in cases.items():
        for taken, pack in packs:
            if not taken & set(cells):
                taken |= set(cells)
                pack.append(case)
                break
        else:
            packs.append((set(cells), [case]))
    return [pack for _, pack in packs]


class Course:
    """One assignment, assigned once, and a way to mark a notebook."""

    def __init__(self, name: str, folder: Path, seed: int = 0):
        self.name, self.folder, self.seed = name, folder, seed
        self.blank = release.assign(name, seed, folder / "course")
        self.reference = filled(self.blank, answers(name, seed))
        self.count = 0
        self._kept: dict[tuple[str, ...], Marks] = {}

    def mark(self, notebook: Notebook | str | bytes, filename: str | None = None) -> Marks:
        """Marks of a notebook, or of a file with this content."""
        self.count += 1
        path = self.folder / f"s{self.count}" / (filename or f"{self.name}.ipynb")
        path.parent.mkdir()
        if isinstance(notebook, bytes | str):
            path.write_bytes(notebook.encode() if isinstance(notebook, str) else notebook)
        else:
            nbformat.write(notebook, path)
        marks = safely(self.name, self.seed, "student", path, self.blank)
        assert not marks.get("failed"), marks["failed"]
        return marks

    def changed(self, change: Callable[[Notebook], object]) -> Marks:
        """Marks of the reference after `change`."""
        notebook = copy.deepcopy(self.reference)
        change(notebook)
        return self.mark(notebook)

    def answered(self, **answers: str) -> Marks:
        """Marks of the reference with other answers (underscores for hyphens in the names)."""
        return self.mark(filled(self.reference, {k.replace("_", "-"): v for k, v in answers.items()}))

    def mistakes(self, pack: Iterable[str]) -> Marks:
        """Marks of a submission with all of these typical mistakes; marked once, to be read only."""
        cases = tuple(pack)
        if cases not in self._kept:
            cells: dict[str, str] = {}
            for case in cases:
                cells |= wrong(self.name)[case][0]
            self._kept[cases] = self.mark(filled(self.reference, cells))
        return self._kept[cases]

    @functools.cached_property
    def untouched(self) -> Marks:
        """Marks of the student version as it was handed out; to be read only."""
        return self.mark(self.blank)


def points(marks: Marks) -> dict[str, float]:
    """Question -> points."""
    return {name: q["points"] for name, q in marks["questions"].items()}


def said(marks: dict[str, Any]) -> str:
    """Everything that the student reads, on one line."""
    out = list(marks["remarks"])
    for question in marks["questions"].values():
        for miss in question["missed"]:
            case = miss["case"] or {}
            out += [miss["sentence"], miss["said"], *case.values()]
    return " ".join(out)
