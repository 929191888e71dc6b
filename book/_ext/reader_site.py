"""The buttons of a page open the reader's notebook: the download itself, Binder and Colab on a branch."""

from pathlib import Path

import reader_notebooks as reader
from reader_folders import BRANCH
from sphinx.application import Sphinx


def open_the_branch(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Let the launch buttons open the branch of the reader's notebooks, not the chapters."""
    branch = app.config.html_theme_options["repository_branch"]
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            for button in group["buttons"]:
                url = button["url"].replace(f"/{branch}?", f"/{BRANCH}?")
                button["url"] = url.replace(f"/blob/{branch}/", f"/blob/{BRANCH}/")


def offer_for_download(app: Sphinx, exception: Exception | None) -> None:
    """Put the reader's notebooks, with their outputs, where the download buttons lead."""
    if exception is None and app.builder.format == "html":
        book = reader.Book(Path(app.srcdir))
        for name, path in book.notebooks.items():
            target = Path(app.outdir) / "_sources" / "book" / f"{name}.ipynb"
            if target.is_file():
                target.write_text(reader.text_of(reader.notebook(path, book, outputs=True)), encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Register the two steps, the first after the theme's own buttons."""
    app.connect("html-page-context", open_the_branch, priority=800)
    app.connect("build-finished", offer_for_download)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
