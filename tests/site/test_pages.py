"""The built pages, read as text: descriptions, launch buttons, one address, and one test for each mend."""

import ast
import json
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from parsed import parsed
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import bundle  # noqa: E402
import lowrank_site  # noqa: E402
import page_mends  # noqa: E402
import repository  # noqa: E402
import shrink  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
REPOSITORY = repository.address(CONFIG["repository"]["url"])
NOTEBOOKS = sorted(p.stem for p in (ROOT / "book").glob("*.ipynb"))
DOCUMENTS = sorted(p.stem for p in (ROOT / "book").iterdir() if p.suffix in {".md", ".ipynb"})


def soup(site, name):
    """Parsed page of a document."""
    return parsed(site / "book" / f"{name}.html")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_description_and_card(site, name):
    head = soup(site, name).head
    description = head.find("meta", attrs={"name": "description"})["content"]
    assert 40 <= len(description) <= lowrank_site.DESCRIPTION_LENGTH
    card = head.find("meta", property="og:image")["content"]
    base = repository.site_address(REPOSITORY)
    assert card.startswith(base) and (site / card.removeprefix(base)).is_file()
    assert head.find("meta", property="og:description")["content"] == description


def test_descriptions_differ(site):
    found = [soup(site, n).head.find("meta", attrs={"name": "description"})["content"] for n in DOCUMENTS]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_page_is_sound(site, name):
    page = soup(site, name)
    assert len(page.find("article").find_all("h1")) == 1
    assert "2023" not in page.find("p", class_="copyright").text
    for image in page.find("article").find_all("img"):
        assert len(image.get("alt", "")) >= 30 and image["alt"] not in image["src"]
    for tag, attribute in (("script", "src"), ("link", "href"), ("img", "src")):
        for node in page.find_all(tag):
            if "canonical" not in node.get("rel", []):
                assert not urlsplit(node.get(attribute, "")).netloc, node


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_launch_buttons_open_this_notebook(site, name):
    links = [a["href"] for a in soup(site, name).find_all("a", href=True)]
    own = urlsplit(REPOSITORY).path.strip("/")
    branch, path = "notebooks", f"book/{name}.ipynb"  # of the reader's notebooks
    assert f"https://mybinder.org/v2/gh/{own}/{branch}?urlpath=lab/tree/{path}" in links
    assert f"https://colab.research.google.com/github/{own}/blob/{branch}/{path}" in links
    assert (ROOT / path).is_file() and f"../_sources/{path}" in links
    json.loads((site / "_sources" / path).read_text(encoding="utf-8"))


def test_a_doi_is_asked_of_its_registry():
    asked = lowrank_site.ask_the_registry(None, "https://doi.org/10.1007/BF02288367")
    assert asked == "https://doi.org/api/handles/10.1007/BF02288367"
    assert lowrank_site.ask_the_registry(None, "https://arxiv.org/abs/1") == "https://arxiv.org/abs/1"


def test_only_three_parts_of_mathjax(site):
    copied = site / "_static" / "mathjax"
    assert {p.name for p in copied.iterdir()} == {"tex-mml-chtml.js", "input", "output"}
    assert [p.name for p in copied.glob("output/*/*/*")] == ["woff-v2"]
    assert sum(p.stat().st_size for p in copied.rglob("*") if p.is_file()) < 3.5e6


MENDED = [
    (
        page_mends.without_fontawesome_js,
        'a<script src="../_static/scripts/fontawesome.js?digest=8"></script>',
        "a",
    ),
    (page_mends.one_icon_font, '<i class="fab fa-github"></i>', '<i class="fas fa-code-branch"></i>'),
    (
        page_mends.sidebar_is_a_landmark,
        '<div id="pst-primary-sidebar" class="x">',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class="x">',
    ),
    (
        page_mends.sidebar_toggles_have_names,
        '<summary><span class="toctree-toggle" role="presentation">',
        '<summary aria-label="Pages below this one"><span class="toctree-toggle" role="presentation">',
    ),
    (page_mends.no_empty_table_header, "<th></th><th>a</th>", "<td></td><th>a</th>"),
    (page_mends.no_repeated_ids, '<section id="solution-content">', "<section>"),
    (
        page_mends.no_deprecated_roles,
        '<div role="list" class="citation-list"><div role="doc-biblioentry">',
        '<div class="citation-list"><div>',
    ),
    (
        page_mends.no_label_on_a_work,
        '<div class="citation" id="a">\n<span class="label"><span class="fn-bracket">[</span>1<span '
        'class="fn-bracket">]</span></span>\n<p>Ann (1999).</p>',
        '<div class="citation" id="a">\n<p>Ann (1999).</p>',
    ),
    (
        page_mends.no_list_in_a_signature,
        '<span class="sig-paren">(</span>\n<dl>\n<dd>W,</dd></dl>',
        '<span class="sig-paren">(</span><span class="sig-lines">\n<span class="sig-line">W,</span></span>',
    ),
]


