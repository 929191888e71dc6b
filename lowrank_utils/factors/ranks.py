"""Rules that choose a rank from shapes or from the spectrum alone, without data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.svd import singular_values


def break_even_rank(m: int, n: int, *, core: bool = False) -> int:
    r"""The largest rank whose factors hold no more numbers than the dense (m, n) matrix.

    Two factors need r(m + n) <= mn numbers; with an r x r core between them r^2 + r(m + n) <= mn.
    The bias is the same in both forms and is left out. 0 means that no rank saves anything.

    Args:
        m: Rows of W, its out_features.
        n: Columns of W, its in_features.
        core: Whether a dense r x r core stands between the factors.

    Raises:
        TypeError: If m or n is no integer.
        ValueError: If m or n is below 1.

    Example:
        >>> break_even_rank(10, 4), break_even_rank(1024, 1024), break_even_rank(1024, 1024, core=True)
        (2, 512, 424)
    """
    m, n = _checks.integer(m, "m", low=1), _checks.integer(n, "n", low=1)
    if not core:
        return m * n // (m + n)
    return (math.isqrt((m + n) ** 2 + 4 * m * n) - (m + n)) // 2  # root of r^2 + r(m+n) - mn


def rank_for_energy(W: Tensor, energy: float) -> int:
    r"""The smallest rank that keeps a share of the energy: sum_{i <= r} s_i^2 >= energy * ||W||_F^2.

    Singular values below max(m, n) eps s_1, with eps that of W's dtype, are rounding and count as zero,
    so that ``energy=1`` gives the numerical rank. The zero matrix gives 1.

    Args:
        W: Matrix (m, n).
        energy: Share of the squared Frobenius norm to keep, in (0, 1].

    Raises:
        TypeError: If W is no floating tensor or ``energy`` no number.
        ValueError: If W is no finite, non-empty matrix or ``energy`` is out of range.

    Example:
        >>> rank_for_energy(torch.diag(torch.tensor([4.0, 3.0, 0.0])), 0.6)
        1
        >>> rank_for_energy(torch.diag(torch.tensor([4.0, 3.0, 0.0])), 1.0)
        2
    """
    W = _checks.matrix(W)
    energy = _checks.real(energy, "energy", low=0.0, high=1.0, open_low=True)
    S = singular_values(W)
    S = torch.where(S > max(W.shape) * torch.finfo(W.dtype).eps * S[0], S, 0.0)
    if S[0] > 0:
        S = S / S[0]  # from 0 to 1: squares neither overflow nor underflow
    tail = S.square().flip(0).cumsum(0).flip(0)  # tail[r] = energy lost at rank r
    kept = torch.cat([tail[1:], tail.new_zeros(1)]) <= (1 - energy) * tail[0]
    return int(kept.nonzero()[0]) + 1
