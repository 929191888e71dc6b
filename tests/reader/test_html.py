"""The reader's notebooks as nbconvert's HTML, which is close to what GitHub and nbviewer show."""

import sys
from importlib.resources import files
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from test_jupyterlab import RAW

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reader_notebooks as reader  # noqa: E402

BOOK = reader.Book(ROOT)
NAMES = list(BOOK.notebooks)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# The sheet of nbconvert, which no other page uses: pale prompts and comments, links without a line.
DRAWN_BY_NBCONVERT = [".jp-InputPrompt", ".jp-OutputPrompt", ".highlight"]
OFF = {"link-in-text-block": {"enabled": False}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Function that returns the HTML of a notebook, and its file."""
    folder, made = tmp_path_factory.mktemp("html"), {}

    def exported(name):
        if name not in made:
            nb = reader.notebook(BOOK.notebooks[name], BOOK, outputs=True)
            html, _ = HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(nb)
            made[name] = folder / f"{name}.html"
            made[name].write_text(html, encoding="utf-8")
        return made[name]

    return exported


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_raw(exported, name):
    page = BeautifulSoup(exported(name).read_text(encoding="utf-8"), "html.parser")
    for node in page.select(".jp-RenderedHTMLCommon.jp-MarkdownOutput code, a.anchor-link"):
        node.decompose()
    texts = [node.get_text() for node in page.select(".jp-RenderedHTMLCommon.jp-MarkdownOutput")]
    formulas = [part for text in texts for part in text.replace("$$", "$").split("$")[1::2]]
    assert sum(text.count("$") for text in texts) % 2 == 0 and formulas
    plain = "\n".join("".join(text.replace("$$", "$").split("$")[::2]) for text in texts)
    assert len(plain) > 1000 and RAW.findall(plain) == []
    assert [formula for formula in formulas if "\n>" in formula or "\n\n" in formula] == []


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing(new_page, exported, name):
    page = new_page(viewport={"width": 1280, "height": 900})
    page.goto(exported(name).as_uri())
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(
        "([exclude, options]) => axe.run({ exclude }, options)",
        [DRAWN_BY_NBCONVERT, {"runOnly": RULES, "rules": OFF, "resultTypes": ["violations"]}],
    )
    page.close()
    assert [(v["id"], n["html"][:160]) for v in found["violations"] for n in v["nodes"]] == []
