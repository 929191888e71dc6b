"""The explorers in a real browser, from a file: keys, figures, dark mode, two on a page, axe-core."""

from importlib.resources import files

import pytest
import torch
from torch import nn

from lowrank_utils import (
    BudgetExplorer,
    KernelExplorer,
    LayerReport,
    RankExplorer,
    RankSearch,
    Report,
    conv_options,
    low_rank_approximation,
    relative_error,
)

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PAGE = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Explorers</title>'
    '<meta name="viewport" content="width=device-width"></head>'
    "<body><main><h1>Explorers</h1>{}</main></body></html>"
)
W = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
LARGE = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)).cumsum(0)
SEARCH = RankSearch("fc1", 2, 3, 0.98, {1: 0.5, 2: 0.975, 3: 0.97, 4: 0.98}, 0.01, 4)
TRIED = {  # parameters: score, and rank of the layers "a" (6 x 4) and "head" (3 x 6), None being dense
    31: (0.5, (1, 1)),
    40: (0.7, (1, 2)),
    41: (0.6, (2, 1)),
    46: (0.875, (2, None)),
}


def rows(ranks):
    shapes = {"a": (6, 4), "head": (3, 6)}
    return tuple(
        LayerReport(
            name, (m, n), r, r * (m + n) if r else m * n, r * (m + n) if r else m * n, 0.1 if r else 0.0
        )
        for (name, (m, n)), r in zip(shapes.items(), ranks, strict=True)
    )


def budgets(feasible=True):
    """A report of four networks, of which the last but one was too bad, on 54 parameters."""
    tried = {size: rows(ranks) for size, (_, ranks) in TRIED.items()}
    named = {
        size: (score, {row.layer: row.rank for row in rows(ranks) if row.rank})
        for size, (score, ranks) in TRIED.items()
    }
    size = 46 if feasible else 54
    layers = tried[46] if feasible else rows((None, None))
    report = Report(layers, 0.9, 0.875 if feasible else 0.9, 0.05, (54, size), named, tried, feasible)
    return BudgetExplorer(report, name="the net", score="accuracy")


