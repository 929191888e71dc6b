"""Where the reader's notebooks are opened: the reader's own folder, the branch, and the site's buttons."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reader_folders as folders  # noqa: E402
import reader_notebooks as reader  # noqa: E402

BOOK = reader.Book(ROOT)
NAMES = list(BOOK.notebooks)
ONE = NAMES[1]


# A folder of the reader's own: nothing that somebody wrote is lost.


def test_the_folder_gets_every_notebook(tmp_path):
    assert folders.lab(tmp_path, BOOK) == []
    assert sorted(p.stem for p in tmp_path.glob("*.ipynb")) == NAMES


def test_what_a_reader_wrote_stays(tmp_path, monkeypatch):
    folders.lab(tmp_path, BOOK)
    (tmp_path / f"{ONE}.ipynb").write_text("my answers")
    assert folders.lab(tmp_path, BOOK) == []  # the book has nothing newer
    assert not (tmp_path / f"{ONE}.newer.ipynb").exists()
    monkeypatch.setattr(reader, "text_of", lambda nb: "a newer edition")
    assert folders.lab(tmp_path, BOOK) == [ONE]
    assert (tmp_path / f"{ONE}.ipynb").read_text() == "my answers"
    assert (tmp_path / f"{ONE}.newer.ipynb").read_text() == "a newer edition"
    assert {(tmp_path / f"{name}.ipynb").read_text() for name in NAMES if name != ONE} == {"a newer edition"}
    assert folders.lab(tmp_path, BOOK) == [ONE]  # as long as it is not looked at


@pytest.mark.parametrize("record", ["gone", "there"])
def test_a_notebook_of_the_same_name_is_the_readers(tmp_path, monkeypatch, record):
    if record == "there":
        folders.lab(tmp_path, BOOK)
    (tmp_path / f"{ONE}.ipynb").write_text("mine")
    monkeypatch.setattr(reader, "text_of", lambda nb: "the book's")
    assert folders.lab(tmp_path, BOOK) == [ONE]
    assert (tmp_path / f"{ONE}.ipynb").read_text() == "mine"


def test_a_notebook_that_was_deleted_comes_back(tmp_path):
    folders.lab(tmp_path, BOOK)
    (tmp_path / f"{ONE}.ipynb").unlink()
    assert folders.lab(tmp_path, BOOK) == []
    assert (tmp_path / f"{ONE}.ipynb").is_file()


# The branch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of the branch."""
    folder = tmp_path_factory.mktemp("made") / "branch"
    folders.branch(folder, BOOK)
    return folder


def test_the_branch_holds_notebooks_to_run_and_to_look_at(made):
    for name in NAMES:
        run, shown = (nbformat.read(made / place / f"{name}.ipynb", 4) for place in ("book", "read"))
        assert not any(c.get("outputs") for c in run.cells)
        assert any(c.get("outputs") for c in shown.cells)
        assert f"(read/{name}.ipynb)" in (made / "README.md").read_text()


def test_the_branch_has_what_binder_needs(made):
    binder = made / ".binder"
    assert (binder / "requirements.txt").read_text() == (ROOT / ".binder" / "requirements.txt").read_text()
    assert (binder / "postBuild").stat().st_mode & 0o111 == 0o111
    assert ".binder/*.whl" in (binder / "postBuild").read_text()
    (wheel,) = binder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        asked = json.loads(packed.read("lowrank_utils/exercises/worked.json"))
        modules = {name for name in packed.namelist() if name.endswith((".py", ".js"))}
    assert asked == reader.worked(BOOK)
    own = [p for p in (ROOT / "lowrank_utils").rglob("*") if p.suffix in {".py", ".js"}]
    assert modules == {str(p.relative_to(ROOT)) for p in own}


def test_the_branch_is_the_same_each_time(made, tmp_path, forget):
    forget()
    folders.branch(tmp_path / "again", BOOK)
    files = [p.relative_to(made) for p in sorted(made.rglob("*")) if p.is_file()]
    assert [f for f in files if (made / f).read_bytes() != (tmp_path / "again" / f).read_bytes()] == []
    assert sum((made / f).stat().st_size for f in files) < 5_000_000


def git(folder, *command):
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clone(tmp_path):
    """A clone with one commit, of a repository that has no branch of notebooks."""
    git(tmp_path, "init", "-q", "--bare", "origin.git")
    git(tmp_path, "init", "-q", "-b", "main", "clone")
    clone = tmp_path / "clone"
    git(clone, "config", "user.name", "n")
    git(clone, "config", "user.email", "n@example.org")
    git(clone, "commit", "-q", "--allow-empty", "-m", "one")
    git(clone, "remote", "add", "origin", "../origin.git")
    git(clone, "push", "-q", "origin", "main")
    return clone


def test_publishing_pushes_one_commit_and_only_what_is_new(made, clone, tmp_path):
    origin = tmp_path / "origin.git"
    assert folders.publish(made, clone)
    first = git(origin, "rev-parse", "notebooks")
    listed = git(origin, "ls-tree", "-r", "notebooks").splitlines()
    assert sorted(line.split("\t")[1] for line in listed) == sorted(
        str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()
    )
    assert [line[:6] for line in listed if line.endswith("postBuild")] == ["100755"]
    assert not folders.publish(made, clone)
    assert git(origin, "rev-parse", "notebooks") == first

    changed = tmp_path / "changed"
    (changed / "book").mkdir(parents=True)
    (changed / "book" / "a.ipynb").write_text("{}")
    assert folders.publish(changed, clone)
    assert git(origin, "ls-tree", "-r", "--name-only", "notebooks") == "book/a.ipynb\n"
    assert git(origin, "rev-list", "--count", "notebooks") == "1\n"
    assert git(clone, "status", "--porcelain") == "" and git(clone, "log", "--oneline").count("\n") == 1


# The site


@pytest.mark.parametrize("name", NAMES)
def test_the_download_is_the_readers_notebook(site, name):
    text = (site / "_sources" / "book" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text == reader.text_of(reader.notebook(BOOK.notebooks[name], BOOK, outputs=True))
    page = (site / "book" / f"{name}.html").read_text(encoding="utf-8")
    assert f'href="../_sources/book/{name}.ipynb"' in page
    assert f"/notebooks?urlpath=lab/tree/book/{name}.ipynb" in page
    assert f"/blob/notebooks/book/{name}.ipynb" in page
