"""The command line: what it refuses, what it says, Gradescope's file, the students' folder."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from coursework.kit import Course, filled

from assignments import __main__, bundle, release
from assignments.collect import collect
from assignments.files import table
from assignments.final import Row, final
from assignments.mark import Marks, failed, graded

ROOT = Path(__file__).parents[2]


def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "assignments", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip for a1 as Gradescope unpacks it."""
    root = tmp_path_factory.mktemp("autograder")
    _, archive = bundle.build("a1", 0, root / "out", root / "work")
    shutil.unpack_archive(archive, root / "source")
    return root / "source"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["grade", "a1", "nowhere"], "submissions=nowhere is not a folder"),
        (["grade", "a9", "."], "invalid choice: 'a9'"),
        (["build", "a1", "--seed", "-1"], "seed=-1 must be at least 0"),
        (["grade", "a1", ".", "--jobs", "0"], "jobs=0 at least 1"),
        (["export", "a1", "--to", "canvas", "--out", "{tmp}"], "marks.csv is not there: grade first"),
        (["similar", "a1", "--out", "{tmp}"], "marks.csv is not there: grade first"),
        (["build", "a1", "--students", "assignments", "--out", "{tmp}"], "holds other things"),
        (["gradescope", "a1", ".", "{tmp}/results.json"], "in the unpacked zip"),
    ],
)
def test_bad_command(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = __main__.main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2 and sentence in capsys.readouterr().err


def test_nothing_to_mark_is_an_error_and_the_old_table_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme.txt").touch()
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / "marks.csv").write_text("student,points\nann,25\n")
    assert __main__.main(["grade", "a1", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "holds nothing to mark" in capsys.readouterr().err
    assert (tmp_path / "a1" / "marks.csv").read_text() == "student,points\nann,25\n"


@pytest.mark.parametrize(("who", "score"), [("ann", 25), ("nothing", 0)])
def test_gradescope_file(
    course_of: Callable[..., Course],
    unpacked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    score: float,
) -> None:
    """The keys and types of Gradescope's specification of results.json."""
    (tmp_path / who).mkdir()
    command = ["gradescope", "a1", str(tmp_path / who), str(tmp_path / "results.json")]
    if who == "ann":  # in a process of its own, with nothing but the zip
        nbformat.write(course_of("a1").reference, tmp_path / who / "a1.ipynb")
        done = run(*command, cwd=unpacked)
        assert done.returncode == 0, done.stderr
    else:
        monkeypatch.setattr(release, "ROOT", unpacked)
        assert __main__.main(command) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["score"] == score == sum(t["score"] for t in results["tests"])
    assert results["visibility"] in {"hidden", "after_due_date", "after_published", "visible"}
    assert isinstance(results["output"], str) and isinstance(results["leaderboard"], list)
    assert len(results["tests"]) == 5 and results["output_format"] == "text"
    allowed = {
        "name",
        "score",
        "max_score",
        "output",
        "output_format",
        "visibility",
        "tags",
        "number",
        "status",
    }
    for test in results["tests"]:
        assert set(test) <= allowed and test["output_format"] == "text"
        assert 0 <= test["score"] <= test["max_score"] and isinstance(test["output"], str)


def test_not_marked_is_no_file_on_gradescope(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither 0 points nor those of an earlier run: Gradescope says that the autograder failed."""
    monkeypatch.setattr(release, "ROOT", unpacked)
    (tmp_path / "a1.ipynb").symlink_to("/etc/passwd")
    (tmp_path / "results.json").write_text("old")
    assert __main__.main(["gradescope", "a1", str(tmp_path), str(tmp_path / "results.json")]) == 3
    assert not (tmp_path / "results.json").exists() and "NOT MARKED" in capsys.readouterr().err
    assert failed("ann", "why")["questions"] == {}


def test_a_forgotten_seed_is_noticed(course_of: Callable[..., Course], tmp_path: Path) -> None:
    """Also where it costs everybody all points, since another cohort's functions have other names."""
    ours, theirs = course_of("a1"), course_of("a1", 2027)
    worth = {question: meta.points for question, meta in graded(ours.blank).items()}

    def row(marks: Marks) -> Row:
        return final(marks, worth=worth, manual={}, entered={}, overrides={}, deadlines={}, when=None)

    lost = [row(ours.mark(theirs.reference)), row(ours.mark(theirs.blank)), row(ours.mark(b"no notebook"))]
    assert [one["points"] for one in lost] == [0, 0, 0] and __main__.other_cohort(lost)
    assert not __main__.other_cohort([*lost, row(ours.untouched)]) and not __main__.other_cohort(lost[2:])


def test_students_folder_is_complete_and_holds_no_answers(tmp_path: Path) -> None:
    """Notebook, package, requirements and Binder; it runs there; a second assignment joins the first."""
    students = tmp_path / "students"
    for name in ("a1", "a4"):
        command = ["build", name, "--students", str(students), "--out", str(tmp_path / "out")]
        assert __main__.main(command) == 0
    top = {p.name for p in students.iterdir()}
    assert {"a1.ipynb", "a4.ipynb", "lowrank_utils", "pyproject.toml", "requirements.txt", ".binder"} <= top
    assert "assignments" not in top and not list(students.rglob("hidden.py")) + list(
        students.rglob("guide.md")
    )
    text = "".join(p.read_text() for p in students.rglob("*") if p.suffix in {".ipynb", ".md", ".txt"})
    assert "SOLUTION" not in text and "NotImplementedError" in text
    pins = (students / "requirements.txt").read_text()
    assert "torch==" in pins and "nbgrader" not in pins and "jupyterlab" in pins
    assert os.access(students / ".binder" / "postBuild", os.X_OK)
    setup = next(c.source for c in nbformat.read(students / "a1.ipynb", 4).cells if c.id == "setup")
    ours = {p for p in (bundle.ROOT / "lowrank_utils").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert all((students / p.relative_to(bundle.ROOT)).is_file() for p in ours)
    code = f"import lowrank_utils\nassert lowrank_utils.__file__.startswith({str(students)!r})\n{setup}"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=students, env=env, check=True)
    assert bundle.students("a1", tmp_path / "out" / "a1" / "student" / "a1.ipynb", students) == students


def test_two_spellings_of_a_name_stay_two_students(course_of: Callable[..., Course], tmp_path: Path) -> None:
    for name in (b"M\xfcller", "Müller".encode(), b"ann"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        nbformat.write(course_of("a1").blank, folder / "a1 (1).ipynb")
    nbformat.write(course_of("a1").blank, tmp_path / "ann.ipynb")
    found, _ = collect(tmp_path, "a1")
    assert len({one.student for one in found}) == 4
    assert {"ann", "ann.ipynb", "Müller"} < {one.student for one in found}


@pytest.mark.parametrize(
    ("newest", "chosen"),
    [
        (["a1.ipynb: ", "a1 (1).ipynb: done"], "a1 (1).ipynb"),
        (["a1 (1).ipynb: done", "a1.ipynb: "], "a1 (1).ipynb"),
        (["a1.ipynb: half", "final.ipynb: done"], "final.ipynb"),
        (["a1 (1).ipynb: half", "a1.ipynb: done"], "a1.ipynb"),
        (["a1.ipynb: done", "a2.ipynb: other"], "a1.ipynb"),
        (["a1.ipynb: ", "notes.ipynb: "], "a1.ipynb"),
        (["a1 (1).ipynb: ", "a1.ipynb: broken"], "a1.ipynb"),
        (["a1.ipynb: broken", "a1 (1).ipynb: done"], "a1 (1).ipynb"),
    ],
)
def test_of_several_notebooks_the_newest_with_answers_counts(
    course_of: Callable[..., Course], tmp_path: Path, newest: list[str], chosen: str
) -> None:
    """An untouched download under the right name does not beat the finished file beside it."""
    a1 = course_of("a1")
    half = filled(a1.blank, {"error": "def relative_error(W, rank): return 0.0"})
    written = {"": a1.blank, "done": a1.reference, "half": half, "other": course_of("a2").reference}
    (tmp_path / "ann").mkdir()
    for age, entry in enumerate(newest):
        name, what = entry.split(": ")
        path = tmp_path / "ann" / name
        path.write_text("{") if what == "broken" else nbformat.write(written[what], path)
        os.utime(path, (1e9 + age, 1e9 + age))
    (one,), said = collect(tmp_path, "a1", a1.blank)
    other = next(name for name in (entry.split(": ")[0] for entry in newest) if name != chosen)
    assert one.notebook and one.notebook.name == chosen
    assert len(said) == 1 and f"'{chosen}' was marked, '{other}' was passed over" in said[0]


def test_marks_need_no_nbgrader() -> None:
    """What marks does not load it: a worker starts in half the time, and Gradescope need not install it."""
    modules = ", ".join(
        [
            "assignments.mark",
            "assignments.__main__",
            *(f"assignments.{name}.hidden" for name in release.NAMES),
        ]
    )
    code = f"import sys, {modules}\nassert 'nbgrader' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_csv_is_utf8_and_holds_no_formula() -> None:
    text = table(["student", "points"], [["Bo Æ. (2)", 1.0], ["\udcff", None], ["=1+1", 2.50]])
    assert list(csv.reader(text.splitlines()))[1:] == [["Bo Æ. (2)", "1"], ["\\udcff", ""], ["'=1+1", "2.5"]]
    assert text.encode()
