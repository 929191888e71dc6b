"""The book's look: a palette that colour-blind readers can tell apart, marks, sizes."""

from __future__ import annotations

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes

# Okabe & Ito's palette, the darker ones first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def use_style() -> None:
    """Set the book's style: palette, sizes, thin grid, no frame at the top and right."""
    plt.rc("axes", prop_cycle=cycler(color=COLOURS), axisbelow=True, grid=True)
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("grid", color="#dddddd")
    plt.rc("figure", figsize=(6.4, 3.4), dpi=120)
    plt.rc("figure.constrained_layout", use=True)
    plt.rc("font", size=11)
    plt.rc("image", cmap="cividis")
    plt.rc("legend", frameon=False)


def axes(ax: Axes | None) -> Axes:
    """These axes, or those of a new figure."""
    return plt.subplots()[1] if ax is None else ax
