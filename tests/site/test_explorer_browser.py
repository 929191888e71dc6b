"""The rank explorer in a real browser, from a file: keys, figures, dark mode, two on a page, axe-core."""

from importlib.resources import files

import pytest
import torch

from lowrank_utils import RankExplorer, low_rank_approximation, relative_error

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PAGE = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Explorers</title>'
    '<meta name="viewport" content="width=device-width"></head>'
    "<body><main><h1>Explorers</h1>{}</main></body></html>"
)
W = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
LARGE = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)).cumsum(0)
NOW = "i => document.querySelectorAll('.lowrank-explorer')[i].lowrank"
CONTRAST = """() => {
  const light = (css) => {
    const linear = (x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = css.match(/[\\d.]+/g).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const root = document.querySelector(".lowrank-explorer");
  const paper = light(getComputedStyle(root).backgroundColor);
  const ratio = (ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  const inks = [...root.querySelectorAll("label, output, figcaption, th, td, caption, summary, p")];
  const rects = [...root.querySelectorAll("rect, line, text")];
  return Math.min(...inks.map((e) => ratio(light(getComputedStyle(e).color))),
                  ...rects.map((e) => ratio(light(getComputedStyle(e).color))));
}"""


@pytest.fixture
def show(browser, tmp_path):
    """Function that opens explorers in a page from a file; no request but for the page may be made."""
    pages, complaints, requests = [], [], []

    def show(*explorers, **looks):
        path = tmp_path / "page.html"
        path.write_text(PAGE.format("\n".join(e._repr_html_() for e in explorers)), encoding="utf-8")
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | looks)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: requests.append(r.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert complaints == [] and len(requests) == len(pages)


def faults(page):
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    result = page.evaluate("rules => axe.run({ runOnly: rules, resultTypes: ['violations'] })", RULES)
    return [f"{v['id']} {n['html'][:150]}" for v in result["violations"] for n in v["nodes"]]


def residual(page, i=0):
    return torch.tensor(list(page.evaluate(f"i => Array.from(({NOW})(i).residual)", i)), dtype=torch.float64)


def pictures(page):
    return page.evaluate("() => [...document.querySelectorAll('canvas')].map((c) => c.toDataURL())")


def test_keys_move_it_and_everything_follows(show):
    page = show(RankExplorer(W, curve={1: 0.5, 2: 0.975}, name="fc1"))
    slider, output = page.get_by_label("Rank r of fc1"), page.locator("output")
    assert output.get_attribute("aria-live") == "polite"
    told, looks = [], []
    for key, rank in (("Home", 1), ("ArrowRight", 2), ("ArrowUp", 3), ("End", 4), ("ArrowLeft", 3)):
        slider.press(key)
        assert slider.input_value() == str(rank)
        error = "0" if rank == 4 else f"{100 * relative_error(W, rank):.1f}"
        text = f"rank {rank} of 4: relative error {error} %"
        assert slider.get_attribute("aria-valuetext") == text
        assert output.inner_text().startswith("R" + text[1:])
        assert text in page.locator("canvas").nth(1).get_attribute("aria-label")
        assert f"the first {rank} of 4 are kept" in page.locator("svg").first.get_attribute("aria-label")
        cells = page.locator(".lowrank-explorer > table td").all_inner_texts()
        assert cells[2].startswith(f"{14 * rank} of 40") and ("more than W" in cells[2]) == (rank > 2)
        assert cells[3:] == [f"{14 * rank} of 40", {1: "0.5000", 2: "0.9750"}.get(rank, "not measured"), "2"]
        told.append(text)
        looks.append(pictures(page))
    assert looks[2] == looks[4] and looks[0] != looks[1] and told[2] == told[4]
    assert looks[3][0] == looks[3][1]  # at full rank the two pictures are the same
    assert len({look[0] for look in looks}) == 1  # W itself never changes


@pytest.mark.parametrize("matrix", [W, W.T.contiguous(), LARGE], ids=["10 x 4", "4 x 10", "40 x 64"])
def test_the_approximation_and_a_residual_of_exactly_zero(show, matrix):
    page = show(RankExplorer(matrix))
    slider = page.locator("input")
    for key, rank in (("Home", 1), ("ArrowRight", 2)):
        slider.press(key)
        ours = torch.tensor(page.evaluate(f"i => Array.from(({NOW})(i).approximation)", 0))
        theirs = low_rank_approximation(matrix, rank).flatten()
        assert float((ours - theirs).norm()) <= 0.01 * float(matrix.norm())
        share = float(residual(page).norm()) / float(matrix.norm())
        assert abs(share - relative_error(matrix, rank)) <= 2e-3
    slider.press("End")
    assert not residual(page).any()
    assert page.locator("output").inner_text().endswith("energy kept 100 %; W itself, residual exactly 0")
    assert "relative error 0 %" in slider.get_attribute("aria-valuetext")


def test_the_numbers_stand_behind_details(show):
    page = show(RankExplorer(W, name="small"), RankExplorer(LARGE, name="large"))
    tables = page.locator("details table")
    assert not tables.first.is_visible()
    for summary in page.locator("summary").all():
        summary.press("Enter")
    assert tables.first.is_visible() and tables.count() == 4
    shown = tables.first.locator("tbody tr").first.locator("td").all_inner_texts()
    assert [float(x.replace("\u2212", "-")) for x in shown] == pytest.approx(W[0].tolist(), abs=0.006)
    page.locator("input").first.press("End")
    assert set(tables.nth(2).locator("td").all_inner_texts()[1:]) == {"0"}
    assert tables.nth(3).locator("tbody tr").count() == 3


def test_two_do_not_interfere(show):
    page = show(RankExplorer(W, name="same"), RankExplorer(W, name="same"))
    sliders = page.locator("input")
    sliders.nth(0).press("Home")
    before = page.locator("output").nth(0).inner_text()
    sliders.nth(1).press("End")
    assert page.locator("output").nth(0).inner_text() == before
    assert not residual(page, 1).any() and residual(page, 0).any()
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_inserted_again_as_jupyterlab_does(show):
    explorer = RankExplorer(W)
    page = show(explorer)
    page.locator("input").press("End")
    page.evaluate(
        """html => { for (let i = 0; i < 2; i++) {
          const host = document.createElement("div");
          host.innerHTML = html;  // its scripts do not run: each is made anew, then the host attached
          for (const old of host.querySelectorAll("script")) {
            const script = document.createElement("script");
            script.textContent = old.textContent;
            old.replaceWith(script);
          }
          document.querySelector("main").append(host);
        }
        const copy = document.querySelector(".lowrank-explorer").cloneNode(true);
        document.querySelector("main").append(copy);
        window.lowrankExplorer(); }""",
        explorer._repr_html_(),
    )
    assert page.locator(".lowrank-explorer").count() == page.locator("input").count() == 4
    assert page.locator("style").count() == 1
    assert page.locator("input").first.input_value() == "4"  # the first was left as it stood
    for i in range(4):
        page.locator("input").nth(i).press("End")
        assert not residual(page, i).any()


@pytest.mark.parametrize(
    ("scheme", "theme", "dark"),
    [("light", None, False), ("dark", None, True), ("light", "dark", True), ("dark", "light", False)],
)
def test_readable_in_light_and_dark(show, scheme, theme, dark):
    page = show(RankExplorer(W, curve={1: 0.5}), RankExplorer(LARGE), color_scheme=scheme)
    if theme:
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    for summary in page.locator("summary").all():
        summary.press("Enter")
    paper = page.evaluate(
        "() => getComputedStyle(document.querySelector('.lowrank-explorer')).backgroundColor"
    )
    assert paper == ("rgb(27, 30, 36)" if dark else "rgb(255, 255, 255)")
    assert page.evaluate(CONTRAST) >= 7
    assert faults(page) == []


def test_an_image_on_a_phone(show):
    ramp = torch.arange(60.0).outer(torch.arange(80.0)).sqrt()
    page = show(RankExplorer(ramp, kind="image", name="ramp"), viewport={"width": 390, "height": 800})
    slider = page.get_by_label("Rank r of ramp")
    slider.press("End")
    assert not residual(page).any()
    red, green, blue, alpha = page.evaluate(
        "() => [...document.querySelector('canvas').getContext('2d').getImageData(79, 59, 1, 1).data]"
    )
    assert (red, green, blue, alpha) == (255, 255, 255, 255)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert faults(page) == []


def test_it_reads_without_scripts(show):
    page = show(RankExplorer(W), java_script_enabled=False)
    assert "Relative error: " in page.locator(".lowrank-explorer").inner_text()
