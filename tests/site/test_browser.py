"""The built pages in a real browser: nothing leaves the site, the maths is drawn, axe-core finds nothing.

Each page is loaded once over http and once from a file; the tests look at what was seen there.
"""

import functools
import gzip
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
PAGES = [f"book/{p.stem}" for p in sorted(BOOK.iterdir()) if p.suffix in {".md", ".ipynb"}]
PAGES += ["search", "genindex"]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DRAWN = "() => !window.MathJax || (MathJax.startup && MathJax.startup.promise.then(() => true))"
RESIZED_MS = 700  # the theme waits that long before it looks which boxes scroll
ONE_OF_EACH_TOKEN = """() => {
  const seen = new Set();
  for (const span of document.querySelectorAll("pre span")) {
    const kind = span.className + "|" + span.closest("div.highlight")?.parentElement.className;
    if (span.id || span.children.length) continue;
    if (seen.has(kind)) span.replaceWith(span.textContent); else seen.add(kind);
  }
}"""
ZIPPED = {".html", ".css", ".js", ".svg"}


def load(browser, url):
    """Open a page; return it with its requests and with what it complained of."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    requests, complaints = [], []

    def watch(route):
        target = route.request.url
        requests.append(target)
        own = target.startswith(("data:", "file:")) or urlsplit(target).netloc == urlsplit(url).netloc
        route.continue_() if own else route.abort()

    page.route("**/*", watch)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(url)
    page.wait_for_function(DRAWN)
    page.evaluate("() => document.fonts.ready")
    return page, requests, complaints


def look(page):
    """What axe-core finds in the three looks of a page, and by how much it is wider than a phone.

    Contrast is measured in both colour schemes, once for each kind of token; the width does not change it.
    """
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")
    page.evaluate(ONE_OF_EACH_TOKEN)
    found = []
    for look, width, options in (
        ("light", 1280, {"runOnly": RULES}),
        ("dark", 1280, {"runOnly": {"type": "rule", "values": ["color-contrast"]}}),
        ("dark", 390, {"runOnly": RULES, "rules": {"color-contrast": {"enabled": False}}}),
    ):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("look => { document.documentElement.dataset.theme = look }", look)
        page.wait_for_timeout(RESIZED_MS if width == 390 else 0)
        result = page.evaluate(
            "options => axe.run({ exclude: [['mjx-math']] }, options)",
            options | {"resultTypes": ["violations"]},
        )
        for fault in result["violations"]:
            found += [f"{look} {width}: {fault['id']} {n['html'][:150]}" for n in fault["nodes"]]
    wide = page.evaluate("() => document.documentElement.scrollWidth") - 390
    return found, wide


@pytest.fixture(scope="module")
def visit(browser, address, site):
    """Function that returns what was seen on a page, loading it once."""

    @functools.cache
    def visit(name):
        page, requests, complaints = load(browser, f"{address}/{name}.html")
        seen = {
            "requests": requests,
            "complaints": complaints,
            "maths": page.locator("mjx-container").count(),
            "broken": page.locator("mjx-merror, [data-mjx-error]").count(),
            "source": page.locator("span.math, div.math").count(),
        }
        seen["faults"], seen["wide"] = look(page)
        page.close()
        return seen

    return visit


def weight(site, requests):
    """Bytes that a server with gzip sends for these requests."""
    total = 0
    for url in requests:
        path = site / urlsplit(url).path.lstrip("/")
        data = path.read_bytes()
        total += len(gzip.compress(data)) if path.suffix in ZIPPED else len(data)
    return total


@pytest.mark.parametrize("name", PAGES)
def test_nothing_leaves_the_site(visit, address, name):
    seen = visit(name)
    assert [r for r in seen["requests"] if not r.startswith(address)] == []
    assert seen["complaints"] == []


@pytest.mark.parametrize("name", PAGES)
def test_maths_is_drawn(visit, name):
    seen = visit(name)
    assert (seen["maths"] >= seen["source"]) and seen["broken"] == 0


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(visit, name):
    assert visit(name)["faults"] == []


@pytest.mark.parametrize("name", PAGES)
def test_fits_a_phone(visit, name):
    assert visit(name)["wide"] <= 0


@pytest.mark.parametrize("name", PAGES)
def test_is_light(visit, site, name):
    requests = visit(name)["requests"]
    assert len(requests) <= 32
    assert weight(site, requests) <= 800_000


@pytest.mark.parametrize("name", PAGES)
def test_works_from_a_file(browser, site, name):
    page, requests, complaints = load(browser, (site / f"{name}.html").as_uri())
    assert [r for r in requests if not r.startswith("file:")] == []
    assert complaints == []
    assert page.locator("mjx-container").count() >= page.locator("span.math, div.math").count()
    page.close()


def test_search_works_offline(browser, site):
    page, _, _ = load(browser, (site / "search.html").as_uri() + "?q=singular")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() >= 2
    page.close()


def test_the_test_sees_faults(browser):
    page = browser.new_page()
    page.set_content("<body><img src='data:,'><p style='width:2000px;color:#eee'>pale</p></body>")
    found, wide = look(page)
    assert any("image-alt" in f for f in found) and any("color-contrast" in f for f in found)
    assert wide > 0
    page.close()
