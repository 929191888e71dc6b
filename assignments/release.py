"""From the teacher's notebook the student's: the same bytes each time, with the cohort's numbers."""

import functools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from traitlets.config import Config

from assignments import variants
from assignments.checks import hidden

if TYPE_CHECKING:
    from nbgrader.apps import NbGraderAPI

HERE = Path(__file__).parent
ROOT = HERE.parent
NAMES = sorted(p.parent.name for p in HERE.glob("*/hidden.py"))
ANSWER = "# Answer: {} (keep this line)"  # finds a cell again when its metadata is lost
WRITTEN = "<!-- Answer: {} (keep this line) -->"  # the same for an answer in words
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


def course(folder: Path, **settings: Any) -> "NbGraderAPI":
    """nbgrader's API on a course of its own in `folder`, silent, with no exchange."""
    from nbgrader.apps import NbGraderAPI  # it takes seconds to load, and whoever marks needs none of it

    scripts = str(Path(sys.executable).parent)  # nbgrader calls `alembic`, which is beside our Python
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
    config = Config({"CourseDirectory": {"root": str(folder), "course_id": "lowrank"}, **settings})
    config.Exchange.root = config.ExchangeList.root = str(folder / "exchange")
    config.ClearSolutions.code_stub = {"python": STUB}
    config.NbGraderAPI.log_level = "ERROR"
    return NbGraderAPI(config=config)


@functools.cache
def book() -> Any:
    """What the words of an assignment refer to: chapters, papers, the glossary."""
    folder = str(ROOT / "book" / "_ext")  # scripts beside the site's configuration, no package
    if folder not in sys.path:
        sys.path.append(folder)
    from reader_notebooks import Book

    return Book(ROOT, alone=True)


def for_notebooks(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Boxes, links, terms and citations as in the book's own notebooks, by the same renderer."""
    shelf = book()
    from reader_notebooks import render_cells

    return render_cells(notebook, shelf)


def source(name: str, seed: int) -> nbformat.NotebookNode:
    """The teacher's notebook, its {{placeholders}} filled, its text written for JupyterLab."""
    text = (HERE / name / f"{name}.ipynb").read_text()
    for key, value in hidden(name).numbers(seed).items():
        text = text.replace("{{" + key + "}}", str(value))
    if left := re.findall(r"\{\{.*?\}\}", text):
        raise ValueError(f"{left[0]} in {name}.ipynb must be a key of numbers(seed) in its hidden.py")
    notebook = nbformat.reads(text, as_version=4)
    cohort = variants.names(name, seed)
    for cell in notebook.cells:
        cell.source = (variants.in_code if cell.cell_type == "code" else variants.in_text)(
            cell.source, cohort
        )
    checks = hidden(name).CHECKS
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        by_hand = meta.get("grade") and meta.get("solution")
        if by_hand and meta.points != (most := sum(p for p, _ in hidden(name).RUBRIC[meta.grade_id])):
            raise ValueError(
                f"points={meta.points} of {meta.grade_id} in {name}.ipynb must be {most}, its rubric's"
            )
        if meta.get("grade") and not by_hand and meta.points != (worth := checks.points(meta.grade_id)):
            where = f"points={meta.points} of {meta.grade_id} in {name}.ipynb"
            raise ValueError(f"{where} must be {worth}: 1 for the visible tests, and those of its checks")
        if meta.get("solution"):
            marker = ANSWER if cell.cell_type == "code" else WRITTEN
            cell.source = marker.format(cell.metadata.nbgrader.grade_id) + "\n" + cell.source
    return for_notebooks(notebook)


def parts(name: str) -> list[Path]:
    """The files of one assignment, without what an editor leaves there (.ipynb_checkpoints, for one)."""
    return sorted(p for p in (HERE / name).glob("[!.]*.*") if p.is_file())


def assign(name: str, seed: int, folder: Path, *, gradebook: bool = False) -> nbformat.NotebookNode:
    """Let nbgrader make the student's version of `name` in the course `folder`, and return it.

    With `gradebook`, nbgrader notes the questions and their points in the course's gradebook.
    """
    teacher = folder / "source" / name / f"{name}.ipynb"
    teacher.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(source(name, seed), teacher)
    settings = {"SaveCells": {"enabled": gradebook}, "GenerateAssignment": {"no_database": not gradebook}}
    done = course(folder, **settings).generate_assignment(name)
    if not done["success"]:
        raise RuntimeError(f"nbgrader could not make {name}:\n{done.get('log')}\n{done.get('error')}")
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
