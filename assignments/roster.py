"""What teachers write in tables: who is in the class, by when, and points that a person gave.

course/roster.csv           student, and what the LMS needs of first_name, last_name, email, lms_user_id,
                            sis_user_id, sis_login_id, section, id_number; status: "withdrawn"
course/deadlines.csv        assignment, student (empty: everybody), due, grace_minutes, percent_per_day
course/a1/overrides.csv     student, question, points, reason
course/a1/manual.csv        student, question, answer, points, comment (made by grade, filled by a tutor)
"""

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from assignments.files import BadTable, number, read_table

PERSON = [
    "first_name", "last_name", "email", "lms_user_id", "sis_user_id", "sis_login_id", "section", "id_number",
]  # fmt: skip


@dataclass(frozen=True)
class Deadline:
    """Until when, and what each day costs after that, in percent of the points that were reached."""

    due: datetime
    grace_minutes: float = 0.0
    percent_per_day: float = 0.0

    def percent(self, when: datetime) -> float:
        """What is lost by handing in at `when`: each day that has begun, at most everything."""
        late = (when - self.due).total_seconds() / 60 - self.grace_minutes
        return 0.0 if late <= 0 else min(100.0, self.percent_per_day * math.ceil(late / (24 * 60)))


def read_roster(course: Path) -> dict[str, dict[str, str]]:
    """Student -> row of roster.csv."""
    out: dict[str, dict[str, str]] = {}
    for row in read_table(course / "roster.csv", ["student"]):
        if row["student"] in out:
            raise BadTable(f"{course / 'roster.csv'}: {row['student']} is there twice")
        out[row["student"]] = row
    return out


def withdrawn(roster: dict[str, dict[str, str]]) -> set[str]:
    """Whoever has left the class."""
    return {student for student, row in roster.items() if row.get("status", "").lower() == "withdrawn"}


def read_deadlines(course: Path, name: str) -> dict[str, Deadline]:
    """Student -> deadline; "" is everybody's. A row with a student is an extension."""
    path, out = course / "deadlines.csv", {}
    for row in read_table(path, ["assignment", "due"]):
        if row["assignment"] != name:
            continue
        try:
            due = datetime.fromisoformat(row["due"]).astimezone()
        except ValueError:
            raise BadTable(f"{path}: due={row['due']} must be like 2027-05-03 23:59") from None
        grace, percent = (number(path, row, c) or 0.0 for c in ("grace_minutes", "percent_per_day"))
        if grace < 0 or not 0 <= percent <= 100:
            raise BadTable(
                f"{path}: grace_minutes={grace:g} must be at least 0, percent_per_day={percent:g} up to 100"
            )
        out[row.get("student", "")] = Deadline(due, grace, percent)
    return out


def deadline_of(deadlines: dict[str, Deadline], student: str) -> Deadline | None:
    """The student's own, else everybody's."""
    return deadlines.get(student, deadlines.get(""))


@dataclass(frozen=True)
class ByHand:
    """Points that a person gave, and why."""

    points: float
    reason: str


def read_overrides(folder: Path, most: dict[str, float]) -> dict[tuple[str, str], ByHand]:
    """(student, question) -> points; `most` has what each question is worth."""
    path, out = folder / "overrides.csv", {}
    for row in read_table(path, ["student", "question", "points", "reason"]):
        points = number(path, row, "points")
        if points is None or not math.isfinite(points) or points < 0:
            raise BadTable(f"{path}: points={row['points']} of {row['student']} must be a number from 0 on")
        if row["question"] not in most:
            raise BadTable(f"{path}: question={row['question']} must be one of {', '.join(most)}")
        if not row["reason"]:
            raise BadTable(f"{path}: {row['student']}, {row['question']} needs a reason")
        out[row["student"], row["question"]] = ByHand(points, row["reason"])
    return out


MANUAL = ["student", "question", "answer", "points", "comment"]


def read_manual(folder: Path, most: dict[str, float]) -> dict[tuple[str, str], tuple[str, ByHand | None]]:
    """(student, question) -> digest of the answer that was marked, and the points if there are some."""
    path, out = folder / "manual.csv", {}
    for row in read_table(path, MANUAL[:4]):
        points, limit = number(path, row, "points"), most.get(row["question"], math.inf)
        if points is not None and not 0 <= points <= limit:
            raise BadTable(f"{path}: points={points:g} of {row['student']} must be between 0 and {limit:g}")
        given = None if points is None else ByHand(points, row.get("comment", ""))
        out[row["student"], row["question"]] = row["answer"], given
    return out
