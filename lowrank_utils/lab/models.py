"""The two small nets that the book starts from: 4 features, 10 hidden units, 3 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowrank_utils import _checks


class _Indexed(nn.Module):
    def __getitem__(self, index: int) -> nn.Linear:
        layers = [layer for layer in self.children() if isinstance(layer, nn.Linear)]
        if not 0 <= index < len(layers):
            raise IndexError(f"index={index} must be from 0 to {len(layers) - 1}")
        return layers[index]


class Net(_Indexed):
    r"""The dense net: fc2(relu(fc1(x))), 4-10-3, 83 parameters.

    ``net[0]`` is fc1 and ``net[1]`` is fc2.

    Shape:
        (N, 4) -> (N, 3), logits.

    Example:
        >>> sum(p.numel() for p in Net().parameters())
        83
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 10)
        self.fc2 = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3) of x (N, 4)."""
        return self.fc2(torch.relu(self.fc1(x)))  # type: ignore[no-any-return]

    def get_first_layer(self) -> nn.Linear:
        """The hidden layer, fc1."""
        return self.fc1


class NetLite(_Indexed):
    r"""The low-rank net: fc1 is replaced by v1(core1(u1(x))), with no activation between.

    Composed weight: ``v1.weight @ core1.weight @ u1.weight``, (10, r)(r, r)(r, 4) = (10, 4).
    ``netlite[0]`` to ``netlite[3]`` are u1, core1, v1 and fc2.

    Args:
        rank: The rank r, from 1 to 4.

    Shape:
        (N, 4) -> (N, 3), logits.

    Raises:
        TypeError: If ``rank`` is no integer.
        ValueError: If ``rank`` is out of range.

    Example:
        >>> sum(p.numel() for p in NetLite(rank=1).parameters())
        60
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        rank = _checks.rank(rank, 10, 4)
        self.u1 = nn.Linear(4, rank)
        self.core1 = nn.Linear(rank, rank)
        self.v1 = nn.Linear(rank, 10)
        self.fc2 = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3) of x (N, 4)."""
        return self.fc2(torch.relu(self.v1(self.core1(self.u1(x)))))  # type: ignore[no-any-return]

    def return_decomposed_layers(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """The three layers that stand for fc1: u1 (4, r), core1 (r, r), v1 (r, 10)."""
        return self.u1, self.core1, self.v1
