r"""What cutting a layer really costs the whole model: measured at a few ranks, one layer at a time.

A spectrum knows the shape of the harm: the tail t(r) = sum_{i > r} s_i^2 falls with the rank. Only a
measurement knows its price. Of each layer alone, at a few ranks of each form, the change h of the model's
outputs is taken; the ratio h / t, which varies slowly, is interpolated over log r, and h(r) = ratio(r) t(r)
at every rank. No labels are needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lowrank_utils.factors.unfold import Rank
from lowrank_utils.layers.views import Pick
from lowrank_utils.network.choices import Choices, pareto


@dataclass(frozen=True)
class HarmCurve:
    """One layer in one form: what each rank costs, and the harm where it was measured.

    Attributes:
        form: Of a convolution, as in ``conv_options``; "" for the product A B.
        ranks: Those that save numbers, rising.
        params: Numbers that each rank stores.
        macs: Multiply-adds of one row; of a convolution, of one output position far from the edges.
        tails: What the spectrum says each rank loses; its unit is the curve's own.
        measured: ``{position in ranks: harm}``.
    """

    form: str
    ranks: tuple[Rank, ...]
    params: tuple[int, ...]
    macs: tuple[int, ...]
    tails: tuple[float, ...]
    measured: dict[int, float]

    def harms(self) -> NDArray[np.float64]:
        """Harm at every rank, (len(ranks),): never rising, and the ratio to the tail between measurements."""
        from scipy.optimize import isotonic_regression  # slow to import

        tails = np.array(self.tails)
        at = np.array(sorted(self.measured))
        seen = isotonic_regression([self.measured[int(i)] for i in at], increasing=False).x
        least = np.finfo(float).eps * max(
            float(tails.max()), np.finfo(float).tiny
        )  # a tail of rounding alone
        known = (tails[at] > least) & (seen > 0)
        if not known.any():
            return np.zeros(len(tails))
        ratios = np.log(seen[known] / tails[at][known])
        ratio = np.exp(np.interp(np.log1p(np.arange(len(tails))), np.log1p(at[known]), ratios))
        harms: NDArray[np.float64] = np.minimum.accumulate(ratio * tails)
        return harms

    def picks(self) -> list[Pick]:
        """What ``compress`` calls each rank."""
        return [(self.form, rank) if self.form else rank for rank in self.ranks]  # type: ignore[misc]


@dataclass(frozen=True)
class LayerHarm:
    """One layer of a ``Harm``.

    Attributes:
        shape: (m, n) of its weight as a matrix.
        curves: One for each form.
    """

    shape: tuple[int, int]
    curves: tuple[HarmCurve, ...]


def harm_options(layer: LayerHarm, *, rows: float | None = None, pivoted: bool = False) -> Choices:
    """Every form at every rank that no other beats in both cost and harm, then dense.

    Args:
        layer: Of a ``Harm``.
        rows: Rows of a sample, for a cost in multiply-adds; by default it is in numbers.
        pivoted: Count r(m + n - r) numbers for the product A B.
    """
    m, n = layer.shape
    costs, losses, picks = list[float](), list[float](), list[Pick]()
    for curve in layer.curves:
        cost = np.array(curve.params if rows is None else curve.macs)
        if pivoted and not curve.form:
            cost = cost - np.array(curve.ranks) ** 2
        costs += (cost * (1.0 if rows is None else rows)).tolist()
        losses += curve.harms().tolist()
        picks += curve.picks()
    return pareto(costs, losses, picks, dense=m * n * (1.0 if rows is None else rows))


@dataclass(frozen=True)
class Harm:
    """What ``measure_harm`` found: for every layer and form, the harm to the whole model at each rank.

    Attributes:
        layers: ``{dotted name: LayerHarm}``.
        measure: Name of the measure.
        samples: Samples that it was taken on.
        runs: How often the model was run on them, from the layer on where that gives the same.
        by_data: Whether the product A B was that of data-aware factors.
    """

    layers: dict[str, LayerHarm]
    measure: str
    samples: int
    runs: int
    by_data: bool = False

    def save(self, path: str | Path) -> None:
        """Write all of it as JSON, to be used again for another budget.

        Args:
            path: File that is written.
        """
        Path(path).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Args:
            path: File that is read.
        """
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        layers = {name: _layer(**layer) for name, layer in told.pop("layers").items()}
        return cls(layers, **told)

    def __str__(self) -> str:
        head = f"harm ({self.measure}) on {self.samples} samples, {self.runs} runs; each layer cut alone"
        width = max(5, *map(len, self.layers))
        lines = [head, f"{'layer':<{width}}  {'form':<8} {'ranks':>6} {'harm, least to most numbers':>28}"]
        for name, layer in self.layers.items():
            for curve in layer.curves:
                seen = [curve.measured[i] for i in sorted(curve.measured)]
                harms = f"{seen[0]:.3g} ... {seen[-1]:.3g}"
                lines.append(f"{name:<{width}}  {curve.form or 'A B':<8} {len(curve.ranks):>6} {harms:>28}")
        return "\n".join(lines)


def _layer(shape: Sequence[int], curves: Sequence[Mapping[str, Any]]) -> LayerHarm:
    def rank(value: Any) -> Rank:
        return tuple(value) if isinstance(value, list) else value

    return LayerHarm(
        (shape[0], shape[1]),
        tuple(
            HarmCurve(
                c["form"],
                tuple(map(rank, c["ranks"])),
                tuple(c["params"]),
                tuple(c["macs"]),
                tuple(c["tails"]),
                {int(i): h for i, h in c["measured"].items()},
            )
            for c in curves
        ),
    )
