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


def thin_svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Thin SVD in a computable dtype (half precision in float32), signs fixed."""
    work = W.float() if W.dtype in (torch.float16, torch.bfloat16) else W
    U, S, Vh = torch.linalg.svd(work, full_matrices=False)  # (m, k), (k,), (k, n)
    return _sign_fixed(U, S, Vh)


def _leading(W: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """The leading triplets from the Gram matrix's leading eigenvectors; None where rounding could matter.

    A partial eigendecomposition costs less than a full SVD, but squaring W squares its condition: the
    energy kept may be short by about r sqrt(k) eps s_1^2 (random rounding, Higham & Mary 2019): accepted
    where that moves the error by less than 0.1 %.
    """
    largest = float(torch.linalg.vector_norm(W, float("inf")))
    scale = 1.0 if 1e-9 < largest < 1e9 else largest or 1.0  # squares must be neither infinite nor zero
    A = W if len(W) <= W.shape[1] else W.T  # (k, l), the short side first
    A = A if scale == 1.0 else A / scale
    k, gram = len(A), (A @ A.T).numpy()
    wanted, total = [k - r, k - 1], float(gram.trace(dtype="float64"))
    with threadpool_limits(torch.get_num_threads()):  # SciPy's BLAS has threads of its own
        energy, U = eigh(gram, subset_by_index=wanted, driver="evr", check_finite=False)  # (r,), (k, r)
    if len(energy) < r:  # LAPACK finds no subset of eigenvalues that are all but equal
        return None
    tail = total - float(energy.astype("float64").sum())
    short = r * k**0.5 * torch.finfo(W.dtype).eps * float(energy[-1])
    if short >= 2e-3 * tail:  # sqrt(1 + 2e-3) is 1 + 1e-3
        return None
    basis = torch.from_numpy(U)  # (k, r)
    B = (basis.T @ A).double()  # (r, l), exact within the basis: B = V S Zh by the Gram matrix B B^T
    squares, V = (t.flip(-1) for t in torch.linalg.eigh(B @ B.T))
    S = squares.sqrt()
    left, S, Zh = basis @ V.to(W), S.to(W), ((V.T @ B) / S[:, None]).to(W)
    return (left, S * scale, Zh) if A.shape == W.shape else (Zh.T, S * scale, left.T)


def _truncated(W: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    small = W.device.type == "cpu" and W.dtype == torch.float32 and 8 * r <= min(W.shape) >= 1024
    found = _leading(W, r) if small else None
    return thin_svd(W) if found is None else _sign_fixed(*found)


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
    S: Tensor = torch.linalg.svdvals(W.double())
    return S


def truncated_svd(W: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The ``rank`` largest singular triplets of W: W ~ U diag(S) Vh.

    The sign of each pair (u_i, v_i) is chosen so that the entry of u_i largest in magnitude is
    positive. float16 and bfloat16 have no SVD: it is done in float32 and cast back. Of a float32 matrix
    with 1024 or more rows and columns, an eighth of them at most is found by a quicker way, whose
    error is within 0.1 % of the best.

    Args:
        W: Matrix (m, n).
        rank: Number r of triplets, from 1 to min(m, n).

    Shape:
        (m, n) -> U (m, r), S (r,), Vh (r, n), in W's dtype and on its device, new storage.

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
    U, S, Vh = _truncated(W, r)
    # clones: a view would keep (and save) the whole factor
    return U[:, :r].clone().to(W.dtype), S[:r].clone().to(W.dtype), Vh[:r].clone().to(W.dtype)


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
    U, S, Vh = _truncated(W, r)
    return ((U[:, :r] * S[:r]) @ Vh[:r]).to(W.dtype)


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
