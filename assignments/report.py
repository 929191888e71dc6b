"""Marks for others: a table for teachers, files for learning systems, `results.json` for Gradescope."""

import csv
import hashlib
import hmac
import io
from pathlib import Path
from typing import Any

from assignments.feedback import as_text
from assignments.files import table
from assignments.final import Row
from assignments.texts import plain

Roster = dict[str, dict[str, str]]


def marks_csv(rows: list[Row], worth: dict[str, float]) -> str:
    """One row per student: each question, the sum, what lateness costs, the result; else empty."""
    figures = list(dict.fromkeys(k for row in rows for k in row["leaderboard"]))
    out = []
    for row in rows:
        points = [row["questions"][q]["points"] for q in worth]
        sums = [row["raw"], row["penalty"], row["points"], row["out_of"]]
        board = [row["leaderboard"].get(k) for k in figures]
        out.append([row["student"], *points, *sums, *board, " ".join(row["remarks"])])
    return table(["student", *worth, "raw", "penalty", "points", "out_of", *figures, "remarks"], out)


def read_marks(path: Path) -> list[dict[str, str]]:
    """The rows of marks.csv."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def value(text: str) -> float | None:
    """A cell of marks.csv."""
    return float(text) if text else None


def canvas(name: str, marks: list[dict[str, str]], roster: Roster) -> str:
    """For Canvas, *Grades, Import*: it finds a student by ID, else by SIS User ID, else by SIS Login ID.

    The columns up to Section are what its importer asks for, in this order; the row of points possible is
    the second. Reference: lib/gradebook_importer.rb of instructure/canvas-lms.
    """
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", name]
    rows: list[list[object]] = [["    Points Possible", "", "", "", "", value(marks[0]["out_of"])]]
    for row in marks:
        who = roster.get(row["student"], {})
        ids = [who.get(key, "") for key in ("lms_user_id", "sis_user_id", "sis_login_id", "section")]
        rows.append([full_name(row["student"], who), *ids, value(row["points"])])
    return table(head, rows)


def moodle(name: str, marks: list[dict[str, str]], roster: Roster) -> str:
    """For Moodle, *Grades, Import, CSV file*: map "Email address" or "ID number", and the points.

    Reference: https://docs.moodle.org/405/en/Grade_import
    """
    rows = []
    for row in marks:
        who = roster.get(row["student"], {})
        keys = [who.get(key, "") for key in ("first_name", "last_name", "id_number", "email")]
        rows.append([*keys, value(row["points"]), row["remarks"]])
    return table(["First name", "Last name", "ID number", "Email address", name, f"{name} (Feedback)"], rows)


def full_name(student: str, who: dict[str, str]) -> str:
    """Last name, first name, as far as the roster has them."""
    return ", ".join(part for part in (who.get("last_name"), who.get("first_name")) if part) or student


def pseudonym(key: bytes, student: str) -> str:
    """The same for a student in every assignment; nobody without the key can tell whose."""
    return hmac.new(key, f"pseudonym {student}".encode(), hashlib.sha256).hexdigest()[:10]


def anonymous(marks: list[dict[str, str]], key: bytes) -> str:
    """marks.csv without names, remarks and order: for research, or for a second opinion."""
    head = [column for column in marks[0] if column not in {"student", "remarks"}]
    rows = [[pseudonym(key, row["student"]), *(value(row[column]) for column in head)] for row in marks]
    return table(["pseudonym", *head], sorted(rows, key=lambda row: str(row[0])))


def gradescope(name: str, row: Row) -> dict[str, Any]:
    """Gradescope's results.json: a test per question, its output what the student reads, as text.

    Reference: https://gradescope-autograders.readthedocs.io/en/latest/specs/
    """
    tests = [
        {
            "name": question,
            "score": part["points"],
            "max_score": part["out_of"],
            "output": as_text(name, question, part),
            "output_format": "text",
        }
        for question, part in row["questions"].items()
        if part["points"] is not None  # a person marks the others, on Gradescope's own page
    ]
    return {
        "score": sum(test["score"] for test in tests),
        "output": "\n".join(plain(remark) for remark in row["remarks"]),
        "output_format": "text",
        "visibility": "visible",
        "tests": tests,
        "leaderboard": [{"name": k, "value": v, "order": "asc"} for k, v in row["leaderboard"].items()],
    }
