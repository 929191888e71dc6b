"""Judges of chapter 6: classes that rank 1 can name, rescaled nets, and where a greedy allocation fails."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, NotYet, function, items, members, number, on, whole
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.svd import low_rank_approximation
from lowrank_utils.factors.weighted import weighted_factors

SIDES = (10, 30)  # layers of 10 x 10 and of 30 x 30
COSTS = (20, 60)  # numbers a rank
KINDS = ("svd", "output", "loss")


def _winners(u: Tensor, b: Tensor, low: float | None = None) -> set[int]:
    """Classes with the largest u z + b for some z (>= low): a probe between any two crossings, and beyond."""
    i, j = torch.combinations(torch.arange(len(u))).T
    z = ((b[j] - b[i]) / (u[i] - u[j])).sort().values
    probes = torch.cat([z[:1] - 1, (z[1:] + z[:-1]) / 2, z[-1:] + 1])
    if low is not None:
        probes = torch.cat([probes[probes >= low], torch.tensor([low]).to(z)])
    return set((torch.outer(probes, u) + b).argmax(1).tolist())


def _heads() -> dict[str, tuple[Tensor, Tensor]]:
    """Slopes and biases: positive slopes, crossings far from 0, large biases, a gap that draws miss."""
    g = torch.Generator().manual_seed(6)
    heads = {}
    for C, slope, shift in (
        (10, 1.0, 0.0),
        (10, 1.0, 0.0),
        (4, 1.0, 5.0),
        (26, 0.02, -3.0),
        (2, 1.0, 0.0),
        (7, 5.0, 1.0),
    ):
        u, b = slope * torch.randn(C, generator=g), torch.randn(C, generator=g) + shift
        heads[f"{C} classes, slopes from {u.min():.3f} to {u.max():.3f}"] = (u, b)
    u = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0])
    heads["5 classes, slopes from 0.500 to 8.000"] = (
        u,
        3 - 0.1 * u**2 + torch.tensor([0.0, 0.0, -1.0, 0.0, 0.0]),
    )
    u = torch.tensor([1.0, 0.0, -1.0, 0.5])  # class 1 wins where z is between 0.0195 and 0.0205 alone
    heads["4 classes, slopes from -1.000 to 1.000"] = (u, torch.tensor([-0.02, 0.0005, 0.02, -1.0]))
    return heads


def _reachable(answer: object) -> str | None:
    classes = function(answer, "answer(u, b)")
    for case, (u, b) in _heads().items():
        with on(case):
            wanted = "back the set of classes that can win, each a whole number"
            found = members(classes(u, b), wanted)
            if any(isinstance(c, bool) for c in found):
                raise NotYet(f"give {wanted}, not a mask.")
            given = {whole(c, wanted) for c in found}
            if hint := _judge_classes(given, u.double(), b.double()):
                raise NotYet(hint)
    return None


def _judge_classes(given: set[int], u: Tensor, b: Tensor) -> str | None:
    right = _winners(u, b)
    if given == right:
        return None
    ends = {int(u.argmin()), int(u.argmax())}
    several = len(right - ends) > 1  # one alone may be missed by drawing z
    for wrong, hint in (
        (
            ends if several else None,
            "these are the two steepest lines; the biases let flatter ones win in between.",
        ),
        (_winners(u, b, low=0), "these win for z >= 0, but z may be negative, too."),
        (_winners(-u, -b), "these lines are at the bottom somewhere; a class wins at the top."),
        (set(range(len(u))), "a line can lie below the others everywhere: not every class can win."),
        (set(range(1, len(u) + 1)), "classes are counted from 0."),
        (right - ends, "the far ends are missing: for large |z| the steepest lines win."),
    ):
        if given == wrong:
            return hint
    odd = min(given ^ right)
    if odd not in range(len(u)):
        return f"there is no class {odd}."
    return f"class {odd} {'is never on top' if odd in given else 'wins for some z'}."


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


def _names(value: object) -> set[str]:
    wanted = 'a set of names for "0" and for "2"'
    value = {value} if isinstance(value, str) else set() if value is None else value
    names = members(value, wanted)
    if not all(isinstance(name, str) for name in names):
        raise NotYet(f"give {wanted}: each name is a text.")
    return {name.strip().lower() for name in names}


def _rescaled(answer: object) -> str | None:
    keys = [str(key) for key in answer] if isinstance(answer, Mapping) else []
    if not isinstance(answer, Mapping) or sorted(keys) != ["0", "2"]:
        return 'give a dictionary with a set of names for "0" and for "2".'
    given = {key: _names(value) for key, value in zip(keys, answer.values(), strict=True)}
    if not given["0"] | given["2"] <= set(KINDS):
        return 'the names are "svd", "output" and "loss".'
    right = _invariant()
    if given == right:
        return None
    if given == {"0": right["2"], "2": right["0"]}:
        return "the two layers are swapped."
    if given == {layer: set(KINDS) - kinds for layer, kinds in right.items()}:
        return "these are the ones that do change; name those that give the same function."
    if "svd" in given["0"] | given["2"]:
        return "the weight changes and its nearest matrix of rank 3 with it: SVD looks at nothing else."
    if "output" in given["0"]:
        return "layer 0's outputs now come in other units, so another output error counts as small."
    if "loss" not in given["0"]:
        return "in layer 0 the gradients shrink where the outputs grow: what becomes of L^T W?"
    if "output" not in given["2"]:
        return "in layer 2 the inputs grow where the weight's columns shrink: what becomes of W C W^T?"
    return "in layer 2 the outputs and their gradients are as before."


def _loss(S: Sequence[Sequence[float]], ranks: Sequence[int]) -> float:
    return sum(x**2 for i in (0, 1) for x in S[i][ranks[i] :])


def _greedy(S: Sequence[Sequence[float]], budget: float) -> list[int]:
    ranks = [1, 1]
    while True:
        left = budget - COSTS[0] * ranks[0] - COSTS[1] * ranks[1]
        can = [i for i in (0, 1) if COSTS[i] <= left and ranks[i] < len(S[i])]
        if not can:
            return ranks
        ranks[max(can, key=lambda i: S[i][ranks[i]] ** 2 / COSTS[i])] += 1


def _greed(answer: object) -> str | None:
    wanted = "three things: singular values of A, singular values of B, a budget"
    *spectra, money = items(answer, wanted, 3)
    budget = number(money, f"{wanted}, which is a number")
    S = []
    for name, side, values in zip("AB", SIDES, spectra, strict=True):
        of = f"the singular values of {name} as a list"
        S.append([number(x, f"{of} of finite numbers") for x in items(values, of)])
        if not 1 <= len(S[-1]) <= side:
            return f"layer {name} is {side} x {side}: it has {side} singular values, not {len(S[-1])}."
        if min(S[-1]) < 0 or S[-1] != sorted(S[-1], reverse=True):
            return f"layer {name}: singular values are not negative, and the largest comes first."
    if budget < sum(COSTS):
        return (
            f"a budget of {budget:g} does not hold rank 1 of both layers, which takes {sum(COSTS)} numbers."
        )
    top = max(S[0][0], S[1][0]) or 1.0  # squares of what is left are finite, whatever the unit
    S = [[x / top for x in values] for values in S]
    ranks = _greedy(S, budget)
    choices = itertools.product(*(range(1, len(values) + 1) for values in S))
    best = min(_loss(S, (a, b)) for a, b in choices if COSTS[0] * a + COSTS[1] * b <= budget)
    loss = _loss(S, ranks)
    if loss <= best * (1 + 1e-9):
        full = "there is nothing left to lose" if loss == 0 else f"greed's ranks {ranks} are the best"
        return f"here {full}; make it buy what it should not have bought."
    return (
        None
        if loss >= 2 * best * (1 - 1e-9)
        else f"greed loses only {loss / best:.2f} times the best, not twice."
    )


JUDGES: dict[str, Judge] = {"6.1": _reachable, "6.2": _rescaled, "6.3": _greed}
