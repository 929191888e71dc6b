"""Pages of the built site, parsed once in each process: it takes seconds, and five files want them."""

import functools
from pathlib import Path

from bs4 import BeautifulSoup


@functools.cache
def _parsed(path: Path, changed: int) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def parsed(path: Path) -> BeautifulSoup:
    """A page, to be read only: whoever changes it takes a copy."""
    return _parsed(path.resolve(), path.stat().st_mtime_ns)
