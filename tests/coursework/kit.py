"""Submissions for the tests: the student version, the teacher's answers, and whatever is done to them."""

import copy
from collections.abc import Callable
from pathlib import Path

import nbformat

from assignments import release
from assignments.mark import Marks, safely

Notebook = nbformat.NotebookNode


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


class Course:
    """One assignment, assigned once, and a way to mark a notebook."""

    def __init__(self, name: str, folder: Path, seed: int = 0):
        self.name, self.folder, self.seed = name, folder, seed
        self.blank = release.assign(name, seed, folder / "course")
        self.reference = filled(self.blank, answers(name, seed))
        self.count = 0

    def mark(self, notebook: Notebook | str | bytes, filename: str | None = None) -> Marks:
        """Marks of a notebook, or of a file with this content."""
        self.count += 1
        home = self.folder / f"s{self.count}"
        home.mkdir()
        path = home / (filename or f"{self.name}.ipynb")
        if isinstance(notebook, bytes | str):
            path.write_bytes(notebook.encode() if isinstance(notebook, str) else notebook)
        else:
            nbformat.write(notebook, path)
        return safely(self.name, self.seed, "student", home, self.folder / "course")

    def changed(self, change: Callable[[Notebook], object]) -> Marks:
        """Marks of the reference after `change`."""
        notebook = copy.deepcopy(self.reference)
        change(notebook)
        return self.mark(notebook)

    def answered(self, **answers: str) -> Marks:
        """Marks of the reference with other answers (underscores for hyphens in the names)."""
        return self.mark(filled(self.reference, {k.replace("_", "-"): v for k, v in answers.items()}))


def points(marks: Marks) -> dict[str, float]:
    """Question -> points."""
    return {name: q["points"] for name, q in marks["questions"].items()}
