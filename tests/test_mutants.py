"""The mutants of `make mutants`: what changes and what does not; the list of survivors is of today."""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "mutants"
PACKAGE = Path(__file__).parents[1] / "lowrank_utils"
LISTED = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8")).get("survivor", [])


@pytest.fixture(scope="module")
def mutants():
    """The function of that name; its module is on no path, so that it hides no other of this name."""
    spec = importlib.util.spec_from_file_location("mutants_operators", HERE / "operators.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module.mutants


def changes(mutants, source):
    return {(mutant.was, mutant.now) for mutant in mutants("room/module.py", source)}


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("a < b", {("a < b", "a <= b"), ("a < b", "a >= b")}),
        ("a is None", {("a is None", "a is not None")}),
        ("a - b", {("a - b", "a + b"), ("a - b", "b - a")}),
        ("a @ b", {("a @ b", "b @ a")}),
        ("a and b", {("a and b", "a or b")}),
        ("not a", {("not a", "a")}),
        ("c if a else b", {("c if a else b", "c if not a else b")}),
        ("3", {("3", "4"), ("3", "2")}),
        ("0.5", {("0.5", "1.5"), ("0.5", "0.55")}),
        ("1e-3", {("0.001", "0.1"), ("0.001", "1e-05")}),
        ("True", {("True", "False")}),
        ("'words'", set()),
        ("f(a, b)", {("f(a, b)", "f(b, a)")}),
        ("f(a, key=b)", {("f(a, key=b)", "f(a)")}),
        ("_checks.rank(a, b)", set()),
    ],
)
def test_changes_of_an_expression(mutants, source, wanted):
    found = changes(mutants, f"x = {source}")
    assert {(was, now) for was, now in found if not was.startswith("x = ")} == wanted


def test_changes_of_statements(mutants):
    source = """
import torch
X = int | None

@torch.no_grad()
def f(a: int | None = 1, *, key=True) -> "int | None":
    '''Words: 1 < 2.'''
    with torch.no_grad():
        a += b
    a = key
    new = a
    g.x = a
    if wrong:
        raise ValueError(f"{a + 1}")
    for i in a:
        continue
    return new
"""
    found = changes(mutants, source)
    assert found == {
        ("@torch.no_grad() f", "f"),
        ("1", "2"),
        ("1", "0"),
        ("True", "False"),
        ("with torch.no_grad():", "if True:"),
        ("a += b", "a -= b"),
        ("a += b", "pass"),
        ("a = key", "pass"),
        ("g.x = a", "pass"),
        ("if wrong:", "if not wrong:"),
        ("raise ValueError(f'{a + 1}')", "pass"),
        ("continue", "pass"),
        ("return new", "return None"),
    }


def test_a_mutant_changes_one_place_and_no_line_number(mutants):
    source = "def f(a, b):\n    c = a - b  # told\n    return c * 2\n"
    plain = ast.unparse(ast.parse(source))
    for mutant in mutants("room/module.py", source):
        tree = mutant.tree(source)
        assert ast.unparse(tree) != plain
        assert [node.lineno for node in tree.body[0].body] == [2, 3]
        assert mutant.line == {2: "c = a - b", 3: "return c * 2"}[mutant.number]


def test_the_order_of_the_sample_is_that_of_the_seed(mutants):
    """Lines that move change no mutant's place."""
    source = "def f(a, b):\n    return a - b * 2\n"
    places = {m.key: m.place(0) for m in mutants("room/module.py", source)}
    assert {
        m.key: m.place(0) for m in mutants("room/module.py", "\n\nx = 1\n" + source)
    }.items() >= places.items()
    others = {m.key: m.place(1) for m in mutants("room/module.py", source)}
    assert sorted(places, key=places.get) != sorted(others, key=others.get)


@pytest.mark.parametrize("module", sorted({entry["module"] for entry in LISTED}))
def test_each_survivor_that_is_listed_is_a_mutant_and_has_a_reason(mutants, module):
    source = (PACKAGE / module).read_text(encoding="utf-8")
    keys = {mutant.key for mutant in mutants(module, source)}
    mine = [entry for entry in LISTED if entry["module"] == module]
    named = [(e["module"], e["line"], e["was"], e["now"], e.get("nth", 0)) for e in mine]
    assert set(named) - keys == set()
    assert len(set(named)) == len(named)
    assert all(len(entry["reason"].split()) >= 4 for entry in mine)
