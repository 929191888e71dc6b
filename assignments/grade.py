"""Marks for a class: each submission rebuilt, run in its own process, checked here, recorded by nbgrader."""

import csv
import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor, SaveAutoGrades
from tqdm import tqdm
from traitlets import Dict, Integer

from assignments import release
from assignments.checks import Question, hidden
from assignments.rebuild import Unreadable, find, read, rebuild
from assignments.sandbox import Student

Marks = dict[str, Any]  # {"student", "points", "out_of", "questions": {id: {points, out_of, missed}}, "remarks"}


class RunAndMark(NbGraderPreprocessor):
    """nbgrader's step `Execute`, in our sandbox: the output of a test cell is the points that it earned."""

    seed = Integer(0).tag(config=True)
    added = Dict().tag(config=True)
    questions: dict[str, Question] = {}
    remarks: list[str] = []

    def preprocess(self, notebook: nbformat.NotebookNode, resources: Any) -> tuple[nbformat.NotebookNode, Any]:
        """Run all cells, then mark every question."""
        assignment = hidden(resources["nbgrader"]["assignment"])
        cells: dict[str, str] = {}
        for cell in (c for c in notebook.cells if c.cell_type == "code"):
            name = cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)
            if name in self.added:
                cells[f"your own cell before '{name}'"] = self.added[name]
            cells[name] = cell.source
        if "the end" in self.added:
            cells["your own cell at the end"] = self.added["the end"]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o777)
            with Student(cells, Path(folder), seconds=assignment.SECONDS) as student:
                numbers = assignment.numbers(self.seed)
                type(self).questions = {q: assignment.CHECKS.mark(q, student, numbers) for q in assignment.CHECKS}
                type(self).remarks = [f"'{n}': {e}." for n, e in student.errors.items() if e and n not in self.questions]
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade"):
                points = self.questions[cell.metadata.nbgrader.grade_id].points
                cell.outputs = [new_output("execute_result", {"text/plain": str(points)}, execution_count=1)]
        return notebook, resources


def grade_one(name: str, seed: int, who: str, path: Path, work: Path) -> Marks:
    """Marks of one submission; `work` is a course in which nbgrader has assigned `name`."""
    handed_out = nbformat.read(work / "release" / name / f"{name}.ipynb", as_version=4)
    out_of = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader.points
              for c in handed_out.cells if c.metadata.get("nbgrader", {}).get("grade")}  # fmt: skip
    try:
        notebook, added, remarks = rebuild(read(find(path, name)), handed_out)
    except Unreadable as reason:
        lost = {q: {"points": 0.0, "out_of": p, "missed": [str(reason)]} for q, p in out_of.items()}
        return _marks(who, lost, [str(reason)])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copy(work / "gradebook.db", root)
        shutil.copytree(work / "source", root / "source")
        submitted = root / "submitted" / "student" / name / f"{name}.ipynb"
        submitted.parent.mkdir(parents=True)
        nbformat.write(notebook, submitted)
        api = release.course(
            root,
            Autograde={"autograde_preprocessors": [RunAndMark, SaveAutoGrades]},
            RunAndMark={"seed": seed, "added": added},
        )
        done = api.autograde(name, "student")
        if not done["success"]:
            raise RuntimeError(done.get("error") or done.get("log"))
        questions = {q: vars(r) for q, r in RunAndMark.questions.items()}
        with api.gradebook as book:
            for grade in book.find_submission_notebook(name, name, "student").grades:
                questions[grade.name]["points"] = grade.auto_score
    return _marks(who, questions, remarks + RunAndMark.remarks)


def _marks(who: str, questions: dict[str, Any], remarks: list[str]) -> Marks:
    points, out_of = (sum(q[key] for q in questions.values()) for key in ("points", "out_of"))
    return {"student": who, "points": points, "out_of": out_of, "questions": questions, "remarks": remarks}


