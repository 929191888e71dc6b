"""The coursework: minutes for a class of 60, on two cores, and what attackers in a class come to."""

from __future__ import annotations

import csv
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import nbformat
from claims import Row

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT), str(ROOT / "tests")]
CLASS = 60
HARMFUL = [
    "while True: pass",
    "import os; os._exit(0)",
    "x = b'x' * (100 * 2**30)",
    "print('x' * 100 * 2**20)",
    "def f(:",
    "input()",
]


def coursework() -> list[Row]:
    """60 submissions of each assignment: the reference, the blank, typical mistakes, and six that do harm."""
    sys.path[:0] = PATHS
    from coursework.kit import Course, filled

    from assignments import release
    from assignments.classroom import Class

    rows = []
    for name in release.NAMES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            course = Course(name, root)
            wrong = import_module(f"coursework.{name}_wrong").WRONG
            first = next(c.id for c in course.blank.cells if c.metadata.get("nbgrader", {}).get("solution"))
            cases = [
                course.reference,
                course.blank,
                *(filled(course.reference, w) for w, _ in wrong.values()),
            ]
            class_ = [filled(course.reference, {first: harm}) for harm in HARMFUL]
            class_ += [cases[i % len(cases)] for i in range(CLASS - len(class_))]
            for i, notebook in enumerate(class_):
                home = root / "submissions" / f"s{i:02}"
                home.mkdir(parents=True)
                nbformat.write(notebook, home / f"{name}.ipynb")
            start = time.perf_counter()
            marks = Class(name, 0, root / "out").grade(root / "submissions")
            minutes = (time.perf_counter() - start) / 60
            assert len(marks) == CLASS and not any(m["failed"] for m in marks)
            alone = _nbgrader(course, root) * CLASS / 2 / 60
            ours, peer = f"{minutes:.1f} min", f"{alone:.1f} min"
            at_most = {"most": True, "shown": "{:.1f} min", "table": "marking"}
            rows.append(Row(f"60 submissions of {name}", ours, peer, minutes, 5.0, **at_most))
    return rows


def _nbgrader(course, root: Path) -> float:  # type: ignore[no-untyped-def]
    """Seconds for one submission when nbgrader runs the notebook in a kernel, one at a time, median of 3."""
    from assignments import release

    path = root / "course" / "submitted" / "s" / course.name / f"{course.name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(course.reference, path)
    release.assign(course.name, 0, root / "course", gradebook=True)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = release.course(root / "course").autograde(course.name, "s")
        seconds.append(time.perf_counter() - start)
        assert done["success"], done
    return sorted(seconds)[1]


@dataclass
class Attack:
    """A line of the last table: an attack, what came of it, and what of everybody else's marks."""

    claim: str
    happened: str
    others: str
    reached: bool
    table: str = "attacks"

    def cells(self) -> list[str]:
        return [self.claim, self.happened.replace("|", "\\|"), self.others]


def robustness() -> list[Attack]:
    """One class of a1: eight with the teacher's answers, an attacker of each kind, files of every kind."""
    sys.path[:0] = PATHS
    from coursework.attacks import ATTACKS, FILES, RIGHT, harmful_class, left_behind
    from coursework.kit import Course

    from assignments.texts import cell

    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        root = Path(folder)
        out = root / "out" / "a1"
        harmful_class(Course("a1", root), root / "submissions", server.getsockname()[1], out / "results")
        command = [
            sys.executable,
            "-m",
            "assignments",
            "grade",
            "a1",
            root / "submissions",
            "--out",
            out.parent,
        ]
        subprocess.run(command, cwd=ROOT, capture_output=True)
        with (out / "marks.csv").open(newline="", encoding="utf-8") as f:
            marks = {row["student"]: row for row in csv.DictReader(f)}
        whole = sum(marks[cell(who)]["points"] == "25" for who in RIGHT if cell(who) in marks)
        others = f"{whole} of {len(RIGHT)} have all points"
        rows = []
        for attack in ATTACKS:
            points, text = marks[attack]["points"], (out / "feedback" / f"{attack}.md").read_text()
            said = re.search("^- search: (`[^`]*`)", text, re.M)
            happened = f"{said[1] if said else 'nothing'}; {points} of 25 points"
            rows.append(Attack(attack, happened, others, points == "21" and whole == len(RIGHT)))
        for who, what in FILES.items():
            row = marks[who]
            happened = f"{row['points'] or 'no'} points: {row['remarks']}"
            rows.append(Attack(what, happened, others, row["points"] in {"", "0"} and whole == len(RIGHT)))
        server.settimeout(0.1)
        try:
            calls = bool(server.accept())
        except TimeoutError:
            calls = False
        left = len(left_behind())
        happened = f"{left} processes left behind, {'a' if calls else 'no'} connection to the network"
        return [*rows, Attack("all of them, after the run", happened, others, not left and not calls)]
