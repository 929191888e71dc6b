"""Pictures of matrices: their spectra, their entries, and photographs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.plotting.style import COLOURS
from lowrank_utils.plotting.style import axes as own_axes


def spectrum(S: Tensor, *, kept: int = 0, ax: Axes | None = None, log: bool = False) -> Axes:
    """Singular values by index; the first ``kept`` are filled, the others hollow.

    Args:
        S: Singular values (k,).
        kept: How many are kept; 0 names none.
        ax: Where to draw; None makes a figure.
        log: Whether the value axis is logarithmic.

    Raises:
        ValueError: If more are kept than there are.
    """
    kept = _checks.integer(kept, "kept", low=0, high=len(S))
    ax = own_axes(ax)
    s, index = S.detach().double().numpy(), np.arange(1, len(S) + 1)
    ax.plot(index, s, color="#888888", lw=1, zorder=1)
    if kept:
        ax.scatter(index[:kept], s[:kept], color=COLOURS[0], label=f"kept: {kept}", zorder=2)
    rest: dict[str, Any] = {"facecolor": "white", "edgecolor": COLOURS[1], "zorder": 2}
    ax.scatter(index[kept:], s[kept:], label=f"dropped: {len(s) - kept}" if kept else None, **rest)
    ax.set(xlabel="index $i$", ylabel="singular value $\\sigma_i$", yscale="log" if log else "linear")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if kept:
        ax.legend()
    return ax


def heatmaps(matrices: Mapping[str, Tensor], *, annotate: bool = False) -> Figure:
    """Matrices side by side on one colour scale, symmetric about 0 (orange negative, purple positive).

    Args:
        matrices: Matrices (m, n) by title.
        annotate: Whether to write each entry into its cell.
    """
    fig, axes = plt.subplots(1, len(matrices), figsize=(1.2 + 1.3 * len(matrices), 3.4), squeeze=False)
    limit = max(float(M.detach().abs().max()) for M in matrices.values())
    for ax, (title, M) in zip(axes[0], matrices.items(), strict=True):
        shown = ax.imshow(_drawn(M), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
        ax.set(title=title, xlabel="input", ylabel="output" if ax is axes[0, 0] else "")
        ax.grid(False)
        for (i, j), value in np.ndenumerate(_drawn(M)) if annotate else ():
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7)
    fig.colorbar(shown, ax=axes, label="weight")
    return fig


def images(pictures: Mapping[str, Tensor], *, columns: int | None = None) -> Figure:
    """Pictures in rows.

    Args:
        pictures: Pictures by title, (height, width) in grey or (height, width, 3) in colour, from 0 to 1.
        columns: How many in a row; None puts all in one.

    Raises:
        ValueError: If a picture of integers goes beyond 1.
    """
    for title, picture in pictures.items():
        if not picture.is_floating_point() and int(picture.max()) > 1:
            _checks.value_error(f"pictures[{title!r}]", picture, "from 0 to 1: divide what ends at 255 by it")
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, width = next(iter(pictures.values())).shape[:2]
    size = (3.2 * columns, (3.2 * height / width + 0.4) * rows)  # 0.4 inch for the title
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")  # also where the last row has no picture
    for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.imshow(_drawn(picture.clamp(0, 1)), cmap="gray", vmin=0, vmax=1)
        ax.set_title(title)
    return fig


def _drawn(M: Tensor) -> NDArray[Any]:
    """The numbers in a precision that can be drawn: bfloat16 is unknown to numpy."""
    return (M.float() if M.dtype == torch.bfloat16 else M).detach().cpu().numpy()
