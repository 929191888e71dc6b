"""Make the pages lighter: figures with fewer bytes, and only those icons that some page shows."""

import logging
import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from fontTools import subset
from PIL import Image

PHOTO_BYTES = 40_000
ICON_RULE = re.compile(r'((?:\.fa-[a-z0-9-]+:{1,2}before,?)+)\{content:"\\[0-9a-f]+"\}')
ICON_FONT = "fa-solid-900"
logging.getLogger("fontTools").setLevel(logging.WARNING)


def lighter_figure(path: Path) -> Path:
    """Replace a PNG by one of 256 colours or, if that is a photograph, by a WebP; return its path.

    Args:
        path: A PNG file; it is left as it is when nothing is gained.
    """
    image = Image.open(path)
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    best, suffix = BytesIO(), ".png"
    flat.quantize(256, dither=Image.Dither.NONE).save(best, "PNG", optimize=True)
    if len(best.getvalue()) > PHOTO_BYTES:
        best, suffix = BytesIO(), ".webp"
        flat.save(best, "WEBP", quality=85)
    if len(best.getvalue()) >= path.stat().st_size:
        return path
    path.unlink()
    path = path.with_suffix(suffix)
    path.write_bytes(best.getvalue())
    return path


def used_icons(texts: Iterable[str]) -> set[str]:
    """Names of the icons that pages and scripts mention."""
    return {name for text in texts for name in re.findall(r"\bfa-[a-z0-9-]+", text)}


def without_unused_icons(css: str, used: set[str]) -> str:
    """Style sheet without the rules of icons that nobody uses."""

    def keep(rule: re.Match) -> str:
        return rule[0] if used & set(re.findall(r"fa-[a-z0-9-]+", rule[1])) else ""

    return ICON_RULE.sub(keep, css)


def icon_font(css: str, fonts: Path) -> str:
    """Write the icon font with only the characters that the style sheet names; return the sheet for it."""
    codes = {int(code, 16) for code in re.findall(r'"\\([ef][0-9a-f]{3})"', css)}
    options = subset.Options(flavor="woff", layout_features=[], drop_tables=["GSUB", "GPOS"])
    font = subset.load_font(fonts / f"{ICON_FONT}.ttf", options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    subset.save_font(font, fonts / f"{ICON_FONT}.book.woff", options)
    return re.sub(
        rf'url\("([^"]*){ICON_FONT}\.woff2"\) format\("woff2"\)',
        rf'url("\1{ICON_FONT}.book.woff") format("woff")',
        css,
    )


def shrink(outdir: Path) -> None:
    """Make the figures, the joined style sheets and the icon font of a built site lighter."""
    names = {p.name: lighter_figure(p).name for p in sorted(outdir.glob("_images/*.png"))}
    pages = list(outdir.rglob("*.html"))
    for page in pages:
        html = page.read_text(encoding="utf-8")
        html = re.sub(r"(?<=_images/)[^\"/]+\.png", lambda m: names.get(m[0], m[0]), html)
        page.write_text(html, encoding="utf-8")
    scripts = [p for p in outdir.glob("_static/scripts/*.js")]
    used = used_icons(p.read_text(encoding="utf-8") for p in pages + scripts)
    for sheet in outdir.glob("_static/styles/book.*.css"):
        css = without_unused_icons(sheet.read_text(encoding="utf-8"), used)
        css = icon_font(css, outdir / "_static" / "vendor" / "fontawesome" / "webfonts")
        sheet.write_text(css, encoding="utf-8")
