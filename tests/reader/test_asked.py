"""hint, solution and progress, as a reader's kernel sees them."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from lowrank_utils import exercises
from lowrank_utils.exercises import check, hint, progress, record, solution, worked

ROOT = Path(__file__).parents[2]
KNOWN = {
    "hints": ["Think of $x$.", "Divide by $x$."],
    "solution": [
        {"markdown": "So $x = 1$."},
        {"code": "x = 1\nx", "outputs": [{"text": "1\n"}, {"png": "iVBORw==", "alt": "A dot."}]},
        {"code": "check('2.1', x)", "outputs": [{"html": "<b>right</b>"}]},
    ],
}


@pytest.fixture
def known(monkeypatch):
    """One exercise with two hints, and nothing shown yet."""
    monkeypatch.setattr(worked, "_all", lambda chapter: {"2.1": KNOWN, "2.2": {"hints": [], "solution": []}})
    monkeypatch.setattr(worked, "_given", {})
    monkeypatch.setattr(worked, "_offered", set())


@pytest.fixture
def shell(monkeypatch):
    """A notebook's IPython."""
    shell = InteractiveShell.instance()
    monkeypatch.setattr(worked, "_shell", lambda: shell)
    yield shell
    InteractiveShell.clear_instance()


def test_one_hint_more_each_time(known, capsys):
    for said in ("1 of 2", "2 of 2", "2 of 2"):
        hint("2.1")
        out = capsys.readouterr().out
        assert f"Hint {said}" in out and ("Divide" in out) == (said == "2 of 2")
        assert ("Run it again for hint 2 of 2" in out) == (said == "1 of 2")
    hint("2.2")
    assert capsys.readouterr().out == '2.2 has no hint. solution("2.2") shows all of it.\n'


def test_the_solution_in_a_plain_python(known, capsys):
    solution("2.1")
    out = capsys.readouterr().out
    assert (
        out.index("So $x = 1$.") < out.index("x = 1\nx") < out.index("```text\n1\n```") < out.index("A dot.")
    )


def test_the_solution_in_a_notebook(known, shell):
    shell.user_ns["check"] = check
    with capture_output() as shown:
        solution("2.1")
    kinds = [sorted(output.data) for output in shown.outputs]
    assert sum("text/markdown" in kind for kind in kinds) == 4
    (picture,) = [o for o in shown.outputs if "image/png" in o.data]
    assert picture.metadata == {"image/png": {"alt": "A dot."}}
    (page,) = [o for o in shown.outputs if "text/html" in o.data]
    assert page.data["text/html"] == "<b>right</b>"


def test_its_code_is_offered_once(known, shell, monkeypatch):
    offered = []
    monkeypatch.setattr(shell, "set_next_input", offered.append)
    with capture_output():
        solution("2.1")
        solution("2.1")
    assert offered == ["# The solution of 2.1\nx = 1\nx\n\ncheck('2.1', x)"]


@pytest.mark.parametrize("ran", [False, True])
def test_code_that_comes_too_early_says_what_it_needs(known, shell, monkeypatch, ran):
    monkeypatch.setitem(KNOWN["solution"][1], "code", "x = np.eye(2) @ W\nx + b")
    if ran:
        shell.user_ns |= {"np": 1, "W": 2, "b": 3, "check": 4}
    with capture_output() as shown:
        solution("2.1")
    told = [o.data["text/markdown"] for o in shown.outputs if "text/markdown" in o.data]
    early = [text for text in told if text.startswith("Run the cells above first")]
    word = "Run the cells above first: this code uses `np`, `W`, `b` and more, made there."
    assert early == ([] if ran else [word])


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import a.b, c as d\nfrom e import f\na, d, f, g", ["g"]),
        ("def f(x, *, y=z):\n    return [i + x for i in y]\nf(1)", ["z"]),
        ("class C(D): pass\nwith o() as p: C(p), len(q)", ["D", "o", "q"]),
        ("lambda v: v + W\nW", ["W"]),
    ],
)
def test_what_code_needs(code, missing):
    assert worked._missing(code, set()) == missing
    assert worked._missing(code, missing[:1]) == missing[1:]


@pytest.mark.parametrize("ask", [hint, solution])
@pytest.mark.parametrize("number", ["2.9", "99.1", "2", "", "a.b", "²1.1", 2.1, None])
def test_another_number_is_an_error(ask, number):
    with pytest.raises(ValueError, match="exercise=.* must be"):
        ask(number)


def test_every_exercise_that_is_judged_has_its_solution():
    for chapter, numbers in record._exercises().items():
        assert sorted(worked._all(str(chapter))) == numbers


