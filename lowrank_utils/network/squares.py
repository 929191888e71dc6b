"""The sum of g g^T over many rows, a large product at a time."""

from __future__ import annotations

import torch
from torch import Tensor


class Squares:
    """Adds g^T g of rows g (N, m) to a sum (m, m) in float64; products in float32 if g has no more digits.

    A product of few rows takes less time than its addition to m^2 numbers. So rows wait until there are m of
    them, in no more memory than the sum has.
    """

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []

    def add(self, total: Tensor, g: Tensor) -> None:
        """Let rows wait, or add them with those that do.

        Args:
            total: The sum, (m, m), to which ``finish`` adds what waits at the end.
            g: Rows (N, m).
        """
        self.waiting.append(g)
        if sum(map(len, self.waiting)) >= len(total):
            self.finish(total)

    def finish(self, total: Tensor) -> None:
        """Add all rows that wait.

        Args:
            total: The sum, (m, m).
        """
        rows, self.waiting = self.waiting, []
        if not rows or not (g := torch.cat(rows)).any():
            return
        g = g.to(torch.promote_types(g.dtype, torch.float32))
        largest = g.abs().max()  # squares of tiny numbers would vanish
        g = g / largest
        total.add_(g.T @ g, alpha=largest.double().square().item())
