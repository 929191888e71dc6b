"""The book's figures, one line each: colour-blind-safe, with labelled axes. Each returns what it drew on."""

from __future__ import annotations

from lowrank_utils.plotting.blocks import block_map
from lowrank_utils.plotting.chart import decision_chart
from lowrank_utils.plotting.harm import harm_curves
from lowrank_utils.plotting.matrices import heatmaps, images, spectrum
from lowrank_utils.plotting.results import band, decision_regions, frontier, rank_curve, ratio_curves, strip
from lowrank_utils.plotting.style import COLOURS as COLOURS
from lowrank_utils.plotting.style import MARKERS as MARKERS
from lowrank_utils.plotting.style import use_style

__all__ = [
    "band", "block_map", "decision_chart", "decision_regions", "frontier", "harm_curves", "heatmaps",
    "images", "rank_curve", "ratio_curves", "spectrum", "strip", "use_style",
]  # fmt: skip
