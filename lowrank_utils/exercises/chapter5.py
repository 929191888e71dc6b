"""Judges of chapter 5: count a batch, find a file that shrinks, write a counter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils.cost.macs import count_macs
from lowrank_utils.cost.size import count_params, size_bytes
from lowrank_utils.exercises._answers import Judge, NotYet, function, on, whole
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.lab.models import Net, NetLite
from lowrank_utils.layers.linear import LowRankLinear

ROWS = 32


def _count_a_batch(answer: object) -> str | None:
    flops = whole(answer, "the number of FLOPs, an integer")
    lite, x = NetLite(rank=2), torch.zeros(ROWS, 4)
    macs, dense = count_macs(lite, x), count_macs(Net(), x)
    if flops == 2 * macs:
        return None
    core = ROWS * lite.core1.weight.numel()
    biases = ROWS * sum(layer.bias.numel() for layer in lite.modules() if isinstance(layer, nn.Linear))
    hidden = ROWS * lite.fc2.in_features
    hints = {
        macs: "that is the number of MACs, and a MAC is two FLOPs.",
        2 * macs // ROWS: "that is one sample, and the batch has 32.",
        macs // ROWS: "that is MACs of one sample; the question is FLOPs of 32.",
        2 * (macs - core): "you left out the 2 x 2 core.",
        2 * macs + biases: "adding a bias is already in 2 x MACs: a sum of n products needs n - 1 additions.",
        2 * macs - biases: "the sum of n products takes n - 1 additions, but the bias is the n-th.",
        2 * macs + hidden: "an activation counts nothing here: FLOPs are 2 x MACs.",
        2 * dense: "that is the dense Net; NetLite has four layers.",
        2 * ROWS * count_params(lite): "you counted parameters; a bias is added, not multiplied, "
        "and 2 x MACs has room for it.",
    }
    return hints.get(flops, f"{flops} is not it: add up inputs x outputs over the four layers.")


def _a_file_that_shrinks(answer: object) -> str | None:
    n, m = 64, 32
    wanted = f"a rank: of a {m} x {n} matrix it is an integer from 1 to {min(m, n)}"
    rank = whole(answer, wanted, low=1)
    if rank > min(m, n):
        return f"give {wanted}, not {rank}."
    dense = size_bytes(nn.Linear(n, m))
    saved = {r: dense - size_bytes(LowRankLinear(n, m, r)) for r in range(1, min(m, n) + 1)}
    best = max(r for r, s in saved.items() if s > 0)
    if rank == best:
        return None
    if rank == break_even_rank(m, n):
        return f"parameters break even there, but one more tensor makes the file {-saved[rank]} bytes larger."
    if rank == break_even_rank(m, n, core=True):
        return (
            f"that is the break-even rank with a core; without, it saves {saved[rank]} bytes, and more fit."
        )
    if rank < best:
        return f"it saves {saved[rank]} bytes, but a larger rank saves some too."
    return f"the file is {-saved[rank]} bytes larger there than the dense one."


class _Scores(nn.Module):
    """Two linears and, between their outputs, a product that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(6, 5), LowRankLinear(6, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.q(x) @ self.k(x).mT  # type: ignore[no-any-return]


class _Idle(nn.Module):
    """A layer that is called, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)  # type: ignore[no-any-return]


class _Words(nn.Module):
    """An embedding, whose table is a matrix that nothing is multiplied by, before a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.table(x))  # type: ignore[no-any-return]


class _Own(nn.Linear):
    """A linear layer all the same."""


class _Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("this layer fails on purpose")


