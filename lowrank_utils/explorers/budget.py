"""The budget explorer: each layer's rank for a budget, and the frontier, under a slider, no kernel."""

from __future__ import annotations

from typing import Any

from lowrank_utils import _checks
from lowrank_utils.explorers.page import page
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.network.report import LayerReport, Report


class BudgetExplorer:
    r"""Every network that ``compress_within`` tried, and the dense one, with a slider for the budget.

    Show it as the last value of a cell. For each network the page draws the rank of each layer as the share
    of its weights that is kept, r(m + n) / mn, and marks the network on the frontier of score against
    parameters. The HTML holds the numbers and a script: it needs neither network nor kernel. Scores are
    embedded to 4 decimals, errors to a tenth of a percent. A page without scripts, and
    JupyterLab as long as it does not trust the notebook, shows one sentence.

    Args:
        report: What ``compress_within`` returned beside the model.
        name: What the page calls the model.
        score: What the page calls the metric.

    Raises:
        TypeError: If ``report`` is no ``Report``, ``name`` or ``score`` no string.
        ValueError: If the report tried nothing.

    Example:
        >>> rows = (LayerReport("0", (8, 8), 2, 32, 32, 0.1),)
        >>> tried = {32: (0.9, {"0": 2})}
        >>> BudgetExplorer(Report(rows, 0.95, 0.9, 0.1, (64, 32), tried, {32: rows}, True))
        BudgetExplorer('the model', 1 layer, 1 network from 32 to 64 parameters)
    """

    def __init__(self, report: Report, *, name: str = "the model", score: str = "validation score") -> None:
        if not isinstance(report, Report):
            _checks.type_error("report", report, "a Report, as compress_within returns")
        for argument, value in (("name", name), ("score", score)):
            if not isinstance(value, str):
                _checks.type_error(argument, value, "a string")
        if not report.tried:
            _checks.value_error("report.tried", report.tried, "of one network at least")
        if any(row.macs is None for row in report.layers):
            _checks.value_error("report", "Report", "one with MACs: give compress_within data")
        self.report, self.name, self.score = report, name, score

    def __repr__(self) -> str:
        layers, nets = len(self.report.layers), len(self.report.tried)
        sizes = f"{min(self.report.tried):,} to {self.report.params[0]:,} parameters"
        return (
            f"BudgetExplorer({self.name!r}, {layers} layer{'s' * (layers > 1)}, "
            f"{nets} network{'s' * (nets > 1)} from {sizes})"
        )

    def _networks(self) -> list[dict[str, Any]]:
        """What was tried, by rising size, and the dense network, whose ranks are 0."""
        report, (before, _) = self.report, self.report.params
        tried = [_network(size, report.frontier[size][0], rows) for size, rows in report.tried.items()]
        dense = []
        for row in report.layers:  # MACs are the weights times the rows of a sample, whatever the rank
            weights = row.shape[0] * row.shape[1]
            macs = None if row.macs is None else round(weights * row.macs / row.params)
            dense.append(LayerReport(row.layer, row.shape, None, weights, macs, 0.0))
        smaller = [network for network in tried if network["params"] < before]
        return [*smaller, _network(before, report.baseline, tuple(dense))]

    def _data(self) -> dict[str, Any]:
        report, networks = self.report, self._networks()
        last, sizes = len(networks), [network["params"] for network in networks]
        chosen = sizes.index(report.params[1]) + 1 if report.feasible else last
        return {
            "slider": {
                "title": f"Budget explorer of {self.name}",
                "label": f"Budget of {self.name}: network 1 to {last}, by parameters",
                "low": 1,
                "high": last,
                "start": chosen,
                "marks": {chosen: "returned"},
            },
            "name": self.name,
            "score": self.score,
            "layers": [
                {"name": row.layer, "m": row.shape[0], "n": row.shape[1], "even": break_even_rank(*row.shape)}
                for row in report.layers
            ],
            "networks": networks,
            "chosen": chosen,
            "feasible": report.feasible,
            "baseline": round(report.baseline, 4),
            "drop": report.max_drop,
        }

    def _repr_html_(self) -> str:
        report, (before, after) = self.report, self.report.params
        told = (
            f"{self.name}: networks of {min(report.tried):,} to {before:,} parameters were tried. "
            f"Returned: {after:,} parameters, {self.score} {report.score:.4f} after {report.baseline:.4f}."
        )
        return page("budget", self._data(), told)


def _network(params: int, score: float, rows: tuple[LayerReport, ...]) -> dict[str, Any]:
    return {
        "params": params,
        "score": round(score, 4),
        "macs": sum(row.macs or 0 for row in rows),
        "ranks": [row.rank or 0 for row in rows],  # 0 is dense
        "weights": [row.params for row in rows],
        "errors": [round(row.error, 3) for row in rows],
    }
