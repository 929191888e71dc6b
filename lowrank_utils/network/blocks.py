"""A model's chain of blocks: modules called one after the other, each on what the last one gave.

What such a block computes can be had from its own inputs, without the model around it. Found in a log of one
run; whether it is so on all data is for the caller to check.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lowrank_utils.layers.which import hooked_input

Slot = int | str
"""Where an argument stands, or its name; which of several outputs, or -1 for the only one."""
ONLY = -1
Seen = tuple[int, int]  # a tensor, and how often it was written to


@dataclass
class Call:
    """One call of a module, between two ticks of a clock; arguments and outputs that are tensors."""

    name: str
    start: int
    end: int = -1
    takes: dict[Slot, Seen] = field(default_factory=dict)
    gives: dict[Slot, Seen] = field(default_factory=dict)
    reads: Seen = (0, 0)  # its first argument


@dataclass
class Block:
    """A module of the chain.

    Attributes:
        name: Dotted name.
        links: ``{argument: output of the block before}``; empty for the first block.
        groups: Its layers in the order of their calls; those that read one tensor stand together.
    """

    name: str
    links: dict[Slot, Slot]
    groups: list[list[str]]


Stage = list[Block]
"""A chain; of one block without a name, the whole model, if there is none."""


def tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[Slot, Tensor]:
    """The arguments that are tensors."""
    found: dict[Slot, Tensor] = {i: x for i, x in enumerate(args) if isinstance(x, Tensor)}
    found.update({name: x for name, x in kwargs.items() if isinstance(x, Tensor)})
    return found


def parts(output: Any) -> dict[Slot, Tensor]:
    """The outputs that are tensors."""
    if isinstance(output, Tensor):
        return {ONLY: output}
    return tensors(output, {}) if isinstance(output, tuple | list) else {}


def log_calls(model: nn.Module, run: Callable[[], Any]) -> list[Call]:
    """Every call of a module while ``run`` runs the model, by the time of its start."""
    calls: list[Call] = []
    running: list[Call] = []
    alive: list[Any] = []  # so that no identity is used twice
    clock = iter(range(10**9))

    def seen(found: Mapping[Slot, Tensor]) -> dict[Slot, Seen]:
        alive.append(found)
        return {slot: (id(x), x._version) for slot, x in found.items()}

    def before(name: str) -> Callable[..., None]:
        def started(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            takes = seen(tensors(args, kwargs))
            first = hooked_input(args, kwargs) if args or kwargs else None
            reads = (id(first), first._version) if isinstance(first, Tensor) else (0, 0)
            calls.append(Call(name, next(clock), takes=takes, reads=reads))
            running.append(calls[-1])

        return started

    def after(_: nn.Module, args: object, output: object) -> None:
        call = running.pop()
        call.gives, call.end = seen(parts(output)), next(clock)

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(before(name), prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def stages(calls: Sequence[Call], layers: Sequence[str]) -> Iterator[Stage]:
    """Chains that hold the layers, in their order, each layer in one; the whole model where there is none."""
    chain = _best_chain(calls, layers)
    if not chain:
        if layers:
            yield [Block("", {}, _groups(calls, layers))]
        return
    inside = [name for block in chain for group in block.groups for name in group]
    first, last = layers.index(inside[0]), layers.index(inside[-1])
    yield from stages(calls, layers[:first])
    yield chain
    yield from stages(calls, layers[last + 1 :])


def _groups(calls: Sequence[Call], layers: Collection[str]) -> list[list[str]]:
    """Layers in the order of their calls, those next to each other that read one tensor together."""
    groups: list[list[str]] = []
    last: Seen | None = None
    for call in calls:
        if call.name in layers:
            if call.reads == last:
                groups[-1].append(call.name)
            else:
                groups.append([call.name])
            last = call.reads
    return groups


def _best_chain(calls: Sequence[Call], layers: Sequence[str]) -> Stage:
    """The chain of two blocks or more that saves most runs of layers, if any does.

    A group of layers in the whole model costs a run of all; in a block of g groups, of these.
    """
    wanted = set(layers)
    starts = [call.start for call in calls]
    moments = [call.start for call in calls if call.name in wanted]
    every = len(_groups(calls, wanted))
    times = Counter(call.name for call in calls)
    givers: dict[Seen, list[int]] = {}
    saved: list[int] = []
    before: list[int | None] = []
    inside: list[list[list[str]]] = []
    for i, call in enumerate(calls):
        inside.append(_groups(calls[i : bisect_right(starts, call.end)], wanted))
        g = len(inside[i])
        best, chosen = 0, None
        for key in set(call.takes.values()):
            for j in givers.get(key, ()):
                over = bisect_right(moments, call.start - 1) == bisect_right(moments, calls[j].end)
                if calls[j].end < call.start and over and saved[j] >= best:
                    best, chosen = saved[j], j
        usable = times[call.name] == 1 and call.name != ""
        saved.append(best + g * every - g * (g + 1) if usable else -(10**9))
        before.append(chosen)
        for key in call.gives.values() if usable else ():
            givers.setdefault(key, []).append(i)
    if not saved:
        return []
    last = max(range(len(calls)), key=saved.__getitem__)
    if saved[last] <= 0:
        return []
    chain = [last]
    while (previous := before[chain[0]]) is not None:
        chain.insert(0, previous)
    holding = [k for k, i in enumerate(chain) if inside[i]]
    if len(holding) < 2:
        return []
    found: Stage = []
    for k in range(holding[0], holding[-1] + 1):
        call = calls[chain[k]]
        given = {seen: slot for slot, seen in calls[chain[k - 1]].gives.items()} if found else {}
        links = {slot: given[seen] for slot, seen in call.takes.items() if seen in given}
        found.append(Block(call.name, links, inside[chain[k]]))
    return found
