"""Judges of chapter 4: chains of layers, twins, free numbers, and the price of weight decay."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lowrank_utils.exercises import Judge, _whole
from lowrank_utils.models import Net
from lowrank_utils.svd import singular_values


def _chain(answer: object) -> str | None:
    right = next(d for d in range(1, 100) if 3.0 ** ((1 - d) / 2) < 0.01)
    variance = next(d for d in range(1, 100) if 3.0 ** (1 - d) < 0.01)
    layers = _whole(answer)
    if layers is None or layers < 1:
        return "give the number of layers d, an integer of 1 or more."
    if layers == right - 1:
        return f"{layers} is the number of factors of 1/sqrt(3); the first layer itself does not shrink."
    if layers == variance:
        return f"at {layers} layers the variance is below 1 %; the standard deviation is its square root."
    if layers < right:
        spread = 3.0 ** ((1 - layers) / 2)
        return f"with {layers} layers the standard deviation is still {spread:.1%} of a single layer's."
    return None if layers == right else f"{layers} is enough, but not the smallest number of layers."


def _twin(answer: Any) -> str | None:
    if not callable(answer) or isinstance(answer, Net):
        return "give the function twin itself; it takes a Net and returns a new one."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, given, X = Net(), Net(), 3 * torch.randn(500, 4)
    given.load_state_dict(net.state_dict())
    twin = answer(given)
    if not isinstance(twin, Net):
        return f"twin must return a Net, not {type(twin).__name__}."
    if any(not torch.equal(p, q) for p, q in zip(net.parameters(), given.parameters(), strict=True)):
        return "twin changed the net that it was given; work on a deepcopy."
    W, V = net.fc1.weight.detach(), twin.fc1.weight.detach()
    if not torch.allclose(twin(X), net(X), rtol=1e-4, atol=1e-4):
        return _why_not_same(net, twin, (V * W).sum(1) / W.square().sum(1))
    moved = float((V - W).norm() / W.norm())
    if moved <= 0.5:
        return f"the function is the same, but W moved by {moved:.0%} of its norm only; go beyond 50 %."
    if torch.allclose(V.norm(dim=1).sort().values, W.norm(dim=1).sort().values, rtol=1e-3):
        return "the rows of W have only changed places, which a renumbering undoes; change their lengths."
    return None


def _why_not_same(net: Net, twin: Net, a: Tensor) -> str:
    if torch.allclose(twin.fc1.weight, a[:, None] * net.fc1.weight, atol=1e-5):  # each row was rescaled
        if bool((a <= 0).any()):
            return "a row was multiplied by a negative number or zero: relu(a z) = a relu(z) needs a > 0."
        if not torch.allclose(twin.fc1.bias, a * net.fc1.bias, atol=1e-5):
            return "the bias of a hidden unit belongs to its row: scale fc1.bias by the same factor."
        if torch.allclose(twin.fc2.weight, net.fc2.weight, atol=1e-5):
            return "fc2 does not know that its inputs were rescaled: divide its columns by the factors."
        if torch.allclose(twin.fc2.weight, net.fc2.weight * a, atol=1e-5):
            return "fc2 multiplies by the factor once more: divide its columns instead."
    return "the logits of net and twin differ; whatever you do to a hidden unit, fc2 must undo."


def _jacobian_rank(m: int, n: int, r: int) -> int:
    def product(numbers: Tensor) -> Tensor:
        return numbers[: m * r].reshape(m, r) @ numbers[m * r :].reshape(r, n)

    point = torch.randn(r * (m + n), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    J: Tensor = torch.func.jacrev(product)(point)  # (m, n, r (m + n))
    return int(torch.linalg.matrix_rank(J.flatten(0, 1)))


def _freedom(answer: Any) -> str | None:
    if not callable(answer):
        return "give the function freedom itself, and not a value that it returns."
    shapes = [(4, 6, 1), (7, 5, 2), (6, 6, 3)]
    found, true = [answer(*s) for s in shapes], [_jacobian_rank(*s) for s in shapes]
    if any(value is None for value in found):
        return "freedom(m, n, r) must return a number, not None."
    given = [float(value) for value in found]
    hints = {
        "that counts the stored numbers; A may be any invertible matrix.": [
            r * (m + n) for m, n, r in shapes
        ],
        "an invertible A has r * r entries, not r.": [r * (m + n) - r for m, n, r in shapes],
        "A need not be symmetric; all of its entries count.": [
            r * (m + n) - r * (r + 1) / 2 for m, n, r in shapes
        ],
        "what A takes away must be subtracted, not added.": [r * (m + n + r) for m, n, r in shapes],
        "that counts all matrices, of any rank.": [m * n for m, n, r in shapes],
    }
    for hint, wrong in hints.items():
        if given == wrong:
            return hint
    for shape, told, right in zip(shapes, given, true, strict=True):
        if told != right:
            return f"for (m, n, r) = {shape} it gives {told:g}, but W can move in {right} directions."
    return None


def _penalty(answer: Any) -> str | None:
    if not callable(answer):
        return "give the function penalty itself, and not a value that it returns."
    W = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    S = singular_values(W)
    found, nuclear, square = answer(W.clone()), float(S.sum()), float(S.square().sum())
    if found is None or (isinstance(found, Tensor) and found.numel() != 1):
        what = found if found is None else f"a tensor of shape {tuple(found.shape)}"
        return f"penalty(W) must return one number, not {what}."
    value = float(found)
    hints = {
        square / 2: "that is the decay of W itself; the factors are penalised, not their product.",
        square: "that is the squared Frobenius norm of W; the factors are penalised.",
        2 * nuclear: "you forgot the factor one half.",
        nuclear / 2: "half of it is missing: both factors are penalised.",
        float(S[0]): "that counts the largest singular value only; add up all of them.",
        (square + 4) / 2: "that puts all singular values into one factor; share them.",
    }
    for wrong, hint in hints.items():
        if math.isclose(value, wrong, rel_tol=1e-3):
            return hint
    if value < nuclear * (1 - 1e-3):
        return f"no factors are as cheap as {value:.3f} for a W that costs {nuclear:.3f}."
    return None if value < nuclear * (1 + 1e-3) else f"{value:.3f} can be beaten: factors cost {nuclear:.3f}."


JUDGES: dict[str, Judge] = {"4.1": _chain, "4.2": _twin, "4.3": _freedom, "4.4": _penalty}
