"""A class of 60: minutes that `python -m assignments grade` takes on two cores, and nbgrader by itself."""

from __future__ import annotations

import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import nbformat
from claims import Row

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
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    from coursework.kit import Course, filled

    from assignments import release
    from assignments.classroom import grade_class

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
            marks = grade_class(name, 0, root / "submissions", root / "out")
            minutes = (time.perf_counter() - start) / 60
            assert len(marks) == CLASS and all(m["questions"] for m in marks)
            alone = _nbgrader(course, root) * CLASS / 2 / 60
            claim = (
                f"minutes to grade 60 submissions of {name} (peer: nbgrader's own run, visible tests only)"
            )
            ours, peer = f"{minutes:.1f} min", f"{alone:.1f} min"
            rows.append(Row(claim, ours, peer, minutes, 5.0, most=True, shown="{:.1f}"))
    return rows


def _nbgrader(course, root: Path) -> float:  # type: ignore[no-untyped-def]
    """Seconds for one submission when nbgrader runs the notebook in a kernel, one at a time, median of 3."""
    from assignments import release

    path = root / "course" / "submitted" / "s" / course.name / f"{course.name}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(course.reference, path)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = release.course(root / "course").autograde(course.name, "s")
        seconds.append(time.perf_counter() - start)
        assert done["success"], done
    return sorted(seconds)[1]
