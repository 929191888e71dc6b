"""Docstrings against what Python itself says of the functions, and a list that notices another version."""

import importlib
import inspect
import re

import pytest

from lowrank_utils import load_docstrings
from lowrank_utils.lab import docstrings


@pytest.fixture(scope="module")
def pairs():
    return load_docstrings()


def test_they_are_distinct(pairs):
    assert len(pairs) == 2200 == len({pair.name for pair in pairs})
    assert len({pair.summary.lower() for pair in pairs}) == 2200
    assert len({" ".join(pair.body.split())[:60].lower() for pair in pairs}) == 2200
    assert {pair.name.partition("/")[0] for pair in pairs} == {"matplotlib", "numpy", "scipy", "sklearn"}


def test_they_are_those_that_python_has(pairs):
    """Of functions that are imported as they were written; some packages add to the end on import."""
    asked = 0
    for pair in pairs[:80]:
        file, _, name = pair.name.partition(" ")
        module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        found = getattr(module, name, None)
        if not inspect.isfunction(found) or hasattr(found, "__wrapped__"):
            continue
        text = re.sub(r"(?m)^ *[-=~^]{3,} *\n", "", inspect.cleandoc(found.__doc__))
        first, _, rest = text.partition("\n\n")
        assert " ".join(first.split()) == pair.summary
        assert rest[:200] == pair.body[:200]
        asked += 1
    assert asked >= 10


def test_the_first_are_those_of_all(pairs):
    assert load_docstrings(7) == pairs[:7]


def test_a_body_has_no_underlines(pairs):
    lines = [line.strip() for pair in pairs for line in pair.body.splitlines()[:-1]]
    assert not any(re.fullmatch(r"[-=~^]{3,}", line) for line in lines)


@pytest.mark.parametrize("count, words", [(0, "from 1 to 2200"), (2201, "from 1 to 2200"), (2.5, "integer")])
def test_count(count, words):
    with pytest.raises((TypeError, ValueError), match=words):
        load_docstrings(count)


@pytest.mark.parametrize("line", ["numpy/lib/_npyio_impl.py load 00000000", "numpy/none.py load 00000000"])
def test_another_version_is_told(tmp_path, monkeypatch, line):
    listed = tmp_path / "listed.txt"
    listed.write_text(line + "\n")
    monkeypatch.setattr(docstrings, "LISTED", listed)
    with pytest.raises(ValueError, match=r"load of numpy/\S+ has another docstring; .* pinned numpy"):
        load_docstrings(1)


def test_a_package_that_is_missing(tmp_path, monkeypatch):
    listed = tmp_path / "listed.txt"
    listed.write_text("no_such_package/a.py f 00000000\n")
    monkeypatch.setattr(docstrings, "LISTED", listed)
    with pytest.raises(ModuleNotFoundError, match="no_such_package is not installed"):
        load_docstrings(1)
