"""Plugin: nbval skips images, so each figure of a notebook is compared here, in the same run.

Stored and fresh PNG are decoded and must have the same size and nearly the same pixels in each tile: rounding
moves a line by less than a pixel. A figure that lost a curve, a label or its colours changes more.
``LIMIT`` lies between what rounding noise of 16 ulp does to the chapters' figures and what the smallest of
those mistakes does (tests/test_figures.py).
"""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

BLUR = 1.0  # pixels: half a pixel's shift of an edge is no difference that anybody sees
# Of 255: the largest mean over a tile of TILE x TILE pixels of the root-mean-square difference. Rounding
# noise did 9.7 at most, where it moved a marker of chapter 8 by half a pixel. The smallest of the mistakes
# does 20.
LIMIT = 12.0
TILE = 32
seen: dict[str, list[float]] = {}


def decode(png: str) -> np.ndarray:
    """Pixels (height, width, 3) of a figure as notebooks store it, slightly blurred, on white."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(flat.filter(ImageFilter.GaussianBlur(BLUR)), dtype=float)


def difference(stored: np.ndarray, fresh: np.ndarray) -> float:
    """The root-mean-square difference of the tile in which it is largest, from 0 to 255."""
    squares = ((stored - fresh) ** 2).mean(2)
    height, width = squares.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.zeros((rows * TILE, columns * TILE))
    padded[:height, :width] = squares
    tiles = padded.reshape(rows, TILE, columns, TILE).mean((1, 3))
    return float(tiles.max() ** 0.5)


def pngs(outputs: list) -> list[str]:
    """The figures among a cell's outputs, in their order."""
    return [out["data"]["image/png"] for out in outputs if "image/png" in out.get("data", {})]


def compare(stored: list[str], fresh: list[str]) -> tuple[str, float]:
    """What is different, if anything, and the largest difference that was seen."""
    if len(stored) != len(fresh):
        return f"{len(stored)} figures are stored, {len(fresh)} were drawn", 255.0
    largest = 0.0
    for number, pair in enumerate(zip(stored, fresh, strict=True), start=1):
        before, after = map(decode, pair)
        if before.shape != after.shape:
            return f"figure {number} of {before.shape[:2]} pixels was drawn with {after.shape[:2]}", 255.0
        largest = max(largest, off := difference(before, after))
        if not off <= LIMIT:
            return f"figure {number} differs by {off:.1f} of 255 in one place, more than {LIMIT:g}", off
    return "", largest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """After nbval has compared a cell's text, compare its figures."""
    result = yield
    if getattr(item, "test_outputs", None) is not None and item.options["check"]:
        stored = pngs(item.cell.outputs)
        wrong, off = compare(stored, pngs(item.test_outputs))
        if stored:
            item.user_properties.append(("figure", (item.path.stem, off)))
        if wrong:
            item.raise_cell_error("Cell outputs differ", wrong)
    return result


def pytest_runtest_logreport(report):
    """Collect the differences, also from the processes of xdist."""
    if report.when == "call":
        for key, value in report.user_properties:
            if key == "figure":
                seen.setdefault(value[0], []).append(value[1])


def pytest_terminal_summary(terminalreporter):
    """One line for each notebook that has figures."""
    if seen:
        terminalreporter.section(f"how far figures are from the stored ones (at most {LIMIT:g} of 255)")
    for name, off in sorted(seen.items()):
        terminalreporter.line(f"{name:30} {len(off)} figures, by {max(off):.2f} at most")
