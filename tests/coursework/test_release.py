"""What is handed out: the same bytes each time, other numbers per cohort, and no answer anywhere."""

import inspect
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from coursework.kit import answers
from nbformat.v4 import new_markdown_cell, new_notebook

from assignments import bundle, release
from assignments.checks import hidden

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    for name in release.NAMES:
        bundle.build(name, 0, out, tmp_path_factory.mktemp("work"))
    return out


def solutions(name: str) -> list[str]:
    """Each hidden piece of the teacher's answers, as one run of lines without indentation."""
    blocks = re.findall(
        r"### BEGIN SOLUTION\n(.*?)\s*### END SOLUTION", "\n".join(answers(name).values()), re.S
    )
    return [squeeze(block) for block in blocks]


def squeeze(text: str) -> str:
    """Without white space, so that an indented copy is found too."""
    return re.sub(r"\s+", "", text)


def given(name: str) -> str:
    """What the author wrote for students to see."""
    text = "\n".join(c.source for c in release.source(name, 0).cells)
    return squeeze(re.sub(r"### BEGIN SOLUTION.*?### END SOLUTION", "", text, flags=re.S))


def secrets(name: str) -> list[str]:
    """Solutions, and the lines of hidden checks that are long and that students are not given anyway."""
    lines = [squeeze(line) for line in inspect.getsource(hidden(name)).splitlines()]
    seen = given(name)
    own = [line for line in lines if len(line) > 50 and not line.startswith(("import", "from"))]
    return [*solutions(name), *(line for line in own if line not in seen)]


def test_assignments_are_there() -> None:
    assert set(release.NAMES) >= {"a0", "a1", "a2", "a3", "a4"}
    assert all((release.HERE / name / "guide.md").is_file() for name in release.NAMES)


@pytest.mark.parametrize("name", release.NAMES)
def test_student_version_holds_no_answer(built: Path, name: str) -> None:
    text = (built / "student" / f"{name}.ipynb").read_text()
    cells = nbformat.reads(text, as_version=4).cells
    seen = squeeze("\n".join(c.source for c in cells))
    assert "SOLUTION" not in text and "{{" not in text and "HIDDEN" not in text
    assert len(solutions(name)) >= 4
    assert not [s for s in secrets(name) if s in seen]
    shown = {squeeze(line) for c in cells for line in c.source.splitlines()}
    answer = {squeeze(line) for block in answers(name).values() for line in solution_lines(block)}
    assert not {line for line in answer & shown if len(line) > 30}


RAW = re.compile(r":::|```+\s*\{|\{[\w:+-]+\}`|\]\((?!https://)[^)]*\)")


@pytest.mark.parametrize("name", release.NAMES)
def test_student_version_holds_no_raw_myst(built: Path, name: str) -> None:
    """Boxes, terms, citations and links are written for notebooks, as in the book's own; links are whole."""
    handed_out = nbformat.read(built / "student" / f"{name}.ipynb", as_version=4).cells
    teachers = nbformat.read(release.HERE / name / f"{name}.ipynb", as_version=4).cells
    shown, written = (
        "\n".join(c.source for c in x if c.cell_type == "markdown") for x in (handed_out, teachers)
    )
    assert RAW.findall(shown) == [] and len(RAW.findall(written)) >= 3
    assert "> **Rules**" in shown and release.book().page("").split("book/")[0] in shown


@pytest.mark.parametrize(
    "raw", [":::{note}\nx\n:::", "```{hint}\nx\n```", "{term}`rank`", "{doc}`a`", "[a](06_whole_network)"]
)
def test_raw_myst_is_noticed_and_rendered(raw: str) -> None:
    """What the test above looks for; none of it is left by the renderer."""
    assert RAW.search(raw)
    raw = raw.replace("{doc}`a`", "{doc}`06_whole_network`")
    (cell,) = release.for_notebooks(new_notebook(cells=[new_markdown_cell(raw)])).cells
    assert not RAW.search(cell.source) and cell.source


def solution_lines(block: str) -> list[str]:
    """Lines between the markers."""
    return [
        line
        for part in block.split("### BEGIN SOLUTION")[1:]
        for line in part.split("### END")[0].splitlines()
    ]


def test_the_leak_test_can_fail(built: Path) -> None:
    leaky = squeeze(
        (release.HERE / "a1" / "a1.ipynb").read_text().replace("\\n", "\n").replace('",', "").replace('"', "")
    )
    assert any(s.replace('"', "") in leaky for s in solutions("a1"))


