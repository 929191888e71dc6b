"""The pages of the built site, read again: what the PDF and the EPUB are made of."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
ASSETS = ROOT / "book" / "assets"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
# of no use off the screen
CHROME = "a.headerlink, a:has(> .viewcode-link), button, div.toctree-wrapper, p.take-away"
CODE_CSS = HtmlFormatter(
    style=CONFIG["sphinx"]["config"]["html_theme_options"]["pygments_light_style"]
).get_style_defs(".highlight")
INK = dict(re.findall(r"\.highlight \.(\w+) \{ ([^}]*) \}", CODE_CSS))


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
            found += [(section["file"], "") for section in chapter.get("sections", [])]
    return [(Path(file).name, part) for file, part in found]


def read_pages(site: Path = SITE) -> list[Page]:
    """Pages of the book without what a reader cannot press."""
    pages = []
    for name, part in documents():
        html = (site / "book" / f"{name}.html").read_text(encoding="utf-8")
        section = BeautifulSoup(html, "html.parser").find("article").find("section")
        for node in section.select(CHROME):
            node.decompose()
        for node in section.find_all("audio"):  # its text is for browsers that cannot play it
            node.string = "The sound is on the site."
            node.name, node.attrs = "p", {}
        for node in section.find_all("details"):
            node["open"] = ""  # paper cannot unfold
        for token in section.select("pre span"):
            if all(INK.get(kind, INK["w"]) == INK["w"] for kind in token.get("class", ())):
                token.unwrap()  # it has the colour of a blank; a third of the PDF was tags of such tokens
        section.smooth()
        pages.append(Page(name, part, section.find("h1").get_text(), section))
    return pages
