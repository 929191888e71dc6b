"""Figures of a notebook with fewer bytes, so that a file stays below what GitHub shows and a phone loads."""

import base64
from io import BytesIO

from PIL import Image

PHOTO_BYTES = 60_000  # of a drawing; what needs more is a photograph


def written(image: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a picture's file."""
    out = BytesIO()
    image.save(out, kind, optimize=True, **options)
    return out.getvalue()


def lighter(png: str, photographs: bool = True) -> tuple[str, str]:
    """Media type and base64 of a figure: a PNG of 256 colours or, for a photograph, a JPEG.

    Args:
        png: Base64 of a PNG file; it stays as it is where nothing is gained.
        photographs: Whether a JPEG will do.
    """
    data = base64.b64decode(png)
    image = Image.open(BytesIO(data))
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    found = {"image/png": written(flat.quantize(256, dither=Image.Dither.NONE), "PNG")}
    if photographs and len(found["image/png"]) > PHOTO_BYTES:
        found["image/jpeg"] = written(flat, "JPEG", quality=88)
    kind = min(found, key=lambda name: len(found[name]))
    if len(found[kind]) >= len(data):
        return "image/png", png.strip()
    return kind, base64.b64encode(found[kind]).decode()
