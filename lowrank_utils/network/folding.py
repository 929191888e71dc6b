"""Pivoted layers without their permutations: what reads their outputs takes them in another order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.linear import LowRankLinear
from lowrank_utils.layers.pivoted import PivotedLinear
from lowrank_utils.layers.which import obstacle
from lowrank_utils.model.batches import call, first_batch
from lowrank_utils.network.blocks import ONLY, Call, Seen, log_calls
from lowrank_utils.network.functions import FunctionLog, seen, tensors_of

_NAMES = """relu relu_ gelu silu mish tanh sigmoid elu elu_ selu selu_ celu celu_ leaky_relu leaky_relu_ relu6
    hardtanh hardtanh_ hardswish hardsigmoid hardshrink softshrink softplus softsign tanhshrink logsigmoid
    threshold dropout alpha_dropout tanh_ sigmoid_ silu_ mish_""".split()
_PLACES = (nn.functional, torch, Tensor)
ELEMENTWISE = {getattr(place, name) for place in _PLACES for name in _NAMES if hasattr(place, name)}
ELEMENTWISE |= {getattr(torch.ops.aten, name).default for name in ("relu", "gelu", "silu", "tanh", "sigmoid")}
MATRIX = {nn.Linear: "weight", LowRankLinear: "right", PivotedLinear: "pivots"}  # the one that reads the rows


@plainly()
@torch.no_grad()
def fold_permutations(model: nn.Module, X: Any) -> nn.Module:
    r"""A copy of ``model`` whose pivoted layers do not sort their outputs, wherever the next layer can.

    A ``PivotedLinear`` computes z = [P x; C P x] and sorts it: y = z[position]. Functions f that act on each
    element alone (an activation, a dropout) may stand between it and the layers W that read it. Then
    W f(y) = V f(z) with V[:, position] = W, exactly but for the order of summation.

    A layer is left as it is where another function makes a tensor of y, or the model gives it out (what turns
    y into numbers or an array is not seen); where it or a reader has a hook, is called twice or shares its
    weight; where a reader is none of ``nn.Linear``, ``LowRankLinear``, ``PivotedLinear``. One that is folded
    says so in ``print``, and its ``weight`` has its rows in another order: fold last, after training and
    after a report.

    Args:
        model: Any module; it is not changed.
        X: Samples or batches, as in ``calibrate``; the model is run once on the first (32 samples at most),
            in eval mode, to see what reads what.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If X has no samples.

    Example:
        >>> from lowrank_utils import compress
        >>> net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> fold_permutations(compress(net, {"0": 4}, pivoted=True), torch.ones(1, 8))[0]
        PivotedLinear(in_features=8, out_features=6, rank=4, bias=True, folded=True)
    """
    folded = copied(_checks.module(model))
    pivoted = {name: layer for name, layer in folded.named_modules() if isinstance(layer, PivotedLinear)}
    for giver, readers in _chains(folded, X):
        order = pivoted[giver].drop_order()
        for reader in map(folded.get_submodule, readers):
            W = getattr(reader, MATRIX[type(reader)])
            W.copy_(W[:, order])  # (m, n)
    return folded


def _chains(model: nn.Module, X: Any) -> Iterator[tuple[str, list[str]]]:
    """Each pivoted layer whose outputs are read by layers alone, and these."""
    copy = copied(model).eval()
    inputs, log, outputs = first_batch(X, 32).on(copy).inputs, FunctionLog(), list[Any]()

    def run() -> None:
        with log:
            call(copy, inputs)

    copy.register_forward_hook(lambda module, args, output: outputs.append(_flat(output)))
    calls = log_calls(copy, run)
    times = Counter(one.name for one in calls)
    once = [one for one in calls if times[one.name] == 1]
    readers = _readers(copy, once)
    uses, given_out = log.uses(), set(seen(tensors_of(outputs)))
    after = {
        one.used[0]: one.made[0]
        for one in log.applied
        if one.function in ELEMENTWISE and len(one.used) == len(one.made) == 1
    }
    for one in once:
        layer = copy.get_submodule(one.name)
        if type(layer) is PivotedLinear and layer.position is not None and _is_free(copy, one.name):
            y = one.gives[ONLY]
            while y not in readers and uses[y] == 1 and y not in given_out and y in after:
                y = after[y]
            if readers[y] and uses[y] == len(readers[y]) and y not in given_out:
                yield one.name, readers[y]


def _flat(output: Any) -> Any:
    """A model's output as a container that is known."""
    if isinstance(output, Tensor | tuple | list):
        return output
    return dict(output) if isinstance(output, Mapping) else vars(output)


def _readers(model: nn.Module, calls: Iterable[Call]) -> dict[Seen, list[str]]:
    """The layers that read each tensor, and whose columns may be sorted."""
    found = defaultdict(list)
    for one in calls:
        if type(model.get_submodule(one.name)) in MATRIX and _is_free(model, one.name):
            found[one.reads].append(one.name)
    return found


def _is_free(model: nn.Module, name: str) -> bool:
    """Whether the layer has its numbers for itself, and nobody watches it."""
    layer = model.get_submodule(name)
    return not (layer._forward_hooks or layer._forward_pre_hooks or obstacle(model, name))
