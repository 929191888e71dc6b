"""The notebooks that a reader runs, made of the chapters: nothing raw, and no solution in sight.

Usage: python reader_notebooks.py FOLDER [--outputs kept]. The chapters are the only source. Markdown is
written again for notebooks (`reader_markdown.py`); code stays byte for byte, so what nbval compared in the
chapter holds here. Hints and solutions are taken out: `worked` gathers them for `hint` and `solution`.
"""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from reader_figures import lighter
from reader_links import Book, ReaderError
from reader_markdown import directive, render
from takes import TAG

ROOT = Path(__file__).parents[2]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
GATES = {"exercise", "hint", "solution", "solution-start", "solution-end"}
KEPT_TAGS = {"raises-exception"}
INSTALL = """\
# On Google Colab this cell installs what is missing.
# Anywhere else it changes nothing.
import sys
from importlib.util import find_spec

if find_spec("lowrank_utils") is None:
    if "google.colab" in sys.modules:
        {line}
    else:
        print('First run: {line}')
"""
EXERCISES = """\
Type your answer in place of `None` and run the cell: `check` says what is wrong with it. Take the `#` away \
from `hint` for a step of the way, or from `solution` for all of it. `progress` notes what you solved in a \
small file beside this notebook, `lowrank-progress.json`; nothing is sent anywhere."""
PROGRESS = "from lowrank_utils.exercises import progress\n\nprogress()"
IMPORT = "from lowrank_utils.exercises import check, hint, solution\n\n"
ASK = '\n\n# hint("{number}")\n# solution("{number}")'

EXPLORER, ITS_END = (
    '<div class="lowrank-explorer',
    "</p>\n</div>\n<script>",
)  # what a script replaces, up to it
SCRIPTS_OFF = (
    "No slider here means that scripts are off: run this cell, or choose Trust Notebook in JupyterLab's "
    "command palette."
)


@dataclass
class Exercise:
    """What a reader asks for and does not see before: steps, and the worked solution."""

    label: str
    number: str = ""
    hints: list[str] = field(default_factory=list)
    solution: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Chapter:
    """Cells of a reader's notebook, with all outputs, and its exercises by number."""

    cells: list[NotebookNode]
    exercises: dict[str, Exercise]


def pieces(source: str, book: Book) -> Iterator[tuple[str, str, str]]:
    """Parts of a Markdown cell: (gate or "", label, text), where a gate is a directive about an exercise."""
    lines, done = source.splitlines(), 0
    for token in book.parser.parse(source):
        parsed = directive(token) if token.level == 0 else None
        if parsed and parsed[0] in GATES:
            start, end = token.map
            yield "", "", "\n".join(lines[done:start])
            name, argument, options, body = parsed
            text = {"exercise": "\n".join(lines[start:end]), "hint": f"{argument}\n{body}"}.get(name, body)
            yield name, options.get("label", "") if name == "exercise" else argument, text
            done = end
    yield "", "", "\n".join(lines[done:])


def checked(cell: NotebookNode) -> str | None:
    """Number of the exercise that a cell checks."""
    source = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check" and node.args:
            return getattr(node.args[0], "value", None)
    return None


def shown(outputs: list[NotebookNode], alt: str) -> list[dict[str, str]]:
    """Outputs as `solution` shows them: text, pictures and pages."""
    found = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            found.append({"png": lighter(data["image/png"], photographs=False)[1], "alt": alt})
        elif "text/html" in data:
            found.append({"html": data["text/html"]})
        elif output.output_type == "error":
            found.append({"text": f"{output.ename}: {output.evalue}"})
        else:
            found.append({"text": output.get("text") or data.get("text/plain", "")})
    return found


def without_scripts(page: str) -> str:
    """An explorer that says what to do where its script does not run; any other page as it is."""
    if EXPLORER not in page:
        return page
    before, end, script = page.partition(ITS_END)
    if not end:
        raise ReaderError("an explorer without a place for a word to those who see no slider")
    return f"{before} {SCRIPTS_OFF}{end}{script}"


