"""The page of the docstrings: every public name with its signature, formulas set, nothing left as typed."""

import copy
import inspect
import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import lowrank_utils
from lowrank_utils import exercises, plotting

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import api_page  # noqa: E402


def own(module):
    """Public functions that a module defines itself."""
    return [
        f"{module.__name__}.{name}"
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__ and name[0] != "_"
    ]


NAMES = [f"lowrank_utils.{name}" for name in lowrank_utils.__all__] + own(plotting) + own(exercises)


@pytest.fixture(scope="module")
def page(site):
    html = (site / "book" / "api.html").read_text(encoding="utf-8")
    return BeautifulSoup(html, "html.parser").find("article")


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(page, name):
    title = page.find("dt", id=name)
    module, _, short = name.rpartition(".")
    thing = getattr(sys.modules[module], short)
    if name != "lowrank_utils.WeightedFactors":  # its fields are private
        shown = [re.match(r"\W*(\w*)", p.text)[1] for p in title.find_all("em", class_="sig-param")]
        assert [p for p in shown if p] == list(inspect.signature(thing).parameters)
    told = re.sub(r"\W", "", title.find_next_sibling("dd").find("p").text)
    first = re.sub(r"\W", "", inspect.getdoc(thing).split("\n\n")[0])
    assert len(told) >= 0.8 * len(first) > 0  # signs replace words: phi, sum


def test_no_formula_is_left_as_typed(page):
    page = copy.copy(page)
    for code in page.find_all(["pre", "code", "dt", "mjx-container"]) + page.select(".math"):
        code.extract()
    text = page.get_text(" ")
    assert re.findall(r"\S*(?:\w_\{|\^|\|\||<=|>=|->|``|\\)\S*", text) == []


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("||W - W_r||_F^2", "\u2016W \u2212 W<r>\u2016<F>[2]"),
        ("sum_{i <= r} s_i^2", "\u03a3<i \u2264 r> s<i>[2]"),
        ("(x - E x)(x - E x)^T", "(x \u2212 E x)(x \u2212 E x)[T]"),
        ("W C^1/2, lambda^2", "W C[1/2], \u03bb[2]"),
        ("r x r, y = x W^T, logits of x (N, 4)", "r \u00d7 r, y = x W[T], logits of x (N, 4)"),
        ("max_drop, y_train, sum of a row", "max_drop, y_train, sum of a row"),
        ("phi - phi_r <= delta", "\u03c6 \u2212 \u03c6<r> \u2264 delta"),
    ],
)
def test_a_formula_is_set(typed, shown):
    text = re.sub(r":sub:`([^`]*)`", r"<\1>", api_page.formula(typed))
    text = re.sub(r":sup:`([^`]*)`", r"[\1]", text)
    assert text.replace("\\ ", "") == shown


def test_no_symbol_became_a_list(page):
    """A description that is "n." alone would be item 14 of a list."""
    assert page.select("ol.loweralpha, ol.upperalpha, ol.lowerroman, ol.upperroman") == []


def test_types_are_linked_to_their_public_names(page):
    for function, result in (("find_rank", "RankSearch"), ("weighted_factors", "Moments")):
        assert page.find("dt", id=f"lowrank_utils.{function}").find("a", href=f"#lowrank_utils.{result}")
