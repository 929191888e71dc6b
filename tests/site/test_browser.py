"""The built pages in a real browser: nothing leaves the site, the maths is drawn, axe-core finds nothing.

Each page is loaded once from a file and once over http; the tests look at what was seen there.
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
# The contrast of a text hangs on the styles of what it stands in: of all with the same chain one is measured,
# and the others are taken out meanwhile. (axe-core's own `exclude` takes minutes with a thousand of them.)
MARK_THE_SAME = """() => {
  const seen = new Set(), own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const chain = (e) => {
    const names = [getComputedStyle(e).color];
    for (let at = e; at && at !== document.body; at = at.parentElement) names.push(at.tagName + at.className);
    return names.join(">");
  };
  const same = (e) => {
    const inner = [...e.children].map(same).every(Boolean);
    const known = !own(e) || seen.has(chain(e));
    seen.add(chain(e));
    if (inner && known) e.dataset.same = "";
    return inner && known;
  };
  document.querySelectorAll("[data-same]").forEach((e) => delete e.dataset.same);
  same(document.body);
}"""
# The page's own script asks what holds a formula, so a formula goes with its holder or not at all.
TAKE_OUT = """() => {
  const outer = (e) => !e.parentElement.closest("[data-same]");
  const bare = (e) => !e.matches("mjx-container") && !e.querySelector("mjx-container");
  const free = (e) => outer(e) && (bare(e) || e.matches("p, li, td, th, dd, dt, div"));
  window.takenOut = [...document.querySelectorAll("[data-same]")].filter(free).map((e) => {
    const place = document.createComment("");
    e.replaceWith(place);
    return [e, place];
  });
}"""
PUT_BACK = """() => {
  window.takenOut.forEach(([e, place]) => place.replaceWith(e));
  window.dispatchEvent(new Event("resize"));
}"""
# A highlighted word is a span with a class, on which only contrast depends. For the other rules a listing is
# bare text of the same width, for which axe-core takes half as long. What holds anything else stays as it is.
BARE_LISTINGS = """() => {
  const known = (a) => a.name === "class" || a.name === "data-same";
  const plain = (e) => e.tagName === "SPAN" && [...e.attributes].every(known);
  document.querySelectorAll(".highlight pre").forEach((pre) => {
    if ([...pre.querySelectorAll("*")].every(plain)) pre.textContent = pre.textContent;
  });
}"""
# What a reader cannot reach: what stands out of the screen, and a box that scrolls without looking like one.
OUT_OF_REACH = """() => {
  const faults = [], said = (e, why) => faults.push(`${why}: ${e.outerHTML.slice(0, 120)}`);
  const unseen = "mjx-assistive-mml, mjx-math, svg, .visually-hidden";
  for (const e of document.querySelectorAll(".bd-article *")) {
    if (!e.getClientRects().length || e.closest(unseen) || e.matches("input, textarea")) continue;
    const scroller = e.closest(".scrolls"), at = e.getBoundingClientRect();
    if (!scroller && at.width > 1 && at.right > innerWidth + 1) said(e, "out of the screen");
    if (e.clientWidth <= 1 || e.scrollWidth <= e.clientWidth + 1) continue;
    if (getComputedStyle(e).display === "inline" || getComputedStyle(e).overflowX === "visible") continue;
    const bar = e.offsetHeight - e.clientHeight > 4;
    const faded = getComputedStyle(e).maskImage !== "none";
    if (!bar && !faded) said(e, "nothing shows that it scrolls");
    if (getComputedStyle(e).overflowX === "hidden") said(e, "it is cut off");
    if (e.tabIndex !== 0) said(e, "no key reaches it");
    if (!e.getAttribute("aria-label") || !e.getAttribute("role")) said(e, "it has no name");
  }
  return faults;
}"""
UNFOLD = """() => {
  document.querySelectorAll(".toggle-hidden").forEach((e) => e.classList.remove("toggle-hidden"));
  document.querySelectorAll("details").forEach((e) => { e.open = true });
}"""
ZIPPED = {".html", ".css", ".js", ".svg"}


def load(browser, url):
    """Open a page; return it with its requests and with what it complained of."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    return page, *follow(page, url)


