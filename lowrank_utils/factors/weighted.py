r"""Factors that minimise the error of a layer's output rather than of its weight.

E||(Wx + b) - (A B x + b')||^2 over factors A (m, r), B (r, n) and bias is least for b' = b + (W - AB) E[x]
and the rank-r minimiser of ||(W - AB) C^1/2||_F, C the covariance of x. With U_r the leading
eigenvectors of W C W^T that is AB = U_r U_r^T W: no inverse of C, so C may be singular. Weighing the outputs
by the loss's gradients, G = L L^T, gives ||L^T (W - AB) C^1/2||_F: the same with L^T W in W's place.

Reference:
    Martens & Grosse 2015 (C and G as curvature); Mirsky 1960 (the weighted problem's optimum).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.svd import thin_svd


def _balanced(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The same product A B (m, r)(r, n) from factors of equal singular values, as training wants them."""
    Qa, Ra = torch.linalg.qr(A)  # (m, r), (r, r)
    Qb, Rb = torch.linalg.qr(B.T)  # (n, r), (r, r)
    U, S, Vh = torch.linalg.svd(Ra @ Rb.T)
    root = S.sqrt()
    return Qa @ (U * root), (root[:, None] * Vh) @ Qb.T


@dataclass(frozen=True)
class WeightedFactors:
    """All ranks of one layer at once, as ``weighted_factors`` returns them.

    Attributes:
        S: Singular values (k,) of L^T W C^1/2, largest first, k = min(m, n).
    """

    S: Tensor
    _A: Tensor  # (m, k), L^-T U; its first r columns are a factor of rank r
    _B: Tensor  # (k, n), U^T L^T W
    _W: Tensor  # (m, n), a copy in its own dtype
    _mean: Tensor  # (n,)
    _out: Tensor  # (m,), W E[x]

    def at(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Factors A (m, r) and B (r, n) and the bias's change (m,), in float64.

        Args:
            rank: The rank r, from 1 to min(m, n).

        Raises:
            TypeError: If ``rank`` is no integer.
            ValueError: If ``rank`` is out of range.
        """
        r = _checks.rank(rank, *self._W.shape)
        A, B = _balanced(self._A[:, :r], self._B[:r])  # (m, r), (r, n)
        return A, B, self._out - A @ (B @ self._mean)

    def are_of(self, W: Tensor) -> bool:
        """Whether this is the matrix that was decomposed.

        Args:
            W: Weight (m, n).
        """
        return torch.equal(W.double(), self._W.double())


def weighted_factors(
    W: Tensor, moments: Moments, *, two_sided: bool = True, damping: float = 1e-3
) -> WeightedFactors:
    r"""The data-aware factors of W at every rank, by one eigendecomposition of L^T W C W^T L.

    Args:
        W: Weight (m, n).
        moments: The layer's, from ``calibrate``.
        two_sided: Weigh outputs by G, if the moments hold it; otherwise by the identity.
        damping: G becomes G + damping tr(G) / m I, so that it has a Cholesky factor.

    Raises:
        TypeError: If W is no floating tensor.
        ValueError: If W is not finite, does not fit the moments, or ``damping`` is out of range.

    Example:
        >>> C = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))  # the second input never moves
        >>> moments = Moments(1, 1, torch.zeros(2, dtype=torch.float64), C, None)
        >>> weighted_factors(torch.diag(torch.tensor([1.0, 9.0])), moments).S.tolist()
        [1.0, 0.0]
    """
    kept = _checks.matrix(W).clone()
    (m, n), W = kept.shape, kept.double()
    C = _checks.matrix(moments.covariance, "moments.covariance").double()
    if C.shape != (n, n):
        _checks.value_error("moments.covariance", C, f"of shape ({n}, {n}), W's in_features")
    mean = moments.mean.to(torch.float64, copy=True)  # the moments may go on
    if mean.shape != (n,) or not bool(mean.isfinite().all()):
        _checks.value_error("moments.mean", mean, f"finite and of shape ({n},), W's in_features")
    damping = _checks.real(damping, "damping", low=0.0)
    Lt, LtW = None, W
    scale = 1.0  # of G, per output
    if two_sided and moments.gradient is not None and bool(moments.gradient.any()):
        G = _checks.matrix(moments.gradient, "moments.gradient").double()
        if G.shape != (m, m):
            _checks.value_error("moments.gradient", G, f"of shape ({m}, {m}), W's out_features")
        scale = float(G.trace() / m)
        G = G / scale  # unit mean diagonal
        ridge = max(damping, m * torch.finfo(torch.float64).eps)
        Lt = torch.linalg.cholesky(G + ridge * torch.eye(m).to(G)).T  # (m, m)
        LtW = Lt @ W
    if m > n:  # the same problem in n dimensions
        Q, R = torch.linalg.qr(LtW)  # (m, n), (n, n)
        energy, V = torch.linalg.eigh(R @ C @ R.T)
        U = Q @ V
    else:
        energy, U = torch.linalg.eigh(LtW @ C @ LtW.T)
    S = energy.flip(0).clamp_min(0).sqrt()  # (k,), largest first
    U = U.flip(1)  # (m, k)
    A = U if Lt is None else torch.linalg.solve_triangular(Lt, U, upper=True)
    if Lt is not None:  # undo the scaling of G, so that tails of different layers can be added
        S = S * scale**0.5
    return WeightedFactors(S, A, U.T @ LtW, kept, mean, W @ mean)


def plain_factors(W: Tensor) -> WeightedFactors:
    """The truncated SVD of W (m, n) at every rank, in the same form; it does not change the bias."""
    kept = W.clone()
    U, S, _ = thin_svd(kept)
    U, W = U.double(), kept.double()
    (m, n), zero = W.shape, W.new_zeros(sum(W.shape))
    return WeightedFactors(S.double(), U, U.T @ W, kept, zero[:n], zero[:m])
