"""python -m assignments build a1 [--seed 2027], python -m assignments grade a1 submissions/ [--seed 2027]."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from assignments import release, report
from assignments.classroom import grade_class
from assignments.mark import safely


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m assignments", description="Build and grade the coursework."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in [
        ("build", "write the student notebook and the Gradescope zip"),
        ("grade", "mark a folder of submissions: marks.csv, and feedback/ with a file per student"),
        ("gradescope", "mark one submission and write Gradescope's results.json"),
    ]:
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("name", choices=release.NAMES)
        if verb != "build":
            sub.add_argument("submissions", type=Path)
        if verb == "gradescope":
            sub.add_argument("results", type=Path)
        sub.add_argument(
            "--seed", type=int, default=0, help="the cohort's seed: other numbers, other data (0)"
        )
        sub.add_argument("--out", type=Path, default=Path("course"), help="where it goes (course)")
        sub.add_argument("--jobs", type=int, default=2, help="how many are marked at the same time (2)")
    a = parser.parse_args(arguments)
    if a.verb != "build" and not a.submissions.is_dir():
        parser.error(f"submissions={a.submissions} is not a folder")
    if a.seed < 0 or a.jobs < 1:
        parser.error(f"seed={a.seed} must be at least 0 and jobs={a.jobs} at least 1")
    {"build": build, "grade": grade, "gradescope": gradescope}[a.verb](a)


def build(a: argparse.Namespace) -> None:
    """The student version and the autograder of one assignment."""
    with tempfile.TemporaryDirectory() as work:
        for path in release.build(a.name, a.seed, a.out / a.name, Path(work)):
            print(path)


def grade(a: argparse.Namespace) -> None:
    """A class: marks.csv and a feedback file each."""
    out = a.out / a.name
    marks = grade_class(a.name, a.seed, a.submissions, out, jobs=a.jobs)
    (out / "feedback").mkdir(exist_ok=True)
    for one in marks:
        (out / "feedback" / f"{one['student']}.md").write_text(report.feedback(a.name, one), encoding="utf-8")
    report.write_csv(marks, out / "marks.csv")
    scored = [" ".join(one["remarks"]) for one in marks if one["points"]]
    if scored and all("was changed" in remarks for remarks in scored):
        print(f"given cells differ in every notebook: was it built with --seed {a.seed}?", file=sys.stderr)
    print(f"{len(marks)} submissions: {out / 'marks.csv'}, {out / 'feedback'}/")


def gradescope(a: argparse.Namespace) -> None:
    """One submission, on Gradescope."""
    with tempfile.TemporaryDirectory() as work:
        release.assign(a.name, a.seed, Path(work))
        marks = safely(a.name, a.seed, "student", a.submissions, Path(work))
    a.results.write_text(json.dumps(report.gradescope(marks), indent=1))


if __name__ == "__main__":
    main()
