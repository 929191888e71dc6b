"""A class with every kind of harm in it: each attack stays in its row, and the others have their marks."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import markdown_it
import mistune
import nbformat
import pytest
from coursework.attacks import ATTACKS, FILES, LONG, RIGHT, code, harmful_class, left_behind
from coursework.kit import Course, filled

from assignments import __main__, isolation
from assignments.files import safe_name
from assignments.sandbox import Student
from assignments.texts import cell

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("bubblewrap")


class Run(NamedTuple):
    """What came of grading the class."""

    submissions: Path
    out: Path
    stderr: str
    status: int
    connections: int

    def rows(self) -> dict[str, dict[str, str]]:
        """marks.csv."""
        with (self.out / "a1" / "marks.csv").open(newline="", encoding="utf-8") as f:
            return {row["student"]: row for row in csv.DictReader(f)}


def arguments(submissions: Path, out: Path, *more: str) -> list[str]:
    return ["grade", "a1", str(submissions), "--out", str(out), *more]


def grade(submissions: Path, out: Path, *more: str, python: list[str] | None = None) -> list[str]:
    return [*(python or [sys.executable]), "-m", "assignments", *arguments(submissions, out, *more)]


@pytest.fixture(scope="module")
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        yield server


def connections(server: socket.socket) -> int:
    count = 0
    try:
        while True:
            server.accept()[0].close()
            count += 1
    except TimeoutError:
        return count


@pytest.fixture(scope="module")
def run(
    course_of: Callable[..., Course], listening: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    root = tmp_path_factory.mktemp("class")
    submissions, out = root / "submissions", root / "out"
    harmful_class(course_of("a1"), submissions, listening.getsockname()[1], out / "a1" / "results")
    done = subprocess.run(grade(submissions, out), cwd=ROOT, capture_output=True, text=True, errors="replace")
    return Run(submissions, out, done.stderr, done.returncode, connections(listening))


def test_everybody_else_has_all_marks(run: Run) -> None:
    rows, right = run.rows(), [cell(who) for who in RIGHT]
    assert {who: rows[who]["points"] for who in right} == dict.fromkeys(right, "25"), run.stderr
    assert len(rows) == len(right) + len(ATTACKS) + len(FILES)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_its_own_question(run: Run, attack: str) -> None:
    row = run.rows()[attack]
    assert (row["search-test"], row["points"]) == ("0", "21"), row
    text = (run.out / "a1" / "feedback" / f"{attack}.html").read_text(encoding="utf-8")
    assert re.search(ATTACKS[attack][1].replace("</code>", "&lt;/code&gt;"), text), text


def test_nothing_gets_out_and_nothing_is_left(run: Run) -> None:
    assert run.connections == 0 and left_behind() == []
    assert not (run.out / "a1" / "results" / "forger.json").exists()


def test_what_cannot_be_marked_is_named_and_has_no_points(run: Run) -> None:
    """Not 0: an empty cell, a reason, and exit status 3."""
    rows = run.rows()
    for who, reason in {"ugur": "unpack it", "device": "no file", "link": "no file"}.items():
        assert rows[who]["points"] == rows[who]["search-test"] == "" and reason in rows[who]["remarks"]
        assert not list((run.out / "a1" / "feedback").glob(f"{who}.*"))
    assert run.status == 3 and "NOT MARKED: device, link, ugur" in run.stderr
    assert rows["sparse"]["points"] == "0" and "300 MB" in rows["sparse"]["remarks"]
    assert rows["nothing"]["points"] == "0" and "work.zip' was passed over" in rows["nothing"]["remarks"]


def test_each_file_that_was_chosen_or_skipped_is_named(run: Run) -> None:
    rows = run.rows()
    assert "'cem.IPYNB' was taken" in rows["cem"]["remarks"]
    assert "'dee.ipynb.txt' was taken" in rows["dee"]["remarks"]
    assert "'a1.ipynb' was marked, 'old.ipynb' was passed over" in rows["two"]["remarks"]
    for name in ("notes.txt", "old.ipynb", "work.zip"):
        assert name in run.stderr


def test_text_of_a_student_is_text(run: Run) -> None:
    """No tag and no heading of theirs, in two renderers of Markdown and in the page of HTML."""
    folder = run.out / "a1" / "feedback"
    text = (folder / "markup.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# a1: 21 of 25 points"]
    pages = [mistune.html(text), markdown_it.MarkdownIt("commonmark", {"html": True}).render(text)]
    pages.append((folder / "markup.html").read_text(encoding="utf-8"))
    for page in pages:
        assert not re.search(r"<(script|img|svg|a)\b", str(page), re.I) and str(page).count("<h1") == 1
    assert not (folder / "forges results.md").read_text().count("\x02")


def test_again_is_the_same_and_does_nothing_twice(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run marks only those who have no marks; a forged result is seen, and marked again."""
    results, before = run.out / "a1" / "results", (run.out / "a1" / "marks.csv").read_bytes()
    stamps = {p.name: p.stat().st_mtime_ns for p in results.glob("*.json")}
    forged = results / "spies.json"
    file = json.loads(forged.read_text())
    forged.write_text(json.dumps(file | {"kept": file["kept"].replace('"points": 0.0', '"points": 4.0')}))
    status = __main__.main(arguments(run.submissions, run.out))
    again = {p.name: p.stat().st_mtime_ns for p in results.glob("*.json")}
    assert {name for name in stamps if again[name] != stamps[name]} == {"spies.json"}
    assert "spies': The kept result was changed" in capsys.readouterr().err and status == 3
    with (run.out / "a1" / "marks.csv").open(newline="", encoding="utf-8") as f:
        row = next(r for r in csv.DictReader(f) if r["student"] == "spies")
    assert row["points"] == "21" and "was changed by somebody else" in row["remarks"]
    assert len((run.out / "a1" / "marks.csv").read_bytes()) > len(before)


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = int(re.search(r"^PPid:\s+(\d+)", path.read_text(), re.M)[1])  # type: ignore[index]
        except (OSError, TypeError):
            continue
        if parent == pid:
            child = int(path.parent.name)
            found += [child, *descendants(child)]
    return found


