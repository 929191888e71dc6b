"""Rows of a layer's tensors, seen by hooks while a net runs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lowrank_utils.layers.views import LayerView
from lowrank_utils.layers.which import hooked_input
from lowrank_utils.model.padding import counted
from lowrank_utils.network.stream import Enough, Unsafe


class Rows:
    """Rows that hooks have seen in one run; copies, since a later operation may work in place."""

    def __init__(self, view: LayerView) -> None:
        self.view = view
        self.mask: Tensor | None = None  # of the batch that is run
        self.rows: list[Tensor] = []

    def taken(self) -> list[Tensor]:
        """Those of each call, which are then forgotten."""
        rows, self.rows = self.rows, []
        return rows


class Inputs(Rows):
    """Of what the first layer of a group reads; the others must read the same."""

    def of(self, k: int, enough: bool) -> Callable[..., None]:
        """The hook of layer k, which stops the run if that is enough."""

        def read(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            x = hooked_input(args, kwargs)
            if k == 0:
                self._first, self._version = x, x._version
                self.rows.append(counted(self.view.rows(x), x.shape, self.mask).clone())
            elif x is not self._first or x._version != self._version:
                raise Unsafe
            if enough:
                raise Enough

        return read


class Outputs(Rows):
    """Of what a layer gives."""

    def of(self, enough: bool) -> Callable[..., None]:
        """The layer's hook, which stops the run if that is enough."""

        def gave(_: nn.Module, args: object, output: Tensor) -> None:
            self.rows.append(counted(self.view.output_rows(output), output.shape, self.mask).clone())
            if enough:
                raise Enough

        return gave


class Added(Rows):
    """Of what a residual connection adds to the layer's output: what another module read last before it."""

    def __init__(self, view: LayerView) -> None:
        super().__init__(view)
        self._last: Tensor | None = None

    def read(self, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        """The hook of that module."""
        try:
            h = hooked_input(args, kwargs)
            self._last = counted(self.view.output_rows(h), h.shape, self.mask).clone()
        except (AttributeError, IndexError, RuntimeError, StopIteration):  # not of such a shape
            self._last = None

    def keep(self, *_: object) -> None:
        """The hook of the layer, before it."""
        if self._last is None:
            raise Unsafe
        self.rows.append(self._last)

    def taken(self) -> list[Tensor]:
        """Those of each call of the layer, which are then forgotten."""
        self._last = None
        return super().taken()


def summed(given: list[Tensor], there: list[Tensor], here: list[Tensor]) -> list[Tensor]:
    """What a layer should give where h' is added to it and not h, y + (h - h'), for each of its calls.

    Args:
        given: The rows y (N, m) of the layer's outputs in the dense net.
        there: The rows h (N, m) that are added to them.
        here: The rows h' (N, m) that are added in the small net.

    Raises:
        Unsafe: Where they are not of the same shapes.
    """
    shapes = [[x.shape for x in rows] for rows in (given, there, here)]
    if not shapes[0] == shapes[1] == shapes[2]:
        raise Unsafe
    return [y + (h - now) for y, h, now in zip(given, there, here, strict=True)]
