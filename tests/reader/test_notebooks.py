"""The reader's notebooks: the chapters' code, no solution, every link alive, the same bytes each time.

Code is compared byte for byte with the chapters, whose outputs nbval compares; so no chapter need run twice.
What is not in the chapters is run here: the cell for Colab and the exercises, alone and unanswered.
"""

import base64
import contextlib
import io
import json
import sys
import types
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lowrank_utils import RankExplorer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reader_notebooks as reader  # noqa: E402
import takes  # noqa: E402
from reader_figures import lighter  # noqa: E402
from reader_links import Book, ReaderError  # noqa: E402

BOOK = Book(ROOT)
NAMES = list(BOOK.notebooks)
CHAPTERS = [name for name in NAMES if name[0].isdigit()]
ROOM = 1_000_000  # bytes of a file


def source(name):
    """The chapter that a reader's notebook is made of."""
    return nbformat.read(BOOK.notebooks[name], as_version=4)


def code(nb):
    """Code of a notebook, cell by cell."""
    return [c.source for c in nb.cells if c.cell_type == "code" and c.source.strip()]


def own_code(nb):
    """Code of a reader's notebook as it was in the chapter."""
    found = []
    for text in code(nb)[1:]:  # the first is for Colab
        if text != reader.PROGRESS:
            found.append(text.removeprefix(reader.IMPORT).partition('\n\n# hint("')[0])
    return found


def outside_solutions(nb):
    """Code of a chapter that stands in no solution."""
    found, inside = [], False
    for cell in nb.cells:
        if cell.cell_type == "code":
            found += [cell.source] if cell.source.strip() and not inside else []
        inside = (inside or "{solution-start}" in cell.source) and "{solution-end}" not in cell.source
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_code_is_the_chapters(name):
    """Byte for byte and in the same order, up to the exercises' import and the two lines that ask."""
    assert own_code(reader.notebook(BOOK.notebooks[name], BOOK)) == outside_solutions(source(name))


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_exercise_is_there_and_its_solution_is_not(name):
    nb = reader.notebook(BOOK.notebooks[name], BOOK, outputs=True)
    text = json.dumps(nb, ensure_ascii=False)
    exercises = reader.read(BOOK.notebooks[name], BOOK).exercises
    assert len(exercises) >= 3
    for number, exercise in exercises.items():
        (cell,) = [c for c in code(nb) if f'check("{number}", answer)' in c]
        assert f'# hint("{number}")\n# solution("{number}")' in cell
        assert any("code" in part for part in exercise.solution)
        for part in exercise.solution:
            for line in "".join(v for v in part.values() if isinstance(v, str)).split("\n\n"):
                kept = json.dumps(line, ensure_ascii=False)[1:-1]
                assert len(line) < 40 or kept not in text, f"{number}: {line}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_exercises_run_alone_and_unanswered(name, tmp_path, monkeypatch):
    """From the first exercise on nothing needs what stands above; what is printed is what was compared."""
    monkeypatch.chdir(tmp_path)
    cells = reader.notebook(BOOK.notebooks[name], BOOK, outputs=True).cells
    first = next(i for i, c in enumerate(cells) if c.source == reader.PROGRESS)
    names, printed = {}, 0
    for cell in cells[first + 1 :]:
        if cell.cell_type == "code":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(cell.source, names)  # the book's own code
            assert said.getvalue() == "".join(o.text for o in cell.outputs)
            printed += "no answer yet" in said.getvalue()
    assert printed == len(reader.read(BOOK.notebooks[name], BOOK).exercises)
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_each_time(tmp_path, forget):
    """With the outputs and without: both are made of one reading of the chapters, and of another one."""
    made = {False: [], True: []}
    for _ in range(2):
        forget()
        for outputs, kinds in made.items():
            kinds.append({p.name: p.read_bytes() for p in reader.write(tmp_path, outputs)})
    for first, second in made.values():
        assert first == second and sorted(first) == sorted(f"{name}.ipynb" for name in NAMES)
        assert {name: len(data) for name, data in first.items() if len(data) >= ROOM} == {}
    assert made[False] != made[True]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_kept_or_cleared(name):
    cleared = reader.notebook(BOOK.notebooks[name], BOOK)
    kept = reader.notebook(BOOK.notebooks[name], BOOK, outputs=True)
    assert [c for c in cleared.cells if c.get("outputs") or c.get("execution_count")] == []
    assert code(cleared) == code(kept)
    outputs = [o for c in kept.cells for o in c.get("outputs", [])]
    figures = [o for o in outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]
    assert [o for o in figures if len(next(iter(o.metadata.values()))["alt"]) < 30] == []
    assert len(figures) == sum("image/png" in o.get("data", {}) for o in stored(name))
    told = [i for i, c in enumerate(kept.cells) if "<summary>The figure in words" in c.source]
    drawn = [i for i, c in enumerate(kept.cells) if any(o in figures for o in c.get("outputs", []))]
    assert told == [i + 1 for i in drawn]


