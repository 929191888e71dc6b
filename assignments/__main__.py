"""python -m assignments build a1 [--seed 2027]      python -m assignments grade a1 submissions/ [--seed 2027]."""

import argparse
import json
import tempfile
from pathlib import Path

from assignments import grade, release


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m assignments", description="Build and grade the coursework.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in [
        ("build", "write the student notebook and the Gradescope zip"),
        ("grade", "mark a folder of submissions: marks.csv and feedback/"),
        ("gradescope", "mark one submission and write Gradescope's results.json"),
    ]:
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("name", choices=release.NAMES)
        if verb != "build":
            sub.add_argument("submissions", type=Path)
        if verb == "gradescope":
            sub.add_argument("results", type=Path)
        sub.add_argument("--seed", type=int, default=0, help="the cohort's seed: other numbers, other data")
        sub.add_argument("--out", type=Path, default=Path("_build/course"), help="where results go")
        sub.add_argument("--jobs", type=int, default=2, help="submissions marked at the same time")
    a = parser.parse_args(arguments)
    if a.verb == "build":
        with tempfile.TemporaryDirectory() as work:
            for path in release.build(a.name, a.seed, a.out / a.name, Path(work)):
                print(path)
        return
    if not a.submissions.exists():
        parser.error(f"submissions={a.submissions} does not exist")
    if a.verb == "gradescope":
        with tempfile.TemporaryDirectory() as work:
            release.assign(a.name, a.seed, Path(work))
            marks = grade.safely(a.name, a.seed, "student", a.submissions, Path(work))
        a.results.write_text(json.dumps(grade.gradescope(marks), indent=1))
        return
    out = a.out / a.name
    marks = grade.grade_class(a.name, a.seed, a.submissions, out, jobs=a.jobs)
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    for one in marks:
        (out / "feedback" / f"{one['student']}.md").write_text(grade.feedback(a.name, one))
    grade.write_csv(marks, out / "marks.csv")
    print(f"{len(marks)} submissions: {out / 'marks.csv'}, {out / 'feedback'}/")


if __name__ == "__main__":
    main()