def safely(name: str, seed: int, who: str, path: Path, work: Path) -> Marks:
    """As `grade_one`, and a fault of the marker itself is a remark to the teacher, not the end of the run."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # nbgrader 0.9.6 with SQLAlchemy 2 warns on each submission
    try:
        return grade_one(name, seed, who, path, work)
    except Exception as error:
        return _marks(who, {}, [f"NOT MARKED, a teacher has to look: {type(error).__name__}: {error}"])


def submissions(folder: Path) -> dict[str, Path]:
    """Student -> what they handed in: one folder each, or one notebook each, in `folder`."""
    found = [p for p in sorted(folder.iterdir()) if p.is_dir() or p.suffix == ".ipynb"]
    return {p.stem if p.is_file() else p.name: p for p in found if not p.name.startswith(".")}


def _digest(name: str, seed: int, path: Path) -> str:
    """Changes when the submission, the assignment or the marker does: then an old mark is not reused."""
    own = [*sorted(release.HERE.glob("*.py")), *sorted((release.HERE / name).glob("*.*"))]
    theirs = [path] if path.is_file() else sorted(p for p in path.rglob("*.ipynb") if p.is_file())
    parts = [p.name.encode() + hashlib.sha256(p.read_bytes()).digest() for p in own + theirs]
    return hashlib.sha256(b"".join([str(seed).encode(), *parts])).hexdigest()


def grade_class(name: str, seed: int, folder: Path, out: Path, *, jobs: int = 2) -> list[Marks]:
    """Mark every submission in `folder`, a file each in `out/results`; what is there already is not done again."""
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    class_ = submissions(folder)
    digests = {who: _digest(name, seed, path) for who, path in class_.items()}
    kept = {who: marks for who in class_ if (marks := _kept(results, who, digests[who]))}
    with tempfile.TemporaryDirectory() as work:
        release.assign(name, seed, Path(work))
        todo = {who: (name, seed, who, path, Path(work)) for who, path in class_.items() if who not in kept}
        for marks in tqdm(_pool(todo, jobs), total=len(class_), initial=len(kept), desc=name, unit="student"):
            kept[marks["student"]] = marks
            part = results / f"{marks['student']}.part"
            part.write_text(json.dumps(marks | {"digest": digests[marks["student"]]}, indent=1))
            os.replace(part, results / f"{marks['student']}.json")
    return [kept[who] for who in class_]


def _kept(results: Path, who: str, digest: str) -> Marks | None:
    try:
        marks = json.loads((results / f"{who}.json").read_text())
    except (OSError, ValueError):
        return None
    return marks if marks.pop("digest", None) == digest and marks["questions"] else None


def _pool(todo: dict[str, tuple[Any, ...]], jobs: int) -> Iterator[Marks]:
    """Marks as they are ready. If a worker is killed, the rest is tried once more, one at a time."""
    for workers in (jobs, 1):
        try:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                for future in as_completed([pool.submit(safely, *task) for task in todo.values()]):
                    marks = future.result()
                    del todo[marks["student"]]
                    yield marks
            return
        except BrokenProcessPool:
            continue
    for who in list(todo):
        yield _marks(who, {}, ["NOT MARKED, a teacher has to look: the marker itself was killed twice."])


def write_csv(marks: list[Marks], path: Path) -> None:
    """One row per student: each question's points, the total, the maximum, and remarks."""
    questions = list(dict.fromkeys(q for m in marks for q in m["questions"]))
    with path.open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["student", *questions, "points", "out_of", "remarks"])
        for m in marks:
            points = [f"{m['questions'][q]['points']:g}" if q in m["questions"] else "" for q in questions]
            table.writerow([m["student"], *points, f"{m['points']:g}", f"{m['out_of']:g}", " ".join(m["remarks"])])


def feedback(name: str, marks: Marks) -> str:
    """What the student reads: points by question, a sentence for each mark that was missed, remarks."""
    lines = [f"# {name}: {marks['points']:g} of {marks['out_of']:g} points", ""]
    for question, q in marks["questions"].items():
        lines += [f"## {question}: {q['points']:g} of {q['out_of']:g}", ""]
        lines += [f"- {missed}" for missed in q["missed"]] or ["- All there."]
        lines += [""]
    if marks["remarks"]:
        lines += ["## Remarks", "", *[f"- {remark}" for remark in marks["remarks"]], ""]
    return "\n".join(lines)


def gradescope(marks: Marks) -> dict[str, Any]:
    """The same as Gradescope's `results.json`: a test per question, its output what the student reads."""
    tests = [
        {"name": name, "score": q["points"], "max_score": q["out_of"], "output": "\n".join(q["missed"])}
        for name, q in marks["questions"].items()
    ]
    return {"output": "\n".join(marks["remarks"]), "visibility": "visible", "tests": tests}
