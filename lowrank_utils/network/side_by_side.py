"""The dense net and the small one, run beside each other: a layer's new inputs x' with its old outputs y."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import nn

from lowrank_utils import _checks
from lowrank_utils.layers.copying import put
from lowrank_utils.layers.views import LayerView, layer_view
from lowrank_utils.model.batches import Batch
from lowrank_utils.model.padding import Mask, mask_of
from lowrank_utils.network.blocks import Block, log_calls, stages
from lowrank_utils.network.refit import Joint
from lowrank_utils.network.rows import Added, Inputs, Outputs, summed
from lowrank_utils.network.stream import Stream, Unsafe, removing

Found = Iterator[tuple[list[str], list[Joint]]]
"""Layers that read one tensor, and their moments, of all rows or of each half of them; the caller puts in the
new layers before it asks for more."""


class SideBySide:
    """Two copies of a model on the same data.

    Args:
        dense: Stays as it is.
        small: Gets the new layers.
        data: Batches.
        room_bytes: For what arrives at a block, of each net.
        mask: Which positions count.
        halved: Whether moments are of two halves: every other batch each, or half of the only one's rows.
        residual: ``{layer: module that reads what is added to the layer's output}``.
    """

    def __init__(
        self,
        dense: nn.Module,
        small: nn.Module,
        data: Sequence[Batch],
        room_bytes: float,
        *,
        mask: Mask | None = None,
        halved: bool,
        residual: Mapping[str, str],
    ) -> None:
        self.dense, self.small = (Stream(net, data, room_bytes) for net in (dense, small))
        self.masks = [mask_of(batch.inputs, mask) for batch in data]
        self.halved, self.residual = halved, residual

    def put(self, name: str, layer: nn.Module) -> None:
        """Put a new layer into the small net."""
        self.small.model = put(self.small.model, name, layer)

    def close(self) -> None:
        """Forget what was kept."""
        self.dense.close()
        self.small.close()

    def whole(self, order: Sequence[str]) -> Found:
        """Both nets run as a whole for each layer, which may be called any number of times."""
        for name in order:
            try:
                found = self._joint([name], once=False)
            except Unsafe:
                source = self.residual[name]
                limit = f"called before {name!r} is, on a tensor of the shape of its output"
                _checks.value_error(f"residual[{name!r}]", source, limit)
            yield [name], found

    def by_blocks(self, order: Sequence[str]) -> Found:
        """The same block after block; nothing is kept longer than needed, and everything checked.

        Raises:
            Unsafe: Where it would not be the same.
        """
        longest = max(range(len(self.dense)), key=lambda i: len(self.dense.data[i]))
        calls = log_calls(self.dense.model, lambda: self.dense.run(longest))
        if [call.name for call in calls if call.name in set(order)] != list(order):
            raise Unsafe
        self._survey(self.dense, order)
        for chain in stages(calls, order):
            if chain[0].name == "":
                for group in self._alike(chain[0].groups):
                    yield group, self._joint(group, once=True)
            else:
                yield from self._along(chain)
        self._survey(self.small, order)

    def _along(self, chain: Sequence[Block]) -> Found:
        """Block after block of a chain."""
        streams = self.dense, self.small
        for stream in streams:
            stream.enter(chain)
        for block, after in zip(chain, [*chain[1:], None], strict=True):
            for group in self._alike(block.groups):
                yield group, self._joint(group, once=True)
            for stream in streams:
                stream.move(after)
        for stream in streams:
            stream.check(chain[-1])

    def _survey(self, stream: Stream, order: Sequence[str]) -> None:
        """Run a whole net, and see that each layer is called once, and in this order, for every batch."""
        called: list[str] = []

        def note(name: str) -> Callable[..., None]:
            return lambda *_: called.append(name)

        with removing([stream.layer(name).register_forward_pre_hook(note(name)) for name in order]):
            for i in range(len(stream)):
                called.clear()
                stream.run(i)
                if called != list(order):
                    raise Unsafe

    def _joint(self, group: Sequence[str], *, once: bool) -> list[Joint]:
        """Moments of what the group reads in the small net and should give: what it gives in the dense one.

        With ``once`` a net is run no further than to the last of the group.
        """
        views = [layer_view(self.dense.layer(name)) for name in group]
        n, sizes = views[0].weight.shape[1], [len(view.weight) for view in views]
        parts = [Joint(n, sizes, views[0].weight.device) for _ in range(1 + self.halved)]
        inputs, outputs = Inputs(views[0]), [Outputs(view) for view in views]
        added = {k: (Added(view), Added(view)) for k, view in enumerate(views) if group[k] in self.residual}
        hooks = []
        for k, nets in added.items():
            for stream, rows in zip((self.dense, self.small), nets, strict=True):
                source, layer = stream.layer(self.residual[group[k]]), stream.layer(group[k])
                hooks.append(source.register_forward_pre_hook(rows.read, prepend=True, with_kwargs=True))
                hooks.append(layer.register_forward_pre_hook(rows.keep))
        for k, name in enumerate(group):
            enough = once and k == len(group) - 1
            read, gave = inputs.of(k, enough), outputs[k].of(enough)
            hooks.append(self.small.layer(name).register_forward_pre_hook(read, with_kwargs=True))
            hooks.append(self.dense.layer(name).register_forward_hook(gave, prepend=True))
        with removing(hooks):
            for i in range(len(self.small)):
                for seen in (inputs, *outputs, *itertools.chain(*added.values())):
                    seen.mask = self.masks[i]
                self.small.run(i)
                self.dense.run(i)
                given = [rows.taken() for rows in outputs]
                for k, nets in added.items():
                    given[k] = summed(given[k], *(rows.taken() for rows in nets))
                for x, *ys in zip(inputs.taken(), *given, strict=True):
                    if len(self.small) > 1:
                        parts[i % len(parts)].add(x, ys)
                        continue
                    step = -(-len(x) // len(parts))
                    for k, part in enumerate(parts):
                        own = slice(k * step, (k + 1) * step)
                        part.add(x[own], [y[own] for y in ys])
        return parts

    def _alike(self, groups: Sequence[list[str]]) -> Iterator[list[str]]:
        """The groups, with one of its own for a layer whose rows are not those of the tensor that it reads.

        One begins before a layer in ``residual`` too: what is added to it may come from those before it.
        """
        for group in groups:
            views = [layer_view(self.dense.layer(name)) for name in group]
            alike = all(type(view).rows is LayerView.rows for view in views)
            starts = [i for i, name in enumerate(group) if i == 0 or not alike or name in self.residual]
            for start, end in zip(starts, [*starts[1:], len(group)], strict=True):
                yield group[start:end]