def kernels(sound=False):
    """A convolution of pictures or of sound, with a score at two ranks of one form."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv1d(4, 9, 16) if sound else nn.Conv2d(6, 10, 3, padding=1)
    scored = {"kernel": {1: 0.25, 2: 0.5}}
    return KernelExplorer(conv, 32 if sound else (12, 9), curves=scored, name="conv1", score="accuracy"), conv


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

MIDDLES = "all => all.map((e) => e.getBoundingClientRect()).map((b) => (b.left + b.right) / 2)"


@pytest.fixture
def show(new_page, tmp_path):
    """Function that opens explorers in a page from a file; no request but for the page may be made."""
    pages, complaints, requests = [], [], []

    def show(*explorers, **looks):
        path = tmp_path / "page.html"
        path.write_text(PAGE.format("\n".join(e._repr_html_() for e in explorers)), encoding="utf-8")
        page = new_page(**{"viewport": {"width": 1280, "height": 900}} | looks)
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


def test_a_search_is_drawn_and_its_rank_marked(show):
    page = show(RankExplorer(W, curve=SEARCH))
    slider, chart = page.locator("input"), page.locator("svg").nth(1)
    assert (
        slider.input_value() == "2"
        and "the smallest rank allowed" in page.locator("table").first.inner_text()
    )
    assert page.evaluate("() => [...document.querySelectorAll('option')].map((o) => o.label)") == ["found"]
    discs = []
    for key, told in (
        ("Home", "rank 1: 0.5000"),
        ("ArrowRight", "rank 2: 0.9750"),
        ("End", "rank 4: 0.9800"),
    ):
        slider.press(key)
        assert told in chart.get_attribute("aria-label")
        assert "smallest rank allowed: 2" in chart.get_attribute("aria-label")
        discs.append([float(chart.locator("circle").last.get_attribute(c)) for c in ("cx", "cy")])
    dots = [[float(dot.get_attribute(c)) for c in ("cx", "cy")] for dot in chart.locator("circle").all()]
    assert discs == [dots[0], dots[1], dots[3]]
    assert sorted(dots[:4]) == dots[:4]  # ranks rise to the right
    assert dots[0][1] > dots[2][1] > dots[1][1] > dots[3][1]  # a better score stands higher
    assert chart.locator("text", has_text="lowest score allowed").count() == 1


def test_spectrum_and_scores_share_one_rank_axis(show):
    curve = {
        r: 0.2 + 0.2 * min(r, 3) + 0.001 * (r % 4) for r in range(1, 31)
    }  # up to break-even 24 and beyond
    page = show(RankExplorer(LARGE, curve=curve))
    spectrum, chart = page.locator("svg").all()
    bars = spectrum.locator("rect").evaluate_all(MIDDLES)
    dots = chart.locator("circle").evaluate_all(MIDDLES)
    assert len(bars) == 40 and len(dots) == 31  # 30 scores and the disc
    assert dots[:30] == pytest.approx(bars[:30], abs=0.5)
    dashed = [float(line.get_attribute("x1")) for line in page.locator("svg line[stroke-dasharray]").all()]
    assert len(dashed) == 2 and dashed[0] == pytest.approx(dashed[1])
    assert [page.get_by_text("break-even rank 24", exact=True).count(), spectrum.locator("text").count()] == [
        1,
        3,
    ]


def test_the_score_axis_is_zoomed_to_where_ranks_differ(show):
    plain = {1: 0.2, 2: 0.5, 3: 0.7, 4: 0.9}  # spread evenly: nothing to zoom
    hidden = {1: 0.2, 2: 0.96, 3: 0.961, 4: 0.963}
    page = show(RankExplorer(W, curve=plain), RankExplorer(W, curve=hidden))
    texts = [chart.locator("text").all_text_contents() for chart in page.locator("svg:nth-of-type(2)").all()]
    assert {"0.20", "0.90"} <= set(texts[0]) and {"0.960", "0.963"} <= set(texts[1])
    fills = [
        [dot.get_attribute("fill") for dot in chart.locator("circle").all()[:4]]
        for chart in page.locator("svg:nth-of-type(2)").all()
    ]
    assert fills == [["currentColor"] * 4, ["none"] + ["currentColor"] * 3]
    assert page.get_by_text("Hollow: scores below the axis, 0.200.").count() == 1
    first, *rest = page.locator("svg").nth(3).locator("circle").all()[:4]
    heights = [float(dot.get_attribute("cy")) for dot in (first, *rest)]
    assert (
        heights == sorted(heights, reverse=True) and heights[1] - heights[3] > 80
    )  # of 92: the zoom is used
    page.locator("input").nth(1).press("Home")
    assert "0.2000 to 0.9630; rank 1: 0.2000" in page.locator("svg").nth(3).get_attribute("aria-label")


def test_an_image_keeps_its_whole_spectrum_on_a_log_scale(show):
    W = torch.diag(torch.tensor([255.0, 127, 63, 31, 15, 7, 3, 1]))  # each about half of the one before
    page = show(RankExplorer(W, kind="image"))
    heights = [float(bar.get_attribute("height")) for bar in page.locator("svg rect").all()]
    steps = [a - b for a, b in zip(heights, heights[1:], strict=False)]
    assert len(heights) == 8 and 0 < max(steps) < 1.7 * min(steps)
    assert "log scale" in page.locator(".lowrank-explorer").inner_text()
    assert "down to " in page.locator("svg").get_attribute("aria-label")


@pytest.mark.parametrize("feasible", [True, False])
def test_the_budget_moves_and_everything_follows(show, feasible):
    page = show(budgets(feasible))
    slider, output = page.get_by_label("Budget of the net"), page.locator("output")
    assert (
        slider.input_value() == ("4" if feasible else "5") and output.get_attribute("aria-live") == "polite"
    )
    told = []
    for key, size, score, texts in (
        ("Home", 31, 0.5, ("1", "1")),
        ("ArrowRight", 40, 0.7, ("1", "2")),
        ("ArrowUp", 41, 0.6, ("2", "1")),
        ("End", 54, 0.9, ("dense", "dense")),
        ("ArrowLeft", 46, 0.875, ("2", "dense")),
    ):
        slider.press(key)
        role = "the dense model" if size == 54 else "returned" if feasible and size == 46 else "tried"
        text = f"{size} parameters ({size / 54:.1%}), {role}: accuracy {score:.4f}".replace("%", " %")
        assert slider.get_attribute("aria-valuetext") == text
        assert output.inner_text().startswith(text) and text in page.locator("svg").get_attribute(
            "aria-label"
        )
        cells = [row.locator("td").all_inner_texts() for row in page.locator(".layers tbody tr").all()]
        assert tuple(row[0] for row in cells) == texts
        for row, (r, (m, n)) in zip(cells, zip(texts, ((6, 4), (3, 6)), strict=True), strict=True):
            share = 1 if r == "dense" else int(r) * (m + n) / (m * n)
            assert row[1:] == [f"{100 * share:.1f} %", "0 %" if r == "dense" else "10.0 %"]
        widths = page.locator(".share > span").evaluate_all(
            "all => all.map((e) => parseFloat(e.style.width))"
        )
        assert widths == pytest.approx([float(row[1].split()[0]) for row in cells], abs=0.06)
        facts = page.locator(".facts td").all_inner_texts()
        assert facts[0].startswith(f"{size} of 54") and facts[2] == f"{score:.4f}, dense 0.9000"
        assert facts[3].endswith("too much" if score < 0.85 else "allowed")
        told.append(page.locator("circle").last.get_attribute("cx"))
    assert len(set(told)) == 5
    assert page.locator("svg path").count() == (4 if feasible else 3)  # a diamond, if one was returned


def test_every_network_stands_behind_details(show):
    page = show(budgets())
    page.locator("summary").press("Enter")
    lines = [row.inner_text().split() for row in page.locator("details tbody tr").all()]
    assert lines[0] == ["31", "1", "1", "0.5000"] and lines[3] == ["46", "2", "dense", "0.8750"]
    assert lines[4] == ["54", "dense", "dense", "0.9000"]


def test_both_kinds_on_one_page(show):
    page = show(RankExplorer(W), budgets(), RankExplorer(LARGE))
    assert page.locator("input").count() == 3
    for i in range(3):
        page.locator("input").nth(i).press("End")
    assert not residual(page, 0).any() and not residual(page, 2).any()
    assert page.evaluate(f"() => ({NOW})(1).network.params") == 54


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


@pytest.mark.parametrize("sound", [False, True], ids=["pictures", "sound"])
def test_a_kernel_is_cut_along_the_axis_that_is_chosen(show, sound):
    explorer, conv = kernels(sound)
    page = show(explorer)
    select, slider, output = page.get_by_label("Form of conv1"), page.locator("input"), page.locator("output")
    options = conv_options(conv, 32 if sound else (12, 9))
    drawn = []
    for form in explorer.forms:
        before = page.evaluate(f"({NOW})(0).form"), slider.input_value()
        select.select_option(form)
        mine = [o for o in options.options if o.form == form and o.params < options.params]
        if before[0] != form:  # as many numbers as before, or the next fewer
            had = next(o.params for o in explorer.forms[before[0]][int(before[1]) - 1 :])
            fitting = sum(o.params <= had for o in mine)
            assert slider.input_value() == str(max(1, fitting))
        for key, option in (("Home", mine[0]), ("End", mine[-1])):
            slider.press(key)
            rank = option.rank if isinstance(option.rank, int) else " \u00d7 ".join(map(str, option.rank))
            text = f"{form}, rank {rank}: {option.params / options.params:.1%} of the numbers"
            text = text.replace("%", " %") + f", relative error {100 * round(option.error, 3):.1f} %"
            assert slider.get_attribute("aria-valuetext") == text
            assert output.inner_text() == text[0].upper() + text[1:]
            cells = page.locator(".lowrank-explorer > table td").all_inner_texts()
            assert cells[1].startswith(f"{option.params:,} of {options.params:,}")
            assert cells[2].startswith(f"{option.macs:,} of {options.macs:,}")
            known = {("kernel", 1): "0.2500", ("kernel", 2): "0.5000"}.get(
                (form, option.rank), "not measured"
            )
            assert cells[3] == known
            label = page.get_by_label("Singular values of the unfolding").get_attribute("aria-label")
            first = option.rank if isinstance(option.rank, int) else option.rank[0]
            assert f"unfolding {form}," in label and f"the first {first} of" in label
            drawn.append(page.locator(".maps svg").evaluate_all("all => all.map((s) => s.innerHTML).join()"))
        assert page.get_by_label("accuracy against parameters").count() == (form == "kernel")
    pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
    assert all(least != most for least, most in pairs) and page.locator(".maps svg").count() == 6


@pytest.mark.parametrize(
    "explorer", [RankExplorer(W), budgets(), kernels()[0]], ids=["rank", "budget", "kernel"]
)
def test_jupyterlab_leaves_the_keys_to_the_slider(show, explorer):
    page = show(explorer)
    ours = page.locator(".lowrank-explorer :is(input, select, summary, [tabindex])").all()
    assert len(ours) >= (2 if isinstance(explorer, KernelExplorer) else 3)
    for node in ours:  # Lumino, its shortcut engine, looks for this at the focused element
        assert node.get_attribute("data-lm-suppress-shortcuts") == "true"


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
    page = show(
        RankExplorer(W, curve=SEARCH),
        RankExplorer(LARGE),
        budgets(),
        kernels()[0],
        kernels(True)[0],
        color_scheme=scheme,
    )
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


def test_the_budget_on_a_phone_and_in_the_dark(show):
    page = show(budgets(), viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.locator("summary").press("Enter")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) >= 7
    assert faults(page) == []


@pytest.mark.parametrize("sound", [False, True], ids=["pictures", "sound"])
def test_a_kernel_on_a_phone_and_in_the_dark(show, sound):
    page = show(kernels(sound)[0], viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.locator("select").select_option("kernel")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
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
