"""Second moments of what flows through one linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass
class Moments:
    """Moments of one linear layer (m, n), all in float64.

    Attributes:
        rows: Input rows seen; a 3-D input (N, T, n) has N T of them, or those that a mask
            leaves.
        samples: Samples seen.
        mean: E[x], (n,).
        covariance: C = E[(x - E x)(x - E x)^T], (n, n).
        gradient: G = E[g g^T], g the gradient of the loss, or of a random direction of the outputs, by the
            layer's output, (m, m); None if none was taken.
    """

    rows: int
    samples: int
    mean: Tensor
    covariance: Tensor
    gradient: Tensor | None

    @classmethod
    def empty(cls, n: int, device: torch.device | None = None) -> Self:
        """No rows yet, of n inputs.

        Args:
            n: Inputs of the layer.
            device: Where the moments are kept; by default torch's own choice.
        """
        zero = torch.zeros(n, n, dtype=torch.float64, device=device)
        return cls(0, 0, zero[0].clone(), zero, None)

    def add(self, x: Tensor) -> None:
        """Merge a batch of rows by the pairwise update of Chan et al.: no cancellation.

        Args:
            x: Rows (N, n); an empty batch changes nothing.
        """
        x = x.double()
        count, mean = len(x), x.mean(0)
        if count == 0:
            return
        centred, step = x - mean, mean - self.mean
        total = self.rows + count
        self.covariance.addmm_(centred.T, centred, beta=self.rows / total, alpha=1 / total)
        self.covariance.addr_(step, step, alpha=self.rows * count / total**2)
        self.mean += step * (count / total)
        self.rows = total
