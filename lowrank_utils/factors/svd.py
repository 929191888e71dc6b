r"""The truncated SVD and its error: W is (m, n), and W_r = U_r diag(S_r) Vh_r is (m, n) of rank r.

Reference:
    Eckart & Young, "The approximation of one matrix by another of lower rank", 1936;
    Mirsky, "Symmetric gauge functions and unitarily invariant norms", 1960.
"""

from __future__ import annotations

import torch
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits
from torch import Tensor

from lowrank_utils import _checks


def _sign_fixed(U: Tensor, S: Tensor, Vh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # u_i v_i^T is unique, u_i is so only up to its sign: make u_i's largest entry positive.
    rows = U.abs().argmax(0, keepdim=True)  # (1, k)
    signs = torch.where(U.gather(0, rows) < 0, -1.0, 1.0).to(U.dtype)  # (1, k)
    return U * signs, S, Vh * signs.T


def _leading_eigenvectors(gram: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The r largest eigenvalues (r,) of a symmetric (k, k) matrix, largest first, and vectors (k, r)."""
    k = len(gram)
    values = None
    if 4 * r <= k:  # a part costs less than all
        with threadpool_limits(torch.get_num_threads()):  # SciPy's BLAS has threads of its own
            values, vectors = eigh(gram.numpy(), subset_by_index=[k - r, k - 1], check_finite=False)
    if values is None or len(values) < r:  # LAPACK can lose a part of eigenvalues that are all but equal
        everything = torch.linalg.eigh(gram)
        values, vectors = everything.eigenvalues[k - r :], everything.eigenvectors[:, k - r :]
    return torch.as_tensor(values).flip(0), torch.as_tensor(vectors).flip(1)


def _by_gram_matrix(A: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """The r leading triplets of a float64 matrix (k, n), k <= n, through A A^T, four decades at a time.

    A A^T is off by about eps s_1^2, so rows i and j of U^T A are orthogonal to eps s_1^2 / (s_i s_j): at
    most 2e-8, below float32's eps, where both values are above 1e-4 s_1. What is smaller is found in what
    is left of A once the larger triplets are taken off, and that is off by eps s_1 alone.
    """
    k, n = A.shape
    scale = float(torch.linalg.vector_norm(A, float("inf")))
    if scale == 0:
        return torch.eye(k, r).to(A), torch.zeros(r).to(A), torch.eye(r, n).to(A)
    A = A / scale  # squares neither overflow nor vanish
    energy, U = _leading_eigenvectors(A @ A.T, r)  # (r,), (k, r)
    U = U[:, energy > 1e-8 * energy[0]]
    B = U.T @ A  # (h, n): row i is s_i v_i^T
    S = torch.linalg.vector_norm(B, dim=1)
    Vh = B / S[:, None]
    if len(S) < r:
        left, small, right = _by_gram_matrix(A - U @ B, r - len(S))
        U, S, Vh = _joined(U, left), torch.cat([S, small]), _joined(Vh.T, right.T).T
    return U, S * scale, Vh


def _roots_of_gram_matrix(A: Tensor) -> Tensor | None:
    """All singular values (k,) of a float64 matrix (k, n), k <= n, or None where A A^T is not precise enough.

    Eigenvalues of A A^T are off by about eps s_1^2, so s_i by eps s_1^2 / s_i: a relative 2e-8, below
    float32's eps, where all are above 1e-4 s_1.
    """
    scale = torch.linalg.vector_norm(A, float("inf"))
    if scale == 0:
        return None
    A = A / scale  # squares neither overflow nor vanish
    energy = torch.linalg.eigvalsh(A @ A.T).flip(0)  # (k,), largest first
    return energy.sqrt() * scale if energy[-1] > 1e-8 * energy[0] else None


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Columns that are orthonormal already but for rounding, which can turn those of vanishing values."""
    Q, R = torch.linalg.qr(torch.cat([first, second], 1))
    turned: Tensor = Q * torch.where(R.diagonal() < 0, -1.0, 1.0)
    return turned


def leading_svd(W: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The r leading triplets, signs fixed, not yet rounded: float64 for float32 and half precision.

    So a factor that is rounded once is the same on every processor, but for a rare last digit. float64
    keeps LAPACK's own SVD, and a GPU its library's.
    """
    if W.dtype != torch.float64 and W.device.type == "cpu":
        if len(W) <= W.shape[1]:
            return _sign_fixed(*_by_gram_matrix(W.double(), r))
        V, S, Uh = _by_gram_matrix(W.T.double(), r)
        return _sign_fixed(Uh.T, S, V.T)
    work = W.float() if W.dtype in (torch.float16, torch.bfloat16) else W
    U, S, Vh = torch.linalg.svd(work, full_matrices=False)  # (m, k), (k,), (k, n)
    return _sign_fixed(U[:, :r], S[:r], Vh[:r])


def balanced_factors(W: Tensor, r: int) -> tuple[Tensor, Tensor]:
    r"""The closest matrix of rank r as A B, with A = U S^1/2 (m, r) and B = S^1/2 Vh (r, n), rounded once.

    So no singular value has to fit into half precision, which ends at 65504.
    """
    U, S, Vh = leading_svd(W, r)
    root = S.sqrt()
    return (U * root).to(W.dtype), (root[:, None] * Vh).to(W.dtype)


def thin_svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""All min(m, n) triplets of ``leading_svd``."""
    return leading_svd(W, min(W.shape))


def singular_values(W: Tensor) -> Tensor:
    r"""All min(m, n) singular values of W, largest first, in float64.

    Args:
        W: Matrix (m, n) of any floating dtype.

    Shape:
        (m, n) -> (min(m, n),)

    Raises:
        TypeError: If W is no floating tensor.
        ValueError: If W is no finite, non-empty matrix.

    Example:
        >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, -4.0]])).tolist()
        [4.0, 3.0]
    """
    W = _checks.matrix(W)
    A = (W if len(W) <= W.shape[1] else W.T).double()  # (k, n), k <= n
    S = None if W.dtype == torch.float64 else _roots_of_gram_matrix(A)
    return torch.linalg.svdvals(A.T) if S is None else S  # LAPACK takes a tall matrix in half the time


def truncated_svd(W: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The ``rank`` largest singular triplets of W: W ~ U diag(S) Vh.

    The sign of each pair (u_i, v_i) is chosen so that the entry of u_i largest in magnitude is
    positive. On a CPU a float32, float16 or bfloat16 matrix is decomposed in float64, and its factors are
    rounded once.

    Args:
        W: Matrix (m, n).
        rank: Number r of triplets, from 1 to min(m, n).

    Shape:
        (m, n) -> U (m, r), S (r,), Vh (r, n), in W's dtype and on its device, new storage. Of float16,
        which ends at 65504, S is in float32.

    Raises:
        TypeError: If W is no floating tensor or ``rank`` no integer.
        ValueError: If W is no finite, non-empty matrix or ``rank`` is out of range.

    Reference:
        Eckart & Young 1936.

    Example:
        >>> U, S, Vh = truncated_svd(torch.tensor([[3.0, 0.0], [0.0, -4.0]]), 1)
        >>> (U * S @ Vh + 0.0).tolist()
        [[0.0, 0.0], [0.0, -4.0]]
    """
    W = _checks.matrix(W)
    r = _checks.rank(rank, *W.shape)
    U, S, Vh = leading_svd(W, r)
    # clones: a view would keep (and save) the whole factor
    values = S.clone().to(torch.float32 if W.dtype == torch.float16 else W.dtype)
    return U.clone().to(W.dtype), values, Vh.clone().to(W.dtype)


def low_rank_approximation(W: Tensor, rank: int) -> Tensor:
    r"""The closest matrix of rank r to W, in the Frobenius and the spectral norm.

    W_r = sum_{i <= r} s_i u_i v_i^T, with ||W - W_r||_F^2 = sum_{i > r} s_i^2.

    Args:
        W: Matrix (m, n).
        rank: The rank r, from 1 to min(m, n).

    Shape:
        (m, n) -> (m, n), in W's dtype and on its device, new storage.

    Raises:
        TypeError: If W is no floating tensor or ``rank`` no integer.
        ValueError: If W is no finite, non-empty matrix or ``rank`` is out of range.

    Reference:
        Eckart & Young 1936; Mirsky 1960.

    Example:
        >>> low_rank_approximation(torch.tensor([[2.0, 2.0], [1.0, 1.0]]), 1).round(decimals=4)
        tensor([[2., 2.],
                [1., 1.]])
    """
    W = _checks.matrix(W)
    r = _checks.rank(rank, *W.shape)
    U, S, Vh = leading_svd(W, r)
    return ((U * S) @ Vh).to(W.dtype)


def relative_error(W: Tensor, rank: int) -> float:
    r"""What the best rank-r approximation misses: ||W - W_r||_F / ||W||_F.

    Computed from the tail of the spectrum, sqrt(sum_{i > r} s_i^2 / sum_i s_i^2), in float64;
    0 for a zero matrix.

    Args:
        W: Matrix (m, n).
        rank: The rank r, from 1 to min(m, n).

    Raises:
        TypeError: If W is no floating tensor or ``rank`` no integer.
        ValueError: If W is no finite, non-empty matrix or ``rank`` is out of range.

    Reference:
        Eckart & Young 1936.

    Example:
        >>> relative_error(torch.diag(torch.tensor([4.0, 3.0])), 1)
        0.6
    """
    r = _checks.rank(rank, *_checks.matrix(W).shape)
    S = singular_values(W)
    if S[0] == 0:
        return 0.0
    energy = (S / S[0]).square()  # from 0 to 1: neither overflow nor underflow
    return float((energy[r:].sum() / energy.sum()).sqrt())
