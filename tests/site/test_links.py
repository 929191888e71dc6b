"""Every address inside the built site leads to a file of the site, and to an anchor that it has."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from parsed import parsed


def dead(root: Path) -> list[str]:
    """Addresses on the pages of a site that lead nowhere within it."""
    paths = [path for path in root.rglob("*.html") if "_static" not in path.parts]  # the theme's templates
    pages = {path: parsed(path) for path in paths}
    names = {p: {n.get(k) for n in page.find_all(True) for k in ("id", "name")} for p, page in pages.items()}
    wrong = []
    for path, page in pages.items():
        found = [n.get(k) for n in page.find_all(True) for k in ("href", "src") if n.get(k)]
        for address in sorted(set(found)):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                wrong.append(f"{path.relative_to(root)}: {address}: no such file")
            elif anchor and target in names and anchor not in names[target]:
                wrong.append(f"{path.relative_to(root)}: {address}: no such anchor")
    return wrong


def test_no_address_inside_the_site_is_dead(site):
    assert dead(site.resolve()) == []


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        *[(address, None) for address in ("b.html", "b.html#x", "#y")],
        *[("c.html", "file"), ("b.html#z", "anchor"), ("#x", "anchor")],
    ],
)
def test_a_dead_address_is_seen(tmp_path, address, complaint):
    (tmp_path / "a.html").write_text(
        f"<p id='y'><a href='{address}'>go</a><a href='https://x.org/#q'>out</a>"
    )
    (tmp_path / "b.html").write_text("<p id='x'>there")
    assert [line.rpartition(" ")[2] for line in dead(tmp_path)] == ([complaint] if complaint else [])
