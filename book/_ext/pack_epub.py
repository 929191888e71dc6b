"""The pages of the site as an EPUB 3: formulas as MathML, pictures beside them, no script."""

import re
import unicodedata
import uuid
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html import escape
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from bs4 import BeautifulSoup
from built_pages import ASSETS, CODE_CSS, CONFIG, ROOT, Page
from lowrank_site import CARD
from PIL import Image
from repository import address, site_address

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".xhtml": "application/xhtml+xml", ".css": "text/css"}
CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
XHTML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><title>{title}</title><link rel="stylesheet" type="text/css" href="book.css"/></head>
<body>{body}</body></html>"""
PACKAGE = """<?xml version="1.0" encoding="UTF-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:{id}</dc:identifier><dc:title>{title}</dc:title><dc:language>en</dc:language>
<dc:creator>{author}</dc:creator><dc:rights>{rights}</dc:rights>
<meta property="dcterms:modified">{time}</meta>
<meta property="schema:accessMode">textual</meta><meta property="schema:accessMode">visual</meta>
<meta property="schema:accessibilityFeature">MathML</meta>
<meta property="schema:accessibilityFeature">alternativeText</meta>
<meta property="schema:accessibilityFeature">tableOfContents</meta>
<meta property="schema:accessibilityHazard">none</meta>
<meta property="schema:accessibilitySummary">Formulas are MathML; every figure has a description.</meta>
</metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"""
TO_MATHML = """async (formulas) => {
  await MathJax.startup.promise;
  const made = [];
  for (const [tex, display] of formulas) made.push(await MathJax.tex2mmlPromise(tex, { display }));
  return made;
}"""


def letter(variant: str, text: str) -> str:
    """Letter of a mathematical alphabet: today's readers ignore `mathvariant`, and ℝ would become R."""
    name = f"{variant.upper()} {unicodedata.name(text).removeprefix('LATIN ').replace('LETTER ', '')}"
    if name == "ITALIC SMALL H":
        return unicodedata.lookup("PLANCK CONSTANT")  # the only name that it has
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return unicodedata.lookup(f"MATHEMATICAL {name}")


def formula(node) -> tuple[str, bool]:
    r"""TeX of a formula, without its \(..\) or \[..\], and whether it stands alone."""
    tex = node.get_text().strip()
    return tex[2:-2].strip(), tex.startswith(r"\[")


def add_mathml(pages: list[Page], site: Path, tab) -> None:
    """Replace TeX by the MathML of the site's own MathJax; a formula that it cannot read is an error.

    latex2mathml needs no browser, but drops what it does not know in silence: of `split` around `aligned` it
    leaves a bare `&` and one line.
    """
    nodes = [node for page in pages for node in page.section.select(".math")]
    wanted = list(dict.fromkeys(map(formula, nodes)))
    tab.goto((site / "book" / f"{pages[0].name}.html").as_uri())
    made = dict(zip(wanted, tab.evaluate(TO_MATHML, wanted), strict=True))
    for (tex, _), mathml in made.items():
        if "<merror" in mathml or "\\" in BeautifulSoup(mathml, "html.parser").get_text():
            raise ValueError(f"MathJax cannot read the formula {tex!r}")
    for node in nodes:
        math = BeautifulSoup(made[formula(node)], "html.parser").math
        for part in math.find_all(True):
            part.attrs = {k: v for k, v in part.attrs.items() if not k.startswith("data-") and k != "class"}
        for part in math.find_all(mathvariant=True):
            if part["mathvariant"] != "normal":
                part.string = "".join(letter(part["mathvariant"], x) for x in part.get_text())
                del part["mathvariant"]
        math["alttext"] = " ".join(formula(node)[0].split())
        node.string = ""
        node.append(math)


def still_explorers(pages: list[Page], site: Path, tab) -> dict[str, bytes]:
    """Replace each rank explorer by a picture of it; return the pictures by name."""
    pictures = {}
    for page in pages:
        boxes = page.section.select(".lowrank-explorer")
        if not boxes:
            continue
        tab.goto((site / "book" / f"{page.name}.html").as_uri())
        tab.add_style_tag(content=".lowrank-explorer :is(input, summary) { display: none !important }")
        for i, box in enumerate(boxes):
            name = f"{page.name}-explorer-{i + 1}.png"
            pictures[name] = tab.locator(".lowrank-explorer").nth(i).screenshot()
            text = box.get_text(" ", strip=True)
            html = (
                f'<img src="{name}" alt="{escape(text)}"/><p>{escape(text)} On the site it has a slider.</p>'
            )
            box.replace_with(BeautifulSoup(html, "html.parser"))
    return pictures


