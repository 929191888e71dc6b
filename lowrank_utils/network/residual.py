"""Residual connections: which layers' outputs are added to a tensor, and who else reads that tensor."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.which import layers_of
from lowrank_utils.model.batches import batches, call
from lowrank_utils.network.blocks import ONLY, Seen, log_calls

SUMS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)


@plainly()
@torch.no_grad()
def residual_connections(model: nn.Module, X: Any) -> dict[str, str]:
    r"""The layers whose output y is added to another tensor h, and a module before them that reads h.

    What ``cascade(residual=)`` asks for. The layer's output itself must be an addend, as y + h, and no other
    operation may use it: a norm or a scale in between hides the connection, and so does a hook on the layer
    or a second call. Of the modules whose first argument is h it is the last before the layer, or the layer.

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
    batch = next((batch for batch in batches(X, size=32) if len(batch)), None)
    if batch is None:
        raise ValueError("X has no samples; it must have at least one")
    sums = _Sums()

    def run() -> None:
        with sums:
            call(copy, batch.on(copy).inputs)

    calls = log_calls(copy, run)
    times = Counter(one.name for one in calls)
    once = [one for one in calls if times[one.name] == 1]
    layers = {name for name in layers if not copy.get_submodule(name)._forward_hooks}
    givers = {one.gives.get(ONLY): one for one in once if one.name in layers}
    found: dict[str, str] = {}
    for y, h in sums.addends():
        if y in givers and sums.uses[y] == 1:
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
    names = dict(model.named_modules(remove_duplicate=False))
    for name, source in residual.items():
        _checks.choice(name, "a layer in residual", names)
        _checks.choice(source, f"residual[{name!r}]", names)
    return dict(residual)


class _Sums(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what two tensors of one shape were added, and how many operations use a tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pairs: list[tuple[Seen, Seen]] = []
        self.uses: Counter[Seen] = Counter()
        self.alive: list[object] = []  # so that no identity is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        used = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.uses.update((id(x), x._version) for x in used)
        self.alive.append(used)
        if func in SUMS and kwargs.get("alpha", 1) == 1:
            a, b = args[0], args[1]
            if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape:
                self.pairs.append(((id(a), a._version), (id(b), b._version)))
        return func(*args, **kwargs)

    def addends(self) -> Iterator[tuple[Seen, Seen]]:
        """Each pair, both ways round."""
        for a, b in self.pairs:
            yield a, b
            yield b, a
