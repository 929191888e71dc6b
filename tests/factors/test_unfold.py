"""Kernels as chains of smaller ones: against numpy's SVD of index-by-index unfoldings, and tensorly's own."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorly.decomposition
import torch
from oracles import DTYPES, eps, tail, truncated, work_eps

from lowrank_utils.factors import unfold
from lowrank_utils.factors.unfold import (
    FORMS,
    by_group,
    compose,
    factor_shapes,
    kernel_factors,
    largest_rank,
    sliding_axes,
    unfolding,
)

MATRICES = ("channel", "input", "kernel", "spatial")
KERNELS = [  # (shape of W, groups)
    ((8, 4, 3), 1),
    ((3, 7, 5), 1),
    ((6, 4, 3, 5), 1),
    ((5, 1, 2, 2), 1),
    ((6, 2, 3, 2), 3),
    ((6, 1, 3, 3), 6),  # depthwise
    ((4, 6, 1, 1), 1),  # one tap
    ((4, 3, 2, 3, 2), 2),
    ((1, 1, 1), 1),
]
CASES = [(shape, g, form) for shape, g in KERNELS for form in FORMS if form != "spatial" or len(shape) == 4]


def kernel_of(shape, seed=0):
    """A float64 kernel whose spectra fall: a random one, smoothed along its taps and its channels."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal(shape)
    for axis, size in enumerate(shape):
        mix = 2.0 ** -np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
        W = np.moveaxis(np.tensordot(mix, W, (1, axis)), 0, axis)
    return torch.from_numpy(W)


def matrix_by_index(W, form):
    """The unfolding of one group's kernel, written out entry by entry."""
    (m, n), taps = W.shape[:2], list(np.ndindex(*W.shape[2:]))
    rows = {
        "channel": [[W[(o, i, *t)] for i in range(n) for t in taps] for o in range(m)],
        "input": [[W[(o, i, *t)] for o in range(m) for t in taps] for i in range(n)],
        "kernel": [[W[(o, i, *t)] for t in taps] for o in range(m) for i in range(n)],
    }
    if form == "spatial":
        columns = [(o, x) for o in range(m) for x in range(W.shape[3])]
        return torch.stack(
            [W[o, i, y, x] for i in range(n) for y in range(W.shape[2]) for o, x in columns]
        ).view(n * W.shape[2], -1)
    return torch.tensor(rows[form], dtype=W.dtype)


def groups_of(W, form, groups):
    return [W] if form == "kernel" else np.split(W, groups)


def composed_by_hand(kernels, form, groups):
    """W from the stages' kernels, by a formula for each form and a loop over the groups."""
    if form == "kernel":
        basis, mixing = kernels
        r, m, n = len(basis), len(mixing), mixing.shape[1] // len(basis)
        mixing = mixing.reshape(m, n, r)
        return sum(
            mixing[:, :, q].reshape(m, n, *[1] * (basis.ndim - 2)) * basis[q].unsqueeze(0) for q in range(r)
        )
    parts = []
    for pieces in zip(*(K.chunk(groups) for K in kernels), strict=True):
        rank = pieces[-1].shape[1]
        if form == "tucker2":
            right, core, left = pieces
            U, V = left.flatten(1), right.flatten(1)
            parts.append(torch.from_numpy(np.einsum("mo,oi...,in->mn...", U, core, V)))
            continue
        total = 0.0
        for q in range(rank):
            last, first = pieces[-1][:, q], pieces[0][q]  # (m, *), (n, *)
            term = last.unsqueeze(1) * first.unsqueeze(0)
            for along in pieces[1:-1]:
                term = term * along[q].reshape(1, 1, *along.shape[2:])
            total = total + term
        parts.append(total)
    return torch.cat(parts)


