"""Where a model's numbers and multiply-adds are, and what a rank could save: before anything is cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lowrank_utils import _checks
from lowrank_utils.cost.by_layer import cost_by_layer
from lowrank_utils.cost.machine import Machine
from lowrank_utils.cost.predict import Prediction, predict_speedup
from lowrank_utils.cost.tables import aligned, listed
from lowrank_utils.factors.ranks import break_even_rank, rank_for_energy
from lowrank_utils.layers.which import layers_of

ENERGY = 0.9


@dataclass(frozen=True)
class SurveyRow:
    """One layer of a ``Survey`` that can have a rank.

    Attributes:
        layer: Dotted name.
        kind: Name of its class.
        shape: (m, n) of its matrix.
        params: Numbers of its parameters.
        macs: Multiply-adds of one forward.
        energy_rank: Rank that keeps 90 % of the weights' energy: a hint, not a choice. The data decide.
        break_even: Largest rank that saves numbers.
        speedup: Of an nn.Linear, predicted at half of the break-even rank, where half of the numbers are
            left; None of another layer, or where no time was asked for.
    """

    layer: str
    kind: str
    shape: tuple[int, int]
    params: int
    macs: int
    energy_rank: int
    break_even: int
    speedup: float | None


@dataclass(frozen=True)
class Survey:
    """What ``survey`` finds; prints as a table, the layer with the most multiply-adds first.

    Attributes:
        rows: One row a layer that can have a rank, by falling multiply-adds.
        params: Parameters of the model.
        macs: Multiply-adds of one forward.
        prediction: Of the whole model, each linear layer at half of its break-even rank; None if no time
            was asked for.
        not_counted: ``{operator: calls}`` of what may hide products and counted 0.
    """

    rows: tuple[SurveyRow, ...]
    params: int
    macs: int
    prediction: Prediction | None
    not_counted: Mapping[str, int]

    @property
    def params_share(self) -> float:
        """Part of the parameters that lies in layers which can have a rank."""
        return sum(row.params for row in self.rows) / max(self.params, 1)

    @property
    def macs_share(self) -> float:
        """Part of the multiply-adds that lies in layers which can have a rank."""
        return sum(row.macs for row in self.rows) / max(self.macs, 1)

    def __str__(self) -> str:
        head = ("layer", "kind", "shape", "params", "MACs", "90% energy", "break-even", "at half")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            shape = f"{row.shape[0]} x {row.shape[1]}"
            shares = f"{row.params / max(self.params, 1):.1%}", f"{row.macs / max(self.macs, 1):.1%}"
            ranks = str(row.energy_rank), str(row.break_even)
            speed = "" if row.speedup is None else f"{row.speedup:.2f} x"
            lines.append((row.layer or "(model)", row.kind, shape, *shares, *ranks, speed))
        timed = self.prediction is not None
        text = aligned(lines if timed else [line[:-1] for line in lines], words=2)
        text.append(
            f"these layers: {self.params_share:.1%} of {self.params:,} parameters, "
            f"{self.macs_share:.1%} of {self.macs:,} MACs"
        )
        text += listed("NOT COUNTED", self.not_counted)
        if self.prediction is not None:
            text.append(f"all linear layers at half their numbers: {self.prediction}")
        return "\n".join(text)


def survey(model: nn.Module, *inputs: Any, timing: bool = True, machine: Machine | None = None) -> Survey:
    r"""Which layers hold a model's numbers and multiply-adds, and what low rank could save there.

    A layer whose 90 % rank lies above its break-even rank has little to give by its weights alone; whether
    the network misses what is cut, only data tell (``compress_within``).

    Args:
        model: Any module; it is not changed.
        *inputs: What to call it with; the batch counts.
        timing: Whether to predict times, which takes a few forwards and, without ``machine``, two seconds.
        machine: From ``Machine.measure()``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If no layer can have a rank, or there are no inputs.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
        >>> for layer in net[::2]:
        ...     _ = nn.init.eye_(layer.weight)
        >>> print(survey(net, torch.zeros(1, 4), timing=False))
        layer  kind     shape  params   MACs  90% energy  break-even
        0      Linear  10 x 4   60.2%  57.1%           4           2
        2      Linear  3 x 10   39.8%  42.9%           3           2
        these layers: 100.0% of 83 parameters, 100.0% of 70 MACs
    """
    if not inputs:
        _checks.value_error("inputs", inputs, "what to call the model with")
    views = layers_of(_checks.module(model))
    if not views:
        _checks.value_error("model", model, "a module with a layer that can have a rank")
    table = cost_by_layer(model, *inputs)
    owned = {row.layer: row for row in table.rows}
    shapes = {name: (view.weight.shape[0], view.weight.shape[1]) for name, view in views.items()}
    most = {name: break_even_rank(*shape) for name, shape in shapes.items()}
    halves = {
        name: max(1, most[name] // 2)
        for name, view in views.items()
        if isinstance(view.layer, nn.Linear) and most[name] and name in owned
    }
    prediction = predict_speedup(model, halves, *inputs, machine=machine) if timing and halves else None
    rows = []
    for name, view in views.items():
        if name not in owned:
            continue
        energy_rank = rank_for_energy(view.weight, ENERGY)
        speedup = None if prediction is None else prediction.layers.get(name)
        cost, kind = owned[name], type(view.layer).__name__
        row = SurveyRow(name, kind, shapes[name], cost.params, cost.macs, energy_rank, most[name], speedup)
        rows.append(row)
    rows.sort(key=lambda row: (-row.macs, -math.prod(row.shape)))
    return Survey(tuple(rows), table.total.params, table.total.macs, prediction, table.not_counted)
