"""The book's figures, one line each: colour-blind-safe, with labelled axes. Each returns what it drew on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from lowrank_utils.model.metrics import logits
from lowrank_utils.network.report import Report
from lowrank_utils.search.find_rank import RankSearch

__all__ = [
    "band", "decision_regions", "frontier", "heatmaps", "images",
    "rank_curve", "ratio_curves", "spectrum", "strip", "use_style",
]  # fmt: skip

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


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def spectrum(S: Tensor, *, kept: int = 0, ax: Axes | None = None, log: bool = False) -> Axes:
    """Singular values by index; the first ``kept`` are filled, the others hollow.

    Args:
        S: Singular values (k,).
        kept: How many are kept; 0 names none.
        ax: Where to draw; None makes a figure.
        log: Whether the value axis is logarithmic.
    """
    ax = _axes(ax)
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
        shown = ax.imshow(M.detach().numpy(), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
        ax.set(title=title, xlabel="input", ylabel="output" if ax is axes[0, 0] else "")
        ax.grid(False)
        for (i, j), value in np.ndenumerate(M.detach().numpy()) if annotate else ():
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7)
    fig.colorbar(shown, ax=axes, label="weight")
    return fig


def decision_regions(
    net: nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    columns: tuple[int, int] = (2, 3),
    labels: Sequence[str] = ("petal length (standardised)", "petal width (standardised)"),
    classes: Sequence[str] = ("setosa", "versicolor", "virginica"),
    at: Tensor | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Predicted class over two features, the other features held fixed, with the samples on top.

    Args:
        net: Classifier, (N, n) -> (N, C).
        X: Samples (N, n).
        y: Labels (N,).
        columns: The two features drawn.
        labels: Their names, for the axes.
        classes: Names of the classes, in the order of their labels.
        at: Sample (n,) that the other features are taken from; None holds them at 0.
        ax: Where to draw; None makes a figure.
    """
    ax = _axes(ax)
    a, b = columns
    low, high = X[:, columns].min(0).values - 0.5, X[:, columns].max(0).values + 0.5
    u, v = torch.linspace(low[0], high[0], 200), torch.linspace(low[1], high[1], 200)
    grid = (torch.zeros(X.shape[1]) if at is None else at).repeat(200 * 200, 1)
    grid[:, a], grid[:, b] = u.repeat(200), v.repeat_interleave(200)
    winner = logits(net, grid).argmax(1).reshape(200, 200)
    levels = np.arange(len(classes) + 1) - 0.5
    ax.contourf(u, v, winner, levels=levels, colors=COLOURS[: len(classes)], alpha=0.25)
    for c, name in enumerate(classes):
        points = X[y == c]
        marks: dict[str, Any] = {"marker": MARKERS[c], "color": COLOURS[c], "edgecolor": "white"}
        ax.scatter(points[:, a], points[:, b], s=28, linewidth=0.5, label=name, **marks)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.grid(False)
    ax.legend(fontsize=8)
    return ax


def rank_curve(search: RankSearch, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Score against rank, with the lowest score allowed and the rank found.

    Args:
        search: What ``find_rank`` returned.
        ax: Where to draw; None makes a figure.
        label: Name of the curve.
    """
    ax = _axes(ax)
    ax.plot(list(search.curve), list(search.curve.values()), marker="o", ms=3, lw=1, label=label)
    ax.axhline(search.baseline, color="#888888", lw=1, label="full rank")
    limit = search.baseline - search.max_drop
    ax.axhline(limit, color="#888888", lw=1, ls="--", label=f"allowed: -{search.max_drop:g}")
    if search.rank is not None:
        found = f"smallest feasible: {search.rank}"
        ax.scatter([search.rank], [search.curve[search.rank]], s=80, color=COLOURS[1], label=found, zorder=3)
    ax.set(xlabel="rank $r$", ylabel="score")
    ax.legend(fontsize=9)
    return ax


def frontier(report: Report, *, ax: Axes | None = None) -> Axes:
    """Score against parameters of each network ``compress_within`` tried; the line is the Pareto frontier.

    Args:
        report: What ``compress_within`` reported.
        ax: Where to draw; None makes a figure.
    """
    ax = _axes(ax)
    sizes, scores = list(report.frontier), [value for value, _ in report.frontier.values()]
    ax.scatter(sizes, scores, s=18, alpha=0.6, label="tried")
    ax.step(sizes, np.maximum.accumulate(scores), where="post", label="Pareto frontier")
    ax.axhline(report.baseline - report.max_drop, color="#888888", ls="--", lw=1, label="allowed")
    ax.scatter(report.params[1], report.score, s=80, color=COLOURS[1], label="returned", zorder=3)
    ax.set(xscale="log", xlabel="parameters", ylabel="score")
    ax.legend(fontsize=9)
    return ax


def band(x: Sequence[float], runs: Tensor, *, label: str | None = None, ax: Axes | None = None) -> Axes:
    """Mean of several runs as a line, their 10th to 90th percentile as a band.

    Args:
        x: Positions (k,).
        runs: One run a row, (runs, k).
        label: Name of the line.
        ax: Where to draw; None makes a figure.
    """
    ax = _axes(ax)
    values = runs.detach().double().numpy()
    low, high = np.percentile(values, [10, 90], axis=0)
    marker = MARKERS[len(ax.lines) % len(MARKERS)]
    (line,) = ax.plot(x, values.mean(0), marker=marker, ms=4, label=label)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    return ax


def ratio_curves(x: Sequence[float], curves: Mapping[str, Sequence[float]], title: str, ax: Axes) -> None:
    """Time factored / dense against rank / break-even rank; dashed: what parameters and MACs do.

    Args:
        x: Ranks in units of the break-even rank, (k,).
        curves: Times in units of the dense layer's, (k,), by name.
        title: What was timed.
        ax: Where to draw.
    """
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(x, values, marker=MARKERS[i], ms=4, label=name)
    ax.axline((1, 1), slope=1, color="black", ls="--", lw=1, label="parameters, MACs")
    ax.set(title=title, xlabel="rank / break-even rank", ylabel="time, factored / dense")


def strip(
    groups: Mapping[str, Sequence[float]], *, ax: Axes | None = None, unit: str = "test accuracy"
) -> Axes:
    """Each value of each group as a dot, its mean as a bar: what several seeds really gave.

    Args:
        groups: Values by name.
        ax: Where to draw; None makes a figure.
        unit: What the values are, for the axis.
    """
    ax = _axes(ax)
    for i, (name, values) in enumerate(groups.items()):
        spread = i + 0.25 * (np.arange(len(values)) / max(1, len(values) - 1) - 0.5)
        marks: dict[str, Any] = {"s": 18, "alpha": 0.6, "marker": MARKERS[i % len(MARKERS)]}
        ax.scatter(values, spread, color=COLOURS[i % len(COLOURS)], label=name, **marks)
        ax.plot([np.mean(values)] * 2, [i - 0.3, i + 0.3], color="black", lw=2)
    ax.set(yticks=range(len(groups)), yticklabels=list(groups), xlabel=unit)
    ax.invert_yaxis()
    return ax


def images(pictures: Mapping[str, Tensor], *, columns: int | None = None) -> Figure:
    """Pictures in rows.

    Args:
        pictures: Pictures by title, (height, width) in grey or (height, width, 3) in colour, from 0 to 1.
        columns: How many in a row; None puts all in one.
    """
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, width = next(iter(pictures.values())).shape[:2]
    size = (3.2 * columns, (3.2 * height / width + 0.4) * rows)  # 0.4 inch for the title
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.imshow(picture.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
        ax.set_title(title)
        ax.axis("off")
    return fig