def alt_text(cell: NotebookNode) -> str:
    """What a figure shows, in words."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")


class _Reading:
    """One chapter on its way to a reader's notebook."""

    def __init__(self, book: Book, here: str):
        self.book, self.here = book, here
        self.cells: list[NotebookNode] = []
        self.exercises: dict[str, Exercise] = {}
        self.asked: Exercise | None = None  # the exercise that the following cells belong to
        self.inside = False  # its solution

    def add(self, cell: NotebookNode, name: str) -> None:
        """A cell, under a name that no other cell has."""
        taken = {c.id for c in self.cells}
        cell.id = next(n for n in (name, *(f"{name}-{i}" for i in range(2, 99))) if n not in taken)
        self.cells.append(cell)

    def markdown(self, text: str, name: str) -> None:
        """Text of a chapter: a cell, or a part of a solution."""
        plain, attachments = render(text, self.book, self.here)
        if plain and self.inside:
            if attachments:
                raise ReaderError("a picture that is no output, in a solution")
            self.asked.solution.append({"markdown": plain})
        elif plain:
            self.add(new_markdown_cell(plain, **({"attachments": attachments} if attachments else {})), name)

    def gate(self, name: str, label: str, text: str, cell: NotebookNode) -> None:
        """A directive about an exercise."""
        if name == "exercise":
            if self.asked:
                raise ReaderError(f"{label} begins before {self.asked.label} has its solution")
            if not self.exercises:
                self.add(new_markdown_cell(EXERCISES), f"{self.here[:2]}-exercises")
                self.add(new_code_cell(PROGRESS), f"{self.here[:2]}-progress")
            self.asked = Exercise(label)
            self.markdown(text, cell.id)
        elif name == "hint" and self.asked and not self.inside:
            self.asked.hints.append(render(text.strip(), self.book, self.here)[0])
        elif name == "hint":
            self.markdown(f"````{{hint}}\n:class: dropdown\n\n{text.strip()}\n````", cell.id)
        elif name == "solution-end":
            self.inside, self.asked = False, None
        else:
            if not self.asked or label != self.asked.label or not self.asked.number:
                raise ReaderError(f"a solution of {label} without its exercise and its check before it")
            self.inside = True
            self.markdown(text, cell.id)
            if name == "solution":
                self.inside, self.asked = False, None

    def code(self, cell: NotebookNode) -> None:
        """Code of a chapter: as it is, or a part of a solution, or the cell where the answer goes."""
        alt, tags = alt_text(cell), set(cell.metadata.get("tags", []))
        if self.inside:
            self.asked.solution.append({"code": cell.source, "outputs": shown(cell.outputs, alt)})
            return
        for took in filter(None, map(TAG.fullmatch, tags)):
            self.add(new_markdown_cell(f"*The next cell takes about {took[1]} seconds.*"), f"{cell.id}-takes")
        source = cell.source
        if number := checked(cell) if self.asked else None:
            if number in self.exercises:
                raise ReaderError(f"{number} is checked twice before its solution")
            self.asked.number, self.exercises[number] = number, self.asked
            source = IMPORT + source.rstrip() + ASK.format(number=number)
        new = new_code_cell(source, metadata={"tags": sorted(tags & KEPT_TAGS)} if tags & KEPT_TAGS else {})
        new.outputs, new.execution_count = nbformat.from_dict(cell.outputs), cell.execution_count
        for output in new.outputs:
            if png := output.get("data", {}).pop("image/png", None):
                kind, picture = lighter(png)
                output.data[kind] = picture
                output.metadata = nbformat.from_dict({kind: {"alt": alt}})
            elif page := output.get("data", {}).get("text/html"):
                output.data["text/html"] = without_scripts(page)
        self.add(new, cell.id)
        if alt:
            words = escape(alt, quote=False).replace("$", "&#36;")
            told = f"<details><summary>The figure in words</summary>{words}</details>"
            self.add(new_markdown_cell(told), f"{cell.id}-words")


def read(path: Path, book: Book) -> Chapter:
    """The reader's notebook of a chapter, with its outputs, and what the reader may ask for.

    Raises:
        ReaderError: It names the notebook, the cell and what cannot be shown there.
    """
    reading = _Reading(book, path.stem)
    for cell in nbformat.read(path, as_version=4).cells:
        try:
            if cell.cell_type == "markdown":
                for name, label, text in pieces(cell.source, book):
                    if name:
                        reading.gate(name, label, text, cell)
                    else:
                        reading.markdown(text, cell.id)
            elif cell.source.strip():
                if not any(c.cell_type == "code" for c in reading.cells):
                    install = INSTALL.format(line=book.install).rstrip()
                    reading.add(new_code_cell(install), f"{path.stem[:2]}-install")
                reading.code(cell)
        except ReaderError as error:
            raise ReaderError(f"{path.name}, cell {cell.id}: {error}") from error
    if reading.asked:
        raise ReaderError(f"{path.name}: {reading.asked.label} has no solution that ends")
    return Chapter(reading.cells, reading.exercises)


def notebook(path: Path, book: Book, outputs: bool = False) -> NotebookNode:
    """The reader's notebook of a chapter: with outputs for a page, without them where it will be run."""
    cells = read(path, book).cells
    if not outputs:
        for cell in cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
    made = new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(made)
    return made


def render_cells(nb: NotebookNode, book: Book | None = None) -> NotebookNode:
    """A copy of any notebook, with the Markdown of its cells written for notebooks.

    Code, ids and metadata stay. Links to chapters lead to the site: the notebook lies in no folder of theirs.
    """
    made = nbformat.from_dict(nb)
    book = book or Book(ROOT, alone=True)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            try:
                cell.source, attachments = render(cell.source, book)
            except ReaderError as error:
                raise ReaderError(f"cell {cell.get('id')}: {error}") from error
            if attachments:
                cell.attachments = attachments
    return made


def worked(book: Book, chapter: str = "") -> dict[str, dict[str, Any]]:
    """{"2.1": {"hints": [...], "solution": [...]}} of the whole book, or of one chapter."""
    found = {}
    for name, path in book.notebooks.items():
        if not chapter or name.startswith(f"{int(chapter):02}_"):
            for number, exercise in read(path, book).exercises.items():
                found[number] = {"hints": exercise.hints, "solution": exercise.solution}
    return found


def text_of(nb: NotebookNode) -> str:
    """A notebook as the bytes of its file: the same ones each time."""
    return nbformat.writes(nb)


def write(folder: Path, outputs: bool, book: Book | None = None) -> list[Path]:
    """Write all reader's notebooks into a folder, under the names of the chapters."""
    book = book or Book(ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, path in book.notebooks.items():
        written.append(folder / f"{name}.ipynb")
        written[-1].write_text(text_of(notebook(path, book, outputs)), encoding="utf-8")
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reader's notebooks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--outputs", choices=["kept", "cleared"], default="cleared")
    asked = parser.parse_args()
    try:
        print(f"{len(write(asked.folder, asked.outputs == 'kept'))} notebooks in {asked.folder}")
    except ReaderError as error:
        parser.exit(1, f"{error}\n")
