"""Every rank of one layer for little more than one: rank-1 updates of its output, the prefix run once.

W_r = W_{r-1} + s_r u_r v_r^T, so the layer's output obeys y_r = y_{r-1} + (x v_r) s_r u_r^T: one rank-1
update a rank instead of a product, after one SVD. What runs before the layer is run once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.svd import thin_svd


class NestedLayer:
    r"""A private copy of a model in which one linear layer has whatever rank is asked for.

    Args:
        model: Any module; it is copied, never touched.
        layer: Dotted name of an ``nn.Linear`` in it.

    Raises:
        ValueError: If the layer does not exist, is no ``nn.Linear`` or is shared.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        _checks.linear_layer(model, layer)
        self.model = copy.deepcopy(model).eval()
        self._layer = _checks.linear_layer(self.model, layer)
        self._name = layer
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None
        self.called = False
        # a hook also keeps nn.TransformerEncoderLayer off its fused path, which never calls the layer
        self._layer.register_forward_pre_hook(lambda *_: setattr(self, "called", True))

    def check_called(self) -> None:
        """Raise if no forward of the copy has called the layer yet: every rank would score alike."""
        if not self.called:
            _checks.value_error("layer", self._name, "called in the model's forward, but never is")

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (m, k), S (k,), Vh (k, n) of the layer's weight: one SVD, at the first use."""
        if self._factors is None:
            dtype = self._layer.weight.dtype
            U, S, Vh = thin_svd(_checks.matrix(self._layer.weight, f"{self._name}.weight"))
            self._factors = U.to(dtype), S.to(dtype), Vh.to(dtype)
        return self._factors

    def set_rank(self, rank: int) -> nn.Module:
        """Give the copy's layer this rank, in two factors, and return the copy."""
        U, S, Vh = self.factors
        A, B, b = U[:, :rank] * S[:rank], Vh[:rank], self._layer.bias  # (m, r), (r, n), (m,)
        self._override(lambda input: nn.functional.linear(nn.functional.linear(input, B), A, b))
        return self.model

    def _override(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._layer.forward = forward  # type: ignore[method-assign,assignment]  # hooks stay in force

    @torch.no_grad()
    def outputs(self, X: Tensor) -> NestedOutputs:
        """The model's outputs on X at every rank, one after the other."""
        return NestedOutputs(self, X)

    def record(self, X: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Output on X and the layer's input at each call; the modules before it are frozen."""
        inputs: list[Tensor] = []
        done: dict[nn.Module, Tensor] = {}
        again: set[nn.Module] = set()
        versions: dict[nn.Module, list[int]] = {}

        def started(module: nn.Module, args: tuple[object, ...]) -> None:
            versions[module] = _versions(args)

        def finished(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            in_place = versions.pop(module) != _versions(args)  # a replay would not change its input
            if module is self._layer or module in done or in_place:
                again.add(module)
            elif not inputs and isinstance(output, Tensor) and any(True for _ in module.parameters()):
                for inner in module.modules():
                    done.pop(inner, None)
                done[module] = output.clone()

        def reached(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            inputs.append((args[0] if args else kwargs["input"]).clone())

        modules = list(self.model.modules())
        handles = [module.register_forward_pre_hook(started) for module in modules]
        handles += [module.register_forward_hook(finished) for module in modules]
        handles.append(self._layer.register_forward_pre_hook(reached, with_kwargs=True))
        try:
            output = self.model(X)
        finally:
            for handle in handles:
                handle.remove()
        if len(inputs) == 1:
            for module, value in done.items():
                if module not in again:
                    module._forward_pre_hooks.clear()  # the value is what its hooks made of it
                    module._forward_hooks.clear()
                    module.forward = lambda *_, value=value, **__: value.clone()
        return output, inputs


def _versions(args: tuple[object, ...]) -> list[int]:
    # torch counts in-place writes of a tensor, except for those made under inference_mode
    return [arg._version for arg in args if isinstance(arg, Tensor) and not arg.is_inference()]


class NestedOutputs:
    """Model outputs on one X: ``full``, then ``next()`` for rank 1, 2, ..., or ``at(rank)``."""

    def __init__(self, nested: NestedLayer, X: Tensor) -> None:
        self._nested, self._X = nested, X
        self.full, inputs = nested.record(X)
        nested.check_called()
        self._once = len(inputs) == 1
        self._input = inputs[0]
        self._rank = 0

    @torch.no_grad()
    def at(self, rank: int) -> Tensor:
        """The model's output with the layer at this rank."""
        if not self._once:
            return self._nested.set_rank(rank)(self._X)  # type: ignore[no-any-return]
        if self._rank == 0:
            self._start()
        if rank < self._rank:
            self._restart()
        for r in range(self._rank, rank) if rank - self._rank < 4 else ():
            self._sum.addr_(self._Z[r], self._Ut[r])
            self._rank += 1
        if self._rank < rank:
            self._sum.addmm_(self._Z[self._rank : rank].T, self._Ut[self._rank : rank])
            self._rank = rank
        return self._nested.model(self._X)  # type: ignore[no-any-return]

    def _start(self) -> None:
        U, S, Vh = self._nested.factors
        x = self._input.reshape(-1, Vh.shape[1])  # (N, n)
        self._Ut = U.T.contiguous()  # (k, m)
        self._Z = (Vh @ x.T) * S[:, None]  # (k, N), scaled projections
        self._restart()
        shape = (*self._input.shape[:-1], U.shape[0])
        self._nested._override(lambda input: self._sum.view(shape).clone())  # a later op may work in place

    def _restart(self) -> None:
        bias, m = self._nested._layer.bias, self._Ut.shape[1]
        start = self._Z.new_zeros(m) if bias is None else bias
        self._sum, self._rank = start.expand(self._Z.shape[1], m).clone(), 0  # (N, m)
