"""The README's example runs and prints what its comments say."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example() -> str:
    """The first python block."""
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def promised(code: str) -> list[str]:
    """What the comments behind the prints say."""
    return [line.split("  # ")[1] for line in code.splitlines() if line.startswith("print(")]


def test_the_example_prints_what_it_says() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(example(), {})
    assert out.getvalue().splitlines() == promised(example())
    assert len(promised(example())) == 2


def test_a_changed_digit_is_seen() -> None:
    assert promised(example().replace("1 83 57", "1 83 58")) != promised(example())


def test_every_chapter_is_in_the_map() -> None:
    for chapter in (ROOT / "book").glob("[0-9]*.ipynb"):
        assert f"(book/{chapter.name})" in README, chapter.name


def test_the_pins_are_those_of_the_requirements() -> None:
    pins = (ROOT / "requirements.txt").read_text()
    for pin in re.findall(r"torch(?:vision)?==[\d.]+", README):
        assert pin in pins
