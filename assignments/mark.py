"""Marks for one submission: rebuilt, run in its own process, checked here, recorded by nbgrader."""

import contextlib
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor, SaveAutoGrades
from traitlets import Dict, Integer

from assignments import release
from assignments.checks import Question, hidden
from assignments.rebuild import Unreadable, find, read, rebuild
from assignments.sandbox import Student
from assignments.server import CannotRun

# student, points, out_of, questions {id: {points, out_of, missed}}, remarks, leaderboard
Marks = dict[str, Any]


class RunAndMark(NbGraderPreprocessor):
    """In place of nbgrader's `Execute`: the output of a test cell is the points that its question earned."""

    seed = Integer(0).tag(config=True)
    added = Dict().tag(config=True)
    questions: dict[str, Question] = {}
    remarks: list[str] = []
    leaderboard: dict[str, float] = {}

    def preprocess(
        self, notebook: nbformat.NotebookNode, resources: Any
    ) -> tuple[nbformat.NotebookNode, Any]:
        """Run all cells, then mark every question."""
        own, assignment = type(self), hidden(resources["nbgrader"]["assignment"])
        cells: dict[str, str] = {}
        for cell in (c for c in notebook.cells if c.cell_type == "code"):
            if cell.id in self.added:
                cells[f"your cell before {cell.id}"] = self.added[cell.id]
            cells[cell.id] = cell.source
        if "the end" in self.added:
            cells["your last cell"] = self.added["the end"]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o777)
            with Student(cells, Path(folder), seconds=assignment.SECONDS) as student:
                numbers, checks = assignment.numbers(self.seed), assignment.CHECKS
                own.questions = {question: checks.mark(question, student, numbers) for question in checks}
                own.leaderboard = {}
                with contextlib.suppress(Exception):  # a figure is extra: no mark depends on it
                    own.leaderboard = assignment.leaderboard(student, numbers)
            own.remarks = [
                f"{name}: {error}." for name, error in student.errors.items() if error and name not in checks
            ]
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade"):
                points = str(self.questions[cell.id].points)
                cell.outputs = [new_output("execute_result", {"text/plain": points}, execution_count=1)]
        return notebook, resources


def grade_one(name: str, seed: int, who: str, path: Path, work: Path) -> Marks:
    """Marks of one submission; `work` is a course in which nbgrader has assigned `name`."""
    handed_out = nbformat.read(work / "release" / name / f"{name}.ipynb", as_version=4)
    try:
        notebook, added, remarks = rebuild(read(find(path, name)), handed_out)
    except Unreadable as reason:
        lost = {
            c.id: {"points": 0.0, "out_of": c.metadata.nbgrader.points, "missed": [str(reason)]}
            for c in handed_out.cells
            if c.metadata.get("nbgrader", {}).get("grade")
        }
        return summary(who, lost, [str(reason)])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copy(work / "gradebook.db", root)
        shutil.copytree(work / "source", root / "source")
        submitted = root / "submitted" / "student" / name / f"{name}.ipynb"
        submitted.parent.mkdir(parents=True)
        nbformat.write(notebook, submitted)
        steps = {"autograde_preprocessors": [RunAndMark, SaveAutoGrades]}
        api = release.course(root, Autograde=steps, RunAndMark={"seed": seed, "added": added})
        done = api.autograde(name, "student")
        if not done["success"]:
            raise RuntimeError(f"nbgrader: {done.get('error') or done.get('log')}")
        questions = {question: vars(result) for question, result in RunAndMark.questions.items()}
        with api.gradebook as book:
            for grade in book.find_submission_notebook(name, name, "student").grades:
                questions[grade.name]["points"] = grade.auto_score
    return summary(who, questions, remarks + RunAndMark.remarks, RunAndMark.leaderboard)


def summary(
    who: str, questions: dict[str, Any], remarks: list[str], leaderboard: dict[str, float] | None = None
) -> Marks:
    """Points by question with their sum."""
    points, out_of = (sum(q[key] for q in questions.values()) for key in ("points", "out_of"))
    rest = {"questions": questions, "remarks": remarks, "leaderboard": leaderboard or {}}
    return {"student": who, "points": points, "out_of": out_of} | rest


def safely(name: str, seed: int, who: str, path: Path, work: Path) -> Marks:
    """As `grade_one`; a fault of the marker itself is a remark to the teacher, not the end of the run."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # nbgrader 0.9.6 with SQLAlchemy 2 warns on each submission
    try:
        return grade_one(name, seed, who, path, work)
    except (Exception, CannotRun) as error:
        return summary(who, {}, [f"NOT MARKED, a teacher has to look: {type(error).__name__}: {error}"])
