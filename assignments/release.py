"""From the teacher's notebook the student's: the same bytes each time, with the cohort's numbers."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

from assignments import variants
from assignments.checks import hidden

HERE = Path(__file__).parent
ROOT = HERE.parent
NAMES = sorted(p.parent.name for p in HERE.glob("*/hidden.py"))
ANSWER = "# Answer: {} (keep this line)"  # finds a cell again when its metadata is lost
WRITTEN = "<!-- Answer: {} (keep this line) -->"  # the same for an answer in words
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


def course(folder: Path, **settings: Any) -> NbGraderAPI:
    """nbgrader's API on a course of its own in `folder`, silent, with no exchange."""
    scripts = str(Path(sys.executable).parent)  # nbgrader calls `alembic`, which is beside our Python
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
    config = Config({"CourseDirectory": {"root": str(folder), "course_id": "lowrank"}, **settings})
    config.Exchange.root = config.ExchangeList.root = str(folder / "exchange")
    config.ClearSolutions.code_stub = {"python": STUB}
    config.NbGraderAPI.log_level = "ERROR"
    return NbGraderAPI(config=config)


def source(name: str, seed: int) -> nbformat.NotebookNode:
    """The teacher's notebook of assignment `name`, its {{placeholders}} filled with the cohort's numbers."""
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
    return notebook


def parts(name: str) -> list[Path]:
    """The files of one assignment, without what an editor leaves there (.ipynb_checkpoints, for one)."""
    return sorted(p for p in (HERE / name).glob("[!.]*.*") if p.is_file())


def assign(name: str, seed: int, folder: Path) -> nbformat.NotebookNode:
    """Let nbgrader make the student's version of `name` in the course `folder`, and return it."""
    teacher = folder / "source" / name / f"{name}.ipynb"
    teacher.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(source(name, seed), teacher)
    done = course(folder).generate_assignment(name)
    if not done["success"]:
        raise RuntimeError(f"nbgrader could not make {name}:\n{done.get('log')}\n{done.get('error')}")
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
