"""Sphinx extension of the book: MathJax from the site itself, page descriptions, a mended theme.

Everything happens at build time, on files in the output folder. The repository keeps no third-party file.
"""

import importlib.util
import re
import shutil
from html import escape
from pathlib import Path

from bundle import bundle
from docutils import nodes
from page_mends import MENDS
from repository import set_repository
from shrink import shrink
from sphinx.application import Sphinx

MATHJAX_PARTS = ("tex-mml-chtml.js", "input", "output/chtml/fonts/woff-v2")
CARD = "book/assets/social-card.png"
STYLES = "book/assets/book.css"
SCRIPT = "book/assets/book.js"
DESCRIPTION_LENGTH = 160


def plain(node: nodes.Node) -> str:
    """Text of a node, with the little TeX that a sentence holds made readable."""
    if isinstance(node, nodes.math):
        return re.sub(r"\\[a-zA-Z]+|[{}]", "", node.astext().replace(r"\times", "×"))
    return node.astext() if isinstance(node, nodes.Text) else "".join(map(plain, node.children))


def describe(doctree: nodes.document) -> str:
    """First paragraph of a page as plain text, cut at a word to DESCRIPTION_LENGTH characters."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            text = " ".join(plain(paragraph).split())
            if len(text) <= DESCRIPTION_LENGTH:
                return text
            return text[: DESCRIPTION_LENGTH - 1].rsplit(" ", 1)[0].rstrip(".,;:") + "…"
    return ""


def add_metatags(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Add a description and a social card to the head of a page."""
    title = re.sub(r"<[^>]+>", "", context.get("title") or app.config.html_title)
    text = (describe(doctree) if doctree else "") or app.config.html_title
    base = app.config.html_baseurl
    tags = {
        ("name", "description"): text,
        ("property", "og:type"): "article",
        ("property", "og:site_name"): app.config.html_title,
        ("property", "og:title"): title,
        ("property", "og:description"): text,
        ("property", "og:url"): f"{base}{pagename}.html",
        ("property", "og:image"): f"{base}_static/social-card.png",
        ("property", "og:image:alt"): "A matrix W drawn as the product of a tall and a wide matrix.",
        ("name", "twitter:card"): "summary_large_image",
    }
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {kind}="{name}" content="{escape(value)}" />' for (kind, name), value in tags.items()
    )


def ask_the_registry(app: Sphinx, uri: str) -> str:
    """Address to ask instead of a DOI's: its registry answers, where many publishers refuse a program."""
    return uri.replace("https://doi.org/", "https://doi.org/api/handles/", 1)


def copy_mathjax(outdir: Path) -> None:
    """Copy the three parts of MathJax that the pages use out of the installed package."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    source = Path(package.submodule_search_locations[0]) / "static" / "mathjax"
    for part in MATHJAX_PARTS:
        target = outdir / "_static" / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, target)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """After an HTML build: bring MathJax and the card, mend every page."""
    if exception or app.builder.format != "html":
        return
    outdir = Path(app.outdir)
    copy_mathjax(outdir)
    shutil.copyfile(Path(app.srcdir) / CARD, outdir / "_static" / "social-card.png")
    extra = [(Path(app.srcdir) / name).read_text(encoding="utf-8") for name in (STYLES, SCRIPT)]
    for page in outdir.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for mend in MENDS:
            html = mend(html)
        page.write_text(bundle(html, page, outdir / "_static", *extra), encoding="utf-8")
    for script in outdir.glob("_static/scripts/fontawesome.js*"):
        script.unlink()
    shrink(outdir)


def setup(app: Sphinx) -> dict:
    """Register the steps."""
    app.setup_extension("reader_site")
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it; sphinx_comments is off
    app.connect("config-inited", set_repository)
    app.connect("html-page-context", add_metatags)
    app.connect("linkcheck-process-uri", ask_the_registry)
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
