"""The pages of the docstrings: each public name in the summary and in full, formulas drawn, works cited.

And every example runs as it is shown, in a fresh namespace.
"""

import copy
import doctest
import inspect
import re
import sys
from pathlib import Path

import pytest
from parsed import parsed

import lowrank_utils
from lowrank_utils import exercises, plotting

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import api_page  # noqa: E402
import typeset  # noqa: E402

GROUPS = sorted(path.stem for path in (ROOT / "book").glob("api_*.md"))


def own(module):
    """Public functions of a module: those it lists, or else those it defines."""
    listed = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__ and name[0] != "_"
    ]
    return [f"{module.__name__}.{name}" for name in listed]


NAMES = own(lowrank_utils) + own(plotting) + own(exercises)


def thing_of(name):
    """What a dotted public name means."""
    module, _, short = name.rpartition(".")
    return getattr(sys.modules[module], short)


def methods(cls):
    """Public methods and properties that a class of the package defines or inherits from it."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("lowrank_utils"):
            for name, thing in vars(base).items():
                kinds = (property, classmethod, staticmethod)
                if name[0] != "_" and (inspect.isfunction(thing) or isinstance(thing, kinds)):
                    found[name] = thing
    return found


def document(site, name):
    return parsed(site / "book" / f"{name}.html")


@pytest.fixture(scope="module")
def groups(site):
    """The article of each page of definitions: a copy, from which tests take formulas."""
    return {name: copy.copy(document(site, name).find("article")) for name in GROUPS}


@pytest.fixture(scope="module")
def summary(site):
    """What the overview says of each name: page and one line."""
    rows = document(site, "api").select("table.autosummary tr")
    return [
        (*row.find("a")["href"].split("#"), row.find_all("td")[1].get_text(" ", strip=True)) for row in rows
    ]


@pytest.fixture(scope="module")
def definitions(groups):
    """Page and title of each definition by its public name."""
    return {dt["id"]: (name, dt) for name, page in groups.items() for dt in page.find_all("dt", id=True)}


def test_the_summary_has_every_name_once(summary, definitions):
    assert sorted(name for _, name, _ in summary) == sorted(NAMES)
    for page, name, line in summary:
        assert f"{definitions[name][0]}.html" == page
        assert 10 < len(line) < 160, name


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(definitions, name):
    _, title = definitions[name]
    thing = thing_of(name)
    if name != "lowrank_utils.WeightedFactors":  # its fields are private
        shown = [re.match(r"\W*(\w*)", p.text)[1] for p in title.find_all("em", class_="sig-param")]
        assert [p for p in shown if p] == list(inspect.signature(thing).parameters)
    told = title.find_next_sibling("dd").find("p")
    for formula in told.select(".math"):
        formula.extract()
    words = re.findall(r"[a-z]{3,}", inspect.getdoc(thing).split("\n\n")[0])
    found = sum(word in told.get_text() for word in words)
    assert found >= 0.4 * len(words) > 0  # the others are in formulas
    if inspect.isclass(thing):
        shown = set(definitions) & {f"{name}.{method}" for method in methods(thing)}
        assert shown == {f"{name}.{m}" for m in methods(thing) if m != "extra_repr"}
        assert all(definitions[m][1].find_next_sibling("dd").find("p") for m in shown)
        fields = getattr(thing, "__dataclass_fields__", {})
        described = title.find_next_sibling("dd").get_text()
        assert [
            f for f in fields if f[0] != "_" and f"{f} –" not in described and f"{f} (" not in described
        ] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_definition_leads_to_its_source(definitions, name):
    thing = thing_of(name)
    for member in (name, *(f"{name}.{m}" for m in (methods(thing) if inspect.isclass(thing) else ()))):
        if member not in definitions:
            continue
        (link,) = [a["href"] for a in definitions[member][1].find_all("a") if a.select(".viewcode-link")]
        path, first, last = re.search(r"/blob/[^/]+/(.+\.py)#L(\d+)-L(\d+)$", link).groups()
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(first) - 1 : int(last)]
        short = member.rpartition(".")[2]
        assert any(re.match(rf"\s*(def|class) {short}\b", line) for line in lines[:4]), link


def test_no_formula_is_left_as_typed(groups):
    for page in map(copy.copy, groups.values()):
        for code in page.find_all(["pre", "code", "dt", "mjx-container"]) + page.select(
            ".math, dl.field-list strong"
        ):
            code.extract()
        text = page.get_text(" ")
        assert re.findall(r"\S*(?:\w_\{|\^|\|\||<=|>=|->|``|\\)\S*", text) == []


TYPED = {
    "||W - W_r||_F^2 is": r"<\lVert W - W_{r} \rVert_{F}^{2}> is",
    "sum_{i <= r} s_i^2": r"<\sum_{i \le r}\,\sigma_{i}^{2}>",
    "mean of (x - E x)(x - E x)^T": r"mean of <(x - \mathbb{E}\,x)(x - \mathbb{E}\,x)^\top>",
    "W C^1/2, lambda^2": r"<W\,C^{1/2}>, <\lambda ^{2}>",
    "an r x r core of y = x W^T": r"an <r \times r> core of <y = x\,W^\top>",
    "logits of x (N, 4)": r"logits of <x\,(N, 4)>",
    "phi - phi_r <= delta": r"<\phi - \phi _{r} \le \delta>",
    "sqrt(M (1 + tau)), noise > 0": r"<\sqrt{M\,(1 + \tau )}>, noise <> 0>",
    "(U core Vh)^T with (r, r)": r"<(U\ \text{core}\ \mathit{Vh})^\top> with <(r, r)>",
    "y_ij = sum_k a_ik b_kj": r"<y_{ij} = \sum_{k}\,a_{ik}\,b_{kj}>",
    "c_in / groups, S (r,)": r"<c_{\text{in}} / \text{groups}>, <S\,(r{,})>",
    "energy * ||W||_F": r"<\text{energy} \cdot \lVert W \rVert_{F}>",
    # speech, code and calls are no formulas
    "A rank, K-FAC, 3-D, e.g. MNIST-5k (see there)": "A rank, K-FAC, 3-D, e.g. MNIST-5k (see there)",
    "2 size^3 FLOPs": r"<2\ \text{size}^{3}> FLOPs",
    "W's dtype, 0 (all noise) to 2": "<W>'s dtype, 0 (all noise) to 2",
    "``W_r`` and max_drop of len(x)": "``W_r`` and ``max_drop`` of ``len(x)``",
    "sum of a row * 2**32": r"sum of a row \* 2\*\*32",
    "A layer y = W x saves its input": r"A layer <y = W\,x> saves its input",
}


@pytest.mark.parametrize(("typed", "shown"), TYPED.items())
def test_a_formula_is_set(typed, shown):
    text = re.sub(r":math:`([^`]*)`", r"<\1>", typeset.typeset(typed))
    assert text.replace("\\ ", " " if "\\ \\text" in text else "").replace("  ", " ") == shown.replace(
        "\\ ", " "
    )


def test_no_symbol_became_a_list(groups):
    """A description that is "n." alone would be item 14 of a list."""
    for page in groups.values():
        assert page.select("ol.loweralpha, ol.upperalpha, ol.lowerroman, ol.upperroman") == []


def test_types_are_linked_to_their_public_names(definitions):
    for function, result in (("find_rank", "RankSearch"), ("weighted_factors", "Moments")):
        title = definitions[f"lowrank_utils.{function}"][1]
        assert [a for a in title.find_all("a", href=True) if a["href"].endswith(f"#lowrank_utils.{result}")]


def test_every_reference_is_linked_to_the_bibliography(site, groups):
    works = {node["id"] for node in document(site, "bibliography").find_all("div", class_="citation")}
    total = 0
    for page in groups.values():
        for field in [dt for dt in page.find_all("dt") if dt.get_text().startswith("Reference")]:
            entry = field.find_next_sibling("dd")
            links = [a["href"] for a in entry.find_all("a")]
            assert len(links) == len(re.findall(r"\b(?:19|20)\d\d\b", entry.get_text())) > 0
            assert {link.partition("#")[2] for link in links} <= works
            total += len(links)
    assert total >= 15


def test_a_work_is_found_by_its_first_author_and_year(monkeypatch):
    known = {("eckart", "1936"): "e", ("pena", "2001"): "p"}
    text = 'Eckart & Young, "The title", 1936; Peña et al. 2001 (on it); in May 1999'
    cited = api_page.cite(text.replace("ñ", "n"), known, every=False, where="f")
    assert cited == ":cite:t:`e`; :cite:t:`p` (on it); in May 1999"
    assert api_page.bare("Peña") == "pena"
    known = {("de lathauwer", "2000"): "d"}
    assert api_page.cite("De Lathauwer et al. 2000.", known, every=True, where="f") == ":cite:t:`d`."
    said = []
    monkeypatch.setattr(api_page.logger, "warning", lambda text, *values: said.append(text % values))
    for wrong in ("Nobody 1936.", "Roofline, 2009."):
        api_page.cite(wrong, known, every=True, where="f")
    assert len(said) == 3 and all(
        "f: " in line for line in said
    )  # the unknown one, and two that are no citation


def examples(groups):
    """Each example of the pages, as it is shown."""
    for name, page in groups.items():
        for block in page.find_all("pre"):
            if block.get_text().lstrip().startswith(">>>"):
                yield name, block.get_text()


def test_every_example_runs_as_it_is_shown(groups):
    shown = list(examples(groups))
    assert len(shown) >= 25
    for i, (name, text) in enumerate(shown):
        test = doctest.DocTestParser().get_doctest(text, {}, f"{name} {i}", None, 0)
        said = []
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
        assert not said, "".join(said)


def test_the_imports_of_an_example():
    example = ">>> net = Net()\n>>> nn.Linear(2, 3), torch.ones(2), len([x for x in (1,)])\n"
    assert api_page.imports(example) == [
        ">>> import torch", ">>> from torch import nn", ">>> from lowrank_utils import Net",
    ]  # fmt: skip
