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
from dataclasses import dataclass
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
ASSETS = ROOT / "book" / "assets"
NAME = "low-rank-book"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--allow-file-access-from-files"]
CHROME = "a.headerlink, button, div.toctree-wrapper, p.take-away"  # of no use off the screen
CODE_CSS = HtmlFormatter(
    style=CONFIG["sphinx"]["config"]["html_theme_options"]["pygments_light_style"]
).get_style_defs(".highlight")
INK = dict(re.findall(r"\.highlight \.(\w+) \{ ([^}]*) \}", CODE_CSS))
MARK = "<!-- to take away -->"


@dataclass
class Page:
    """One page of the site: its name, the part that it opens (or ""), its title and its section."""

    name: str
    part: str
    title: str
    section: Tag

    def headings(self) -> list[tuple[str, str]]:
        """Pairs (id, text) of the sections below the title."""
        return [(h.parent["id"], h.get_text()) for h in self.section.find_all("h2")]


def documents() -> list[tuple[str, str]]:
    """Pairs (name, caption of the part that it opens or "") in the order of `_toc.yml`."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [(toc["root"], "")]
    for part in toc["parts"]:
        for i, chapter in enumerate(part["chapters"]):
            found.append((chapter["file"], "" if i else part["caption"]))
    return [(Path(file).name, part) for file, part in found]


def read_pages(site: Path = SITE) -> list[Page]:
    """Pages of the book without what a reader cannot press."""
    pages = []
    for name, part in documents():
        html = (site / "book" / f"{name}.html").read_text(encoding="utf-8")
        section = BeautifulSoup(html, "html.parser").find("article").find("section")
        for node in section.select(CHROME):
            node.decompose()
        for node in section.find_all("details"):
            node["open"] = ""  # paper cannot unfold
        for token in section.select("pre span"):
            if all(INK.get(kind, INK["w"]) == INK["w"] for kind in token.get("class", ())):
                token.unwrap()  # it has the colour of a blank; a third of the PDF was tags of such tokens
        section.smooth()
        pages.append(Page(name, part, section.find("h1").get_text(), section))
    return pages


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
    import pack_epub
    import print_pdf

    target = SITE / f"{NAME}.{kind}"
    with chromium() as browser:
        {"pdf": print_pdf.write, "epub": pack_epub.write}[kind](read_pages(), SITE, target, browser)
    link()
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
