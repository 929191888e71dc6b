"""Who handed in what: for each student the one notebook that is marked, and a remark on everything else."""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import nbformat

from assignments.rebuild import MAX_BYTES, Unreadable, answered, read
from assignments.texts import plain, quoted

LOOK_BYTES = 20 * 2**20  # a larger file is no untouched copy, and its outputs need not be read to know it
ENDINGS = (".ipynb", ".ipynb.txt", ".ipynb.json")  # what browsers and mail programs make of it
TIMES = "timestamp.txt"  # nbgrader's file beside a notebook: when it was handed in


@dataclass
class HandIn:
    """One student's: the notebook, its digest, the time, remarks; or why a teacher has to look."""

    student: str
    notebook: Path | None = None
    remarks: list[str] = field(default_factory=list)
    when: datetime | None = None
    digest: str = ""
    failed: str = ""


def display(name: str) -> str:
    """A file name as text; one that is not UTF-8 is read as Windows wrote it."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def is_notebook(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(ENDINGS)


def student_of(path: Path) -> str:
    """The name of a file without what makes it a notebook."""
    name = display(path.name)
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def collect(
    folder: Path, name: str, release: nbformat.NotebookNode | None = None
) -> tuple[list[HandIn], list[str]]:
    """Hand-ins in `folder`, one for each student, and sentences on what was passed over.

    `release` is what was handed out: with it, an untouched copy is told from one with answers.
    """
    found = sorted(
        (p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: os.fsencode(p.name)
    )
    out: dict[str, HandIn] = {}
    skipped: list[str] = []
    folders = [p for p in found if p.is_dir() and not p.is_symlink()]
    for path in [*folders, *(p for p in found if p not in folders)]:
        student = display(path.name) if path in folders else student_of(path)
        if path not in folders and not is_notebook(path):
            if path.suffix.lower() not in {".zip", ".gz", ".tgz", ".7z", ".rar"}:
                skipped.append(f"{quoted(display(path.name))} is no notebook: passed over")
                continue
            student = student.rsplit(".", 1)[0]
        if student in out:  # ann/ and ann.ipynb, or two spellings that read the same
            student = display(path.name) if display(path.name) not in out else f"{os.fsencode(path.name)!r}"
        out[student] = hand_in(student, path, name, release)
        skipped += [
            f"{quoted(student)}: {remark}" for remark in out[student].remarks if "passed over" in remark
        ]
    return [out[student] for student in sorted(out)], [plain(sentence) for sentence in skipped]


def hand_in(student: str, path: Path, name: str, release: nbformat.NotebookNode | None = None) -> HandIn:
    """What one student handed in: a folder, or a file."""
    one = HandIn(student)
    try:
        _fill(one, path, name, release)
    except Exception as error:  # whatever is wrong with one student's files is that student's row
        one.failed = f"{type(error).__name__}: {quoted(error)}"
    return one


def _fill(one: HandIn, path: Path, name: str, release: nbformat.NotebookNode | None) -> None:
    if path.is_dir() and not path.is_symlink():
        _choose(one, path, name, release)
    elif is_notebook(path):
        one.notebook = path
    else:
        one.failed = (
            f"{quoted(display(path.name))} was handed in: unpack it into a folder with the student's name"
        )
    if one.notebook is None:
        return
    state = one.notebook.lstat()
    if not stat.S_ISREG(state.st_mode):
        one.failed = f"{quoted(display(one.notebook.name))} is a link or a device, no file"
        return
    if not one.notebook.name.endswith(".ipynb"):
        one.remarks.append(f"{quoted(display(one.notebook.name))} was taken for the notebook.")
    one.when = handed_in(one.notebook, path if path.is_dir() else None, state)
    one.digest = f"{state.st_size} {state.st_mtime_ns}"
    if state.st_size <= MAX_BYTES:
        with one.notebook.open("rb") as f:
            one.digest = hashlib.file_digest(f, "sha256").hexdigest()


def _not_in_silence(error: OSError) -> None:
    raise error


def _written(path: Path, release: nbformat.NotebookNode | None) -> bool:
    """Whether somebody has written answers to this assignment into the notebook."""
    try:
        if release is None or path.lstat().st_size > LOOK_BYTES:
            return release is not None
        return answered(read(path), release)
    except (OSError, Unreadable):
        return False


def _choose(one: HandIn, folder: Path, name: str, release: nbformat.NotebookNode | None) -> None:
    """The newest with answers in it; if there is none NAME.ipynb, else one with NAME in its name, else the
    newest. The others are named.
    """
    files = []
    for root, below, names in os.walk(folder, onerror=_not_in_silence):
        below[:] = sorted(d for d in below if d not in {".ipynb_checkpoints", "__MACOSX"})
        files += [Path(root) / n for n in sorted(names) if not n.startswith(".") and n != TIMES]
    notebooks = [p for p in files if is_notebook(p)]
    for path in (p for p in files if p not in notebooks):
        one.remarks.append(f"{quoted(display(str(path.relative_to(folder))))} was passed over.")
    if not notebooks:
        return
    written = {p for p in notebooks if len(notebooks) > 1 and _written(p, release)}
    one.notebook = max(
        notebooks,
        key=lambda p: (
            p in written,
            p.lstat().st_mtime if p in written else 0,
            p.name == f"{name}.ipynb",
            name in p.name,
            p.lstat().st_mtime,
            os.fsencode(p),
        ),
    )
    for path in (p for p in notebooks if p != one.notebook):
        chosen, other = (quoted(display(str(p.relative_to(folder)))) for p in (one.notebook, path))
        why = ""
        if one.notebook in written:
            why = ": it is not newer" if path in written else f": it holds no answer to {name}"
        one.remarks.append(f"{chosen} was marked, {other} was passed over{why}.")


def handed_in(notebook: Path, folder: Path | None, state: os.stat_result) -> datetime:
    """When: the time in nbgrader's file if there is one, else the notebook's own."""
    stamp = folder / TIMES if folder else None
    if stamp and stamp.is_file() and not stamp.is_symlink() and stamp.lstat().st_size < 100:
        text = stamp.read_text(encoding="utf-8", errors="replace").strip().replace(" UTC", "+00:00")
        return datetime.fromisoformat(text).astimezone()
    return datetime.fromtimestamp(state.st_mtime).astimezone()
