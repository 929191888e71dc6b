"""Faults of the theme's HTML and their mends: each takes the text of a page and returns it mended.

`tests/site` has a test for each. When the theme changes, drop a mend and see whether its test fails.
"""

import re


def without_fontawesome_js(html: str) -> str:
    """Drop a script of 1.5 MB: the icons of the page come from the icon fonts."""
    return re.sub(r'\s*<script src="[^"]*fontawesome\.js[^"]*"></script>', "", html)


def one_icon_font(html: str) -> str:
    """Draw the repository with an icon of the font that is loaded anyway: 118 KB less."""
    return html.replace('<i class="fab fa-github"></i>', '<i class="fas fa-code-branch"></i>')


def sidebar_is_a_landmark(html: str) -> str:
    """Let a screen reader reach the left side bar, with the title and the search button, as a region."""
    return html.replace(
        '<div id="pst-primary-sidebar" class',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class',
    )


def sidebar_toggles_have_names(html: str) -> str:
    """Say what the arrow beside a page of the left side bar does: it holds nothing but an icon."""
    return html.replace(
        '<summary><span class="toctree-toggle"',
        '<summary aria-label="Pages below this one"><span class="toctree-toggle"',
    )


def no_empty_table_header(html: str) -> str:
    """Make the empty corner of a data frame a plain cell."""
    return re.sub(r"<th>\s*</th>", "<td></td>", html)


def no_repeated_ids(html: str) -> str:
    """Drop the id that every exercise, solution and theorem gives to its body."""
    return re.sub(r'<section id="(?:exercise|solution|proof)-content">', "<section>", html)


def no_deprecated_roles(html: str) -> str:
    """Drop the bibliography's roles: one is deprecated, the other wants different children."""
    html = html.replace(' role="doc-biblioentry"', "")
    return html.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def no_label_on_a_work(html: str) -> str:
    """Drop the number before a work of the bibliography: the text cites author and year, not numbers."""
    return re.sub(r'(<div class="citation"[^>]*>\s*)<span class="label">.*?</span></span>\s*', r"\1", html)


def no_list_in_a_signature(html: str) -> str:
    """Make the lines of a long signature plain lines: descriptions of nothing are no list."""

    def mend(match: re.Match) -> str:
        lines = re.sub(r"<dd>(.*?)</dd>", r'<span class="sig-line">\1</span>', match[2], flags=re.S)
        return f'{match[1]}<span class="sig-lines">{lines}</span>'

    return re.sub(r'(<span class="sig-paren">\(</span>)\s*<dl>(.*?)</dl>', mend, html, flags=re.S)


MENDS = (
    without_fontawesome_js,
    one_icon_font,
    sidebar_is_a_landmark,
    sidebar_toggles_have_names,
    no_empty_table_header,
    no_repeated_ids,
    no_deprecated_roles,
    no_label_on_a_work,
    no_list_in_a_signature,
)