def test_site_sources_and_search_index_hold_no_answer(site: Path) -> None:
    pages = [
        p for p in site.rglob("*") if p.suffix in {".html", ".js", ".ipynb", ".md", ".txt", ".inv", ".json"}
    ]
    text = squeeze("\n".join(p.read_text(errors="ignore").replace("\\n", "\n") for p in pages))
    assert len(pages) > 20
    assert not [s for name in release.NAMES for s in secrets(name) if len(s) > 80 and s in text]
    assert not [p for p in site.rglob("*") if "hidden" in p.name or re.fullmatch(r"a\d\.ipynb", p.name)]


@pytest.mark.parametrize("name", release.NAMES)
def test_zip_is_what_gradescope_wants(built: Path, name: str) -> None:
    with zipfile.ZipFile(built / f"{name}-autograder.zip") as archive:
        files = archive.namelist()
        assert {"setup.sh", "run_autograder", "requirements.txt", f"student/{name}.ipynb"} <= set(files)
        assert f"assignments/{name}/hidden.py" in files
        others = [n for n in release.NAMES if n != name]
        assert not [f for f in files if any(f.startswith(f"assignments/{n}/") for n in others)]
        run = archive.read("run_autograder").decode()
        assert run.startswith("#!") and f"gradescope {name} " in run and "{" not in run
        pins = archive.read("requirements.txt").decode().split()
        assert {p.split("==")[0] for p in pins if "==" in p} == bundle.NEEDED
        student = [f for f in files if f.startswith("student/")]
        text = squeeze("".join(archive.read(f).decode() for f in student))
        assert student == [f"student/{name}.ipynb"] and not [s for s in secrets(name) if s in text]
        subprocess.run(["bash", "-n"], input=archive.read("setup.sh"), check=True)


def test_same_bytes_from_run_to_run(built: Path, tmp_path: Path) -> None:
    """Another process, another hash seed, another folder."""
    code = f"""
from pathlib import Path
from assignments import bundle, release
for name in release.NAMES:
    out = Path({str(tmp_path)!r}) / name
    bundle.build(name, 0, out, out / "work")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    for name in release.NAMES:
        for file in (f"student/{name}.ipynb", f"{name}-autograder.zip"):
            assert (tmp_path / name / file).read_bytes() == (built / file).read_bytes(), file


@pytest.mark.parametrize("name", release.NAMES)
def test_cohorts_differ_and_placeholders_are_used(name: str) -> None:
    raw = (release.HERE / name / f"{name}.ipynb").read_text()
    assert all("{{" + key + "}}" in raw for key in hidden(name).numbers(0) if key != "points")
    zero, other = (json.dumps(release.source(name, seed)) for seed in (0, 2027))
    assert zero != other and "{{" not in zero + other


def test_page_for_teachers_says_the_points() -> None:
    page = (ROOT / "book" / "for_teachers.md").read_text()
    for name in ("a0", "a1", "a2", "a3", "a4"):
        cells = release.source(name, 0).cells
        total = sum(c.metadata.nbgrader.points for c in cells if c.metadata.get("nbgrader", {}).get("grade"))
        assert re.search(rf"^\| {name} .*\| {total:g} \|", page, re.M), name
        assert f"{total:g} points" in cells[0].source, name
        seconds = hidden(name).SECONDS
        assert any(f"{seconds} seconds" in c.source for c in cells), name


def test_what_jupyter_leaves_behind_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(release, "HERE", tmp_path)
    (tmp_path / "a1" / ".ipynb_checkpoints").mkdir(parents=True)
    for file in ("hidden.py", "a1.ipynb", ".DS_Store"):
        (tmp_path / "a1" / file).touch()
    assert [p.name for p in release.parts("a1")] == ["a1.ipynb", "hidden.py"]


def test_a_slip_in_an_assignment_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = hidden("a1").numbers
    monkeypatch.setattr(
        hidden("a1"), "numbers", lambda s: {k: v for k, v in numbers(s).items() if k != "rank"}
    )
    with pytest.raises(ValueError, match=r"\{\{rank\}\} in a1.ipynb must be a key"):
        release.source("a1", 0)
    monkeypatch.undo()
    monkeypatch.setitem(hidden("a1").CHECKS, "error-test", [])
    with pytest.raises(ValueError, match=r"points=5.0 of error-test in a1.ipynb must be 1.0"):
        release.source("a1", 0)
