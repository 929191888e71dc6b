"""Every rank of one layer for little more than one: rank-1 updates of its output, the prefix run once.

W_r = W_{r-1} + s_r u_r v_r^T, so the layer's output obeys y_r = y_{r-1} + (x v_r) s_r u_r^T: one rank-1
update a rank instead of a product, after one SVD. What runs before the layer is run once. Where that is not
what the cut model computes (it is tried at both ends), every rank is cut and run as a whole. A model that
draws random numbers draws the same ones at every rank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.factors.svd import thin_svd
from lowrank_utils.layers.copying import copied, replaced
from lowrank_utils.layers.views import layer_view
from lowrank_utils.layers.which import layer_of
from lowrank_utils.model.batches import call, fresh
from lowrank_utils.search.replay import Replay

_ROOM = {torch.float32: 1e-3, torch.float64: 1e-8}  # of the largest output; other dtypes are run as a whole


class NestedLayer:
    r"""A model in which one layer has whatever rank is asked for; the one given is never touched.

    Args:
        model: Any module.
        layer: Dotted name of a layer in it that has a ``LayerView``.

    Raises:
        ValueError: If the layer does not exist or cannot be replaced.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.name, self.original = layer, _checks.module(model)
        self.view = layer_view(layer_of(self.original, layer))

    @functools.cached_property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (m, k), S (k,), Vh (k, n) of the layer's weight, not yet rounded: one SVD, at the first use."""
        return thin_svd(_checks.matrix(self.view.weight, f"{self.name}.weight"))

    def at(self, rank: int) -> nn.Module:
        """The model with this rank: what ``compress`` returns, in eval mode."""
        U, S, Vh = self.factors
        root, dtype = S[:rank].sqrt(), self.view.weight.dtype
        A, B = (U[:, :rank] * root).to(dtype), (root[:, None] * Vh[:rank]).to(dtype)
        return replaced(self.original, {self.name: self.view.low_rank(A, B, self.view.bias)}).eval()

    def check_called(self, call: Callable[[nn.Module], Any]) -> Any:
        """What ``call`` gives for a copy of the model; raise if the layer has no part in it.

        Every rank would score alike then.
        """
        model, called = copied(self.original).eval(), []
        # a hook also keeps nn.TransformerEncoderLayer off its fused path, which never calls the layer
        model.get_submodule(self.name).register_forward_pre_hook(lambda *_: called.append(True))
        value = call(model)
        if not called:
            _checks.value_error("layer", self.name, "called in the model's forward, but never is")
        return value

    @torch.no_grad()
    def outputs(self, data: Sequence[Any]) -> NestedOutputs:
        """The model's outputs on the inputs of these batches at every rank, one after the other."""
        return NestedOutputs(self, data)


def _close(got: Tensor, wanted: Tensor, room: float) -> bool:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    return got.shape == wanted.shape and bool(((got - wanted).abs() <= room * scale).all())


class NestedOutputs:
    """Model outputs on each batch: ``at(rank)`` with the layer at a rank, ``at(None)`` of the whole model.

    One batch is replayed, if that gives the same; of several each is run as a whole.
    """

    def __init__(self, nested: NestedLayer, data: Sequence[Any]) -> None:
        self._nested, self._data = nested, data
        self._replay: Replay | None = None
        self._rank = -1
        self.runs = 1  # of the model, or of what comes after the layer, beside those asked for
        if len(data) == 1:
            self._replay = Replay(nested.original, nested.name, data[0])
            self._full = [self._replay.full]
            if len(self._replay.inputs) > 1 or self._replay.remembers or not self._agrees():
                self._replay = None
        else:
            self._full = nested.check_called(self._run)

    @torch.no_grad()
    def at(self, rank: int | None) -> list[Any]:
        """The model's output on each batch with the layer at this rank."""
        if rank is None:
            return self._full
        return self._run(self._nested.at(rank)) if self._replay is None else [self._quick(self._replay, rank)]

    @torch.no_grad()
    def with_layer(self, new: nn.Module) -> list[Any]:
        """The model's output on each batch with another layer in this one's place."""
        replay = self._replay
        if replay is None:
            return self._run(replaced(self._nested.original, {self._nested.name: new}).eval())
        return [replay.run(lambda: new(replay.inputs[0].clone()))]

    def _run(self, model: nn.Module) -> list[Any]:
        with generators_kept():
            return [call(model, fresh(inputs)) for inputs in self._data]

    def _agrees(self) -> bool:
        """Whether the quick way gives the whole model at full rank, and the cut one at rank 1."""
        full = self._full[0]
        room = _ROOM.get(full.dtype, 0.0) if isinstance(full, Tensor) else 0.0
        if self._replay is None or room == 0 or self._nested.view.weight.dtype not in _ROOM:
            return False
        k = len(self._nested.factors[1])
        ends = {k: full, 1: self._run(self._nested.at(1))[0]}
        self.runs += 3
        try:
            quick = {rank: self._quick(self._replay, rank) for rank in ends}
        except Exception:  # a frozen part no longer does what another one waits for
            return False
        return all(_close(quick[rank], wanted, room) for rank, wanted in ends.items())

    def _quick(self, replay: Replay, rank: int) -> Any:
        if self._rank < 0:
            U, S, Vh = (factor.to(self._nested.view.weight.dtype) for factor in self._nested.factors)
            self._Ut = U.T.contiguous()  # (k, m)
            self._Z = (Vh @ self._nested.view.rows(replay.inputs[0]).T) * S[:, None]  # (k, N), projections
        if self._rank < 0 or rank < self._rank:
            bias, m = self._nested.view.bias, self._Ut.shape[1]
            start = self._Z.new_zeros(m) if bias is None else bias
            self._sum, self._rank = start.expand(self._Z.shape[1], m).clone(), 0  # (N, m)
        for r in range(self._rank, rank) if rank - self._rank < 4 else ():
            self._sum.addr_(self._Z[r], self._Ut[r])
            self._rank += 1
        if self._rank < rank:
            self._sum.addmm_(self._Z[self._rank : rank].T, self._Ut[self._rank : rank])
            self._rank = rank
        view = self._nested.view  # a copy goes out, since a later operation may work in place
        return replay.run(lambda: view.output(self._sum, replay.shape).clone())
