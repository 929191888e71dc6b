"""Which layer asks for an operator, in the forward and in the backward pass."""

from __future__ import annotations

import bisect
from typing import Any

import torch
from torch import nn


class Owners:
    """Follows the calls of a model's parts by hooks on them, so give it a copy of the model.

    A node of autograd's graph carries the number of nodes made before it. The calls of the parts divide
    those numbers, and so a node that runs in the backward pass leads to the part that made it. What a
    scripted part runs is its caller's.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls = {"": 1}  # {layer: calls}
        self._running = [""]  # innermost last; "" is the model itself
        self._starts, self._names = [0], [""]  # from node number .. on, nodes belong to ..
        for name, part in model.named_modules():
            if name and not isinstance(part, torch.jit.ScriptModule):  # it takes no hooks
                part.register_forward_pre_hook(self._enter(name), prepend=True)
                part.register_forward_hook(self._leave, always_call=True)

    def _enter(self, name: str) -> Any:
        def hook(part: nn.Module, inputs: Any) -> None:
            self.calls[name] = self.calls.get(name, 0) + 1
            self._running.append(name)
            self._mark()

        return hook

    def _leave(self, part: nn.Module, inputs: Any, output: Any) -> None:
        self._running.pop()
        self._mark()

    def _mark(self) -> None:
        self._starts.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._names.append(self._running[-1])

    def current(self, node: Any = None) -> str:
        """Layer that runs now, or that made autograd's ``node``."""
        if node is None or len(self._running) > 1:  # a checkpoint runs layers again in the backward pass
            return self._running[-1]
        return self._names[max(0, bisect.bisect_right(self._starts, node._sequence_nr()) - 1)]
