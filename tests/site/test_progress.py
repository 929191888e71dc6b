"""'You have read 2 of 6 chapters': ticked by the reader, kept by the browser, said in words, and undone."""

import re
from pathlib import Path

import pytest
import yaml
from test_browser import load, look

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [c["file"] for part in TOC["parts"] if part.get("numbered") for c in part["chapters"]]
REFUSE = """const METHOD = Storage.prototype.METHOD;
Storage.prototype.METHOD = function (key, ...rest) {
  if (key.startsWith("chapters read")) throw new DOMException("no", "SecurityError");
  return METHOD.call(this, key, ...rest);
};"""
BOX = "I have read this chapter"


@pytest.fixture(params=["http", "file"])
def base(request, site):
    return request.getfixturevalue("address") if request.param == "http" else site.as_uri()


@pytest.fixture
def context(browser):
    """A storage of one's own, and no formulas: they take a quarter of the time, and tick no chapter."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.route("**/mathjax/**", lambda route: route.abort())
        yield context


def count(page):
    """Chapters read and chapters in all, as the page says it."""
    said = page.locator(".read-bar [role=status]").inner_text()
    found = re.match(r"You have read (\d+) of (\d+) chapters\.", said)
    return int(found[1]), int(found[2])


def ticks(page):
    """Text of the side bar's links whose chapter is ticked."""
    items = page.locator(".bd-sidebar-primary nav li").all_text_contents()
    return [" ".join(item.split()) for item in items if "\u2713" in item]


def test_read_one_reload_and_undo(context, base):
    page, total = context.new_page(), len(CHAPTERS)
    page.goto(f"{base}/{CHAPTERS[1]}.html")
    box = page.get_by_label(BOX)
    assert count(page) == (0, total) and not box.is_checked() and ticks(page) == []
    box.focus()
    page.keyboard.press("Space")
    assert count(page) == (1, total) and box.is_checked()
    page.reload()
    assert count(page) == (1, total) and box.is_checked()
    (tick,) = ticks(page)
    assert tick.startswith("2. ") and tick.endswith("\u2713 read")

    front = context.new_page()
    front.goto(f"{base}/book/intro.html")
    assert count(front) == (1, total) and len(ticks(front)) == 1
    go_on = front.get_by_role("link", name="Go on with 1. ")
    assert go_on.get_attribute("href").endswith(f"{CHAPTERS[0]}.html")

    page.get_by_label(BOX).press("Space")
    assert count(page) == (0, total) and ticks(page) == []
    front.wait_for_function("() => document.querySelector('.read-bar').innerText.includes('read 0 of')")
    assert not go_on.is_visible()  # the other tab has followed


def test_every_chapter_counts_and_no_other_page(context, address):
    page, total = context.new_page(), len(CHAPTERS)
    for i, chapter in enumerate(CHAPTERS, 1):
        page.goto(f"{address}/{chapter}.html")
        page.get_by_label(BOX).check()
        assert count(page) == (i, total)
    page.goto(f"{address}/book/intro.html")
    assert count(page) == (total, total) and len(ticks(page)) == total
    assert not page.get_by_role("link", name="Go on with").is_visible()
    page.goto(f"{address}/book/notation.html")
    assert page.locator(".read-bar").count() == 0 and len(ticks(page)) == total


def test_two_sites_of_one_host_do_not_share(context, address):
    page = context.new_page()
    page.goto(f"{address}/{CHAPTERS[0]}.html")
    page.evaluate("() => localStorage.setItem('chapters read: /other/', '[\"02_svd_approximation.html\"]')")
    page.reload()
    assert count(page)[0] == 0


@pytest.mark.parametrize("broken", ["getItem", "setItem"])
def test_without_storage_nothing_breaks(context, address, broken):
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    page.add_init_script(REFUSE.replace("METHOD", broken))
    page.goto(f"{address}/{CHAPTERS[0]}.html")
    if broken == "getItem":
        assert page.locator(".read-bar").count() == 0
    else:
        page.get_by_label(BOX).click()
        assert not page.get_by_label(BOX).is_checked() and count(page)[0] == 0
    assert errors == [] and ticks(page) == []


def test_a_ticked_page_is_accessible(browser, address):
    for name in ("book/intro", CHAPTERS[0]):
        page, _, complaints = load(browser, f"{address}/{CHAPTERS[0]}.html")
        page.get_by_label(BOX).check()
        page.goto(f"{address}/{name}.html")
        assert len(ticks(page)) == 1
        found, hidden, wide = look(page)
        assert found == hidden == complaints == [] and wide <= 0
        page.close()
