"""Moments of the layers' inputs, where a tensor that several layers read is summed once."""

from __future__ import annotations

from torch import Tensor

from lowrank_utils.factors.moments import Moments
from lowrank_utils.layers.views import LayerView
from lowrank_utils.model.padding import counted


class Inputs:
    """Adds inputs to moments; a layer that read all that another did takes over that one's sums.

    Query, key and value read one tensor. The second and third of them copy n^2 numbers instead of summing
    N n^2 products. ``leaders[b]`` is the layer whose sums b has copied at every call so far.

    Args:
        found: ``{name: Moments}``, which is filled.
    """

    def __init__(self, found: dict[str, Moments]) -> None:
        self.found, self.leaders = found, dict[str, str]()
        self.last: tuple[Tensor, int, str, int] | None = None  # input, its version, whose, rows before it
        self.mask: Tensor | None = None  # of this batch, (N, T)
        self.met = set[str]()  # layers that the forward pass of this batch has called

    def add(self, name: str, seen: LayerView, input: Tensor) -> Moments:
        """Moments of a layer with the rows of one more input.

        Args:
            name: Of the layer.
            seen: Its view.
            input: What it was called with.
        """
        if name not in self.found:
            self.found[name] = Moments.empty(seen.weight.shape[1], input.device)
        moments = self.found[name]
        if (leader := self._leader(name, seen, input)) is not None:
            moments.mean.copy_(leader.mean)
            moments.covariance.copy_(leader.covariance)
            moments.rows = leader.rows
            return moments
        self.leaders[name] = name
        before = moments.rows
        moments.add(counted(seen.rows(input.detach()), input.shape, self.mask).double())
        plain = type(seen).rows is LayerView.rows  # rows that depend on the input alone
        self.last = (input, input._version, name, before) if plain else None
        return moments

    def forget(self) -> None:
        """Let go of the last input: a batch is over."""
        self.last = None
        self.met.clear()

    def _leader(self, name: str, seen: LayerView, input: Tensor) -> Moments | None:
        """Whose sums are those of this layer, if it adds this input."""
        if self.last is None or type(seen).rows is not LayerView.rows:
            return None
        last, version, leader, before = self.last
        if last is not input or version != input._version or leader == name:
            return None
        rows = self.found[name].rows
        if rows != before or self.leaders.setdefault(name, leader) != leader:
            return None
        return self.found[leader]