def ranks(shape, form, groups):
    """The lowest, a middle and the full rank."""
    top = largest_rank(shape, form, groups)
    if form == "tucker2":
        return sorted({(1, 1), ((top[0] + 1) // 2, (top[1] + 1) // 2), (1, top[1]), top})
    return sorted({1, (top + 1) // 2, top} if form != "cp" else {1, min(3, top)})


@pytest.mark.parametrize(("shape", "groups", "form"), [c for c in CASES if c[2] in MATRICES])
def test_unfoldings_index_by_index(shape, groups, form):
    for part in groups_of(kernel_of(shape), form, groups):
        part = torch.as_tensor(part)
        assert torch.equal(unfolding(part, form), matrix_by_index(part, form))
        assert unfolding(part, form).numel() == part.numel()


@pytest.mark.parametrize(("shape", "groups", "form"), CASES)
def test_factors_have_the_shapes_that_are_told_and_compose_as_written_by_hand(shape, groups, form):
    W = kernel_of(shape)
    for rank in ranks(shape, form, groups):
        kernels = kernel_factors(W, rank, form, groups=groups)
        assert [tuple(K.shape) for K in kernels] == factor_shapes(shape, rank, form, groups)
        assert all(K.is_contiguous() and K.dtype == W.dtype for K in kernels)
        for K, axes in zip(kernels, sliding_axes(form, len(shape) - 2), strict=True):
            assert [s for a, s in enumerate(K.shape[2:]) if a not in axes] == [1] * (
                len(shape) - 2 - len(axes)
            )
        wanted = composed_by_hand(kernels, form, groups)
        assert compose(kernels, form).shape == W.shape
        assert torch.allclose(compose(kernels, form), wanted, rtol=0, atol=1e-13 * float(W.norm()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "groups", "form"), [c for c in CASES if c[2] in MATRICES])
def test_the_composed_kernel_is_the_best_of_its_form(shape, groups, form, dtype):
    W = kernel_of(shape).to(dtype)
    scale = float(W.double().norm())
    for rank in ranks(shape, form, groups):
        kernels = [K.double() for K in kernel_factors(W, rank, form, groups=groups)]
        parts = by_group(composed_by_hand(kernels, form, groups), 1 if form == "kernel" else groups)
        for mine, whole in zip(parts, groups_of(W.double(), form, groups), strict=True):
            A = matrix_by_index(torch.as_tensor(whole), form)
            # a distance: of second order in what turns the factors, of first in what rounds them
            room = (2 * math.sqrt(rank) * eps(dtype) + 100 * work_eps(dtype)) * scale
            missed = float((matrix_by_index(mine, form) - A).norm())
            assert abs(missed - tail(A, rank)) <= room
            S = np.linalg.svd(A.numpy(), compute_uv=False)
            if dtype == torch.float64 and rank < len(S) and S[rank - 1] > 1.5 * S[rank]:
                assert torch.allclose(matrix_by_index(mine, form), truncated(A, rank), atol=1e-12 * scale)


@pytest.mark.parametrize(("shape", "groups"), KERNELS)
def test_tucker2_keeps_what_its_core_keeps(shape, groups):
    W = kernel_of(shape)
    for rank in ranks(shape, "tucker2", groups):
        kernels = kernel_factors(W, rank, "tucker2", groups=groups)
        mine = by_group(compose(kernels, "tucker2"), groups)
        for part, got in zip(groups_of(W, "tucker2", groups), mine, strict=True):
            part = torch.as_tensor(part)
            P, Q = (np.linalg.svd(matrix_by_index(part, f).numpy())[0] for f in ("channel", "input"))
            P, Q = P[:, : rank[0]], Q[:, : rank[1]]
            wanted = np.einsum("am,mn...,nb->ab...", P @ P.T, part.numpy(), Q @ Q.T)
            assert np.allclose(got.numpy(), wanted, rtol=0, atol=1e-10 * float(W.norm()))
            # De Lathauwer's bound: the two tails together
            tails = [
                tail(matrix_by_index(part, f), r) for f, r in zip(("channel", "input"), rank, strict=True)
            ]
            assert float((part - got).norm()) <= math.hypot(*tails) + 1e-12 * float(W.norm())


def test_one_rank_of_tucker2_is_the_channel_form_and_the_other_the_input_form():
    W = kernel_of((6, 4, 3, 5))
    for rank, form, r in (((2, 4), "channel", 2), ((6, 3), "input", 3)):
        tucker = compose(kernel_factors(W, rank, "tucker2"), "tucker2")
        assert torch.allclose(tucker, compose(kernel_factors(W, r, form), form), atol=1e-12)


@pytest.mark.parametrize(("shape", "groups"), KERNELS)
def test_full_rank_loses_nothing(shape, groups):
    W = kernel_of(shape)
    for form in FORMS:
        if form == "spatial" and len(shape) != 4:
            continue
        rank = largest_rank(shape, form, groups)
        got = compose(kernel_factors(W, rank, form, groups=groups), form)
        room = 1e-12 if form != "cp" else 2e-3  # alternating least squares comes near, and no nearer
        assert float((got - W).norm()) <= room * float(W.norm()), form


@pytest.mark.parametrize("shape", [(4, 3, 5), (5, 4, 3, 3), (3, 2, 2, 3, 2)])
def test_cp_finds_a_kernel_of_known_rank(shape):
    rng = np.random.default_rng(3)
    parts = [rng.standard_normal((size, 2)) for size in shape]
    W = torch.from_numpy(tensorly.cp_to_tensor((np.ones(2), parts)).copy())
    kernels = kernel_factors(W, 2, "cp")
    assert float((composed_by_hand(kernels, "cp", 1) - W).norm()) <= 1e-4 * float(W.norm())
    with_one = compose(kernel_factors(W, 1, "cp"), "cp")
    assert float((with_one - W).norm()) >= 0.05 * float(W.norm())  # the cheap setting fails
    sizes = [
        K.reshape(2, -1).norm(dim=1) if K is not kernels[-1] else K.flatten(1).norm(dim=0) for K in kernels
    ]
    assert all(torch.allclose(size, sizes[0]) for size in sizes)  # shared evenly


def test_cp_begins_at_singular_vectors():
    W = kernel_of((6, 5, 8), seed=1).double()
    errors = {}
    for init in ("svd", "random"):
        told = {"n_iter_max": unfold.ALS_ROUNDS, "tol": unfold.ALS_TOLERANCE, "random_state": 0}
        fit = tensorly.decomposition.parafac(W.numpy(), 5, init=init, **told)
        errors[init] = float(np.linalg.norm(tensorly.cp_to_tensor(fit) - W.numpy()))
    got = float((compose(kernel_factors(W, 5, "cp"), "cp") - W).norm())
    assert got == pytest.approx(errors["svd"], rel=1e-6)
    assert got < 0.9 * errors["random"]


def test_cp_is_the_same_twice_and_draws_nothing_global():
    W = kernel_of((4, 5, 3)).float()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (kernel_factors(W, 7, "cp") for _ in range(2))  # above an axis's size: drawn columns
    assert all(map(torch.equal, first, second))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_cp_warns_of_nothing_and_leaves_tensorlys_backend_alone():
    W = kernel_of((4, 5, 3))
    wanted = compose(kernel_factors(W, 7, "cp"), "cp")
    tensorly.set_backend("pytorch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            got = compose(kernel_factors(W, 7, "cp"), "cp")  # above an axis's size
        assert tensorly.get_backend() == "pytorch"
    finally:
        tensorly.set_backend("numpy")
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("form", FORMS)
def test_the_size_of_a_kernel_is_no_matter(form, size):
    W = kernel_of((6, 4, 3, 5)).float() / 8
    rank = (2, 2) if form == "tucker2" else 2
    one, other = (compose([K.double() for K in kernel_factors(A, rank, form)], form) for A in (W, W * size))
    assert torch.allclose(other / size, one, rtol=0, atol=2e-6)
    assert float((one - W).norm()) < 0.9 * float(W.norm())


@pytest.mark.parametrize("form", FORMS)
def test_a_zero_kernel_stays_zero(form):
    kernels = kernel_factors(torch.zeros(4, 3, 2, 2), (2, 2) if form == "tucker2" else 2, form)
    assert torch.equal(compose(kernels, form), torch.zeros(4, 3, 2, 2))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_aliased_or_changed(form):
    W = kernel_of((4, 3, 2, 2)).requires_grad_()
    before = W.detach().clone()
    kernels = kernel_factors(W, (4, 3) if form == "tucker2" else 2, form)
    assert not any(K.requires_grad for K in kernels)
    for K in kernels:
        K.zero_()
    assert torch.equal(W, before)


def test_one_group_is_the_default():
    tops = {"channel": 8, "input": 4, "kernel": 3, "tucker2": (8, 4), "cp": 12}
    assert {form: largest_rank((8, 4, 3), form) for form in tops} == tops
    assert factor_shapes((8, 4, 3), 2, "channel") == [(2, 4, 3), (8, 2, 1)]
    kernels = kernel_factors(kernel_of((8, 4, 3)), 2)
    assert [tuple(K.shape) for K in kernels] == [(2, 4, 3), (8, 2, 1)]


def test_factors_share_their_size():
    W = kernel_of((6, 4, 3, 5))
    for form in MATRICES:
        first, second = kernel_factors(W, 3, form)
        if form == "kernel":
            second = second.reshape(-1, 3).T
        else:
            second = second.transpose(0, 1)
        sizes = [K.reshape(3, -1).norm(dim=1) for K in (first, second)]
        assert torch.allclose(*sizes) and torch.allclose(
            sizes[0] ** 2, torch.from_numpy(np.linalg.svd(matrix_by_index(W, form).numpy())[1][:3])
        )


def test_tensorly_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorly", None)
    with pytest.raises(ImportError, match=r"^form='cp' needs the package tensorly: pip install tensorly$"):
        kernel_factors(torch.ones(2, 2, 2), 1, "cp")
    assert len(kernel_factors(torch.ones(2, 2, 2), 1, "channel")) == 2


def test_tensorly_is_imported_by_cp_alone():
    code = (
        "import sys, torch\n"
        "from lowrank_utils.factors.unfold import kernel_factors\n"
        "for form in ('channel', 'cp'):\n"
        "    kernel_factors(torch.ones(2, 2, 2), 1, form)\n"
        "    print('tensorly' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert ran.stdout.split() == ["False", "True"], ran.stderr


def test_a_diverged_fit_is_refused(monkeypatch):
    import tensorly.decomposition

    for bad in (math.nan, 100.0, 2.5 ** (1 / 3)):  # the last misses 1.5 times the kernel's norm
        wrong = np.ones(1), [np.full((2, 1), bad)] * 3
        monkeypatch.setattr(tensorly.decomposition, "parafac", lambda *_, wrong=wrong, **__: wrong)
        with pytest.raises(ValueError, match=r"^rank=1 must be one at which parafac converges; it misses"):
            kernel_factors(torch.ones(2, 2, 2), 1, "cp")


ONES, PAIR = torch.ones(4, 2, 3), "must be a pair (r_out, r_in) for form 'tucker2'"
FULL = "must be an integer from 1 to 4 (the full rank of form 'channel')"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ONES, 0), ValueError, f"rank=0 {FULL}"),
        ((ONES, 5), ValueError, f"rank=5 {FULL}"),
        ((ONES, 1.0), TypeError, f"rank=1.0 {FULL}"),
        ((ONES, True), TypeError, f"rank=True {FULL}"),
        ((ONES, (1, 1)), TypeError, f"rank=(1, 1) {FULL}"),
        ((ONES, 1, "tucker2"), TypeError, f"rank=1 {PAIR}"),
        ((ONES, (1, 1, 1), "tucker2"), TypeError, f"rank=(1, 1, 1) {PAIR}"),
        ((ONES, (1, 3), "tucker2"), ValueError, "rank[1]=3 must be an integer from 1 to 2"),
        ((ONES, (5, 2), "tucker2"), ValueError, "rank[0]=5 must be an integer from 1 to 4"),
        ((ONES, 4, "kernel"), ValueError, "rank=4 must be an integer from 1 to 3"),
        ((ONES, 7, "cp"), ValueError, "rank=7 must be an integer from 1 to 6"),
        ((ONES, 1, "spatial"), ValueError, "form='spatial' must be a form for 1-D kernels"),
        ((torch.ones(2, 2, 2, 2, 2), 1, "spatial"), ValueError, "form='spatial' must be a form for 3-D"),
        ((ONES, 1, "svd"), ValueError, "form='svd' must be one of 'channel', 'cp', 'input', 'kernel'"),
        (
            (torch.ones(4, 2), 1),
            ValueError,
            "W=Tensor(shape=(4, 2), dtype=torch.float32) must be a non-empty",
        ),
        ((torch.ones(0, 2, 3), 1), ValueError, "W=Tensor(shape=(0, 2, 3), dtype=torch.float32) must be"),
        ((torch.ones(2, 2, 3).long(), 1), TypeError, "must be of a floating dtype"),
        ((ONES * math.nan, 1), ValueError, "24 entries that are nan or inf"),
        (([[1.0]], 1), TypeError, "W of type list must be a torch.Tensor"),
    ],
)
def test_impossible_requests(arguments, error, message):
    with pytest.raises(error) as caught:
        kernel_factors(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("groups", "error"), [(3, ValueError), (0, ValueError), (1.0, TypeError), (8, ValueError)]
)
def test_groups_divide_the_outputs(groups, error):
    with pytest.raises(error, match=rf"^groups={groups} must be"):
        kernel_factors(ONES, 1, groups=groups)


def test_the_table_of_the_module_tells_the_numbers():
    m, n, k, r = 6, 4, (3, 5), 2
    K, told = math.prod(k), unfold.__doc__
    wanted = {
        "r (n K + m)": ("channel", r * (n * K + m)),
        "r (n + m K)": ("input", r * (n + m * K)),
        "r (K + m n)": ("kernel", r * (K + m * n)),
        "r (n k_h + m k_w)": ("spatial", r * (n * k[0] + m * k[1])),
        "n r_in + K r_in r_out + m r_out": ("tucker2", n * 3 + K * 3 * r + m * r),
        "r (n + k_1 + .. + m)": ("cp", r * (n + sum(k) + m)),
    }
    for formula, (form, numbers) in wanted.items():
        assert formula in told
        shapes = factor_shapes((m, n, *k), (r, 3) if form == "tucker2" else r, form)
        assert sum(map(math.prod, shapes)) == numbers, form
