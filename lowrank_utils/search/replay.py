"""A model run again from one layer on: what comes before it has run once, and is frozen.

A module that a replay would not do justice to (called twice, working in place, hooked) is run again. Random
numbers are drawn alike at every run, and the caller's generators stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.which import hooked_input
from lowrank_utils.model.batches import call, fresh


class Replay:
    """A copy of the model that has run once: from then on only what comes after the layer runs."""

    def __init__(self, model: nn.Module, layer: str, inputs: Any) -> None:
        self.model, self._given = copied(model).eval(), inputs
        self.layer = self.model.get_submodule(layer)
        self.inputs: list[Tensor] = []
        self.shape = torch.Size()
        before = _state(self.model)
        self.full = self._record()
        self.remembers = before != _state(self.model)  # what one run leaves behind, the next one finds
        if not self.inputs:
            _checks.value_error("layer", layer, "called in the model's forward, but never is")

    def run(self, output: Callable[[], Tensor]) -> Any:
        """The model's output where this is the layer's."""
        self.layer.forward = lambda *_, **__: output()  # hooks stay in force
        try:
            with generators_kept():
                return call(self.model, fresh(self._given))
        finally:
            del self.layer.forward  # else the model holds what holds it, and is freed late

    def _record(self) -> Any:
        """Run once, keep the layer's input at each call, and freeze what comes before it."""
        done: dict[nn.Module, Tensor] = {}
        again: set[nn.Module] = set()
        versions: dict[nn.Module, list[int]] = {}
        forward = self.layer.forward

        def started(module: nn.Module, args: tuple[object, ...]) -> None:
            versions[module] = _versions(args)

        def finished(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            in_place = versions.pop(module) != _versions(args)  # a replay would not change its input
            if module is self.layer or module in done or in_place:
                again.add(module)
            elif not self.inputs and isinstance(output, Tensor) and any(True for _ in module.parameters()):
                for inner in module.modules():
                    done.pop(inner, None)
                done[module] = output.clone()

        def reached(*args: Tensor, **kwargs: Tensor) -> Tensor:
            self.inputs.append(hooked_input(args, kwargs).clone())
            output: Tensor = forward(*args, **kwargs)
            if not output.is_nested:  # padded rows left out: no shape, and no replay
                self.shape = output.shape
            return output

        # a part from torch.jit takes no hook
        modules = [m for m in self.model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        hooks = {m for m in modules if m._forward_hooks or m._forward_pre_hooks}
        hooked = {m for m in modules if hooks & set(m.modules())}  # a hook may do what a replay would not
        handles = [module.register_forward_pre_hook(started) for module in modules]
        handles += [module.register_forward_hook(finished) for module in modules]
        self.layer.forward = reached
        try:
            with generators_kept():
                output = call(self.model, fresh(self._given))
        finally:
            for handle in handles:
                handle.remove()
            del self.layer.forward
        if len(self.inputs) == 1:
            for module, value in done.items():
                if module not in again | hooked:
                    module.forward = lambda *_, value=value, **__: value.clone()
        return output


def _state(model: nn.Module) -> list[tuple[int, int]]:
    """Which buffers a model has, and how often each was written into."""
    return [(id(buffer), buffer._version) for buffer in model.buffers()]


def _versions(args: tuple[object, ...]) -> list[int]:
    # torch counts in-place writes of a tensor, except for those made under inference_mode
    return [arg._version for arg in args if isinstance(arg, Tensor) and not arg.is_inference()]
