"""The pages of the site as one HTML file, printed by chromium: contents, bookmarks, tags, page numbers."""

import importlib.util
import logging
import re
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from built_pages import ASSETS, CODE_CSS, CONFIG, Page
from pypdf import PdfReader
from repository import address

logging.getLogger("pikepdf").setLevel(logging.WARNING)  # it says that it is there
import pikepdf  # noqa: E402

# matplotlib brings its fonts along: the same page breaks on every machine
FONTS = Path(importlib.util.find_spec("matplotlib").origin).parent / "mpl-data" / "fonts" / "ttf"
FACES = {
    ("Book", "normal", "normal"): "STIXGeneral",
    ("Book", "bold", "normal"): "STIXGeneralBol",
    ("Book", "normal", "italic"): "STIXGeneralItalic",
    ("Book", "bold", "italic"): "STIXGeneralBolIta",
    ("Head", "normal", "normal"): "DejaVuSans",
    ("Head", "bold", "normal"): "DejaVuSans-Bold",
    ("Code", "normal", "normal"): "DejaVuSansMono",
    ("Code", "bold", "normal"): "DejaVuSansMono-Bold",
    ("Code", "normal", "italic"): "DejaVuSansMono-Oblique",
    ("Code", "bold", "italic"): "DejaVuSansMono-BoldOblique",
}
PICTURE = """<svg viewBox="0 0 480 130" role="img" aria-label="A matrix is about two thin ones.">
<rect width="170" height="130" fill="#1b1b1b"/><rect x="240" width="30" height="130" fill="#0072b2"/>
<rect x="295" width="170" height="30" fill="#d55e00"/><text x="184" y="80">≈</text></svg>"""
MATHJAX = """<script>
MathJax = {options: {enableMenu: false, processHtmlClass: "math", ignoreHtmlClass: "book"}}
</script>"""
READY = "() => MathJax.startup.promise.then(() => document.fonts.ready).then(() => true)"
UNDRAWN = """() => [...document.querySelectorAll(".math")]
  .filter((node) => !node.querySelector("mjx-container") || node.querySelector("mjx-merror"))
  .map((node) => node.textContent)"""


def styles() -> str:
    """The print style sheet with its fonts, and for every chapter a foot line with its title."""
    faces = [
        f"@font-face {{ font-family: {family}; font-weight: {weight}; font-style: {style};"
        f' src: url("{(FONTS / file).with_suffix(".ttf").as_uri()}") }}'
        for (family, weight, style), file in FACES.items()
    ]
    return "\n".join([*faces, CODE_CSS, (ASSETS / "print.css").read_text(encoding="utf-8")])


def sheets(page: Page) -> str:
    """Whose sheets a page is printed on: the groups of functions follow the overview on its own."""
    return "api" if page.name.startswith("api_") else page.name


def foot(page: Page) -> str:
    """Rule that writes the title of a chapter at the foot of its sheets."""
    title = page.title.replace("\\", "").replace('"', "”")
    name = sheets(page)
    rule = f"#p-{page.name} {{ page: p-{name} }}"
    return rule if name != page.name else f'@page p-{name} {{ @bottom-left {{ content: "{title}" }} }} {rule}'


def one_namespace(page: Page, site: Path) -> None:
    """Make the ids and links of a page unique in the book, and its pictures known from anywhere."""
    for node in page.section.find_all(id=True):
        node["id"] = f"{page.name}--{node['id']}"
    for node in page.section.find_all("a", href=True):
        file, _, part = node["href"].partition("#")
        if ":" not in file and file.endswith((".html", "")):
            name = Path(file).stem or page.name
            node["href"] = f"#{name}--{part}" if part else f"#p-{name}"
    for node in page.section.find_all("img"):
        node["src"] = (site / "book" / node["src"]).resolve().as_uri()


def contents(pages: list[Page], number: dict[str, int]) -> str:
    """The table of contents, with the page numbers that are known."""
    rows = []

    def row(kind: str, target: str, text: str) -> None:
        at = number.get(target, "")
        inner = f"<span>{escape(text)}</span><span>{at}</span>"
        rows.append(f'<li class="{kind}"><a href="#{target}">{inner}</a></li>')

    for page in pages:
        if page.part:
            rows.append(f'<li class="part">{escape(page.part)}</li>')
        row("chapter", f"p-{page.name}", page.title)
        for target, text in page.headings():
            row("section", target, text)
    return f"<nav><h1>Contents</h1><ul>{''.join(rows)}</ul></nav>"


def book(pages: list[Page], site: Path) -> str:
    """The whole book as one HTML file, its contents without page numbers."""
    title, author = escape(CONFIG["title"]), escape(CONFIG["author"])
    source = re.sub(r"^https?://", "", address(CONFIG["repository"]["url"]))
    chapters = "".join(
        f'<div class="chapter {"" if sheets(page) == page.name else "follows"}" id="p-{page.name}">'
        + (f'<p class="part">{escape(page.part)}</p>' if page.part else "")
        + f"{page.section}</div>"
        for page in pages
    )
    return f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>{styles()}{"".join(map(foot, pages))}</style>{MATHJAX}
<script src="{(site / "_static/mathjax/tex-mml-chtml.js").as_uri()}"></script></head>
<body class="book"><header><p class="title">{title}</p>{PICTURE}
<p>{author}</p><p>{CONFIG["copyright"]} · {CONFIG["html"]["extra_footer"]} · {source}</p></header>
{contents(pages, {})}{chapters}</body></html>"""


def show(pages: list[Page], site: Path, tab) -> None:
    """Load the book into a tab; a formula that is not drawn is an error."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "book.html"
        source.write_text(book(pages, site), encoding="utf-8")
        tab.goto(source.as_uri())
        tab.wait_for_function(READY)
    if undrawn := tab.evaluate(UNDRAWN):
        raise ValueError(f"MathJax did not draw {undrawn}")


def write(pages: list[Page], site: Path, target: Path, browser) -> None:
    """Print the book twice: the first time tells the page numbers, the second has them in its contents."""
    for page in pages:
        one_namespace(page, site)
    tab = browser.new_page(color_scheme="light")
    show(pages, site, tab)
    options = {"prefer_css_page_size": True, "print_background": True, "outline": True, "tagged": True}
    reader = PdfReader(BytesIO(tab.pdf(**options)))
    places = reader.named_destinations.items()
    number = {name.lstrip("/"): reader.get_destination_page_number(place) + 1 for name, place in places}
    tab.evaluate("html => { document.querySelector('nav').outerHTML = html }", contents(pages, number))
    data = tab.pdf(**options)
    with pikepdf.open(BytesIO(data)) as pdf:  # chromium leaves the tags, half of the file, uncompressed
        pdf.save(target, object_stream_mode=pikepdf.ObjectStreamMode.generate, deterministic_id=True)
