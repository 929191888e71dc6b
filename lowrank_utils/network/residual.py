"""Residual connections: which layers' outputs are added to a tensor, and who else reads that tensor."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.which import layers_of
from lowrank_utils.model.batches import call, first_batch
from lowrank_utils.network.blocks import ONLY, Seen, log_calls
from lowrank_utils.network.functions import FunctionLog

SUMS = (
    torch.add,
    *(getattr(Tensor, name) for name in ("add", "add_", "__add__", "__radd__", "__iadd__")),
    torch.ops.aten.add.Tensor,  # of an exported program
    torch.ops.aten.add_.Tensor,
)


@plainly()
@torch.no_grad()
def residual_connections(model: nn.Module, X: Any) -> dict[str, str]:
    r"""The layers whose output y is added to another tensor h, and a module before them that reads h.

    What ``cascade(residual=)`` asks for. The layer's output itself must be an addend, as y + h, and no other
    function may make a tensor of it: a norm or a scale in between hides the connection, and so does a hook
    on the layer or a second call. Of the modules whose first argument is h it is the last before the layer,
    or the layer.

    Args:
        model: Any module; it is not changed.
        X: Samples or batches, as in ``calibrate``; the first batch is run (32 samples at most), and all its
            tensors are held at once.

    Returns:
        ``{layer: module}``, dotted names, in the order of the sums; empty if there is none.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If X has no samples.

    Reference:
        He et al. 2016.

    Example:
        >>> block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> residual_connections(block, torch.randn(5, 3, 8))
        {'linear2': 'linear1'}
    """
    copy = copied(_checks.module(model)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that have no rank
        layers = set(layers_of(copy))
    inputs, log = first_batch(X, 32).on(copy).inputs, FunctionLog()

    def run() -> None:
        with log:
            call(copy, inputs)

    calls = log_calls(copy, run)
    times = Counter(one.name for one in calls)
    once = [one for one in calls if times[one.name] == 1]
    layers = {name for name in layers if not copy.get_submodule(name)._forward_hooks}
    givers = {one.gives.get(ONLY): one for one in once if one.name in layers}
    found: dict[str, str] = {}
    uses = log.uses()
    for y, h in _addends(log):
        if y in givers and uses[y] == 1:
            giver = givers[y]
            readers = [one.name for one in once if one.reads == h and one.start <= giver.start]
            if readers:
                found[giver.name] = readers[-1]
    return found


def connections(model: nn.Module, residual: Mapping[str, str] | None) -> dict[str, str]:
    """The same as a user names them: modules of the model."""
    if residual is None:
        return {}
    if not isinstance(residual, Mapping):
        _checks.type_error("residual", residual, "a mapping from layers to modules")
    names = dict(model.named_modules())  # of one that has two, that under which its calls are seen
    for name, source in residual.items():
        _checks.choice(name, "a layer in residual", names)
        _checks.choice(source, f"residual[{name!r}]", names)
    return dict(residual)


def _addends(log: FunctionLog) -> Iterator[tuple[Seen, Seen]]:
    """What two tensors of one shape were added, both ways round."""
    for one in log.applied:
        if one.function in SUMS and len(one.used) == 2 and one.kwargs.get("alpha", 1) == 1:
            a, b = one.tensors
            if a.shape == b.shape:
                yield one.used[0], one.used[1]
                yield one.used[1], one.used[0]
