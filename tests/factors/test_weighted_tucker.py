"""Tucker-2 in the norm of the outputs' error: against numpy's HOOI, a regression on samples, neighbours."""

import numpy as np
import pytest
import torch
from oracles import PATCHES, covariance_of, eps, kernel_of
from torch import Tensor

from lowrank_utils.factors.unfold import compose, kernel_factors
from lowrank_utils.factors.weighted_tucker import weighted_tucker2

D = torch.float64
DAMPING = 1e-3
SHAPES = [(7, 4, 5), (4, 7, 3), (5, 5, 2, 3), (3, 4, 2, 2, 2), (1, 3, 4), (4, 1, 3), (2, 3, 1)]


def damped(Sigma: Tensor, damping=DAMPING) -> np.ndarray:
    """What stands in the norm: of unit mean diagonal, or I where nothing moves."""
    S = Sigma.numpy()
    mean = np.trace(S) / len(S)
    return (S / mean if mean else S) + damping * np.eye(len(S))


def composed(U, core, V):
    return torch.einsum("mo,oi...,ni->mn...", U, core, V)


def missed(W, made, S):
    E = (W - made).flatten(1).numpy()
    return float(np.einsum("mi,ij,mj->", E, S, E))


def middle(shape):
    m, n, K = shape[0], shape[1], int(np.prod(shape[2:]))
    return (min(m, n * K) + 1) // 2, (min(n, m * K) + 1) // 2