# Progress


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder and a new session in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "_solved", set())
    monkeypatch.setattr(record, "_keeping", False)
    return tmp_path


def said(call, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(*arguments)
    return out.getvalue()


def new_session(monkeypatch):
    monkeypatch.setattr(record, "_solved", set())
    monkeypatch.setattr(record, "_keeping", False)


def test_nothing_is_written_unless_progress_was_asked_for(folder):
    check("1.1", 72)
    assert list(folder.iterdir()) == []
    assert "chapter 1: 1 of 3 solved (1.1)" in said(progress)
    assert json.loads((folder / record.NAME).read_text()) == {"solved": ["1.1"]}


def test_progress_outlives_the_session(folder, monkeypatch):
    progress()
    check("1.1", 71)
    assert list(folder.iterdir()) == []
    check("1.1", 72)
    new_session(monkeypatch)
    progress()
    check("1.2", 6)
    assert "chapter 1: 2 of 3 solved (1.1, 1.2)" in said(progress)
    assert [p.name for p in folder.iterdir()] == [record.NAME]


def test_two_notebooks_of_a_folder_share_it(folder, monkeypatch):
    progress()
    (folder / record.NAME).write_text('{"solved": ["4.3"]}')  # another kernel
    check("1.1", 72)
    assert json.loads((folder / record.NAME).read_text()) == {"solved": ["1.1", "4.3"]}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"solved": 3}', "\x00"])
def test_a_file_that_is_damaged_is_left_alone(folder, text):
    (folder / record.NAME).write_text(text)
    check("1.1", 72)
    out = said(progress)
    assert "chapter 1: 1 of 3" in out and "cannot be read and is left as it is" in out
    assert (folder / record.NAME).read_text() == text


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that nobody can write")
def test_a_folder_that_cannot_be_written_gives_a_word(folder, monkeypatch):
    monkeypatch.chdir("/proc")
    assert "cannot be written" not in said(progress)
    out = said(check, "1.1", 72)
    assert out.startswith("1.1: right.\n") and "lasts until the kernel stops" in out
    assert "chapter 1: 1 of 3 solved (1.1)" in said(progress)


def test_a_write_that_breaks_off_leaves_the_old_file(folder, monkeypatch):
    progress()
    check("1.1", 72)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert "No space left" in said(check, "1.2", 6)
    assert json.loads((folder / record.NAME).read_text()) == {"solved": ["1.1"]}
    assert [p.name for p in folder.iterdir()] == [record.NAME]


def test_numbers_are_in_order():
    assert sorted(["10.1", "2.10", "2.9"], key=record._order) == ["2.9", "2.10", "10.1"]


# The package elsewhere


def test_the_public_names():
    assert sorted(exercises.__all__) == ["check", "hint", "progress", "solution"]


def run(*command, **options):
    """Standard output of a command that must succeed."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180, **options)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def imported(name):
    """Modules that a step of the build imports, and those that its own modules import."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "book" / "_ext" / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    own = {name for name in found if (ROOT / "book" / "_ext" / f"{name}.py").is_file()}
    return found - own - set(sys.stdlib_module_names) | {m for name in own for m in imported(name)}


def test_pip_builds_with_what_setup_py_imports():
    """Where pip isolates the build, as on Colab, there is nothing but what is asked for."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    asked = {re.match(r"[\w-]+", line)[0].lower() for line in asked}
    known = packages_distributions()
    needed = {module: {name.lower() for name in known[module]} for module in imported("reader_notebooks")}
    assert len(needed) >= 7 and {m: names for m, names in needed.items() if not names & asked} == {}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder with the package as pip installs it, far from the book."""
    clone, target = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("site-packages")
    for name in run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, "-t", target, clone)
    return target


ELSEWHERE = """\
import sys
sys.modules.update(dict.fromkeys(["myst_parser", "mdformat", "pybtex", "IPython"]))
from lowrank_utils.exercises import solution, worked
assert worked.__file__.startswith(sys.argv[1])
solution("2.1")
"""


def test_an_installed_package_has_them_too(installed, tmp_path):
    """No book, no parser, no IPython: text as it stands in the clone."""
    env = os.environ | {"PYTHONPATH": str(installed)}
    out = run(sys.executable, "-c", ELSEWHERE, str(installed), cwd=tmp_path, env=env)
    assert out == said(solution, "2.1")


def test_a_copy_without_the_book_says_so(monkeypatch):
    monkeypatch.setattr(worked, "BOOK", Path("/nowhere"))
    worked._all.cache_clear()
    with pytest.raises(FileNotFoundError, match="without the book"):
        hint("2.1")


def test_the_source_holds_no_second_copy():
    assert not files("lowrank_utils.exercises").joinpath("worked.json").is_file()
