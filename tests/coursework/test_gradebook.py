"""A term's bookkeeping on one class of a0: people's marks, lateness, exports, nbgrader's own programs."""

import copy
import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
import pytest
from coursework.kit import Course, filled, wrong

from assignments import __main__, mark, report
from assignments.classroom import Class
from assignments.collect import HandIn
from assignments.files import BadTable
from assignments.final import Row
from assignments.mark import Marks, safely

ROOT = Path(__file__).parents[2]
WORDS = "Passage H counts a batch. <b>Call it with one flower</b>, and `print` the number."
ROSTER = """student,first_name,last_name,email,lms_user_id,sis_user_id,sis_login_id,section,id_number,status
ann,Ann,Archer,ann@example.org,101,S1,ann1,A,7001,
bo,Bo,Baker,bo@example.org,102,S2,bo2,B,7002,
cy,Cy,Cook,cy@example.org,103,S3,cy3,A,7003,
eve,Eve,Earl,eve@example.org,104,S4,eve4,A,7004,
gil,Gil,Gray,gil@example.org,105,S5,gil5,B,7005,
"""


class School:
    """The course's folder, and `grade` as the command line does it."""

    def __init__(self, course: Course, root: Path):
        self.root, self.submissions, self.course = root, root / "submissions", course
        self.folder = root / "a0"

    def grade(self, only: list[str] | None = None, *, again: bool = False) -> dict[str, Row]:
        rows = Class("a0", 0, self.root).grade(self.submissions, only=only or [], again=again)
        return {row["student"]: row for row in rows}

    def table(self, file: str = "marks.csv") -> list[dict[str, str]]:
        with (self.folder / file).open(newline="", encoding="utf-8") as f:
            return list(csv.DictReader(f))

    def row(self, student: str) -> dict[str, str]:
        return next(row for row in self.table() if row["student"] == student)

    def hand_in(self, student: str, answers: dict[str, str]) -> None:
        (self.submissions / student).mkdir(parents=True, exist_ok=True)
        nbformat.write(filled(self.course.reference, answers), self.submissions / student / "a0.ipynb")


def in_this_process(class_: Class, hand_ins: list[HandIn], jobs: int) -> Iterator[Marks]:
    """What the pool does: test_isolation tests that, and its processes take seconds to start."""
    for one in hand_ins:
        yield safely(
            class_.name, class_.seed, one.student, one.notebook, nbformat.from_dict(class_.book.release)
        )


def run_once(kept: dict[str, Marks]) -> Callable[..., Marks]:
    """`mark.run` that runs the same code once: three of the class hand in the same, and tests mark again.

    What is made of it, the marks, the words and the books, is made each time; that the same code has the same
    marks is tested in test_robust.
    """
    run = mark.run

    def once(name: str, seed: int, notebook: nbformat.NotebookNode, added: dict[str, str]) -> Marks:
        code = [(c.id, c.source) for c in notebook.cells if c.cell_type == "code"]
        key = repr((name, seed, code, added))
        if key not in kept:
            kept[key] = run(name, seed, notebook, added)
        return copy.deepcopy(kept[key])

    return once


@pytest.fixture(scope="module")
def kept() -> dict[str, Marks]:
    """What running the codes came to; a test that clears it has them run again."""
    return {}