@pytest.mark.parametrize("kind", PATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_round_raises_the_error_and_all_together_beat_the_plain_cut(shape, kind):
    W, Sigma, rank = kernel_of(shape), covariance_of(shape, kind), middle(shape)
    S = damped(Sigma)
    total = missed(W, torch.zeros_like(W), S)
    plain = missed(W, compose(kernel_factors(W, rank, "tucker2"), "tucker2"), S)
    room = 1e3 * eps(D) * total / DAMPING  # Cholesky of a matrix of condition 1 / damping
    errors = []
    for rounds in range(7):
        U, core, V = weighted_tucker2(W, rank, Sigma, rounds=rounds, tolerance=0.0)
        assert (U.shape, core.shape) == ((shape[0], rank[0]), (*rank, *shape[2:]))
        assert V.shape == (shape[1], rank[1])
        assert torch.allclose(U.T @ U, torch.eye(rank[0]).double(), atol=1e-12)
        assert torch.allclose(V.T @ V, torch.eye(rank[1]).double(), atol=1e-12)
        errors.append(missed(W, composed(U, core, V), S))
    assert errors[0] <= plain + room
    assert all(after <= before + room for before, after in zip(errors, errors[1:], strict=False))
    if kind == "skewed" and min(shape[:2]) > 2:
        assert errors[0] < 0.9 * plain and errors[-1] < 0.999 * errors[0]  # each half does something


@pytest.mark.parametrize("kind", PATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_full_rank_loses_nothing(shape, kind):
    m, n, K = shape[0], shape[1], int(np.prod(shape[2:]))
    W = kernel_of(shape)
    made = composed(*weighted_tucker2(W, (min(m, n * K), min(n, m * K)), covariance_of(shape, kind)))
    assert float((made - W).norm()) <= 1e3 * eps(D) / DAMPING * float(W.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_uncorrelated_patches_give_the_optimum_of_plain_alternation(shape):
    """HOOI of De Lathauwer et al. 2000, in numpy, from the same start."""
    W, (r_out, r_in) = kernel_of(shape), middle(shape)
    A = W.flatten(2).numpy()
    m, n, _ = A.shape
    V = np.linalg.svd(A.transpose(1, 0, 2).reshape(n, -1))[0][:, :r_in]
    for _ in range(400):
        U = np.linalg.svd(np.einsum("mnk,ni->mik", A, V).reshape(m, -1))[0][:, :r_out]
        V = np.linalg.svd(np.einsum("mnk,mo->nok", A, U).reshape(n, -1))[0][:, :r_in]
    wanted = np.einsum("mnk,ma,oa,nb,ib->oik", A, U, U, V, V, optimize=True)
    size = W[0].numel()
    got = composed(*weighted_tucker2(W, (r_out, r_in), torch.eye(size), rounds=400, tolerance=0.0))
    total = float(W.square().sum())
    assert abs(float((W - got).square().sum()) - ((A - wanted) ** 2).sum()) <= 1e-9 * total
    assert np.allclose(got.flatten(2).numpy(), wanted, rtol=0, atol=1e-4 * total**0.5)


def test_the_outer_half_is_the_regression_on_samples():
    """With V given: least squares of the outputs on the reduced patches, then its best cut."""
    shape, r_out, r_in = (6, 4, 5), 3, 2
    W, rng = kernel_of(shape), np.random.default_rng(2)
    x = rng.standard_normal((90, 20)) @ rng.standard_normal((20, 20))
    x -= x.mean(0)
    Sigma = torch.from_numpy(x.T @ x / len(x))
    root = np.sqrt(DAMPING * np.trace(Sigma) / 20 * len(x))
    x = np.vstack([x, root * np.eye(20)])  # the damping, as rows
    y = x @ W.flatten(1).numpy().T
    U, core, V = weighted_tucker2(W, (r_out, r_in), Sigma, rounds=0)
    small = np.einsum("pnk,ni->pik", x.reshape(-1, 4, 5), V.numpy()).reshape(len(x), -1)
    best = np.linalg.lstsq(small, y, rcond=None)[0]  # (r_in K, m)
    turned = np.linalg.svd(small @ best, full_matrices=False)[2][:r_out].T  # (m, r_out)
    wanted = turned @ turned.T @ best.T
    assert np.allclose((U @ core.flatten(1)).numpy(), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(7, 4, 5), (5, 5, 2, 3)])
def test_no_neighbour_is_better(shape):
    W, Sigma, rank = kernel_of(shape), covariance_of(shape, "skewed"), middle(shape)
    S, rng = damped(Sigma), torch.Generator().manual_seed(0)
    found = weighted_tucker2(W, rank, Sigma, rounds=100, tolerance=0.0)
    least = missed(W, composed(*found), S)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(100):
            moved = [A + size * A.norm() / A.numel() ** 0.5 * torch.randn(A.shape, generator=rng, dtype=D)
                     for A in found]  # fmt: skip
            assert missed(W, composed(*moved), S) > least
    early = weighted_tucker2(W, rank, Sigma, rounds=0)
    assert missed(W, composed(*early), S) > 1.001 * least  # so the rounds are needed


@pytest.mark.parametrize("kind", PATCHES)
def test_all_of_one_side_is_the_closed_form_of_the_other(kind):
    """With r_in = n what is left is a matrix: Mirsky's optimum of W Sigma^1/2."""
    shape = (6, 4, 3)
    W, Sigma = kernel_of(shape), covariance_of(shape, kind)
    S = damped(Sigma)
    values, vectors = np.linalg.eigh(S)
    spectrum = np.linalg.svd(W.flatten(1).numpy() @ vectors * np.sqrt(values), compute_uv=False)
    for r in (1, 3, 5):
        got = missed(W, composed(*weighted_tucker2(W, (r, 4), Sigma)), S)
        assert got == pytest.approx((spectrum[r:] ** 2).sum(), rel=1e-8)


def test_what_no_patch_shows_costs_next_to_nothing():
    """Half the channels are silent, and hold what the ranks have no room for."""
    W = 5 * kernel_of((6, 6, 4))
    one = torch.einsum("mo,oik,ni->mnk", kernel_of((6, 2), 3), kernel_of((2, 2, 4), 4), kernel_of((6, 2), 5))
    W[:, :3] = one[:, :3]
    heard = torch.zeros(6, 4, dtype=D)
    heard[:3] = 1.0
    made = composed(*weighted_tucker2(W, (2, 2), heard.flatten().diag(), damping=1e-9, rounds=200))
    assert float((made - W)[:, :3].norm()) <= 1e-3 * float(W[:, :3].norm())
    plain = compose(kernel_factors(W, (2, 2), "tucker2"), "tucker2")
    assert float((plain - W)[:, :3].norm()) >= 0.2 * float(W[:, :3].norm())


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_sizes_are_no_matter(size):
    W, Sigma = kernel_of((6, 4, 5)), covariance_of((6, 4, 5), "skewed")
    wanted = composed(*weighted_tucker2(W, (3, 2), Sigma, rounds=5))
    for made in (
        composed(*weighted_tucker2(W * size, (3, 2), Sigma, rounds=5)) / size,
        composed(*weighted_tucker2(W, (3, 2), Sigma * size, rounds=5)),
    ):
        assert torch.allclose(made, wanted, rtol=0, atol=1e-8)
    zero = weighted_tucker2(W * 0, (3, 2), Sigma)
    assert not composed(*zero).any() and all(bool(A.isfinite().all()) for A in zero)


def test_rounds_stop_where_little_falls():
    W, Sigma = kernel_of((7, 6, 5)), covariance_of((7, 6, 5), "skewed")
    S = damped(Sigma)
    early, late, none = (
        missed(W, composed(*weighted_tucker2(W, (3, 3), Sigma, rounds=r, tolerance=t)), S)
        for r, t in ((60, 1e-2), (60, 0.0), (0, 0.0))
    )
    assert late < early < none and early <= 1.1 * late


def test_nothing_is_changed_or_aliased():
    W, Sigma = kernel_of((4, 3, 2)).requires_grad_(), covariance_of((4, 3, 2), "full")
    kept = W.detach().clone(), Sigma.clone()
    for A in weighted_tucker2(W, (4, 3), Sigma):
        assert not A.requires_grad
        A.zero_()
    assert torch.equal(W, kept[0]) and torch.equal(Sigma, kept[1])


ONES = torch.ones(4, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((ONES, 2, torch.eye(6)), {}, TypeError, "rank=2 must be a pair (r_out, r_in)"),
        ((ONES, (5, 2), torch.eye(6)), {}, ValueError, "rank[0]=5 must be an integer from 1 to 4"),
        ((ONES, (4, 3), torch.eye(6)), {}, ValueError, "rank[1]=3 must be an integer from 1 to 2"),
        ((ONES, (1, 1), torch.eye(2)), {}, ValueError, "must be of shape (6, 6)"),
        (
            (ONES, (1, 1), torch.eye(6) * torch.nan),
            {},
            ValueError,
            "covariance of shape (6, 6) has 36 entries",
        ),
        ((ONES, (1, 1), torch.eye(6).long()), {}, TypeError, "must be of a floating dtype"),
        ((ONES * torch.nan, (1, 1), torch.eye(6)), {}, ValueError, "24 entries that are nan or inf"),
        ((ONES, (1, 1), torch.eye(6)), {"rounds": -1}, ValueError, "rounds=-1 must be"),
        ((ONES, (1, 1), torch.eye(6)), {"rounds": 1.0}, TypeError, "rounds=1.0 must be"),
        ((ONES, (1, 1), torch.eye(6)), {"tolerance": -1.0}, ValueError, "tolerance=-1.0 must be"),
        ((ONES, (1, 1), torch.eye(6)), {"damping": 0.0}, ValueError, "damping=0.0 must be"),
    ],
)
def test_impossible_requests(arguments, options, error, said):
    with pytest.raises(error) as caught:
        weighted_tucker2(*arguments, **options)
    assert said in str(caught.value)
