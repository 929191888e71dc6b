"""Join the style sheets of a page into one file, and its plain scripts into another: 17 requests less."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

STYLE = re.compile(r'\s*<link\b(?=[^>]*\brel="stylesheet")[^>]*\bhref="([^":?]+)[^":]*"[^>]*>')
SCRIPT = re.compile(r'\s*<script src="([^":?]+\.js)[^":]*"></script>')  # no defer, no data-*


def read_css(path: Path, base: Path) -> str:
    """Text of a style sheet, with imports inlined and relative addresses made relative to base."""

    def move(match: re.Match) -> str:
        target = match[1].strip("\"'")
        if re.match(r"[a-z]+:|[#/]", target):
            return match[0]
        return f'url("{Path(os.path.relpath(path.parent / target, base)).as_posix()}")'

    text = path.read_text(encoding="utf-8").replace('@charset "UTF-8";', "")
    text = re.sub(r"""url\(("[^"]*"|'[^']*'|[^)]*)\)""", move, text)
    return re.sub(r'@import "([^"]+)";', lambda m: read_css(path.parent / m[1], base), text)


def read_js(path: Path, base: Path) -> str:
    """Text of a script, ended so that another can follow."""
    return path.read_text(encoding="utf-8") + "\n;\n"


def _join(
    html: str,
    page: Path,
    folder: Path,
    pattern: re.Pattern,
    read: Callable[[Path, Path], str],
    extra: str,
    *,
    suffix: str,
    tag: str,
) -> str:
    found = list(pattern.finditer(html))
    files = [page.parent / match[1] for match in found]
    if not files or not all(file.is_file() for file in files):
        return html
    text = "\n".join(read(file, folder) for file in files) + extra
    name = f"book.{hashlib.sha256(text.encode()).hexdigest()[:12]}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    link = tag.format(Path(os.path.relpath(folder / name, page.parent)).as_posix())
    last = found[-1]
    html = html[: last.start()] + "\n    " + link + html[last.end() :]
    return pattern.sub(lambda m: m[0] if link in m[0] else "", html)


def bundle(html: str, page: Path, static: Path, extra_css: str, extra_js: str) -> str:
    """Return a page that asks for one style sheet and one script instead of many.

    The joined file takes the place of the last of its parts, so that what stood before still stands before.
    """
    html = _join(
        html,
        page,
        static / "styles",
        STYLE,
        read_css,
        extra_css,
        suffix=".css",
        tag='<link rel="stylesheet" href="{}" />',
    )
    head, use, rest = html.partition("<script>DOCUMENTATION_OPTIONS.pagename")  # the first use
    scripts = static / "scripts"
    tag = '<script src="{}"></script>'
    return _join(head, page, scripts, SCRIPT, read_js, extra_js, suffix=".js", tag=tag) + use + rest