def stored(name):
    """Outputs of a chapter that stand in no solution."""
    found, inside = [], False
    for cell in source(name).cells:
        found += [] if inside else cell.get("outputs", [])
        inside = (inside or "{solution-start}" in cell.source) and "{solution-end}" not in cell.source
    return found


def picture(noisy):
    """A PNG in base64: a drawing of two colours, or something like a photograph."""
    image = Image.new("RGBA", (400, 300), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (50, 50, 90, 90))
    if noisy:
        ramp = Image.radial_gradient("L").resize((400, 300))
        noise = Image.effect_noise((400, 300), 60)
        image = Image.merge("RGBA", (ramp, noise, ramp, Image.new("L", (400, 300), 255)))
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=0)
    return base64.b64encode(out.getvalue()).decode()


def opened(data):
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_drawing_keeps_its_colours_and_a_photograph_its_look():
    kind, small = lighter(picture(noisy=False))
    drawing = opened(small).convert("RGB")
    assert kind == "image/png" and len(small) < len(picture(False)) / 10
    assert (drawing.getpixel((60, 60)), drawing.getpixel((10, 10))) == ((0, 0, 255), (255, 255, 255))
    photo = picture(noisy=True)
    kind, small = lighter(photo)
    assert kind == "image/jpeg" and len(small) < len(photo) / 3 and opened(small).size == (400, 300)
    assert lighter(photo, photographs=False)[0] == "image/png"


def test_nothing_grows():
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "PNG", optimize=True)
    tiny = base64.b64encode(out.getvalue()).decode()
    assert lighter(tiny) == ("image/png", tiny)


def links(nb):
    """Addresses in the Markdown of a notebook."""
    found = set()
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for token in BOOK.parser.parse(cell.source):
                found |= {c.attrs["href"] for c in token.children or [] if c.type == "link_open"}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_what_is_there(site, name):
    base = BOOK.page("intro").removesuffix("book/intro.html")
    for href in links(reader.notebook(BOOK.notebooks[name], BOOK)):
        if href.startswith(base):
            path, _, anchor = href.removeprefix(base).partition("#")
            page = BeautifulSoup((site / path).read_text(encoding="utf-8"), "html.parser")
            assert not anchor or page.find(id=anchor), href
        elif not urlsplit(href).scheme:
            assert href in {f"{other}.ipynb" for other in NAMES}, href


# The cell for Colab


def run_first_cell(monkeypatch, on_colab, installed):
    """What the first code cell prints and asks pip for."""
    asked = []
    shell = InteractiveShell()
    shell.register_magic_function(lambda line: asked.append(line), magic_name="pip")
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    if not installed:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        shell.run_cell(code(reader.notebook(BOOK.notebooks[CHAPTERS[0]], BOOK))[0]).raise_error()
    return said.getvalue(), asked


@pytest.mark.parametrize("on_colab", [True, False])
def test_nothing_happens_where_the_package_is(monkeypatch, on_colab):
    assert run_first_cell(monkeypatch, on_colab, installed=True) == ("", [])


def test_colab_installs_what_is_missing(monkeypatch):
    said, asked = run_first_cell(monkeypatch, on_colab=True, installed=False)
    assert (said, asked) == ("", [BOOK.install.removeprefix("%pip ")])


def test_elsewhere_it_says_how_to_install(monkeypatch):
    said, asked = run_first_cell(monkeypatch, on_colab=False, installed=False)
    assert asked == [] and BOOK.install in said


