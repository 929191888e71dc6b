"""The book to take away: one PDF and one EPUB, made from the pages of the built site.

Usage: python takeaway.py pdf|epub. The site is the only Sphinx build: its pages are read again here, so paper
and reader show the text, numbers and formulas of the screen. Sphinx's own `epub` and `singlehtml` builders
would each want a configuration without launch buttons, and `singlehtml` stops at the exercises. Chromium
prints the PDF, and its MathJax writes the formulas of the EPUB.
"""

import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pack_epub
import print_pdf
from built_pages import ROOT, SITE, documents, read_pages

NAME = "low-rank-book"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--allow-file-access-from-files"]
MARK = "<!-- to take away -->"


@contextmanager
def chromium():
    """The chromium of the machine; ends the program with one line when there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit("no chromium: it makes the PDF and the EPUB (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def link(site: Path = SITE) -> None:
    """On the landing page, name those of the two files that are there: no link is ever dead."""
    kinds = {"pdf": "PDF, for paper", "epub": "EPUB, for a reader"}
    files = {kind: site / f"{NAME}.{kind}" for kind in kinds}
    links = [
        f'<a href="../{file.name}">{kinds[kind]} ({file.stat().st_size / 1e6:.1f} MB)</a>'
        for kind, file in files.items()
        if file.is_file()
    ]
    page = site / "book" / f"{documents()[0][0]}.html"
    html = re.sub(r'<p class="take-away">.*?</p>', "", page.read_text(encoding="utf-8"))
    if MARK not in html:
        raise ValueError(f"{page.name} must hold {MARK}, which says where the links go")
    text = f"To take away: the whole book as {' or '.join(links)}. "
    text += "The arrow at the top of a chapter has its notebook."
    html = html.replace(MARK, f'{MARK}<p class="take-away">{text}</p>' if links else MARK)
    page.write_text(html, encoding="utf-8")


def main(kind: str) -> None:
    """Make one of the two and link it."""
    target = SITE / f"{NAME}.{kind}"
    with chromium() as browser:
        {"pdf": print_pdf.write, "epub": pack_epub.write}[kind](read_pages(), SITE, target, browser)
    link()
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
