"""From the marker's points to the final ones: those that a person gave, overrides.csv, lateness."""

import hashlib
from datetime import datetime
from typing import Any

from assignments.mark import Marks
from assignments.roster import ByHand, Deadline, deadline_of
from assignments.texts import quoted

# student, questions {id: {points, auto, out_of, missed, by_hand?, look?}}, raw, penalty, points, out_of,
# remarks, leaderboard, failed (why there are no marks), pending (questions that nobody has marked yet)
Row = dict[str, Any]


def digest_of(text: str) -> str:
    """Tells whether an answer is still the one that a tutor marked."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def final(
    marks: Marks,
    *,
    worth: dict[str, float],
    manual: dict[tuple[str, str], tuple[str, ByHand | None]],
    entered: dict[str, float],
    overrides: dict[tuple[str, str], ByHand],
    deadlines: dict[str, Deadline],
    when: datetime | None,
) -> Row:
    """One student's row. Points are None where there are none, which is not 0."""
    who, remarks = marks["student"], list(marks["remarks"])
    row: Row = {"student": who, "leaderboard": marks["leaderboard"], "failed": marks.get("failed", "")}
    if row["failed"]:
        remarks.insert(0, f"NOT MARKED, a teacher has to look: {row['failed']}")
    if not marks["questions"]:
        nothing: dict[str, Any] = {"points": None, "auto": None, "missed": []}
        questions = {question: nothing | {"out_of": most} for question, most in worth.items()}
    else:
        questions = {q: dict(part, auto=part["points"]) for q, part in marks["questions"].items()}
    part: dict[str, Any]
    for question, part in questions.items():
        text = marks["texts"].get(question)
        part["manual"] = text is not None
        answer, given = manual.get((who, question), ("", None))
        stale = bool(given) and text is not None and answer != digest_of(text)
        later = question in entered and not (given and entered[question] == given.points)
        if given and text is not None and not stale:
            part["points"] = part["by_hand"] = given.points
            part["comment"] = given.reason
        elif stale and not later:
            part["points"], part["look"] = None, True
            remarks.append(f"{question}: the answer has changed since it was marked by hand.")
        elif question in entered:
            part["points"] = part["by_hand"] = entered[question]
            remarks.append(f"{question}: {entered[question]:g} entered in the formgrader.")
        if (who, question) in overrides:
            change = overrides[who, question]
            part["points"] = change.points
            remarks.append(f"{question}: {change.points:g} by overrides.csv, {quoted(change.reason)}.")
    row["questions"], row["out_of"] = questions, sum(worth.values())
    row["pending"] = [q for q, part in questions.items() if part["points"] is None]
    row["raw"] = None if row["pending"] else sum(part["points"] for part in questions.values())
    deadline, percent = deadline_of(deadlines, who), 0.0
    if deadline and when and marks["questions"]:
        percent = deadline.percent(when)
        if when > deadline.due:
            took = f"{percent:g} % of the points are lost" if percent else "within the grace, nothing is lost"
            remarks.append(f"Handed in at {when:%Y-%m-%d %H:%M}, due {deadline.due:%Y-%m-%d %H:%M}: {took}.")
    row["penalty"] = 0.0 if row["raw"] is None else round(row["raw"] * percent / 100, 2)
    if (who, "penalty") in overrides:
        change = overrides[who, "penalty"]
        row["penalty"] = change.points
        remarks.append(f"penalty: {change.points:g} by overrides.csv, {quoted(change.reason)}.")
    row["points"] = None if row["raw"] is None else round(max(0.0, row["raw"] - row["penalty"]), 2)
    if row["pending"] and not row["failed"]:
        remarks.append(f"To be marked by hand: {', '.join(row['pending'])}.")
    row["remarks"] = remarks
    return row
