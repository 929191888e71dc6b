"""The picture of a deep model: one number a layer, block by block."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lowrank_utils import _checks
from lowrank_utils.plotting.style import axes as own_axes

NUMBERED = re.compile(r"(?:(.*)\.)?(\d+)\.(.+)")  # where it stands, its block, its row


def block_map(values: Mapping[str, float], *, label: str, ax: Axes | None = None, log: bool = False) -> Axes:
    """One number for each layer of each block, as a map: blocks from left to right, what repeats downwards.

    Args:
        values: Numbers by the layers' dotted names, as in ``{"encoder.layers.3.linear1": 0.4}``: the last
            number that something follows is the block, and what follows is the row. Where two layers of one
            block would share a row, as an encoder's and a decoder's do, a row is called by the whole name,
            with a star for the block.
        label: What the numbers are, with their unit, for the colour bar.
        ax: Where to draw; None makes a figure.
        log: Whether the colours go by the logarithm; all values are > 0 then.

    Raises:
        ValueError: If a name has no number of a block.
    """
    found = {name: NUMBERED.fullmatch(name) for name in values}
    if alone := [name for name, parts in found.items() if parts is None]:
        _checks.value_error("values", alone[0], "named with the number of a block, as 'layers.3.up' is")
    at = _places({name: parts for name, parts in found.items() if parts is not None})
    rows = list(dict.fromkeys(row for row, _ in at.values()))
    columns = sorted({block for _, block in at.values()}, key=lambda block: (int(block), block))
    grid = np.full((len(rows), len(columns)), np.nan)
    for name, (row, block) in at.items():
        grid[rows.index(row), columns.index(block)] = values[name]
    ax = own_axes(ax)
    shown = ax.imshow(grid, cmap="cividis", norm="log" if log else "linear", aspect="auto")
    shade = np.asarray(shown.norm(grid))  # from 0, dark, to 1
    digits, size = ".2g" if log else ".2f", 11 if len(columns) <= 8 else 8
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if shade[i, j] < 0.5 else "black"
            ax.text(j, i, f"{value:{digits}}", ha="center", va="center", color=colour, fontsize=size)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel("block")
    ax.grid(False)
    bar = ax.figure.colorbar(shown, ax=ax, label=label)  # plt's is the current figure's
    bar.ax.yaxis.set_minor_locator(NullLocator())
    return ax


def _places(found: Mapping[str, re.Match[str]]) -> dict[str, tuple[str, str]]:
    """{name: (row, block)}, with a place for each name."""
    layers = Counter((parts[3], parts[2]) for parts in found.values())
    shared = {row for (row, _), count in layers.items() if count > 1}
    places = {}
    for name, parts in found.items():
        before, block, row = parts.groups()
        if row in shared:
            row = ".".join([before, "*", row] if before else ["*", row])
        places[name] = row, block
    return places