@pytest.mark.parametrize(("mend", "before", "after"), MENDED, ids=lambda v: getattr(v, "__name__", ""))
def test_mend(mend, before, after):
    assert mend(before) == after
    assert mend(after) == after


def test_every_mend_is_tested():
    assert [mend for mend, _, _ in MENDED] == list(page_mends.MENDS)


def test_no_fault_is_left(site):
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for mend in page_mends.MENDS:
            assert mend(html) == html, f"{page.name}: {mend.__name__}"
    assert not list(site.rglob("fontawesome.js*"))


def test_bundle_keeps_order_and_addresses(tmp_path):
    static, page = tmp_path / "_static", tmp_path / "book" / "p.html"
    page.parent.mkdir()
    for name, text in {
        "styles/a.css": '@import "../b.css";',
        "b.css": "b{background:url(img/i.png)}",
        "styles/c.css": "c{d:url('../v/f.woff2')}",
        "x.js": "x",
        "y.js": "y",
    }.items():
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        (static / name).write_text(text)
    html = "".join(f'<link href="../_static/styles/{n}.css?v=1" rel="stylesheet" />' for n in "ac")
    html += '<link rel="preload" as="script" href="../_static/x.js" />'
    html += "".join(f'<script src="../_static/{n}.js?v=1"></script>' for n in "xy")
    html += "<script defer src='z.js'></script>"
    out = bundle.bundle(html, page, static, "e{}", "z")
    assert len(re.findall("<link", out)) == 2 and len(re.findall("<script", out)) == 2
    css = (page.parent / re.search(r'"([^"]+\.css)"', out)[1]).read_text()
    assert re.sub(r"\s", "", css) == 'b{background:url("../img/i.png")}c{d:url("../v/f.woff2")}e{}'
    js = (page.parent / re.search(r'src="([^"]+\.js)"', out)[1]).read_text()
    assert js.split() == ["x", ";", "y", ";", "z"]


def test_only_used_icons():
    css = '.fa-a:before{content:"\\f001"}.fa-b:before,.fa-c:before{content:"\\f002"}.x{y:z}'
    used = shrink.used_icons(['<i class="fas fa-c"></i>'])
    assert shrink.without_unused_icons(css, used) == '.fa-b:before,.fa-c:before{content:"\\f002"}.x{y:z}'


def test_icon_font_is_small(site):
    (font,) = site.rglob("*.book.woff")
    assert font.stat().st_size < 30_000


@pytest.mark.parametrize(("colours", "suffix"), [(3, ".png"), (10**6, ".webp")])
def test_lighter_figure(tmp_path, colours, suffix):
    numbers = np.random.default_rng(0).integers(0, colours, (300, 300)) * (2**24 // colours)
    pixels = np.stack([numbers >> 16, numbers >> 8, numbers], axis=-1).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, compress_level=0)
    before = path.stat().st_size
    after = shrink.lighter_figure(path)
    assert after.suffix == suffix and after.stat().st_size < before / 2
    assert list(tmp_path.iterdir()) == [after]
    error = np.asarray(Image.open(after).convert("RGB")).astype(int) - pixels
    assert suffix == ".webp" or not error.any()


def imports(folder):
    """For each module of a folder, those of its neighbours that it imports, wherever the line stands."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
        found[path.stem] = {name for name in names if (folder / f"{name}.py").is_file()}
    return found


def test_steps_of_the_build_import_in_one_direction(tmp_path):
    found = imports(ROOT / "book" / "_ext")
    assert {"pack_epub", "print_pdf"} <= found["takeaway"]
    list(TopologicalSorter(found).static_order())
    (tmp_path / "a.py").write_text("import b")
    (tmp_path / "b.py").write_text("def f():\n    from a import x")
    with pytest.raises(CycleError):
        list(TopologicalSorter(imports(tmp_path)).static_order())