def alive(pids: list[int]) -> list[int]:
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [
        pid
        for pid, path in states.items()
        if path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    ]


def test_killed_run_leaves_nothing_and_goes_on_where_it_was(
    course_of: Callable[..., Course], tmp_path: Path
) -> None:
    """SIGTERM says how many are done; SIGKILL leaves no process and no temporary folder of the marker's."""
    submissions = tmp_path / "submissions"
    submissions.mkdir()
    slow = filled(course_of("a1").reference, {"search": "import time; time.sleep(600)"})
    for who, notebook in [("a", course_of("a1").reference), ("b", slow)]:
        nbformat.write(notebook, submissions / f"{who}.ipynb")
    results, temporary = tmp_path / "out" / "a1" / "results", tmp_path / "tmp"
    table = tmp_path / "out" / "a1" / "marks.csv"  # written when a is done
    temporary.mkdir()
    run = grade(submissions, tmp_path / "out", "--jobs", "1")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(
            run, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
        ) as process:
            deadline = time.monotonic() + 240
            below: list[int] = []  # a worker, its server, a box and a student's process in it, at least
            while not table.exists() or len(below) < 6:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
                below = alive(descendants(process.pid))
            process.send_signal(number)
            said = process.stderr.read() if process.stderr else ""
        assert process.returncode == (130 if number == signal.SIGTERM else -number), said
        assert ("stopped: 1 of 2 are done" in said) == (number == signal.SIGTERM)
        until = time.monotonic() + 20
        while alive(below) and time.monotonic() < until:
            time.sleep(0.1)
        assert alive(below) == []
        assert [p.name for p in temporary.iterdir() if p.name.startswith("coursework")] == []
        assert table.read_text().count("\n") == 2
        stamp = (results / "a.json").stat().st_mtime_ns
    (submissions / "b.ipynb").unlink()
    assert __main__.main(arguments(submissions, tmp_path / "out")) == 0
    assert (results / "a.json").stat().st_mtime_ns == stamp


