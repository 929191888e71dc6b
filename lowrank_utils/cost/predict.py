"""How much faster a layer or a model would be in low rank, before anything is factored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.machine import Machine, clock_for, this_machine
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import fused_paths_off
from lowrank_utils.layers.which import layer_of, layers_of

_ROUNDS = 7


@dataclass(frozen=True)
class Prediction:
    """What ``predict_speedup`` expects.

    Attributes:
        dense_ms: Milliseconds of a call as it is: predicted of a layer, measured of a model.
        low_rank_ms: Milliseconds predicted with the ranks.
        share: Part of ``dense_ms`` that the layers in question take: 1 for a single layer.
        layers: Of a model ``{layer: predicted speed-up}``.
    """

    dense_ms: float
    low_rank_ms: float
    share: float
    layers: Mapping[str, float]

    @property
    def speedup(self) -> float:
        """Dense time over low-rank time: above 1 low rank is faster."""
        return self.dense_ms / self.low_rank_ms

    def __str__(self) -> str:
        times = f"{self.dense_ms:.3g} ms -> {self.low_rank_ms:.3g} ms"
        return f"{times}, {self.speedup:.2f} times as fast; {self.share:.0%} of the time is in these layers"


def predict_speedup(
    target: nn.Module | tuple[int, int],
    rank: int | Mapping[str, int],
    *inputs: Tensor,
    batch: int = 1,
    machine: Machine | None = None,
) -> Prediction:
    r"""Time of one forward on this machine, dense and in low rank, before anything is factored.

    Of a layer of m x n on a batch of B rows, t(m, n, B) from the machine's overhead and rates,

        speed-up = t(m, n, B) / (t(r, n, B) + t(m, r, B)) .

    Of a model its linear layers are timed where they stand, and the rest stays as it is (Amdahl's law): with
    the share p_l of the time in layer l, and its speed-up s_l,

        speed-up = 1 / (1 - sum_l p_l (1 - 1 / s_l)) .

    In single precision on the processor. A convolution cannot be predicted: measure it.

    Args:
        target: (m, n), the outputs and inputs of one linear layer, or any module; it is not changed.
        rank: Of the layer; of a model ``{layer: rank}``, or one rank for every linear layer in which it
            saves numbers.
        *inputs: What to call the model with.
        batch: Rows of the layer's input; a model's inputs tell it.
        machine: From ``Machine.measure()``; by default this machine is measured once, for two seconds.

    Raises:
        TypeError: If an argument is of the wrong type, or a layer is no ``nn.Linear``.
        ValueError: If a number or a name is out of range, or the model is given no inputs.

    Reference:
        Williams, Waterman & Patterson 2009 (the roofline).

    Example:
        >>> machine = Machine(5.0, 9.0, {(256, 256, 1): 0.015, (256, 256, 64): 0.645})
        >>> print(predict_speedup((1024, 1024), 64, batch=64, machine=machine))
        10.2 ms -> 1.29 ms, 7.95 times as fast; 100% of the time is in these layers
    """
    if machine is not None and not isinstance(machine, Machine):
        _checks.type_error("machine", machine, "a Machine or None")
    if isinstance(target, nn.Module):
        if not inputs:
            _checks.value_error("inputs", inputs, "what to call the model with")
        return _of_model(_checks.module(target), rank, inputs, machine)
    if not isinstance(target, tuple) or len(target) != 2:
        _checks.type_error("target", target, "a torch.nn.Module or a pair (m, n)")
    m, n = (_checks.integer(size, f"target[{i}]", low=1) for i, size in enumerate(target))
    if isinstance(rank, Mapping):
        _checks.type_error("rank", rank, "an integer for a single layer")
    r, batch = _checks.rank(rank, m, n), _checks.integer(batch, "batch", low=1)
    machine = machine or this_machine()
    return Prediction(machine.linear_ms(m, n, batch), machine.pair_ms(m, n, r, batch), 1.0, {})


def _of_model(
    model: nn.Module, rank: int | Mapping[str, int], inputs: tuple[Any, ...], machine: Machine | None
) -> Prediction:
    sizes = _sizes(model, rank)
    on_card = {p.device.type for p in model.parameters()} - {"cpu"}
    if on_card:
        _checks.value_error("target", model, f"on the processor, and not on {sorted(on_card)}")
    machine = machine or this_machine()
    rest, own, calls = _timed(model, sizes, inputs, machine.threads)
    speedups = {}
    for name, (m, n, r) in sizes.items():
        dense = sum(machine.linear_ms(m, n, rows) for rows in calls[name])
        pair = sum(machine.pair_ms(m, n, r, rows) for rows in calls[name])
        speedups[name] = dense / pair if calls[name] else 1.0
    dense_ms = rest + sum(own.values())
    low_rank_ms = rest + sum(own[name] / speedups[name] for name in sizes)
    return Prediction(dense_ms, low_rank_ms, 1 - rest / dense_ms, speedups)


def _sizes(model: nn.Module, rank: int | Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """{layer: (m, n, r)} of the layers that get a rank."""
    if not isinstance(rank, Mapping):
        r = _checks.integer(rank, "rank", low=1)
        linear = {name: view.layer for name, view in layers_of(model).items() if _is_linear(view.layer)}
        shapes = {name: (layer.out_features, layer.in_features) for name, layer in linear.items()}
        return {name: (m, n, r) for name, (m, n) in shapes.items() if r <= break_even_rank(m, n)}
    found = {}
    for name, r in rank.items():
        layer = layer_of(model, name)
        if not isinstance(layer, nn.Linear):
            _checks.type_error(f"rank[{name!r}]", r, f"of an nn.Linear; {type(layer).__name__} is measured")
        m, n = layer.out_features, layer.in_features
        found[name] = m, n, _checks.rank(r, m, n, f"rank[{name!r}]")
    return found


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear)


@torch.no_grad()
def _timed(
    model: nn.Module, names: Mapping[str, object], inputs: tuple[Any, ...], threads: int
) -> tuple[float, dict[str, float], dict[str, list[int]]]:
    """Milliseconds of a forward outside of these layers, and in each, and the rows of each of its calls.

    Of several rounds the fastest counts: interruptions only ever add time.
    """
    model, inputs = copied((model, inputs))  # the model may write into its inputs
    model.eval()
    clock = clock_for(threads)
    now = dict.fromkeys(names, 0.0)  # of the round that runs
    calls: dict[str, list[int]] = {name: [] for name in names}
    starts: list[float] = []

    def before(layer: nn.Module, args: Any, kwargs: Any) -> None:
        starts.append(clock())

    def after(name: str) -> Any:
        def hook(layer: nn.Linear, args: Any, kwargs: Any, output: Tensor) -> None:
            now[name] += (clock() - starts.pop()) * 1e3
            calls[name].append(output.numel() // layer.out_features)

        return hook

    for name in names:
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(before, with_kwargs=True)
        layer.register_forward_hook(after(name), with_kwargs=True)
    rest, own = math.inf, dict.fromkeys(names, math.inf)
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with fused_paths_off(), generators_kept():  # as a model in factors runs
            model(*inputs)
            for _ in range(_ROUNDS):
                now = dict.fromkeys(names, 0.0)
                calls = {name: [] for name in names}
                start = clock()
                model(*inputs)
                rest = min(rest, (clock() - start) * 1e3 - sum(now.values()))
                own = {name: min(ms, now[name]) for name, ms in own.items()}
    finally:
        torch.set_num_threads(kept)
    return rest, own, calls
