"""Shared by the reader's tests: a chapter is read once in each process, and every test gets a copy."""

import copy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))

import reader_notebooks as reader

kept = {}


@pytest.fixture(scope="session", autouse=True)
def each_chapter_is_read_once():
    """It takes a third of a second, and nearly two hundred times a test asks for one."""
    read = reader.read

    def once(path, book):
        key = path, path.stat().st_mtime_ns, book, book.install
        if key not in kept:
            kept[key] = read(path, book)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "read", once)
        yield


@pytest.fixture
def forget():
    """Function after which chapters are read anew."""
    return kept.clear
