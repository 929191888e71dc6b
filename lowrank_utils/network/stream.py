"""One net on the samples, batch by batch: from its start, or block after block from what arrives there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils.model.batches import Batch, call
from lowrank_utils.network.blocks import Block, Slot, parts, tensors
from lowrank_utils.network.kept import Kept, Values


class Enough(BaseException):
    """Raised in a hook where the rest of a run is of no use; no model catches it."""


class Unsafe(Exception):
    """A block by itself does not do what it does in the model."""


class Stream:
    """A net and what it is run on.

    Args:
        model: A copy that may be run and hooked.
        data: Its batches.
        room_bytes: For what arrives at a block.
    """

    def __init__(self, model: nn.Module, data: Sequence[Batch], room_bytes: float) -> None:
        self.model, self.data = model, data
        self._block: Block | None = None
        self._kept = Kept(room_bytes)
        self._others: list[dict[str, tuple[list[Any], dict[str, Any]]]] = []  # a batch's other arguments

    def __len__(self) -> int:
        return len(self.data)

    def layer(self, name: str) -> nn.Module:
        """The module of this name."""
        return self.model.get_submodule(name)

    def run(self, i: int) -> Any:
        """What the net, or the block it stands at, gives for batch i; None if a hook had enough."""
        try:
            if self._block is None:
                return call(self.model, self.data[i].on(self.model).inputs)
            return self._run_block(self._block, i)
        except Enough:
            return None

    def _run_block(self, block: Block, i: int) -> Any:
        try:
            args, kwargs = copy.deepcopy(self._others[i][block.name])
            values = self._kept.get(i)
            for slot, source in block.links.items():
                _set(args, kwargs, slot, values[source])
            return self.layer(block.name)(*args, **kwargs)
        except Exception as error:  # it waits for something that others of the model do
            raise Unsafe from error

    def enter(self, chain: Sequence[Block]) -> None:
        """Run the whole net up to the last block of a chain, and stand before its first."""
        self.leave()
        first, last = chain[0], chain[-1]
        arrived: dict[str, tuple[list[Any], dict[str, Any]]] = {}
        values: Values = {}
        memo: dict[int, Any] = {}

        def reached(block: Block) -> Callable[..., None]:
            def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                rest, named = list(args), dict(kwargs)
                slots = tensors(args, kwargs) if block is first else dict.fromkeys(block.links)
                for slot in slots:
                    _set(rest, named, slot, None)
                arrived[block.name] = _copied((rest, named), memo)  # an argument of all is copied once
                if block is first:
                    values.update({slot: x.clone() for slot, x in tensors(args, kwargs).items()})
                if block is last:
                    raise Enough

            return take

        hooks = [
            self.layer(block.name).register_forward_pre_hook(reached(block), prepend=True, with_kwargs=True)
            for block in chain
        ]
        with removing(hooks):
            for i in range(len(self)):
                arrived, values, memo = {}, {}, {}
                self.run(i)
                if len(arrived) < len(chain):
                    raise Unsafe
                self._others.append(arrived)
                self._kept.put(i, values)
        self._block = Block(first.name, {slot: slot for slot in values}, first.groups)

    def move(self, after: Block | None) -> None:
        """Run the block, keep of its outputs what the next one takes, and stand before that."""
        for i in range(len(self)):
            found = parts(self.run(i))
            sources = set(found) if after is None else set(after.links.values())
            if not sources <= set(found):
                raise Unsafe
            self._kept.put(i, {source: found[source] for source in sources})
        if after is not None:
            self._block = after

    def leave(self) -> None:
        """Stand before the whole net again."""
        self._block = None
        self._others.clear()

    def close(self) -> None:
        """Forget everything that was kept."""
        self.leave()
        self._kept.close()

    def check(self, last: Block) -> None:
        """Run the whole net, and compare what this block gives in it with what was kept for it.

        Raises:
            Unsafe: If it is not the same but for rounding: that of one run, or of two whole runs that differ.
        """
        self.leave()
        given: Values = {}

        def take(_: nn.Module, args: object, output: object) -> None:
            given.update(parts(output))
            raise Enough

        def whole(i: int) -> Values:
            given.clear()
            self.run(i)
            return dict(given)

        with removing([self.layer(last.name).register_forward_hook(take)]):
            for i in range(len(self)):
                kept, wanted = self._kept.get(i), whole(i)
                if kept.keys() != wanted.keys():
                    raise Unsafe
                if all(_close(kept[k], wanted[k]) for k in kept):
                    continue
                again = whole(i)  # sums whose order hangs on chance, as on a GPU
                if not all(_close(kept[k], wanted[k], again.get(k)) for k in kept):
                    raise Unsafe


def _copied(things: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(things, memo)
    except Exception as error:  # some objects cannot be copied
        raise Unsafe from error


def _set(args: list[Any], kwargs: dict[str, Any], slot: Slot, value: Any) -> None:
    if isinstance(slot, int):
        args[slot] = value
    else:
        kwargs[slot] = value


def _close(got: Tensor, wanted: Tensor, again: Tensor | None = None) -> bool:
    """Whether they differ by rounding alone; with ``again``, by four times as much as two runs do."""
    if got.shape != wanted.shape or not wanted.is_floating_point():
        return torch.equal(got, wanted)
    eps = torch.finfo(wanted.dtype).eps
    scale = wanted.abs().max() if wanted.numel() else torch.zeros(())
    allowed = 8 * eps * scale
    if again is not None and again.shape == wanted.shape:
        chance = (again - wanted).abs().max()
        if chance <= eps**0.5 * scale:  # more is no rounding: the model has a state, or draws numbers
            allowed = allowed + 4 * chance
    return bool(((got - wanted).abs() <= allowed).all())


@contextmanager
def removing(handles: Sequence[Any]) -> Iterator[None]:
    """Remove these hooks at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