def _models() -> dict[str, tuple[nn.Module, Tensor, int]]:
    """Each case with its model, its input and the MACs of its linear layers, counted by hand."""
    rows, tokens, words = torch.zeros(7, 6), torch.zeros(2, 3, 6), torch.zeros(2, 3, dtype=torch.int64)
    layer, core, square = nn.Linear(6, 5), LowRankLinear(6, 5, 2, core=True), nn.Linear(6, 6)
    frozen = nn.Linear(6, 5).requires_grad_(False)
    nested = nn.Sequential(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU()), nn.ModuleDict({"a": nn.Linear(5, 2)})["a"]
    )
    return {
        "a dense layer": (layer, rows, 7 * 30),
        "a dense layer without bias": (nn.Linear(6, 5, bias=False), rows, 7 * 30),
        "a frozen layer": (frozen, rows, 7 * 30),
        "a class made from nn.Linear": (_Own(6, 5), rows, 7 * 30),
        "a LowRankLinear": (LowRankLinear(6, 5, 2), rows, 7 * 22),
        "a LowRankLinear with a core": (core, rows, 7 * 26),
        "a model in a model": (nested, rows, 7 * 40),
        "an input with three axes": (nn.Sequential(layer, nn.Linear(5, 4)), tokens, 6 * 50),
        "a LowRankLinear on an input with three axes": (core, tokens, 6 * 26),
        "an input with four axes": (layer, torch.zeros(2, 2, 3, 6), 12 * 30),
        "a layer that is never called": (_Idle(), rows, 7 * 30),
        "a layer used twice": (nn.Sequential(square, nn.ReLU(), square), rows, 7 * 72),
        "a model with a product of its own": (_Scores(), rows, 7 * 52),
        "an embedding before a layer": (_Words(), words, 6 * 30),
    }


def _write_a_counter(answer: object) -> str | None:
    my_macs = function(answer, "my_macs(model, x)")
    for case, (model, x, right) in _models().items():
        with on(case), _nothing_left(model):
            got = whole(my_macs(model, x), "back the number of MACs, an integer")
            if got != right:
                raise NotYet(f"it gives {got}, not {right}; {_miscount(got, right, model, x)}.")
    broken = nn.Sequential(nn.Linear(6, 6), _Broken())
    with on("a model that raises"), _nothing_left(broken), contextlib.suppress(RuntimeError):
        function(answer, "my_macs(model, x)", may_raise=True)(broken, torch.zeros(7, 6))
    return None


def _miscount(got: int, right: int, model: nn.Module, x: Tensor) -> str:
    if got == 2 * right:
        return "twice too many: a MAC is one multiplication with its addition, and each call counts once"
    if got == 0:
        return "nothing was counted: is the layer among those that you hook, and are its factors read?"
    if got == right // len(x):
        return "the batch does not count yet"
    if got == count_macs(model, x):
        return "count the layers that the exercise names, and no other product"
    return "multiply the numbers in each matrix by the rows it meets, and leave biases out"


_LAYERS = (nn.Module, nn.Linear, LowRankLinear)
_METHODS = ("__call__", "forward", "_call_impl")
_KINDS = ("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks")


def _hooks(owner: object, prefix: str) -> dict[str, Any]:
    """The dictionaries of hooks of a module, or of torch for all modules."""
    return {kind: getattr(owner, prefix + kind) for kind in _KINDS if hasattr(owner, prefix + kind)}


@contextlib.contextmanager
def _nothing_left(model: nn.Module) -> Iterator[None]:
    """Raise NotYet if a hook, a patched method or an attribute is left; undo what concerns all modules."""
    everywhere = _hooks(nn.modules.module, "_global_")
    own = {kind: {name: vars(kind).get(name) for name in _METHODS} for kind in _LAYERS}
    before = {kind: dict(hooks) for kind, hooks in everywhere.items()}
    names = [set(vars(module)) | set(module.state_dict()) for module in model.modules()]
    try:
        yield
    finally:
        left = sum(len(hooks) - len(before[kind]) for kind, hooks in everywhere.items())
        for kind, hooks in everywhere.items():
            hooks.clear()
            hooks.update(before[kind])
        replaced = [
            (kind, name)
            for kind in _LAYERS
            for name in _METHODS
            if vars(kind).get(name) is not own[kind][name]
        ]
        for owner, name in replaced:
            if own[owner][name] is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own[owner][name])
    if left:
        raise NotYet(f"{left} hooks on all modules are left behind: remove each handle, in a finally.")
    if replaced:
        owner, name = replaced[0]
        raise NotYet(f"{owner.__name__}.{name} was replaced for all models, and not put back.")
    left = sum(len(hooks) for module in model.modules() for hooks in _hooks(module, "_").values())
    if left:
        raise NotYet(f"{left} hooks are left behind: remove each handle, in a finally.")
    now = [set(vars(module)) | set(module.state_dict()) for module in model.modules()]
    extra = set().union(*(new ^ old for new, old in zip(now, names, strict=True)))
    if extra:
        raise NotYet(
            f"it leaves attributes on the layers ({', '.join(sorted(extra))}); keep the count outside."
        )


JUDGES: dict[str, Judge] = {
    "5.1": _count_a_batch,
    "5.2": _a_file_that_shrinks,
    "5.3": _write_a_counter,
}
