"""Marks as people want them: a table for teachers, a page for students, `results.json` for Gradescope."""

import csv
from pathlib import Path
from typing import Any

from assignments.mark import Marks


def write_csv(marks: list[Marks], path: Path) -> None:
    """One row per student: each question's points, the sum, the maximum, the leaderboard figures, remarks."""
    questions, figures = (
        list(dict.fromkeys(k for m in marks for k in m[key])) for key in ("questions", "leaderboard")
    )
    with path.open("w", newline="", encoding="utf-8") as f:
        table = csv.writer(f)
        table.writerow(["student", *questions, "points", "out_of", *figures, "remarks"])
        for m in marks:
            points = [f"{m['questions'][q]['points']:g}" if q in m["questions"] else "" for q in questions]
            board = [f"{m['leaderboard'][k]:g}" if k in m["leaderboard"] else "" for k in figures]
            remarks = " ".join(m["remarks"])
            table.writerow([m["student"], *points, f"{m['points']:g}", f"{m['out_of']:g}", *board, remarks])


def feedback(name: str, marks: Marks) -> str:
    """What the student reads, in Markdown: points by question, a sentence for each mark missed, remarks."""
    lines = [f"# {name}: {marks['points']:g} of {marks['out_of']:g} points", ""]
    for question, q in marks["questions"].items():
        missed = [f"- {sentence}" for sentence in q["missed"]]
        lines += [f"## {question}: {q['points']:g} of {q['out_of']:g}", "", *(missed or ["- All there."]), ""]
    if marks["leaderboard"]:
        lines += ["## Leaderboard", "", *[f"- {k}: {v:g}" for k, v in marks["leaderboard"].items()], ""]
    if marks["remarks"]:
        lines += ["## Remarks", "", *[f"- {remark}" for remark in marks["remarks"]], ""]
    return "\n".join(lines)


def gradescope(marks: Marks) -> dict[str, Any]:
    """The same in Gradescope's format: a test per question, its output what the student reads.

    Reference: https://gradescope-autograders.readthedocs.io/en/latest/specs/
    """
    tests = [
        {"name": name, "score": q["points"], "max_score": q["out_of"], "output": "\n".join(q["missed"])}
        for name, q in marks["questions"].items()
    ]
    board = [{"name": k, "value": v, "order": "asc"} for k, v in marks["leaderboard"].items()]
    return {
        "score": marks["points"],
        "output": "\n".join(marks["remarks"]),
        "visibility": "visible",
        "tests": tests,
        "leaderboard": board,
    }