def gather_images(pages: list[Page], site: Path, files: dict[str, bytes]) -> None:
    """Bring the pictures that the pages show; WebP becomes JPEG, which every reader knows."""
    for page in pages:
        for image in page.section.find_all("img"):
            if image["src"] in files:
                continue
            path = site / "book" / image["src"]
            data, name = path.read_bytes(), path.name
            if path.suffix == ".webp":
                buffer, name = BytesIO(), path.with_suffix(".jpg").name
                Image.open(path).save(buffer, "JPEG", quality=88)
                data = buffer.getvalue()
            files[name], image["src"] = data, name
            image.attrs.pop("style", None)


def body(page: Page) -> str:
    """Section of a page as XHTML."""
    for script in page.section.find_all("script"):
        script.decompose()
    for node in page.section.find_all("a", href=True):
        if ":" not in node["href"]:
            node["href"] = re.sub(r"\.html(?=#|$)", ".xhtml", node["href"])
            if node["href"].startswith("../_images/"):  # the picture itself, for a click
                node.unwrap()
    part = f'<p class="part">{escape(page.part)}</p>' if page.part else ""
    return part + page.section.decode(formatter="minimal")


def navigation(pages: list[Page]) -> str:
    """Table of contents: parts, chapters, sections."""

    def entry(page: Page) -> str:
        file = f"{page.name}.xhtml"
        inner = "".join(f'<li><a href="{file}#{i}">{escape(t)}</a></li>' for i, t in page.headings())
        return f'<li><a href="{file}">{escape(page.title)}</a>{f"<ol>{inner}</ol>" if inner else ""}</li>'

    rows, opened = [], False
    for page in pages:
        if page.part:
            rows.append(("</ol></li>" if opened else "") + f"<li><span>{escape(page.part)}</span><ol>")
            opened = True
        rows.append(entry(page))
    end = "</ol></li>" if opened else ""
    return f'<nav epub:type="toc"><h1>Contents</h1><ol>{"".join(rows)}{end}</ol></nav>'


def package(files: dict[str, bytes], order: list[str]) -> str:
    """The package file: what there is, and in which order it is read."""
    marks = {"nav.xhtml": ' properties="nav"', "cover.png": ' properties="cover-image"'}
    items = ""
    for i, (name, data) in enumerate(files.items()):
        mark = marks.get(name, ' properties="mathml"' if b"<math" in data and name.endswith("xhtml") else "")
        items += f'<item id="i{i}" href="{name}" media-type="{TYPES[Path(name).suffix]}"{mark}/>'
    at = {name: f"i{i}" for i, name in enumerate(files)}
    return PACKAGE.format(
        id=uuid.uuid5(uuid.NAMESPACE_URL, site_address(address(CONFIG["repository"]["url"]))),
        title=escape(CONFIG["title"]),
        author=escape(CONFIG["author"]),
        rights=escape(f"{CONFIG['copyright']}, {CONFIG['html']['extra_footer']}"),
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        items=items,
        spine="".join(f'<itemref idref="{at[name]}"/>' for name in order),
    )


def write(pages: list[Page], site: Path, target: Path, browser) -> None:
    """Write the EPUB."""
    tab = browser.new_page(viewport={"width": 760, "height": 900}, device_scale_factor=2)
    files = {"cover.png": (ROOT / CARD).read_bytes()}
    add_mathml(pages, site, tab)
    files |= still_explorers(pages, site, tab)
    gather_images(pages, site, files)
    files["book.css"] = ((ASSETS / "epub.css").read_text(encoding="utf-8") + CODE_CSS).encode()
    texts = {f"{page.name}.xhtml": (page.title, body(page)) for page in pages}
    cover = f'<p><img src="cover.png" alt="{escape(CONFIG["title"])}"/></p>'
    texts = {"cover.xhtml": (CONFIG["title"], cover), "nav.xhtml": ("Contents", navigation(pages))} | texts
    for name, (title, html) in texts.items():
        files[name] = XHTML.format(title=escape(title), body=html).encode()
        ET.fromstring(files[name])  # a page that is no XML would stop a reader
    with ZipFile(target, "w", ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", ZIP_STORED)
        book.writestr("META-INF/container.xml", CONTAINER)
        book.writestr("EPUB/package.opf", package(files, list(texts)))
        for name, data in files.items():
            book.writestr(f"EPUB/{name}", data)
