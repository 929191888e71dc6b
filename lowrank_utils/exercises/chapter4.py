"""Judges of chapter 4: chains of layers, twins, free numbers, and the price of weight decay."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, NotYet, describe, function, named, number, on, whole
from lowrank_utils.factors.svd import singular_values
from lowrank_utils.lab.models import Net

SHAPES = ((4, 6, 1), (7, 5, 2), (6, 6, 3), (3, 8, 3))  # m, n, r


def _chain(answer: object) -> str | None:
    layers = whole(answer, "the number of layers d, an integer of 1 or more", low=1)
    right = next(d for d in range(1, 100) if 3.0 ** ((1 - d) / 2) < 0.01)
    variance = next(d for d in range(1, 100) if 3.0 ** (1 - d) < 0.01)
    if layers == right:
        return None
    if layers == right - 1:
        return f"{layers} is the number of factors of 1/sqrt(3); the first layer itself does not shrink."
    if layers == variance:
        return f"at {layers} layers the variance is below 1 %; the standard deviation is its square root."
    if layers < right:
        spread = 3.0 ** ((1 - layers) / 2)
        return f"with {layers} layers the standard deviation is still {spread:.1%} of a single layer's."
    return f"{layers} is enough, but not the smallest number of layers."


def _twin(answer: object) -> str | None:
    twin = function(answer, "twin(net)")
    for seed in (0, 1):
        with on(f"the net of seed {seed}"):
            torch.manual_seed(seed)
            net, X = Net(), 3 * torch.randn(500, 4) + 1
            found = twin(net)
            if not isinstance(found, Net):
                raise NotYet(f"twin must return a Net, not {describe(found)}.")
            if found is not net and (shared := _shared(net, found)):
                raise NotYet(f"{shared} of both nets is one memory: train the twin, and the net changes too.")
            if hint := _judge_twin(_in_double(net), _in_double(found), X.double()):
                raise NotYet(hint)
    return None


def _shared(net: Net, twin: Net) -> str | None:
    """The first parameter of the twin that lies in the memory of the net, if any."""

    def memory(parameter: Tensor) -> int:
        return parameter.untyped_storage().data_ptr()

    taken = {memory(p) for p in net.parameters()}
    return next((name for name, p in twin.named_parameters() if memory(p) in taken), None)


def _in_double(net: Net) -> Net:
    """A plain Net with the same numbers: hooks and a forward of its own do not count."""
    if {name: p.shape for name, p in net.state_dict().items()} != _SHAPES:
        raise NotYet("twin must return a Net with the layers and shapes of the one that it was given.")
    copy = Net().double()
    copy.load_state_dict(net.state_dict())
    return copy.requires_grad_(False)


_SHAPES = {"fc1.weight": (10, 4), "fc1.bias": (10,), "fc2.weight": (3, 10), "fc2.bias": (3,)}


def _judge_twin(net: Net, twin: Net, X: Tensor) -> str | None:
    W, V = net.fc1.weight, twin.fc1.weight
    if not all(bool(p.isfinite().all()) for p in twin.parameters()):
        return "the twin has weights that are nan or infinite."
    if not float((twin(X) - net(X)).abs().max()) <= 1e-4 * float(net(X).abs().max()):
        return _why_not_same(net, twin, (V * W).sum(1) / W.square().sum(1))
    moved = float((V - W).norm() / W.norm())
    if not moved > 0.5:
        return f"the function is the same, but W moved by {moved:.0%} of its norm only; go beyond 50 %."
    rows, order = linear_sum_assignment(torch.cdist(V, W).square().numpy())
    left = float((V[rows] - W[order]).norm() / W.norm())
    if left < 1e-3:
        return "the rows of W have only changed places, which a renumbering undoes; change their lengths."
    if not left > 0.5:
        return (
            f"once its hidden units are renumbered, W differs by {left:.0%} of its norm only; go beyond 50 %."
        )
    return None


def _why_not_same(net: Net, twin: Net, a: Tensor) -> str:
    def near(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one, other, rtol=1e-4, atol=1e-5)

    if near(twin.fc1.weight, a[:, None] * net.fc1.weight):  # each row was rescaled
        if bool((a <= 0).any()):
            return "a row was multiplied by a negative number or zero: relu(a z) = a relu(z) needs a > 0."
        if not near(twin.fc1.bias, a * net.fc1.bias):
            return "the bias of a hidden unit belongs to its row: scale fc1.bias by the same factor."
        if near(twin.fc2.weight, net.fc2.weight):
            return "fc2 does not know that its inputs were rescaled: divide its columns by the factors."
        if near(twin.fc2.weight, net.fc2.weight * a):
            return "fc2 multiplies by the factor once more: divide its columns instead."
        if near(twin.fc2.weight, net.fc2.weight / a):
            return "fc2.bias is added after the hidden units; no factor reaches it, so leave it alone."
    return "the logits of net and twin differ; whatever you do to a hidden unit, fc2 must undo."


def _jacobian_rank(m: int, n: int, r: int) -> int:
    def product(numbers: Tensor) -> Tensor:
        return numbers[: m * r].reshape(m, r) @ numbers[m * r :].reshape(r, n)

    point = torch.randn(r * (m + n), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    J: Tensor = torch.func.jacrev(product)(point)  # (m, n, r (m + n))
    return int(torch.linalg.matrix_rank(J.flatten(0, 1)))


def _freedom(answer: object) -> str | None:
    freedom = function(answer, "freedom(m, n, r)")
    found = []
    for m, n, r in SHAPES:
        with on(f"m={m}, n={n}, r={r}"):
            found.append(whole(freedom(m, n, r), "back a whole number"))
    stored = [r * (m + n) for m, n, r in SHAPES]
    ranks = [r for _, _, r in SHAPES]
    slips = {
        "that counts the stored numbers; T may be any invertible matrix.": [0 for _ in ranks],
        "an invertible T has r * r entries, not r.": [r for r in ranks],
        "T is more than one scale: all of its entries count.": [1 for _ in ranks],
        "T need not be symmetric; all of its entries count.": [r * (r + 1) // 2 for r in ranks],
        "T need not be orthogonal; all of its entries count.": [r * (r - 1) // 2 for r in ranks],
        "one T serves both factors; subtract its entries once.": [2 * r * r for r in ranks],
        "what T takes away must be subtracted, not added.": [-r * r for r in ranks],
    }
    for hint, taken in slips.items():
        if found == [s - x for s, x in zip(stored, taken, strict=True)]:
            return hint
    if found == [m * n for m, n, _ in SHAPES]:
        return "that counts all matrices, of any rank."
    if found == [(m - r) * (n - r) for m, n, r in SHAPES]:
        return "that counts the conditions on W, the numbers that are not free; how many are left?"
    for (m, n, r), told in zip(SHAPES, found, strict=True):
        right = _jacobian_rank(m, n, r)
        if told != right:
            return f"for m={m}, n={n}, r={r} it gives {told}, but W can move in {right} directions."
    return None


def _weights() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    tall, wide, square = (torch.randn(*s, generator=g) for s in ((7, 4), (3, 8), (5, 5)))
    left, right = torch.randn(6, 2, generator=g), torch.randn(2, 5, generator=g)
    return {
        "a W of shape (7, 4)": tall,
        "a W of shape (3, 8)": 0.2 * wide + 0.1,
        "a W of shape (5, 5)": 30 * square + 4,
        "a W of shape (6, 5) and rank 2": left @ right,
    }


def _penalty(answer: object) -> str | None:
    penalty = function(answer, "penalty(W)")
    for case, W in _weights().items():
        with on(case):
            value = number(penalty(W), "back one finite number")
            if hint := _judge_penalty(value, W.double()):
                raise NotYet(hint)
    return None


def _judge_penalty(value: float, W: Tensor) -> str | None:
    S = singular_values(W)
    nuclear, square, norm = float(S.sum()), float(S.square().sum()), float(W.norm())
    if math.isclose(value, nuclear, rel_tol=2e-3):
        return None
    hints = {
        "that is the decay of W itself; the factors are penalised, not their product.": square / 2,
        "that is the squared Frobenius norm of W; the factors are penalised.": square,
        "that is the Frobenius norm of W; the factors are penalised, and no two are as cheap.": norm,
        "you forgot the factor one half.": 2 * nuclear,
        "half of it is missing: both factors are penalised.": nuclear / 2,
        "that counts the largest singular value only; add up all of them.": float(S[0]),
        "that averages over the singular values; add them up.": nuclear / len(S),
        "that is W beside an identity, or all singular values in one factor; share them.": (square + len(S))
        / 2,
        "that adds up roots; squared norms of the balanced factors add up something else.": float(
            S.sqrt().sum()
        ),
        "that adds up the entries of W; they depend on the basis, the least cost does not.": float(
            W.abs().sum()
        ),
    }
    if hint := named(value, hints):
        return hint
    if value < nuclear:
        return f"no factors are as cheap as {value:.3f} for this W."
    return f"{value:.3f} can be beaten: some factors of this W cost less."


JUDGES: dict[str, Judge] = {"4.1": _chain, "4.2": _twin, "4.3": _freedom, "4.4": _penalty}