@pytest.fixture(scope="module")
def plain_user() -> Iterator[list[str]]:
    """A command line that starts Python as somebody without rights, or a skip."""
    if os.geteuid() != 0:
        pytest.skip("these tests run as a plain user already")
    python = Path("/usr/bin/python3")
    packages = Path(nbformat.__file__).parents[1]
    same = (
        python.exists()
        and f"{sys.version_info.minor}"
        == subprocess.run(
            [python, "-c", "import sys; print(sys.version_info.minor)"], capture_output=True, text=True
        ).stdout.strip()
    )
    closed = [
        p for q in (packages, ROOT) for p in [q, *q.resolve().parents] if p.stat().st_mode & 0o005 != 0o005
    ]
    if not same or closed or shutil.which("setpriv") is None:
        pytest.skip(f"no Python that a plain user can run ({closed or 'another version'})")
    home = Path("/tmp") / f"plain-{os.getpid()}"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(python)
    alembic = home / "bin" / "alembic"  # which nbgrader calls
    alembic.write_text(f"#!{home}/bin/python\nfrom alembic.config import main\nmain()\n")
    alembic.chmod(0o755)
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    site = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (site / "all.pth").write_text(f"{packages}\n{ROOT}\n")
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    return [
        *as_nobody,
        "env",
        f"HOME={home}",
        "COURSEWORK_KEY=" + str(home / "key"),
        str(home / "bin" / "python"),
    ]


def test_a_plain_user_can_grade_too(run: Run, plain_user: list[str]) -> None:
    """The same class, marked without root's rights."""
    home = next(word for word in plain_user if word.startswith("HOME="))
    out = Path(home.removeprefix("HOME=")) / "out"
    out.parent.chmod(0o777)
    submissions = out.parent / "submissions"
    shutil.copytree(
        run.submissions, submissions, symlinks=True, ignore=shutil.ignore_patterns("sparse", "device")
    )
    os.mkdir(submissions / "locked", 0o700)
    (submissions / "ann" / "a1.ipynb").chmod(0o644)
    done = subprocess.run(
        grade(submissions, out, python=plain_user), cwd=ROOT, capture_output=True, text=True, errors="replace"
    )
    plain = Run(submissions, out, done.stderr, done.returncode, 0)
    assert (out / "a1" / "marks.csv").exists(), done.stderr
    rows = plain.rows()
    assert done.returncode == 3 and "PermissionError" in rows["locked"]["remarks"], done.stderr
    assert {who: rows[who]["points"] for who in ATTACKS} == dict.fromkeys(ATTACKS, "21")
    assert rows["ann"]["points"] == rows["Müller"]["points"] == rows[LONG]["points"] == "25"
    assert left_behind() == []


def in_the_space_of(pid: int) -> list[int]:
    """The processes that share its space of process ids."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(path / "ns/pid") == os.readlink(f"/proc/{pid}/ns/pid"):
                found.append(int(path.name))
    return found


def test_when_a_process_is_stopped_all_that_it_started_is_gone() -> None:
    """At once, not a moment later: else the next one finds the limit on processes used up."""
    users = set()
    for _ in range(5):
        with Student({"forks": code("forks", port=0, results=Path("/results"))}, seconds=20) as student:
            assert student.errors["forks"] == "RuntimeError: fewer than 40 forks"
            assert student._box is not None
            inside = in_the_space_of(student._box.pid)
            adopted = descendants(isolation.servers()[student.memory_mb].process.pid)
            users.add(isolation.user())
        assert len(inside) > 20 and alive(inside) == []
        assert set(inside) & set(adopted)  # else the end waits for the machine's first process
    assert os.geteuid() != 0 or len(users) == 5


def test_without_bubblewrap_one_line_says_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isolation.warning() == ""
    monkeypatch.setattr(isolation, "missing", lambda: "bubblewrap is not installed")
    assert isolation.warning().count("\n") == 0 and "network" in isolation.warning()
    monkeypatch.setattr(isolation.os, "geteuid", lambda: 0)
    monkeypatch.setattr(isolation.sys, "executable", "/closed/bin/python")
    monkeypatch.setattr(isolation.Path, "stat", lambda self: os.stat_result([0o040700] + [0] * 9))
    with pytest.raises(isolation.CannotRun, match="student code would run as root"):
        isolation.user()


def test_names_of_files_are_plain_and_distinct() -> None:
    names = ["ann", "Bo Æ. (2)", LONG, LONG + "m", "../up", ".hidden", "a/b", "a_b"]
    files = [safe_name(name) for name in names]
    assert files[:2] == names[:2] and len(set(files)) == len(files)
    assert all(len(f.encode()) < 130 and "/" not in f and not f.startswith(".") for f in files)
