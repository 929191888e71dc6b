r"""Tucker-2 of a kernel by alternating least squares in the norm of its outputs' error.

W (m, n, *k) becomes U (m, r_out), a core (r_out, r_in, *k) and V (n, r_in). As a matrix (m, n K) on patches
W~ is U core (V kron I)^T, and what the outputs miss is ||(W - W~) Sigma^1/2||_F, with the covariance Sigma
(n K, n K) of the patches. With V fixed the best U and core together are a reduced-rank regression, in closed
form; with U and the core fixed the best V solves a linear system. Each step lowers the error, or leaves it.

Reference:
    Kalle et al. 2025 (this norm); Kim et al. 2016 (Tucker-2 of a convolution); De Lathauwer et al. 2000 (the
    plain norm); Izenman 1975 (reduced-rank regression).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowrank_utils import _checks
from lowrank_utils.factors.svd import leading_svd
from lowrank_utils.factors.unfold import largest_rank, unfolding

SOLVER_STEPS, SOLVER_TOLERANCE = 10, 1e-6  # of conjugate gradients in each round, from where V is


def weighted_tucker2(
    W: Tensor,
    rank: tuple[int, int],
    covariance: Tensor,
    *,
    rounds: int = 30,
    tolerance: float = 1e-3,
    damping: float = 1e-3,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""U (m, r_out), core (r_out, r_in, *k) and V (n, r_in) in float64, both ends with orthonormal columns.

    The minimum that is reached is local: rounds begin at V of the truncated higher-order SVD, and the error
    never rises. Beside Sigma's 8 (n K)^2 bytes it takes a share of about r_in / n of them, and (r_in / n)^2.

    Args:
        W: Kernel (m, n, *k).
        rank: The pair (r_out, r_in).
        covariance: Sigma of the patches, (n K, n K), symmetric and positive semidefinite.
        rounds: Alternations at most; 0: U and the core alone are fitted.
        tolerance: Relative fall of the squared error in a round at which they stop.
        damping: Sigma becomes Sigma + damping tr(Sigma) / (n K) I: what no patch has shown counts a little.

    Raises:
        TypeError: If W or Sigma is no floating tensor or ``rank`` no pair of integers.
        ValueError: If one is not finite, Sigma does not fit W, or a number is out of range.

    Reference:
        Kalle et al. 2025; Izenman 1975.

    Example:
        >>> U, core, V = weighted_tucker2(torch.ones(4, 3, 5), (1, 1), torch.eye(15))
        >>> bool(torch.allclose(torch.einsum("mo,oik,ni->mnk", U, core, V), torch.ones(4, 3, 5).double()))
        True
    """
    W = _checks.kernel(W, 1)
    r_out, r_in = _checks.kernel_rank(rank, "tucker2", largest_rank(W.shape, "tucker2"))  # type: ignore[misc]
    rounds = _checks.integer(rounds, "rounds", low=0)
    tolerance = _checks.real(tolerance, "tolerance", low=0.0)
    damping = _checks.real(damping, "damping", low=0.0, open_low=True)
    covariance = _checks.matrix(covariance, "covariance")
    V = leading_svd(unfolding(W, "input"), r_in)[0].double()  # (n, r_in)
    scale = float(W.abs().max()) or 1.0
    problem = _Problem(W.double().flatten(2) / scale, covariance, damping)
    U, core, missed = problem.outer(V, r_out)
    for _ in range(rounds):
        before = missed
        V = torch.linalg.qr(problem.inner(U, core, V))[0]
        U, core, missed = problem.outer(V, r_out)
        if before - missed <= tolerance * before:
            break
    return U, (core * scale).reshape(r_out, r_in, *W.shape[2:]), V


