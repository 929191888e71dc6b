"""Pictures of what nets do: regions, scores against ranks and sizes, runs over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.model.metrics import logits
from lowrank_utils.network.report import Report
from lowrank_utils.plotting.style import COLOURS, MARKERS
from lowrank_utils.plotting.style import axes as own_axes
from lowrank_utils.search.find_rank import RankSearch


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
        net: Classifier, (N, n) -> (N, C), or (N, 1) that is above 0 where the label is 1.
        X: Samples (N, n).
        y: Labels (N,).
        columns: The two features drawn.
        labels: Their names, for the axes.
        classes: Names of the classes, in the order of their labels.
        at: Sample (n,) that the other features are taken from; None holds them at 0.
        ax: Where to draw; None makes a figure.

    Raises:
        ValueError: If a class that is drawn has no name.
    """
    a, b = columns
    X = X.detach()  # nobody asked for its gradient
    low, high = X[:, columns].min(0).values - 0.5, X[:, columns].max(0).values + 0.5
    u, v = (torch.linspace(float(low[i]), float(high[i]), 200, dtype=X.dtype) for i in (0, 1))
    grid = (X.new_zeros(X.shape[1]) if at is None else at.to(X)).repeat(200 * 200, 1)
    grid[:, a], grid[:, b] = u.repeat(200), v.repeat_interleave(200)
    like = next(net.parameters(), grid)
    scores = logits(net, grid.to(like.dtype))
    winner = (scores.argmax(1) if scores.shape[1] > 1 else scores[:, 0] > 0).long().reshape(200, 200)
    largest = max(int(winner.max()), int(y.max()))
    if largest >= len(classes):
        _checks.value_error("classes", classes, f"names of all classes, the label {largest} among them")
    ax = own_axes(ax)
    levels = np.arange(len(classes) + 1) - 0.5
    colours = [COLOURS[c % len(COLOURS)] for c in range(len(classes))]
    ax.contourf(u, v, winner, levels=levels, colors=colours, alpha=0.25)
    for c, name in enumerate(classes):
        points = X[y == c]
        marker = MARKERS[(c + c // len(COLOURS)) % len(MARKERS)]  # past the palette another pair of both
        marks: dict[str, Any] = {"marker": marker, "color": colours[c], "edgecolor": "white"}
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
    ax = own_axes(ax)
    ax.plot(list(search.curve), list(search.curve.values()), marker="o", ms=3, lw=1, label=label)
    ax.axhline(search.baseline, color="#888888", lw=1, label="full rank")
    limit = search.baseline - search.max_drop
    ax.axhline(limit, color="#888888", lw=1, ls="--", label=f"allowed drop: {search.max_drop:g}")
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
    ax = own_axes(ax)
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
    ax = own_axes(ax)
    values = runs.detach().double().numpy()
    low, high = np.percentile(values, [10, 90], axis=0)
    marker = MARKERS[len(ax.lines) % len(MARKERS)]
    (line,) = ax.plot(x, values.mean(0), marker=marker, ms=4, label=label)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    return ax


def ratio_curves(x: Sequence[float], curves: Mapping[str, Sequence[float]], title: str, ax: Axes) -> Axes:
    """Time factored / dense against rank / break-even rank; dashed: what parameters and MACs do.

    Args:
        x: Ranks in units of the break-even rank, (k,).
        curves: Times in units of the dense layer's, (k,), by name.
        title: What was timed.
        ax: Where to draw.
    """
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(x, values, marker=MARKERS[i % len(MARKERS)], ms=4, label=name)
    ax.axline((1, 1), slope=1, color="black", ls="--", lw=1, label="parameters, MACs")
    ax.set(title=title, xlabel="rank / break-even rank", ylabel="time, factored / dense")
    return ax


def strip(
    groups: Mapping[str, Sequence[float]], *, ax: Axes | None = None, unit: str = "test accuracy"
) -> Axes:
    """Each value of each group as a dot, its mean as a bar: what several seeds really gave.

    Args:
        groups: Values by name.
        ax: Where to draw; None makes a figure.
        unit: What the values are, for the axis.
    """
    ax = own_axes(ax)
    for i, (name, values) in enumerate(groups.items()):
        spread = i + 0.25 * (np.arange(len(values)) / max(1, len(values) - 1) - 0.5)
        marks: dict[str, Any] = {"s": 18, "alpha": 0.6, "marker": MARKERS[i % len(MARKERS)]}
        ax.scatter(values, spread, color=COLOURS[i % len(COLOURS)], label=name, **marks)
        ax.plot([np.mean(values)] * 2, [i - 0.3, i + 0.3], color="black", lw=2)
    ax.set(yticks=range(len(groups)), yticklabels=list(groups), xlabel=unit)
    ax.invert_yaxis()
    return ax
