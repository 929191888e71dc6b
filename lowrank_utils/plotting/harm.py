"""The picture of measured harm: what each layer's cut does to the whole model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from lowrank_utils.network.harm import Harm, harm_options
from lowrank_utils.plotting.style import COLOURS, MARKERS
from lowrank_utils.plotting.style import axes as own_axes


def harm_curves(harm: Harm, *, ax: Axes | None = None) -> Axes:
    """Harm to the model's outputs against the share of a layer's numbers that are kept, a line a layer.

    A line is the least harm of all forms, interpolated; a marker is a measurement, one shape a form.

    Args:
        harm: What ``measure_harm`` found.
        ax: Where to draw; None makes a figure.
    """
    ax = own_axes(ax)
    few = len(harm.layers) <= len(COLOURS)
    colours = COLOURS if few else plt.get_cmap("viridis")(np.linspace(0, 0.9, len(harm.layers)))
    forms = list(dict.fromkeys(c.form for layer in harm.layers.values() for c in layer.curves))
    for colour, (name, layer) in zip(colours, harm.layers.items(), strict=False):
        costs, losses, picks = harm_options(layer)
        dense = float(np.prod(layer.shape))
        ax.plot(costs[: len(picks)] / dense, losses[: len(picks)], color=colour, lw=1.5, label=name)
        for curve in layer.curves:
            x = [curve.params[i] / dense for i in curve.measured]
            marker = MARKERS[forms.index(curve.form) % len(MARKERS)]
            ax.scatter(x, list(curve.measured.values()), s=14, color=colour, alpha=0.5, marker=marker)
    for i, form in enumerate(forms if len(forms) > 1 else ()):
        ax.scatter(
            [], [], color="#555555", s=14, marker=MARKERS[i % len(MARKERS)], label=form or "product A B"
        )
    ax.set(xlim=(0, 1.02), yscale="log", xlabel="share of the layer's numbers kept")
    ax.set_ylabel(f"harm to the outputs ({harm.measure})")
    ax.legend(fontsize=8, ncols=1 if few else 3)
    return ax