def test_a_fork_installs_the_fork(monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/Ann/her-fork")
    first = code(reader.notebook(BOOK.notebooks[CHAPTERS[0]], Book(ROOT)))[0]
    assert first.count("git+https://github.com/Ann/her-fork@") == 2


# A check that cannot fail checks nothing.

ASK = "```{exercise} One\n:label: ex-2-1\n:nonumber:\n**2.1.** How?\n```"
HINT = "```{hint}\n:class: dropdown\nThink of $x$.\n```"
START, END = "```{solution-start} ex-2-1\n:class: dropdown\n```", "```{solution-end}\n```"
CHECK = 'answer = None\ncheck("2.1", answer)'


def chapter(tmp_path, *sources):
    """A chapter of these cells: Markdown, but for those that check or print."""
    cells = []
    for i, text in enumerate(sources):
        is_code = text.startswith(("answer", "print"))
        printed = [new_output("stream", name="stdout", text="said\n")] if is_code else []
        cells.append(new_code_cell(text, outputs=printed) if is_code else new_markdown_cell(text))
        cells[-1].id = f"c{i}"
    path = tmp_path / "02_cut.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_hint_and_solution_are_taken_out(tmp_path):
    path = chapter(
        tmp_path,
        "# Cut",
        "print(0)",
        f"Before.\n\n{ASK}",
        CHECK,
        HINT,
        f"{START}\n\nSo:",
        "print(1)",
        f"And.\n\n{END}\n\nAfter.",
    )
    made = reader.read(path, BOOK)
    assert [c.id for c in made.cells] == "c0 02-install c1 c2 02-exercises 02-progress c2-2 c3 c7".split()
    exercise = made.exercises["2.1"]
    assert exercise.hints == ["Think of $x$."]
    assert exercise.solution == [
        {"markdown": "So:"},
        {"code": "print(1)", "outputs": [{"text": "said\n"}]},
        {"markdown": "And."},
    ]
    assert made.cells[-1].source == "After."


def test_a_long_cell_says_so_beforehand(tmp_path):
    path = chapter(tmp_path, "# Cut", "print(0)")
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].metadata["tags"] = ["takes-20-s", "raises-exception", "nbval-ignore-output"]
    nbformat.write(nb, path)
    *_, told, cell = reader.read(path, BOOK).cells
    assert told.source == "*The next cell takes about 20 seconds.*"
    assert cell.metadata.tags == ["raises-exception"]


def test_an_explorer_says_what_to_do_where_scripts_are_off():
    made = RankExplorer(torch.eye(3))._repr_html_()
    told = BeautifulSoup(reader.without_scripts(made), "html.parser").find("p").get_text()
    assert told.startswith("W is 3 x 3. Relative error:") and told.endswith(f". {reader.SCRIPTS_OFF}")
    assert reader.without_scripts("<p>a table</p>") == "<p>a table</p>"
    with pytest.raises(ReaderError, match="no slider"):
        reader.without_scripts(made.replace("<p>", "<b>").replace("</p>", "</b>"))
    kept = reader.notebook(BOOK.notebooks["02_svd_approximation"], BOOK, outputs=True)
    assert json.dumps(kept).count(reader.SCRIPTS_OFF) == 2


@pytest.mark.parametrize(
    ("tags", "seconds", "then"),
    [
        ([], 1.9, []),
        (["wall-clock"], 2.4, ["wall-clock", "takes-2-s"]),
        ([], 8.0, ["takes-10-s"]),
        ([], 500.0, ["takes-60-s"]),
        (["takes-10-s"], 6.5, ["takes-10-s"]),
        (["takes-10-s"], 5.0, ["takes-5-s"]),
        (["takes-2-s"], 1.3, ["takes-2-s"]),
        (["takes-2-s", "wall-clock"], 1.0, ["wall-clock"]),
    ],
)
def test_the_tag_moves_only_with_a_clear_difference(tags, seconds, then):
    assert takes.tagged(tags, seconds) == then


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        ([ASK, CHECK], "ex-2-1 has no solution that ends"),
        ([ASK, CHECK, START, "So."], "ex-2-1 has no solution that ends"),
        ([ASK, START, "So.", END], "without its exercise and its check"),
        ([CHECK, START, "So.", END], "without its exercise and its check"),
        ([ASK, CHECK, ASK.replace("2-1", "2-2")], "begins before ex-2-1 has its solution"),
        ([ASK, CHECK, START.replace("2-1", "2-2"), END], "a solution of ex-2-2"),
        (["# Cut", "```{mermaid}\n```"], "02_cut.ipynb, cell c1: {mermaid}"),
    ],
)
def test_a_chapter_that_cannot_be_made_is_an_error(tmp_path, sources, complaint):
    with pytest.raises(ReaderError) as raised:
        reader.read(chapter(tmp_path, *sources), BOOK)
    assert complaint in str(raised.value)


def test_the_coursework_gets_the_same_look():
    nb = new_notebook(
        cells=[new_markdown_cell("```{note}\n[Chapter 2](02_svd_approximation)\n```"), new_code_cell("x")]
    )
    nb.cells[0].metadata["nbgrader"] = {"grade_id": "q"}
    made = reader.render_cells(nb)
    assert made.cells[0].source.startswith("> **Note**\n>\n> [Chapter 2](https://")
    assert made.cells[0].metadata == nb.cells[0].metadata and made.cells[1].source == "x"
    assert nb.cells[0].source.startswith("```{note}")
