"""python -m assignments build a1, python -m assignments grade a1 course/a1/submissions, and more."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from assignments import bundle, isolation, release
from assignments.files import BadTable, safe_name, write

NOT_MARKED = 3  # exit status: somebody has no marks, and a teacher has to look


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m assignments", description="Build and grade the coursework."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, (_, text) in VERBS.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("name", choices=release.NAMES)
        if verb in {"grade", "gradescope"}:
            sub.add_argument("submissions", type=Path)
        if verb == "gradescope":
            sub.add_argument("results", type=Path)
        if verb == "build":
            sub.add_argument(
                "--students", type=Path, metavar="DIR", help="also write there all that students get"
            )
        if verb == "grade":
            sub.add_argument("--only", nargs="+", default=[], metavar="STUDENT", help="mark nobody else")
            sub.add_argument("--regrade", action="store_true", help="mark again what has marks already")
            sub.add_argument("--jobs", type=int, default=2, help="how many are marked at the same time (2)")
        if verb == "export":
            sub.add_argument("--to", choices=["canvas", "moodle", "anonymous"], required=True)
        if verb == "similar":
            sub.add_argument(
                "--least", type=float, default=0.7, help="share of alike code from which a pair is listed"
            )
        if verb in {"build", "grade", "gradescope"}:
            sub.add_argument(
                "--seed", type=int, default=0, help="the cohort's seed: other numbers, other data (0)"
            )
        sub.add_argument("--out", type=Path, default=Path("course"), help="the course's folder (course)")
    a = parser.parse_args(arguments)
    if a.verb in {"grade", "gradescope"} and not a.submissions.is_dir():
        parser.error(f"submissions={a.submissions} is not a folder")
    if getattr(a, "seed", 0) < 0 or getattr(a, "jobs", 1) < 1:
        parser.error(f"seed={a.seed} must be at least 0 and jobs={getattr(a, 'jobs', 1)} at least 1")
    try:
        return VERBS[a.verb][0](a)
    except (BadTable, isolation.CannotRun) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build(a: argparse.Namespace) -> int:
    """The student version and the autograder of one assignment."""
    with tempfile.TemporaryDirectory() as work:
        for path in bundle.build(a.name, a.seed, a.out / a.name, Path(work)):
            print(path)
    if a.students:
        print(bundle.students(a.name, a.out / a.name / "student" / f"{a.name}.ipynb", a.students))
    return 0


def ready() -> None:
    """Say what does not hold here; refuse where a student's code would run as root."""
    isolation.user()
    if line := isolation.warning():
        print(line, file=sys.stderr)


def grade(a: argparse.Namespace) -> int:
    """A class: marks.csv, a feedback file each, the gradebook, a page on the class."""
    from assignments.classroom import Class  # nbgrader takes seconds to load

    ready()
    class_ = Class(a.name, a.seed, a.out)
    rows = class_.grade(a.submissions, jobs=a.jobs, only=a.only, again=a.regrade)
    if other_cohort(rows):
        print(f"given cells differ in every notebook: was it built with --seed {a.seed}?", file=sys.stderr)
    out = class_.folder
    print(f"{len(rows)} submissions: {out / 'marks.csv'}, {out / 'feedback'}/, {out / 'class.html'}")
    if waiting := sorted({q for row in rows for q in row["pending"] if not row["failed"]}):
        print(f"to be marked by hand: {', '.join(waiting)}. Read {out}/manual.html, fill {out}/manual.csv")
    lost = [row["student"] for row in rows if row["failed"]]
    if lost:
        print(f"NOT MARKED: {', '.join(lost)}. The reasons are in {out / 'marks.csv'}", file=sys.stderr)
    return NOT_MARKED if lost else 0


def other_cohort(rows: list[dict[str, Any]]) -> bool:
    """Whether the given cells differ in every notebook that could be read: those of another seed do."""
    read = [
        " ".join(row["remarks"])
        for row in rows
        if row["raw"] or any(miss["check"] for part in row["questions"].values() for miss in part["missed"])
    ]
    read = [remarks for remarks in read if not remarks.startswith("This looks like ")]
    return bool(read) and all("was changed" in remarks for remarks in read)


def export(a: argparse.Namespace) -> int:
    """marks.csv in another form."""
    from assignments import report, roster
    from assignments.results import key

    marks = report.read_marks(a.out / a.name / "marks.csv") if (a.out / a.name / "marks.csv").exists() else []
    if not marks:
        raise BadTable(f"{a.out / a.name / 'marks.csv'} is not there: grade first")
    if a.to == "anonymous":
        text = report.anonymous(marks, key())
    else:
        text = getattr(report, a.to)(a.name, marks, roster.read_roster(a.out))
    path = a.out / a.name / f"{a.to}.csv"
    write(path, text)
    print(path)
    if empty := [row["student"] for row in marks if not row["points"]]:
        print(f"without points, so with an empty cell: {', '.join(empty)}", file=sys.stderr)
    return 0


def similar(a: argparse.Namespace) -> int:
    """Pairs of answers that look alike."""
    from assignments import report
    from assignments.similar import NOTE, similar, similar_csv

    book, path = a.out / "nbgrader", a.out / a.name / "marks.csv"
    if not path.exists():
        raise BadTable(f"{path} is not there: grade first")
    students = [row["student"] for row in report.read_marks(path)]
    files = {who: book / "autograded" / safe_name(who) / a.name / f"{a.name}.ipynb" for who in students}
    there = {who: file for who, file in files.items() if file.exists()}
    try:
        pairs = similar(there, book / "release" / a.name / f"{a.name}.ipynb", a.least)
    except ModuleNotFoundError as error:
        raise BadTable(f"{error}: pip install -r assignments/requirements.txt") from None
    write(a.out / a.name / "similar.csv", similar_csv(pairs))
    print(f"{len(pairs)} pairs: {a.out / a.name / 'similar.csv'}\n{NOTE}")
    return 0


def gradescope(a: argparse.Namespace) -> int:
    """One submission, on Gradescope. Without marks there is no results.json, which Gradescope reports."""
    from assignments import report
    from assignments.collect import hand_in
    from assignments.final import final
    from assignments.mark import failed, graded, safely

    a.results.unlink(missing_ok=True)
    handed_out = release.ROOT / "student" / f"{a.name}.ipynb"
    if not handed_out.exists():
        raise BadTable(f"{handed_out} is not there: this is a command for Gradescope, in the unpacked zip")
    ready()
    notebook = nbformat.read(handed_out, as_version=4)
    one = hand_in("student", a.submissions, a.name, notebook)
    marks = (
        failed("student", one.failed)
        if one.failed
        else safely(a.name, a.seed, "student", one.notebook, notebook)
    )
    marks["remarks"] = one.remarks + marks["remarks"]
    worth = {question: meta.points for question, meta in graded(notebook).items()}
    row = final(marks, worth=worth, manual={}, entered={}, overrides={}, deadlines={}, when=None)
    if row["failed"]:
        print(row["remarks"][0], file=sys.stderr)
        return NOT_MARKED
    write(a.results, json.dumps(report.gradescope(a.name, row), indent=1))
    return 0


VERBS = {
    "build": (build, "write the student notebook and the Gradescope zip"),
    "grade": (grade, "mark a folder of submissions: marks.csv, feedback/, the gradebook, class.html"),
    "export": (export, "write marks.csv for Canvas, for Moodle, or without names"),
    "similar": (similar, "list pairs of submissions that look alike"),
    "gradescope": (gradescope, "mark one submission and write Gradescope's results.json"),
}

if __name__ == "__main__":
    sys.exit(main())
