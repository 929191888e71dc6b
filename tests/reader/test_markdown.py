"""MyST in, plain Markdown out: what each directive and role becomes, and that nothing raw gets through."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from reader_links import Book, ReaderError  # noqa: E402
from reader_markdown import render  # noqa: E402

CONFIG = """\
repository: {url: https://github.com/Ann/her-fork, branch: main}
bibtex_bibfiles: [book/references.bib]
parse:
  myst_enable_extensions: [amsmath, attrs_block, attrs_inline, colon_fence, deflist, dollarmath, tasklist]
"""
BIB = """\
@article{one, author = {van der Waals, Jan}, title = {T}, year = 1901, doi = {10.1/a(2)}}
@article{two, author = {Roe, A. and Doe, B.}, title = {T}, year = 1902, url = {https://x.org/t}}
@article{many, author = {{\\'E}lie, A. and Doe, B. and Poe, C.}, title = {T}, year = 1903}
"""
GLOSSARY = "# Glossary\n\n```{glossary}\nlow rank\n  Few.\n\nSVD\n  A product.\n```\n"
API = {"api.md": "# All\n", "api_b.md": "```{eval-rst}\n.. autofunction:: check\n```\n"}
CELL = '{{"cell_type": "markdown", "id": "a", "metadata": {{}}, "source": {}}}'
NOTEBOOK = '{{"nbformat": 4, "nbformat_minor": 5, "metadata": {{}}, "cells": [{}]}}'
OTHER = "# Cut a matrix\\n\\n(sec)=\\n## A part\\n\\n```{prf:theorem} Nearest\\n:label: thm\\nIt is.\\n```"
SITE = "https://ann.github.io/her-fork/book"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    root = tmp_path_factory.mktemp("book")
    (root / "_config.yml").write_text(CONFIG)
    (root / "book" / "assets").mkdir(parents=True)
    for name, text in {"references.bib": BIB, "glossary.md": GLOSSARY, "run.md": "# Run it\n", **API}.items():
        (root / "book" / name).write_text(text)
    (root / "book" / "02_cut.ipynb").write_text(NOTEBOOK.format(CELL.format(f'"{OTHER}"')))
    (root / "book" / "assets" / "dot.png").write_bytes(b"\x89PNG")
    return Book(root)


WHY = "<details>\n<summary>Why</summary>\n\nSo.\n\n</details>"
FACES = [
    ("{term}`low rank`", f"[low rank]({SITE}/glossary.html#term-low-rank)"),
    ("{term}`the SVDs <svd>`", f"[the SVDs]({SITE}/glossary.html#term-SVD)"),
    ("{cite:t}`one`", "[van der Waals (1901)](https://doi.org/10.1/a%282%29)"),
    ("{cite:p}`two`", "([Roe and Doe, 1902](https://x.org/t))"),
    ("{cite:p}`two,many`", f"([Roe and Doe, 1902](https://x.org/t); [Élie *et al.*, 1903]({SITE}/bib"),
    ("[Chapter 2](02_cut.ipynb)", "[Chapter 2](02_cut.ipynb)"),
    ("[Chapter 2](02_cut)", "[Chapter 2](02_cut.ipynb)"),
    ("[](02_cut.ipynb)", "[Cut a matrix](02_cut.ipynb)"),
    ("[this](run.md#here)", f"[this]({SITE}/run.html#here)"),
    ("{doc}`run`", f"[Run it]({SITE}/run.html)"),
    ("{prf:ref}`thm`", "[Theorem (Nearest)](02_cut.ipynb)"),
    ("{ref}`there <sec>`", "[there](02_cut.ipynb)"),
    ("{py:func}`lowrank_utils.check`", f"[`lowrank_utils.check`]({SITE}/api_b.html#lowrank_utils.check)"),
    ("{math}`a_1` and $b$ cost \\$5", "$a_1$ and $b$ cost \\$5"),
    ("x{sup}`2`", "x<sup>2</sup>"),
    ("`{term}` stays code", "`{term}` stays code"),
    ("$$\na \\\\\nb\n$$", "$$\na \\\\\nb\n$$"),
    ("- one\n\n  $$\n  a\n  b\n  $$", "- one\n\n  $$a b$$"),
    ("```python\nx = '{term}`a`'\n```", "```python\nx = '{term}`a`'\n```"),
    ("```{note}\nBe *careful*.\n```", "> **Note**\n>\n> Be *careful*."),
    ("```{tip} Be careful.\n```", "> **Tip**\n>\n> Be careful."),
    (
        ":::{admonition} Of $n$\n:class: tip\nSay.\n\n$$\na\nb\n$$\n:::",
        "> **Of $n$**\n>\n> Say.\n>\n> $$a b$$",
    ),
    (
        "```{admonition} Why\n:class: dropdown\nSo.\n```",
        "<details>\n<summary>Why</summary>\n\nSo.\n\n</details>",
    ),
    ("```{prf:theorem} Two\n:label: t\nIt is.\n```", "> **Theorem: Two**\n>\n> It is."),
    ("```{exercise} Ask\n:label: e\n:nonumber:\n**1.** How?\n```", "> **Exercise: Ask**\n>\n> **1.** How?"),
    ("````{note}\n```{math}\na\nb\n```\n````", "> **Note**\n>\n> $$a b$$"),
    ("```{epigraph}\nLess.\n\n-- One\n```", "> Less.\n>\n> -- One"),
    ("| a | b |\n|:--|--:|\n| {term}`SVD` | $x$ |", f"| a | b |\n| :-- | --: |\n| [SVD]({SITE}/gl"),
    ("word\n: What it is.", "- **word**\n\n  What it is."),
    ("- [x] done\n- [ ] not", "- [x] done\n- [ ] not"),
    ("(here)=\n## Part\n\n% a comment", "## Part"),
    ("\\begin{align}\na &= b\n\\end{align}", "$$\n\\begin{aligned}\na &= b\n\\end{aligned}\n$$"),
]


@pytest.mark.parametrize(("myst", "plain"), FACES)
def test_what_it_becomes(book, myst, plain):
    text, pictures = render(myst, book)
    assert text.startswith(plain) and pictures == {}


def test_a_picture_goes_with_its_cell(book):
    myst = "```{figure} assets/dot.png\n:alt: One black dot on white paper.\n:name: dot\nA dot.\n```"
    text, pictures = render(myst, book)
    assert text == "![One black dot on white paper.](attachment:dot.png)\n\nA dot."
    assert pictures == {"dot.png": {"image/png": "iVBORw=="}}


NOT_SHOWN = [
    ("```{mermaid}\na\n```", "{mermaid} is a directive"),
    (":::{grid}\n:::", "{grid} is a directive"),
    ("````{note}\n```{tabs}\n```\n````", "{tabs} is a directive"),
    ("```{note}\n:colour: red\nx\n```", "colour"),
    ("{py:func}`lowrank_utils.nothing`", "no page of functions shows"),
    ("{download}`x`", "{download}`x` is a role"),
    ("| a |\n|---|\n| {nope}`x` |", "{nope}`x` is a role"),
    ("{term}`nothing`", "the glossary does not have"),
    ("{cite:p}`nobody`", "not in the bibliography"),
    ("{ref}`nowhere`", "no notebook has"),
    ("[x](nowhere.md)", "no page, notebook or label"),
    ("[^1]\n\n[^1]: Foot.", "footnote"),
    ("$$\na\n$$ (eq)", "math_block_label"),
    ("$$\na % b\n$$", "TeX comment"),
    ("```{image} assets/dot.png\n```", "without an alt text"),
    ("```{image} assets/no.png\n:alt: A picture that nobody has drawn.\n```", "not there"),
    ("| a |\n|---|\n| $\\|x\\|$ |", "which splits it"),
]


@pytest.mark.parametrize(("myst", "complaint"), NOT_SHOWN)
def test_what_has_no_face_is_an_error(book, myst, complaint):
    with pytest.raises(ReaderError) as raised:
        render(myst, book)
    assert complaint in str(raised.value)


def test_a_notebook_that_lies_alone_links_the_site(book):
    alone = Book(book.root, alone=True)
    assert render("[Chapter 2](02_cut.ipynb)", alone)[0] == f"[Chapter 2]({SITE}/02_cut.html)"
