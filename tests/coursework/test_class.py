"""A class: the command line, the table, feedback, resuming, Gradescope's file; each student alone."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from coursework.kit import Course, filled

ROOT = Path(__file__).parents[2]
SEED = 3


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return Course("a1", tmp_path_factory.mktemp("a1"), seed=SEED)


@pytest.fixture(scope="module")
def class_(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders and files, a name with blanks, one who handed in nothing, one who kills the marker."""
    folder = tmp_path_factory.mktemp("submissions")
    for who, notebook in {
        "ann": course.reference,
        "Bo Æ. (2)": course.blank,
        "killer": filled(course.reference, {"search": "import os; os.kill(os.getppid(), 9)"}),
    }.items():
        (folder / who).mkdir()
        nbformat.write(notebook, folder / who / "a1.ipynb")
    (folder / "nothing").mkdir()
    nbformat.write(course.reference, folder / "cem.ipynb")
    nbformat.write(course.reference, folder / "ann.ipynb")
    (folder / ".DS_Store").write_text("")
    return folder


def command(verb: str, *more: object) -> list[str]:
    return [sys.executable, "-m", "assignments", verb, "a1", *map(str, more), "--seed", str(SEED)]


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "a1" / "marks.csv").open(newline="", encoding="utf-8") as f:
        return {row["student"]: row for row in csv.DictReader(f)}


@pytest.fixture(scope="module")
def graded(class_: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out")
    run = [*command("grade", class_), "--out", str(out)]
    env = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env=env, check=True)
    return out, done.stderr


def test_everybody_has_a_row(graded: tuple[Path, str]) -> None:
    rows = table(graded[0])
    assert {who: row["points"] for who, row in rows.items() if who != "killer"} == {
        "ann": "25",
        "ann.ipynb": "25",
        "Bo Æ. (2)": "0",
        "cem": "25",
        "nothing": "0",
    }
    assert rows["ann"]["truncate-test"] == "6" and rows["nothing"]["out_of"] == "25"
    assert "No notebook" in rows["nothing"]["remarks"]


def test_whoever_kills_the_marker_is_alone(graded: tuple[Path, str]) -> None:
    row = table(graded[0])["killer"]  # where the marker runs as root and drops its rights, the kill fails
    assert "NOT MARKED" in row["remarks"] or float(row["points"]) == 21


def test_feedback_and_progress(graded: tuple[Path, str]) -> None:
    out, progress = graded
    pages = {p.stem: p.read_text(encoding="utf-8") for p in (out / "a1" / "feedback").glob("*.md")}
    assert len(pages) == 6 and pages["ann"].startswith("# a1: 25 of 25 points")
    assert "NotImplementedError" in pages["Bo Æ. (2)"] and "6/6" in progress


def test_again_is_the_same_and_does_nothing_twice(graded: tuple[Path, str], class_: Path) -> None:
    out = graded[0]
    before, results = (out / "a1" / "marks.csv").read_bytes(), out / "a1" / "results"
    stamps = {p.name: p.stat().st_mtime_ns for p in results.glob("*.json") if p.stem != "killer"}
    subprocess.run([*command("grade", class_), "--out", str(out)], cwd=ROOT, capture_output=True, check=True)
    assert (out / "a1" / "marks.csv").read_bytes() == before
    assert stamps == {p.name: p.stat().st_mtime_ns for p in results.glob("*.json") if p.stem != "killer"}


def test_killed_run_goes_on_where_it_was(class_: Path, course: Course, tmp_path: Path) -> None:
    submissions = tmp_path / "submissions"
    submissions.mkdir()
    for who in "abcd":
        nbformat.write(course.reference, submissions / f"{who}.ipynb")
    run, results = (
        [*command("grade", submissions), "--out", str(tmp_path), "--jobs", "1"],
        tmp_path / "a1" / "results",
    )
    with subprocess.Popen(run, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while not list(results.glob("*.json")):
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    first = {p.name: p.stat().st_mtime_ns for p in results.glob("*.json")}
    assert 0 < len(first) < 4 and not (tmp_path / "a1" / "marks.csv").exists()
    subprocess.run(run, cwd=ROOT, capture_output=True, check=True)
    after = {p.name: p.stat().st_mtime_ns for p in results.glob("*.json")}
    assert len(after) == 4 and first.items() <= after.items() and len(table(tmp_path)) == 4


def test_changed_submission_is_marked_again(course: Course, tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    folder.mkdir()
    run = [*command("grade", folder), "--out", str(tmp_path)]
    for notebook, points in ((course.blank, "0"), (course.reference, "25")):
        nbformat.write(notebook, folder / "dee.ipynb")
        subprocess.run(run, cwd=ROOT, capture_output=True, check=True)
        assert table(tmp_path)["dee"]["points"] == points


def test_wrong_seed_is_noticed(course: Course, tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    folder.mkdir()
    nbformat.write(course.reference, folder / "eve.ipynb")
    run = [*command("grade", folder)[:-1], str(SEED + 1), "--out", str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"--seed {SEED + 1}?" in done.stderr


def test_empty_class(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    subprocess.run([*command("grade", tmp_path / "none"), "--out", str(tmp_path)], cwd=ROOT, check=True)
    assert table(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["grade", "a1", "nowhere"], "submissions=nowhere is not a folder"),
        (["grade", "a9", "."], "invalid choice: 'a9'"),
        (["build", "a1", "--seed", "-1"], "seed=-1 must be at least 0"),
        (["grade", "a1", ".", "--jobs", "0"], "jobs=0 at least 1"),
    ],
)
def test_bad_command(arguments: list[str], sentence: str) -> None:
    run = [sys.executable, "-m", "assignments", *arguments]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and sentence in done.stderr


@pytest.mark.parametrize(("who", "score"), [("ann", 25), ("nothing", 0)])
def test_gradescope_file(class_: Path, tmp_path: Path, who: str, score: float) -> None:
    """The keys and types of Gradescope's specification of results.json."""
    run = command("gradescope", class_ / who, tmp_path / "results.json")
    subprocess.run(run, cwd=ROOT, capture_output=True, check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["score"] == score == sum(t["score"] for t in results["tests"])
    assert results["visibility"] in {"hidden", "after_due_date", "after_published", "visible"}
    assert isinstance(results["output"], str) and isinstance(results["leaderboard"], list)
    assert len(results["tests"]) == 5
    for test in results["tests"]:
        assert set(test) <= {"name", "score", "max_score", "output", "visibility", "tags", "number", "status"}
        assert 0 <= test["score"] <= test["max_score"] and isinstance(test["output"], str)
