"""Chapter 5: count a batch, find a file that shrinks, write a counter."""

from __future__ import annotations

import torch
from torch import nn

from lowrank_utils.cost import count_params, size_bytes
from lowrank_utils.exercises import Judge, _whole
from lowrank_utils.layers import LowRankLinear
from lowrank_utils.macs import count_macs
from lowrank_utils.models import Net, NetLite
from lowrank_utils.ranks import break_even_rank


def _count_a_batch(answer: object) -> str | None:
    flops, rows = _whole(answer), 32
    if flops is None:
        return "give the number of FLOPs, an integer."
    lite, x = NetLite(rank=2), torch.zeros(rows, 4)
    macs, dense = count_macs(lite, x), count_macs(Net(), x)
    core = rows * lite.core1.weight.numel()
    biases = rows * sum(layer.bias.numel() for layer in lite.modules() if isinstance(layer, nn.Linear))
    hints = {
        macs: "that is the number of MACs, and a MAC is two FLOPs.",
        2 * macs // rows: "that is one sample, and the batch has 32.",
        macs // rows: "that is MACs of one sample; the question is FLOPs of 32.",
        2 * (macs - core): "you left out the 2 x 2 core.",
        2 * macs + biases: "adding a bias is already in 2 x MACs: a sum of n products needs n - 1 additions.",
        2 * dense: "that is the dense Net; NetLite has four layers.",
        2
        * rows
        * count_params(
            lite
        ): "you counted parameters; a bias is added, not multiplied, and 2 x MACs has room for it.",
    }
    return None if flops == 2 * macs else hints.get(flops, "add up inputs x outputs over the four layers.")


def _a_file_that_shrinks(answer: object) -> str | None:
    rank, (n, m) = _whole(answer), (64, 32)
    if rank is None or not 1 <= rank <= min(m, n):
        return f"give a rank: of a {m} x {n} matrix it is an integer from 1 to {min(m, n)}."
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


def _write_a_counter(answer: object) -> str | None:
    if not callable(answer):
        return f"answer must be the function my_macs itself, not {type(answer).__name__}."
    layer, core = nn.Linear(6, 5), LowRankLinear(6, 5, 2, core=True)
    rows, tokens = torch.zeros(7, 6), torch.zeros(2, 3, 6)
    twice = nn.Sequential(square := nn.Linear(6, 6), nn.ReLU(), square)
    cases = (
        ("a dense layer", layer, rows),
        ("a dense layer without bias", nn.Linear(6, 5, bias=False), rows),
        ("a LowRankLinear", LowRankLinear(6, 5, 2), rows),
        ("a LowRankLinear with a core", core, rows),
        ("an input with three axes", nn.Sequential(layer, nn.Linear(5, 4)), tokens),
        ("a LowRankLinear on an input with three axes", core, tokens),
        ("a layer used twice", twice, rows),
    )
    for what, model, x in cases:
        right, got = count_macs(model, x), answer(model, x)
        if got == right:
            continue
        if _whole(got) is None:
            return f"on {what} it gives {got}: return the number of MACs, an integer."
        sizes = {
            2 * right: "those are FLOPs: a MAC is one multiplication with its addition",
            right // len(x): "the batch does not count yet",
            0: "nothing was counted: is the layer among those that you hook, and are its factors read?",
        }
        said = sizes.get(
            got, "multiply the numbers in each matrix by the rows it meets, and leave biases out"
        )
        return f"on {what} it gives {got}, not {right}; {said}."
    hooks = sum(len(module._forward_hooks) for _, model, _ in cases for module in model.modules())
    if hooks:
        return f"the counts are right, but {hooks} hooks are left behind: remove each handle."

    class Boom(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("boom")

    broken = nn.Sequential(nn.Linear(6, 6), Boom())
    try:
        answer(broken, rows)
    except RuntimeError:
        pass
    if broken[0]._forward_hooks:
        return "a model that raises keeps your hooks: remove them in a finally."
    return None


JUDGES: dict[str, Judge] = {
    "5.1": _count_a_batch,
    "5.2": _a_file_that_shrinks,
    "5.3": _write_a_counter,
}
