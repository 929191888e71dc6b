"""The functions that a run applies to tensors, in the order in which they are called."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lowrank_utils.network.blocks import Seen


def tensors_of(thing: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and mappings."""
    return [x for x in tree_leaves(thing) if isinstance(x, Tensor)]


def seen(found: list[Tensor]) -> list[Seen]:
    """Which tensors they are, and in which state."""
    return [(id(x), x._version) for x in found]


@dataclass
class Applied:
    """One function that made a new tensor, or a new state of one.

    Attributes:
        function: As it was called: ``nn.functional.relu``, not what that calls inside.
        kwargs: Its arguments by name.
        used: The tensors among its arguments.
        made: Those among its results, and those of ``used`` that it wrote into, in their new state.
        tensors: ``used`` themselves, held so that no identity is used twice.
    """

    function: Any
    kwargs: dict[str, Any]
    used: list[Seen]
    made: list[Seen]
    tensors: list[Tensor]


class FunctionLog(TorchFunctionMode):  # a dispatch mode would import the compiler, 100 MB
    """While it is on, notes each function that makes a tensor. A dropout in eval mode hands on what it got.

    Attributes:
        applied: In the order of their calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[Applied] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and note it."""
        kwargs = kwargs or {}
        tensors = tensors_of((args, kwargs))
        used = seen(tensors)
        result = func(*args, **kwargs)
        after = seen(tensors_of(result) + tensors)  # h[:, 0] = y writes into h, and returns nothing
        made = [one for one in dict.fromkeys(after) if one not in used]
        if made:
            self.applied.append(Applied(func, kwargs, used, made, tensors))
        return result

    def uses(self) -> Counter[Seen]:
        """How many functions made another of each tensor; one that takes it twice counts twice."""
        return Counter(one for call in self.applied for one in call.used)
