"""A clean copy of the student version with the student's answers in it, whatever became of the file."""

import json
import os
import re
import stat
from pathlib import Path

import nbformat

from assignments.texts import encodable

MAX_BYTES = 300 * 2**20
HALF = 0.5  # of the answer cells: a notebook with fewer of them is one of another assignment
MARKER = re.compile(r"^(?:# |<!-- )Answer: ([\w-]+)", re.M)  # below a student's %%time, perhaps


class Unreadable(Exception):
    """There is no notebook to mark; str() is the sentence that the student gets."""


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook in `path`, of any version that nbformat knows, without its outputs: they may be huge.

    Raises: OSError where the file is a link, a device, or not to be read: nothing that a student can mend.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as f:
        state = os.fstat(f.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError("it is not a file")
        if state.st_size > MAX_BYTES:
            raise Unreadable(
                f"The notebook has more than {MAX_BYTES // 2**20} MB; clear its outputs and hand it in again."
            )
        raw = f.read(MAX_BYTES)
    try:
        content = json.loads(raw.decode("utf-8-sig", errors="replace"))
        for cell in content.get("cells", []):
            if "outputs" in cell:
                cell["outputs"] = []
        text = encodable(json.dumps(content, ensure_ascii=False))
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            cell.source = str(cell.source)
            cell.metadata = cell.metadata if isinstance(cell.metadata, dict) else {}
        return notebook
    except Exception as error:  # nbformat raises a dozen kinds
        raise Unreadable(f"The file is not a notebook that can be read ({type(error).__name__}).") from None


def name_of(cell: nbformat.NotebookNode) -> str:
    """Which cell of the student version this was: by nbgrader's name, its id, or the line at its top."""
    mark = MARKER.search(cell.source)
    meta = cell.metadata.get("nbgrader")
    named = meta.get("grade_id") if isinstance(meta, dict) else None
    name = named or (mark.group(1) if mark else None) or cell.get("id")
    return name if isinstance(name, str) else ""


def answer_cells(release: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """The cells that students write in, by name."""
    return {
        c.metadata.nbgrader.grade_id: c
        for c in release.cells
        if c.metadata.get("nbgrader", {}).get("solution")
    }


def share(submitted: nbformat.NotebookNode, release: nbformat.NotebookNode) -> float:
    """Which part of the release's answer cells is there: little in a notebook of another assignment."""
    names = set(answer_cells(release))
    return len(names & {name_of(cell) for cell in submitted.cells}) / len(names)


def answered(submitted: nbformat.NotebookNode, release: nbformat.NotebookNode) -> bool:
    """Whether it is a copy of the release in which a student has written: an answer, or code of their own."""
    handed_out = {name_of(cell): squeezed(cell.source) for cell in release.cells}
    answers = set(answer_cells(release))
    for cell in submitted.cells:
        name, text = name_of(cell), squeezed(cell.source)
        theirs = name in answers or (name not in handed_out and cell.cell_type == "code")
        if theirs and text and text != handed_out.get(name):
            return share(submitted, release) >= HALF
    return False


def squeezed(source: str) -> str:
    """Without the line ends that an editor changes."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def rebuild(
    submitted: nbformat.NotebookNode, release: nbformat.NotebookNode
) -> tuple[nbformat.NotebookNode, dict[str, str], list[str]]:
    """The release with the student's answers; the student's own code, by the cell it stood before; remarks.

    Of several copies of an answer the last that differs from the handed-out cell counts. An answer cell
    that is missing is empty: perhaps the answer is in one of the student's own cells, which run where
    they stood. Every other cell of the release is as it was handed out.
    """
    clean = nbformat.from_dict(release)
    answers = answer_cells(clean)
    handed_out = {name_of(cell): cell.source for cell in release.cells}
    found: dict[str, list[str]] = {name: [] for name in answers}
    added: dict[str, str] = {}
    remarks = []
    waiting = ""
    for cell in submitted.cells:
        name = name_of(cell)
        if name not in handed_out:
            waiting += cell.source + "\n" if cell.cell_type == "code" else ""
            continue
        if waiting:
            added[name], waiting = added.get(name, "") + waiting, ""
        if name in answers:
            found[name].append(cell.source)
        elif cell.source != handed_out[name] and cell.cell_type == "code":
            remarks.append(f"The cell '{name}' was changed; it was marked as it was handed out.")
    for name, sources in found.items():
        written = [s for s in sources if s != handed_out[name]]
        if written:
            answers[name].source = written[-1]
        if len(set(written)) > 1:
            remarks.append(f"The answer '{name}' is there {len(written)} times; the last one was marked.")
        if not sources:
            answers[name].source = ""
            remarks.append(f"The answer cell '{name}' was missing.")
    if waiting:
        added["the end"] = waiting
    return clean, added, remarks