@pytest.fixture(scope="module")
def school(
    kept: dict[str, Marks], course_of: Callable[..., Course], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[School]:
    """ann all right; bo wrote no words; cy with mistakes; eve as ann, with other names; fay leaves later."""
    school = School(course_of("a0"), tmp_path_factory.mktemp("school"))
    luck = next(c.source for c in school.course.reference.cells if c.id == "luck").replace("right_a", "first")
    cy = wrong("a0")["still-dense"][0] | wrong("a0")["core-transposed"][0]
    for student, answers in {
        "ann": {"words": WORDS},
        "bo": {"words": "YOUR ANSWER HERE"},
        "cy": cy | {"words": "I am not sure."},
        "eve": {"words": "Something else.", "luck": luck},
        "fay": {"words": "Bye."},
    }.items():
        school.hand_in(student, answers)
    (school.root / "roster.csv").write_text(ROSTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Class, "_run", in_this_process)
        patch.setattr(mark, "run", run_once(kept))
        school.grade()
        yield school


def fill(school: School, points: dict[str, float]) -> None:
    """The tutor's work on manual.csv."""
    rows = school.table("manual.csv")
    with (school.folder / "manual.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        for row in rows:
            given = points.get(row["student"])
            writer.writerow(row | ({} if given is None else {"points": given, "comment": "Good. <i>But</i>"}))


def test_a_person_marks_the_words(school: School) -> None:
    """Without a person's marks there is no sum, and no 0 either; nobody is asked about an empty answer."""
    assert (school.row("bo")["words"], school.row("bo")["points"]) == ("0", "33")
    assert (school.row("ann")["words"], school.row("ann")["points"]) == ("", "")
    assert "To be marked by hand: words" in school.row("ann")["remarks"]
    assert [row["student"] for row in school.table("manual.csv")] == ["ann", "cy", "eve", "fay"]
    page = (school.folder / "manual.html").read_text()
    assert "&lt;b&gt;Call it" in page and "an experiment that could come out either way" in page
    assert not [name for name in ("ann", "Archer", "eve") if re.search(rf"\b{name}\b", page)]
    fill(school, {"ann": 4, "cy": 1.5, "eve": 2, "fay": 0})
    rows = school.grade()
    assert (rows["ann"]["points"], rows["cy"]["points"], rows["eve"]["points"]) == (37, 28.5, 35)
    assert "Good. ‹i›But‹/i›" in (school.folder / "feedback" / "ann.md").read_text()
    school.hand_in("eve", {"words": "Another text."})
    assert school.grade()["eve"]["points"] is None and "has changed since" in school.row("eve")["remarks"]
    assert [row["points"] for row in school.table("manual.csv") if row["student"] == "ann"] == ["4"]


def test_overrides_are_read_last_and_need_a_reason(school: School) -> None:
    path = school.folder / "overrides.csv"
    path.write_text("student,question,points,reason\ncy,fold-test,4.5,argued well\n")
    before, row = school.row("cy"), school.grade()["cy"]
    assert row["questions"]["fold-test"]["points"] == 4.5 and "argued well" in school.row("cy")["remarks"]
    assert float(school.row("cy")["points"]) == float(before["points"]) + 2.5
    for text, said in {
        "cy,fold-test,4.5,": "needs a reason",
        "cy,fold,4.5,x": "question=fold must be one of",
        "cy,fold-test,many,x": "points=many",
    }.items():
        path.write_text(f"student,question,points,reason\n{text}\n")
        with pytest.raises(BadTable, match=said):
            school.grade()
    path.unlink()
    assert school.grade()["cy"]["points"] == float(before["points"])


def test_late_penalty_grace_and_extension(school: School) -> None:
    path = school.root / "deadlines.csv"
    noon = datetime(2027, 5, 3, 12, 0)
    late = {
        "ann": noon + timedelta(minutes=9),
        "bo": noon + timedelta(hours=25),
        "cy": noon + timedelta(days=3),
    }
    for student, when in late.items():
        (school.submissions / student / "timestamp.txt").write_text(f"{when:%Y-%m-%d %H:%M}")
    path.write_text(
        "assignment;student;due;grace_minutes;percent_per_day\n"
        "a0;;2027-05-03 12:00;10;10\na0;cy;2027-05-10 12:00;10;10\na1;;2020-01-01;0;100\n"
    )
    rows = school.grade()
    assert (rows["ann"]["penalty"], rows["bo"]["penalty"], rows["cy"]["penalty"]) == (0, 6.6, 0)
    assert rows["bo"]["points"] == 26.4 and "20 % of the points" in school.row("bo")["remarks"]
    with Class("a0", 0, school.root).book.open() as book:
        assert book.find_assignment("a0").duedate == noon.astimezone(UTC).replace(tzinfo=None)
        assert book.find_submission("a0", "cy").extension == timedelta(days=7)
        assert book.find_submission("a0", "bo").late_submission_penalty == pytest.approx(6.6)
    path.write_text("assignment,due\na0,soon\n")
    with pytest.raises(BadTable, match="due=soon must be like"):
        school.grade()
    path.unlink()


def test_nbgraders_own_programs_work_on_it(school: School, tmp_path: Path) -> None:
    """`nbgrader export` has its documented columns and our sums; its feedback reads the marked notebooks."""
    school.grade()
    book = school.root / "nbgrader"
    nbgrader = [sys.executable, "-m", "nbgrader"]
    run = subprocess.run(
        [*nbgrader, "export", "--to", tmp_path / "grades.csv"], cwd=book, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    with (tmp_path / "grades.csv").open(newline="") as f:
        rows = {row["student_id"]: row for row in csv.DictReader(f)}
    head = "assignment duedate timestamp student_id last_name first_name email raw_score"
    assert list(rows["ann"]) == [*head.split(), "late_submission_penalty", "score", "max_score"]
    assert (rows["ann"]["last_name"], float(rows["ann"]["max_score"])) == ("Archer", 37)
    assert float(rows["ann"]["score"]) == float(school.row("ann")["points"])
    assert float(rows["bo"]["score"]) == float(school.row("bo")["points"])
    command = [*nbgrader, "generate_feedback", "a0", "--student", "cy"]
    run = subprocess.run(command, cwd=book, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (page,) = (book / "feedback" / "cy" / "a0").glob("*.html")
    assert "fold-test" in page.read_text() and "Score:" in page.read_text()


def test_what_a_tutor_enters_in_the_formgrader_counts(school: School) -> None:
    class_ = Class("a0", 0, school.root)
    with class_.book.open() as book:
        for question, points in (("luck-test", 2.5), ("words", 3.0)):
            grade = book.find_grade(question, "a0", "a0", "eve")
            grade.manual_score = points
        book.db.commit()
        assert book.find_submission("a0", "ann").notebooks[0].needs_manual_grade is False
    row = school.grade()["eve"]
    assert (row["questions"]["luck-test"]["points"], row["questions"]["words"]["points"]) == (2.5, 3.0)
    assert row["points"] == 33.5 and "2.5 entered in the formgrader" in school.row("eve")["remarks"]
    with class_.book.open() as book:
        for question in ("luck-test", "words"):
            book.find_grade(question, "a0", "a0", "eve").manual_score = None
        book.db.commit()


def test_files_for_canvas_and_moodle(school: School, capsys: pytest.CaptureFixture[str]) -> None:
    """The columns that their importers ask for; who has no points has an empty cell, not 0."""
    school.grade()
    for to in ("canvas", "moodle"):
        assert __main__.main(["export", "a0", "--to", to, "--out", str(school.root)]) == 0
    assert "empty cell: eve, gil" in capsys.readouterr().err.replace("fay, ", "")
    canvas = school.table("canvas.csv")
    assert list(canvas[0]) == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "a0"]
    assert canvas[0]["Student"].strip() == "Points Possible" and canvas[0]["a0"] == "37"
    ann, gil = (next(row for row in canvas if row["SIS User ID"] == sis) for sis in ("S1", "S5"))
    assert ann == {"Student": "Archer, Ann", "ID": "101", "SIS User ID": "S1", "SIS Login ID": "ann1",
                   "Section": "A", "a0": "37"}  # fmt: skip
    assert gil["a0"] == ""
    moodle = {row["ID number"]: row for row in school.table("moodle.csv")}
    head = ["First name", "Last name", "ID number", "Email address", "a0", "a0 (Feedback)"]
    assert list(moodle["7001"]) == head
    assert (moodle["7001"]["Email address"], moodle["7001"]["a0"]) == ("ann@example.org", "37")


def test_anonymous_export_holds_no_name(school: School) -> None:
    school.grade()
    assert __main__.main(["export", "a0", "--to", "anonymous", "--out", str(school.root)]) == 0
    text = (school.folder / "anonymous.csv").read_text()
    rows = school.table("anonymous.csv")
    names = [
        name for line in ROSTER.splitlines()[1:] for name in line.split(",") if name and name not in "AB"
    ]
    assert not [name for name in [*names, "fay"] if re.search(rf"\b{re.escape(name)}\b", text)]
    assert len(rows) == len(school.table()) and "remarks" not in rows[0]
    assert sorted(row["points"] for row in rows) == sorted(row["points"] for row in school.table())
    assert report.pseudonym(b"k", "ann") == report.pseudonym(b"k", "ann") != report.pseudonym(b"l", "ann")


def test_similar_answers_are_listed_with_a_word_of_caution(
    school: School, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("copydetect")
    school.hand_in("eve", {"words": "Another text.", **wrong("a0")["constants"][0]})
    school.grade()
    assert __main__.main(["similar", "a0", "--least", "0.9", "--out", str(school.root)]) == 0
    pairs = school.table("similar.csv")
    most = pairs[0]
    assert {most["student"], most["like"]} <= {"ann", "bo", "fay"} and most["percent_of_first"] == "100"
    shares = [int(p["percent_of_first"]) for p in pairs if "cy" in (p["student"], p["like"])]
    assert max(shares, default=0) < 100
    assert "Alike is not copied" in capsys.readouterr().out and "Alike is not copied" in pairs[-1]["student"]


def test_only_and_regrade(school: School) -> None:
    """`only` touches nobody else; `again` marks what has marks; a person's points outlast it."""
    path = school.folder / "overrides.csv"
    path.write_text("student,question,points,reason\nann,fold-test,0.5,copied\n")
    stamps = {p.name: p.stat().st_mtime_ns for p in (school.folder / "results").glob("*.json")}
    rows = school.grade(["ann"], again=True)
    after = {p.name: p.stat().st_mtime_ns for p in (school.folder / "results").glob("*.json")}
    assert {name for name in stamps if after[name] != stamps[name]} == {"ann.json"} and len(rows) == 5
    assert rows["ann"]["questions"]["fold-test"]["points"] == 0.5
    path.unlink()
    with pytest.raises(BadTable, match="only=nobody handed in nothing"):
        school.grade(["nobody"])


def test_feedback_of_kept_marks_is_that_of_fresh_ones(school: School, kept: dict[str, Marks]) -> None:
    """Questions stay in the order of the assignment, whichever run wrote the file."""
    kept.clear()
    school.grade(["cy"], again=True)
    files = [school.folder / "feedback" / f"cy{ending}" for ending in (".md", ".html")]
    fresh = [file.read_text() for file in files]
    school.grade()
    assert [file.read_text() for file in files] == fresh
    assert fresh[0].index("## review-test") < fresh[0].index("## cut-test") < fresh[0].index("## words")


def test_a_stopped_run_leaves_the_tutors_table(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """marks.csv says "To be marked by hand" of whoever is done, so the table to do it in is there."""

    def stopped(class_: Class, hand_ins: list[HandIn], jobs: int) -> Iterator[Marks]:
        yield from in_this_process(class_, hand_ins[:1], jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Class, "_run", stopped)
    (school.folder / "manual.csv").rename(school.folder / "kept.csv")
    (school.folder / "manual.html").unlink()
    with pytest.raises(KeyboardInterrupt):
        school.grade(["ann", "cy"], again=True)
    assert "ann" in [row["student"] for row in school.table("manual.csv")]
    assert (school.folder / "manual.html").exists()
    (school.folder / "kept.csv").replace(school.folder / "manual.csv")


def test_page_on_the_class(school: School) -> None:
    school.grade()
    page = (school.folder / "class.html").read_text()
    assert page.count('<svg role="img" aria-label="') == 2 and "Histogram of points: median" in page
    assert "lowest" in page and "<script" not in page and "ann" not in re.sub(r"<style>.*</style>", "", page)


def test_axe_finds_nothing_on_the_pages(school: School, browser: Any) -> None:
    """Feedback, the class and the tutor's page, light and dark; nothing else is loaded."""
    school.grade()
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    for look in ("light", "dark"):
        page = browser.new_page(bypass_csp=True, color_scheme=look, viewport={"width": 390, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request, seen=asked: seen.append(request.url))
        for path in ("feedback/cy.html", "feedback/ann.html", "class.html", "manual.html"):
            page.goto((school.folder / path).as_uri())
            page.evaluate(axe)
            found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
            assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == [], (path, look)
            wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, (path, look)
        assert all(url.startswith("file:") for url in asked) and len(asked) == 4
        page.close()


def test_whoever_withdraws_leaves_the_output(school: School) -> None:
    roster = school.root / "roster.csv"
    roster.write_text(ROSTER + "fay,Fay,Ford,,,,,,,withdrawn\n")
    rows = school.grade()
    assert "fay" not in rows and not list((school.folder / "feedback").glob("fay.*"))
    assert "fay" not in (school.folder / "marks.csv").read_text()
    assert not (school.folder / "results" / "fay.json").exists()
    with Class("a0", 0, school.root).book.open() as book:
        assert "fay" not in [s.student_id for s in book.assignment_submissions("a0")]
        assert {"ann", "eve"} <= {s.id for s in book.students} <= {"ann", "bo", "cy", "eve", "gil"}
