"""nbgrader's gradebook for the class, in `course/nbgrader`: its exporters and its formgrader work on it.

    course/nbgrader/gradebook.db, nbgrader_config.py, source/, release/, autograded/STUDENT/a1/a1.ipynb

What a tutor enters in the formgrader is read back, and counts; overrides.csv stands there as extra credit.
"""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.utils import compute_checksum

from assignments import release
from assignments.files import safe_name, write
from assignments.mark import graded
from assignments.roster import PERSON, Deadline

CONFIG = """c = get_config()
c.CourseDirectory.course_id = "lowrank"
c.CourseDirectory.root = {root!r}
"""


def naive_utc(when: datetime | None) -> str | None:
    """A time as nbgrader keeps it."""
    return None if when is None else when.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")


class ClassBook:
    """The gradebook as far as one assignment goes."""

    def __init__(self, folder: Path, name: str, seed: int):
        self.folder, self.name = folder.resolve(), name
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "nbgrader_config.py", CONFIG.format(root=str(self.folder)))
        self.release = self._assigned(seed)

    def _assigned(self, seed: int) -> nbformat.NotebookNode:
        """The student version; nbgrader makes it again only if the source has changed."""
        digest = hashlib.sha256(nbformat.writes(release.source(self.name, seed)).encode()).hexdigest()
        stamp, path = (self.folder / kind / self.name for kind in ("source", "release"))
        path, stamp = path / f"{self.name}.ipynb", stamp / "digest.txt"
        known = path.exists() and stamp.exists() and (self.folder / "gradebook.db").exists()
        if not known or stamp.read_text() != digest:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nbgrader 0.9.6 with SQLAlchemy 2
                release.assign(self.name, seed, self.folder, gradebook=True)
            write(stamp, digest)
        return nbformat.read(path, as_version=4)

    @contextlib.contextmanager
    def open(self) -> Iterator[Gradebook]:
        """nbgrader's own interface."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}", "lowrank") as book:
                yield book

    def due(self, deadline: Deadline | None) -> None:
        """When the class hands in."""
        with self.open() as book:
            due = deadline and datetime.fromisoformat(naive_utc(deadline.due) or "")
            book.update_or_create_assignment(self.name, duedate=due)

    def by_hand(self, student: str) -> dict[str, float]:
        """Question -> points that a tutor entered in the formgrader."""
        with self.open() as book:
            try:
                grades = book.find_submission_notebook(self.name, self.name, safe_name(student)).grades
            except MissingEntry:
                return {}
            return {g.name: g.manual_score for g in grades if g.manual_score is not None}

    def record(
        self, final: dict[str, Any], person: dict[str, str], when: datetime | None, extension: Any
    ) -> None:
        """One student's row: points of the marker and of people, lateness, the notebook that was marked."""
        who = safe_name(final["student"])
        with self.open() as book:
            known = {key: person[key] for key in PERSON[:4] if person.get(key)}
            book.update_or_create_student(who, **known)
            submission = book.update_or_create_submission(
                self.name, who, extension=extension, **({"timestamp": naive_utc(when)} if when else {})
            )
            (notebook,) = submission.notebooks
            notebook.late_submission_penalty = final["penalty"]
            for grade in notebook.grades:
                question = final["questions"][grade.name]
                grade.auto_score = None if question.get("manual") else question["auto"]
                if "by_hand" in question:
                    grade.manual_score = question["by_hand"]
                grade.needs_manual_grade = question["points"] is None or bool(question.get("look"))
                base = question.get("by_hand", question["auto"])
                grade.extra_credit = (
                    None if question["points"] is None else question["points"] - (base or 0.0)
                )
            book.db.commit()

    def keep(self, student: str, text: str) -> None:
        """The notebook that was marked, as the formgrader wants it."""
        notebook = nbformat.reads(text, as_version=4)
        release = {c.id: c for c in self.release.cells}
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("solution") and "checksum" not in cell.metadata.nbgrader:
                cell.metadata.nbgrader.checksum = compute_checksum(release[cell.id])
        write(self.path(student), nbformat.writes(notebook))

    def path(self, student: str) -> Path:
        """Where nbgrader looks for the marked notebook."""
        return self.folder / "autograded" / safe_name(student) / self.name / f"{self.name}.ipynb"

    def forget(self, students: list[str], withdrawn: set[str]) -> list[str]:
        """Remove the submissions of all but `students`, who they were; and `withdrawn` from the class."""
        kept = {safe_name(student) for student in students}
        with self.open() as book:
            gone = [s.student_id for s in book.assignment_submissions(self.name) if s.student_id not in kept]
            for student in gone:
                book.remove_submission(self.name, student)
            for student in withdrawn:
                with contextlib.suppress(MissingEntry):
                    book.remove_student(safe_name(student))
        for student in gone:
            path = self.folder / "autograded" / student / self.name / f"{self.name}.ipynb"
            path.unlink(missing_ok=True)
        return gone

    def worth(self) -> dict[str, float]:
        """Question -> points."""
        return {question: meta.points for question, meta in graded(self.release).items()}
