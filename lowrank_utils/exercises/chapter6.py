"""Judges of chapter 6: classes that rank 1 can name, rescaled nets, and where a greedy allocation fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

from lowrank_utils.calibrate import Moments
from lowrank_utils.data_aware import weighted_factors
from lowrank_utils.exercises import Judge
from lowrank_utils.svd import low_rank_approximation

COSTS = (20, 60)  # numbers a rank: layers of 10 x 10 and of 30 x 30


def _winners(u: Tensor, b: Tensor, low: float = -1e4) -> set[int]:
    """Classes with the largest u z + b for some z >= low."""
    i, j = torch.combinations(torch.arange(len(u))).T
    z = ((b[j] - b[i]) / (u[i] - u[j])).clamp_min(low)
    z = torch.cat([z, torch.tensor([low, 1e4]).to(z)]).sort().values
    return set((torch.outer((z[1:] + z[:-1]) / 2, u) + b).argmax(1).tolist())


def _reachable(answer: object) -> str | None:
    if not callable(answer):
        return "give a function of (u, b) that returns the set of classes that can win."
    classes, g = cast(Callable[[Tensor, Tensor], set[int]], answer), torch.Generator().manual_seed(6)
    for _ in range(4):
        u, b = torch.randn(2, 10, generator=g, dtype=torch.float64)
        found, right = classes(u.clone(), b.clone()), _winners(u, b)
        if not isinstance(found, Iterable):
            return f"return the set of classes that can win, not {type(found).__name__}."
        given = {int(c) for c in found}
        ends = {int(u.argmin()), int(u.argmax())}
        for wrong, hint in (
            (ends, "these are the two steepest lines; the biases let flatter ones win in between."),
            (_winners(u, b, low=0), "z may be negative, too."),
            (_winners(-u, -b), "these lines are at the bottom somewhere; a class wins at the top."),
            (set(range(10)), "a line can lie below the others everywhere: not every class can win."),
            (right - ends, "the far ends are missing: for large |z| the steepest lines win."),
        ):
            if given == wrong != right:
                return hint
        if given == right:
            continue
        odd = min(given ^ right)
        return f"class {odd} {'is never on top' if odd in given else 'wins for some z'}, in a case tried."
    return None


def _invariant() -> dict[str, set[str]]:
    """For each layer, the factors whose product follows a rescaling by diag(a) of what lies between."""
    g = torch.Generator().manual_seed(0)
    W, P, Q = (torch.randn(7, 7, generator=g, dtype=torch.float64) for _ in range(3))
    a, C, G = torch.linspace(0.3, 3, 7, dtype=torch.float64), P @ P.T, Q @ Q.T

    def cut(W: Tensor, C: Tensor, G: Tensor) -> dict[str, Tensor]:
        seen = Moments(7, 7, torch.zeros_like(a), C, G)
        sides = {"output": False, "loss": True}
        found = {k: weighted_factors(W, seen, two_sided=two, damping=0.0).at(3) for k, two in sides.items()}
        return {"svd": low_rank_approximation(W, 3)} | {k: A @ B for k, (A, B, _) in found.items()}

    first, zero = cut(W, C, G), cut(a[:, None] * W, C, G / torch.outer(a, a))
    two = cut(W / a, C * torch.outer(a, a), G)
    return {
        "0": {kind for kind in first if torch.allclose(zero[kind], a[:, None] * first[kind])},
        "2": {kind for kind in first if torch.allclose(two[kind], first[kind] / a)},
    }


def _rescaled(answer: object) -> str | None:
    if not isinstance(answer, dict) or set(answer) != {"0", "2"}:
        return 'give a dictionary with a set of names for "0" and for "2".'
    right = _invariant()
    given = {name: {value} if isinstance(value, str) else set(value) for name, value in answer.items()}
    if not given["0"] | given["2"] <= {"svd", "output", "loss"}:
        return 'the names are "svd", "output" and "loss".'
    if given == {"0": right["2"], "2": right["0"]} and given != right:
        return "the two layers are swapped."
    if "svd" in given["0"] | given["2"]:
        return "the weight changes and its nearest matrix of rank 3 with it: SVD looks at nothing else."
    if "output" in given["0"]:
        return "layer 0's outputs now come in other units, so another output error counts as small."
    if "loss" not in given["0"]:
        return "in layer 0 the gradients shrink where the outputs grow: what becomes of L^T W?"
    if "output" not in given["2"]:
        return "in layer 2 the inputs grow where the weight's columns shrink: what becomes of W C W^T?"
    return None if given == right else "in layer 2 the outputs and their gradients are as before."


def _loss(S: Sequence[Sequence[float]], ranks: Sequence[int]) -> float:
    return sum(x**2 for i in (0, 1) for x in S[i][ranks[i] :])


def _greed(answer: object) -> str | None:
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        return "give three things: singular values of A, singular values of B, a budget."
    S, budget = [[float(x) for x in values] for values in answer[:2]], float(answer[2])
    if any(not values or min(values) < 0 or values != sorted(values, reverse=True) for values in S):
        return "singular values are not negative, and the largest comes first."
    if budget < sum(COSTS):
        return f"the budget does not hold rank 1 of both layers, which takes {sum(COSTS)} numbers."
    ranks = [1, 1]
    while True:
        left = budget - COSTS[0] * ranks[0] - COSTS[1] * ranks[1]
        can = [i for i in (0, 1) if COSTS[i] <= left and ranks[i] < len(S[i])]
        if not can:
            break
        ranks[max(can, key=lambda i: S[i][ranks[i]] ** 2 / COSTS[i])] += 1
    choices = itertools.product(range(1, len(S[0]) + 1), range(1, len(S[1]) + 1))
    best = min(_loss(S, (a, b)) for a, b in choices if COSTS[0] * a + COSTS[1] * b <= budget)
    loss = _loss(S, ranks)
    if loss <= best * (1 + 1e-9):
        full = "there is nothing left to lose" if loss == 0 else f"greed's ranks {ranks} are the best"
        return f"here {full}; leave it with change that buys no rank of B."
    return None if loss >= 2 * best else f"greed loses only {loss / best:.2f} times the best, not twice."


JUDGES: dict[str, Judge] = {"6.1": _reachable, "6.2": _rescaled, "6.3": _greed}