class _Problem:
    """A kernel (m, n, K) and the covariance of its patches; the two halves of a round."""

    def __init__(self, W: Tensor, covariance: Tensor, damping: float) -> None:
        m, n, K = W.shape
        if covariance.shape != (n * K, n * K):
            _checks.value_error("covariance", covariance, f"of shape ({n * K}, {n * K}), a patch's numbers")
        self.shape, self.damping = (m, n, K), damping
        self.Sigma = covariance.to(W)
        mean = float(self.Sigma.trace()) / (n * K)
        self.unit = 1 / mean if mean > 0 else 0.0  # nothing moves: the plain norm
        self.weighted = self.times(W.flatten(1))  # W Sigma, (m, n K)
        self.total = float((self.weighted * W.flatten(1)).sum())
        blocks = self.Sigma.reshape(n, K, n, K)
        self.channels = self.unit * torch.einsum("itjt->ij", blocks) / K + damping * torch.eye(n).to(W)
        self.taps = self.unit * torch.einsum("itis->ts", blocks) / n + damping * torch.eye(K).to(W)

    def times(self, D: Tensor) -> Tensor:
        """D (., n K) times Sigma, of unit mean diagonal and damped."""
        out: Tensor = self.unit * (D @ self.Sigma) + self.damping * D
        return out

    def outer(self, V: Tensor, r_out: int) -> tuple[Tensor, Tensor, float]:
        """The best U (m, r_out) and core (r_out, r_in, K) for an orthonormal V, and the squared error."""
        (m, n, K), r = self.shape, V.shape[1]
        half = torch.einsum("pjs,jc->pcs", self.Sigma.reshape(n * K, n, K), V)  # (n K, r, K)
        S = self.unit * torch.einsum("itcs,ib->btcs", half.reshape(n, K, r, K), V).reshape(r * K, r * K)
        S.diagonal().add_(self.damping)
        F = torch.einsum("mjs,jc->mcs", self.weighted.reshape(m, n, K), V).flatten(1)  # (m, r K)
        L = torch.linalg.cholesky(S)
        seen = torch.linalg.solve_triangular(L, F.T, upper=False).T  # (m, r K), F L^-T
        U, s, _ = torch.linalg.svd(seen, full_matrices=False)
        U = U[:, :r_out]  # (m, r_out)
        core = torch.cholesky_solve((U.T @ F).T, L).T.reshape(r_out, r, K)
        return U, core, max(self.total - float(s[:r_out].square().sum()), 0.0)

    def inner(self, U: Tensor, core: Tensor, V: Tensor) -> Tensor:
        """The best V (n, r_in) for U and the core: conjugate gradients, begun at V.

        They are preconditioned as if the channels' covariance and the taps' told all, which is exact where
        Sigma is their Kronecker product.
        """
        _, n, K = self.shape
        H = torch.einsum("abt,ts,acs->bc", core, self.taps, core)  # (r_in, r_in)
        H.diagonal().add_(torch.finfo(H.dtype).eps * len(H) * H.trace() + torch.finfo(H.dtype).tiny)
        left, right = torch.linalg.cholesky(self.channels), torch.linalg.cholesky(H)

        def back(D: Tensor) -> Tensor:  # (r_out, n K) -> (n, r_in)
            return torch.einsum("abt,ait->ib", core, D.reshape(-1, n, K))

        def normal(V: Tensor) -> Tensor:
            return back(self.times(torch.einsum("abt,ib->ait", core, V).flatten(1)))

        def eased(R: Tensor) -> Tensor:
            return torch.cholesky_solve(torch.cholesky_solve(R, left).T, right).T

        wanted = back(U.T @ self.weighted)
        R = wanted - normal(V)
        Z = eased(R)
        step, size = Z, (R * Z).sum()
        least = SOLVER_TOLERANCE**2 * (wanted * eased(wanted)).sum()
        for _ in range(SOLVER_STEPS):
            if not size > least:
                break
            image = normal(step)
            length = size / (step * image).sum()
            V = V + length * step
            R = R - length * image
            Z = eased(R)
            new = (R * Z).sum()
            step, size = Z + (new / size) * step, new
        return V
