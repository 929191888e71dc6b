"""Text of unknown origin, made safe at the border: one line, encodable, short, and quoted where it is shown.

What a student wrote or printed travels between two control characters, which it cannot contain itself.
Each form of output turns them into its own quotes; everything outside them is the marker's own wording.
"""

import html
import re
from collections.abc import Callable

OPEN, SHUT = "\x02", "\x03"
LONGEST = 300


def encodable(text: str) -> str:
    """`text` without lone surrogates, which no file can hold; each becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(text: object, longest: int = LONGEST) -> str:
    """Encodable, at most `longest` characters, on one line, without control or direction characters."""
    line = encodable(str(text)[: 4 * longest])
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]+", " ", line).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def quoted(text: object, longest: int = LONGEST) -> str:
    """A student's text as part of a sentence."""
    return f"{OPEN}{one_line(text, longest) or ' '}{SHUT}"


def _each(text: str, own: Callable[[str], str], theirs: Callable[[str], str]) -> str:
    parts = re.split(f"{OPEN}([^{SHUT}]*){SHUT}", text)
    return "".join(theirs(part) if i % 2 else own(part) for i, part in enumerate(parts))


def plain(text: str) -> str:
    """For a table or a terminal."""
    return one_line(_each(text, str, lambda part: f"'{part}'"), 10_000)


def markdown(text: str) -> str:
    """For a Markdown file: what is quoted is code, which no renderer takes for a heading or a tag."""

    def code(part: str) -> str:  # a backtick would end the code, and some renderers look for tags first
        return "`" + part.replace("`", "'").replace("<", "‹").replace(">", "›") + "`"

    return _each(text, lambda part: part.replace("<", "&lt;"), code)


def markup(text: str) -> str:
    """For a page of HTML."""
    return _each(text, html.escape, lambda part: f"<code>{html.escape(part)}</code>")


def cell(text: str) -> str:
    """For a CSV file: a spreadsheet must not take it for a formula."""
    line = plain(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