def follow(page, url):
    """Go to an address; return the requests for it, and what was complained of."""
    requests, complaints = [], []

    def watch(route):
        target = route.request.url
        requests.append(target)
        own = target.startswith(("data:", "file:")) or urlsplit(target).netloc == urlsplit(url).netloc
        route.continue_() if own else route.abort()

    page.unroute_all()
    page.route("**/*", watch)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.goto(url)
    page.wait_for_function(DRAWN)
    page.evaluate("() => document.fonts.ready")
    return requests, complaints


def axe(page, options):
    """What axe-core finds wrong on a page as it is now."""
    options = options | {"resultTypes": ["violations"]}
    result = page.evaluate("options => axe.run({ exclude: [['mjx-math']] }, options)", options)
    return [f"{fault['id']} {n['html'][:150]}" for fault in result["violations"] for n in fault["nodes"]]


# The page's own script looks at a box when it has another size, which it learns when a frame is drawn. An
# observer that is made now is told after those that were there.
FRAME_DRAWN = """() => new Promise((done) => {
  const last = new ResizeObserver(() => { last.disconnect(); done(); });
  last.observe(document.documentElement);
})"""


def resize(page, width):
    """As wide as this, and the theme has looked again: its timer is put forward, not waited for."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("() => window.dispatchEvent(new Event('resize'))")  # the browser's own may come too late
    page.clock.fast_forward(RESIZED_MS)
    for _ in range(2):  # what the script changed may have changed a size
        page.evaluate(FRAME_DRAWN)


def look(page):
    """What axe-core finds on a page, what of it is out of reach, and by how much it is too wide for a phone.

    Contrast is measured in both colour schemes, once for each chain of styles; all other rules on everything,
    on a laptop and on a phone.
    """
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    page.clock.install()  # goes on by itself, and can be put forward
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")
    contrast = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
    others = {"runOnly": RULES, "rules": {"color-contrast": {"enabled": False}}}
    found, hidden = [], []

    def run(scheme, width, options):  # contrast first: the others have listings without their colours
        page.evaluate("scheme => { document.documentElement.dataset.theme = scheme }", scheme)
        resize(page, width)
        page.evaluate(MARK_THE_SAME if options is contrast else BARE_LISTINGS)
        page.evaluate(TAKE_OUT if options is contrast else "() => {}")
        found.extend(f"{scheme} {width}: {fault}" for fault in axe(page, options))
        page.evaluate(PUT_BACK if options is contrast else "() => {}")
        page.clock.fast_forward(RESIZED_MS)

    run("light", 1280, contrast)
    run("dark", 1280, contrast)
    run("light", 1280, others)
    run("dark", 390, others)
    wide = page.evaluate("() => document.documentElement.scrollWidth") - 390
    page.evaluate(UNFOLD)
    for width in (390, 1280):
        resize(page, width)
        hidden += [f"{width}: {fault}" for fault in page.evaluate(OUT_OF_REACH)]
    return found, hidden, wide


def drawn(page, requests, complaints):
    """What a page asked for and complained of, and its formulas: drawn, drawn as broken, and sources."""
    return {
        "requests": requests,
        "complaints": complaints,
        "maths": page.locator("mjx-container").count(),
        "broken": page.locator("mjx-merror, [data-mjx-error]").count(),
        "source": page.locator("span.math, div.math").count(),
    }


@pytest.fixture(scope="module")
def visit(browser, address, site):
    """Function that returns what was seen on a page, from a file and then over http, loading it once each.

    One tab does both, each with an origin and so with a storage of its own: a tab takes as long as a page.
    """

    @functools.cache
    def visit(name):
        page, *told = load(browser, (site / f"{name}.html").as_uri())
        file = drawn(page, *told)
        seen = drawn(page, *follow(page, f"{address}/{name}.html")) | {"file": file}
        seen["faults"], seen["hidden"], seen["wide"] = look(page)
        page.close()
        return seen

    return visit


@functools.cache
def sent(path):
    """Bytes that a server with gzip sends for a file; the pages share most of theirs."""
    data = path.read_bytes()
    return len(gzip.compress(data)) if path.suffix in ZIPPED else len(data)


def weight(site, requests):
    """Bytes that a server with gzip sends for these requests."""
    return sum(sent(site / urlsplit(url).path.lstrip("/")) for url in requests)


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
def test_what_is_wider_than_the_screen_scrolls_and_shows_it(visit, name):
    assert visit(name)["hidden"] == []


@pytest.mark.parametrize("name", PAGES)
def test_is_light(visit, site, name):
    requests = visit(name)["requests"]
    assert len(requests) <= 32
    assert weight(site, requests) <= 800_000


@pytest.mark.parametrize("name", PAGES)
def test_works_from_a_file(visit, name):
    seen = visit(name)["file"]
    assert [r for r in seen["requests"] if not r.startswith("file:")] == []
    assert seen["complaints"] == []
    assert seen["maths"] >= seen["source"]


def test_search_works_offline(browser, site):
    page, _, _ = load(browser, (site / "search.html").as_uri() + "?q=singular")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a").count() >= 2
    page.close()


def test_the_test_sees_faults(browser):
    page = browser.new_page()
    listing = "<div class=highlight><pre><span class=n>x</span><img src='data:,' class=in-code></pre></div>"
    page.set_content(f"<body><img src='data:,'><p style='width:2000px;color:#eee'>pale</p>{listing}</body>")
    found, _, wide = look(page)
    assert any("image-alt" in f for f in found) and any("color-contrast" in f for f in found)
    assert any("in-code" in f for f in found)
    assert wide > 0
    page.close()


def test_the_same_pale_text_is_measured_once_and_another_is_not_missed(browser):
    page = browser.new_page()
    lines = "".join(f"<p class='{kind}'>pale</p>" for kind in "aaab")
    words = "<span class='k'>pale</span> <span class='k'>pale</span> <span class='n'>pale</span>"
    lines += f"<div class='highlight'><pre>{words}</pre></div>"
    page.set_content(f"<body><main>{lines}<div class='a'><p class='a'>pale</p></div></main></body>")
    page.add_style_tag(content="p, span { color: #eee }")
    found, _, _ = look(page)
    assert sum("light 1280: color-contrast" in f for f in found) == 5
    page.close()


@pytest.mark.parametrize(
    ("html", "complaint"),
    [
        ("<p style='width:2000px'>x</p>", "out of the screen"),
        ("<pre style='overflow-x:hidden'>LONG</pre>", "it is cut off"),
        ("<pre style='overflow-x:auto;scrollbar-width:none'>LONG</pre>", "nothing shows that it scrolls"),
        ("<pre style='overflow-x:auto'>LONG</pre>", "no key reaches it"),
        ("<pre style='overflow-x:auto' tabindex=0>LONG</pre>", "it has no name"),
        ("<pre class='scrolls more-right' tabindex=0 role=group aria-label=Code>LONG</pre>", None),
    ],
)
def test_a_phone_notices_what_it_cannot_reach(new_page, html, complaint):
    page = new_page(viewport={"width": 390, "height": 900})
    page.set_content(
        f"<body><main class='bd-main bd-article'>{html.replace('LONG', 'x' * 200)}</main></body>"
    )
    page.add_style_tag(content=(BOOK / "assets" / "book.css").read_text(encoding="utf-8"))
    found = page.evaluate(OUT_OF_REACH)
    assert (found == []) if complaint is None else any(line.startswith(complaint) for line in found)
    page.close()
