r"""A kernel's low-rank forms by what patches really hold, not by its weights alone.

W (m, n, *k) meets patches of covariance Sigma (n K, n K), K the number of taps. The forms have minimisers in
norms of their own, of E = W - W~, the first three closed:

=========  ============================  ==========================================================
form       norm                          weight
=========  ============================  ==========================================================
channel    ||E Sigma^1/2||, E (m, n K)   Sigma: the error of the outputs
input      ||E C^1/2||, E (m K, n)       C (n, n), the channels' covariance at one tap, mean of K
kernel     ||E T^1/2||, E (m n, K)       T (K, K), the taps' covariance in one channel, mean of n
tucker2    ||E Sigma^1/2||, E (m, n K)   Sigma, by alternating least squares: a local minimum
=========  ============================  ==========================================================

The norm of ``input`` is the error of the outputs where Sigma is C kron I, taps alike and uncorrelated, and
that of ``kernel`` where it is I kron T; where they are not, a closed form knows no better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.unfold import Rank, factor_shapes, largest_rank
from lowrank_utils.factors.weighted import weighted_factors
from lowrank_utils.factors.weighted_tucker import weighted_tucker2

WEIGHTED = ("channel", "input", "kernel", "tucker2")


def channel_covariance(covariance: Tensor, n: int) -> Tensor:
    """C (n, n) of Sigma (n K, n K): of all channels at one tap, the mean over the taps.

    Args:
        covariance: Sigma.
        n: Channels.
    """
    blocks = covariance.reshape(n, -1, n, len(covariance) // n)
    return torch.einsum("itjt->ij", blocks) / blocks.shape[1]


def tap_covariance(covariance: Tensor, n: int) -> Tensor:
    """T (K, K) of Sigma (n K, n K): of all taps in one channel, the mean over the channels.

    Args:
        covariance: Sigma.
        n: Channels.
    """
    blocks = covariance.reshape(n, -1, n, len(covariance) // n)
    return torch.einsum("itis->ts", blocks) / n


def weighted_kernel_factors(W: Tensor, rank: Rank, form: str, covariance: Tensor) -> list[Tensor]:
    r"""The kernels of the form's stages, first stage first, that are closest to W in the norm of the table.

    Factored in float64, rounded once; Sigma may be singular.

    Args:
        W: Kernel (m, n, *k), of one group.
        rank: r, or for ``tucker2`` the pair (r_out, r_in).
        form: "channel", "input", "kernel" or "tucker2".
        covariance: Sigma (n K, n K) of the patches, channels first, as ``calibrate`` takes it.

    Shape:
        As ``factor_shapes`` says, in W's dtype and on its device, new storage.

    Raises:
        TypeError: If W or Sigma is no floating tensor or ``rank`` no integer (or pair of integers).
        ValueError: If one is not finite, Sigma does not fit W, or an argument is out of range.

    Reference:
        Mirsky 1960 (the weighted problem's optimum); Kalle et al. 2025 (tucker2).

    Example:
        >>> W = torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[3.0, 4.0], [0.0, 9.0]]])
        >>> silent = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64))  # the second channel
        >>> down, up = weighted_kernel_factors(W, 1, "input", silent)
        >>> torch.allclose(torch.einsum("ort,ri->oit", up, down[..., 0])[:, 0], W[:, 0])
        True
    """
    W = _checks.kernel(W)
    form = _checks.choice(form, "form", WEIGHTED)
    rank = _checks.kernel_rank(rank, form, largest_rank(W.shape, form))
    m, n = W.shape[:2]
    size = W[0].numel()
    covariance = _checks.matrix(covariance, "covariance")
    if covariance.shape != (size, size):
        _checks.value_error("covariance", covariance, f"of shape ({size}, {size}), the numbers in a patch")
    if isinstance(rank, tuple):
        U, core, V = weighted_tucker2(W, rank, covariance)
        stages = [V.T, core, U]
    elif form == "channel":
        A, B = _closest(W.flatten(1), covariance, rank)
        stages = [B, A]  # (r, n K), (m, r)
    elif form == "input":
        rows = W.flatten(2).transpose(1, 2).flatten(0, 1)  # (m K, n)
        A, B = _closest(rows, channel_covariance(covariance, n), rank)
        stages = [B, A.reshape(m, -1, rank).transpose(1, 2)]  # (r, n), (m, r, K)
    else:
        A, B = _closest(W.flatten(2).flatten(0, 1), tap_covariance(covariance, n), rank)
        stages = [B, A]  # (r, K), (m n, r)
    shapes = factor_shapes(W.shape, rank, form)
    return [K.reshape(s).to(W.dtype).contiguous() for K, s in zip(stages, shapes, strict=True)]


def _closest(W: Tensor, C: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (m, r) and B (r, n) that minimise ||(W - A B) C^1/2||_F."""
    A, B, _ = weighted_factors(W, Moments(0, 0, C.new_zeros(len(C)), C, None)).at(rank)
    return A, B
