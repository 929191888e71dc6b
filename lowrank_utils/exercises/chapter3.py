"""Chapter 3: ranks gained without a core, the fewest scores that prove a rank, how sure a drop is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from lowrank_utils.exercises import Judge, _whole
from lowrank_utils.ranks import break_even_rank

SHAPE = (3072, 768)
Pair = tuple[float, float]


def _gain(answer: object) -> str | None:
    gained = _whole(answer)
    if gained is None:
        return "give a whole number of ranks."
    m, n = SHAPE
    plain, core = break_even_rank(m, n), break_even_rank(m, n, core=True)
    square = break_even_rank(n, n) - break_even_rank(n, n, core=True)
    hints = {
        plain: "this is the break-even rank without a core; subtract the one with a core.",
        core: "this is the break-even rank with a core; count how many more you get without it.",
        core - plain: "the sign is turned round: without the core you can afford more ranks, not fewer.",
        square: f"this is the gain of a square {n} x {n} layer; this one is {m} x {n}.",
        plain - core + 1: "off by one: both break-even ranks are the largest that cost no more than dense.",
        plain - core - 1: "off by one: both break-even ranks are the largest that cost no more than dense.",
    }
    if gained == plain - core:
        return None
    many = "too many" if gained > plain - core else "too few"
    rule = "the largest r with r(m + n) <= mn, less the largest with r^2 + r(m + n) <= mn."
    return hints.get(gained, f"{many}: the gain is {rule}")


def _fewest(answer: object) -> str | None:
    if not callable(answer):
        return "give a function of smallest, safe and max_rank that returns two counts."
    fewest = cast(Callable[[int, int, int], tuple[int, int]], answer)
    for smallest, safe, top in ((10, 22, 32), (3, 7, 50), (6, 6, 9), (4, 32, 32), (1, 1, 8)):
        given = fewest(smallest, safe, top)
        if not isinstance(given, tuple | list) or len(given) != 2:
            return "return a pair: the count for the smallest rank, then the count for the safe rank."
        a, b = given
        right = top if safe == 1 else top - safe + 2
        case = f"with smallest={smallest}, safe={safe}, max_rank={top}"
        if a == right and b == smallest and a != b:
            return "the two counts are swapped: the smallest rank comes first."
        first = {
            smallest - 1: "the rank itself must be scored too, to show that it is feasible",
            top: "a scan tries every rank, but you can stop at the first one that fits",
            math.ceil(math.log2(top)): "bisection is that short, but an untried rank below may be feasible",
        }
        if a != smallest:
            return f"{case}, {a} scores for the smallest rank: {first.get(a, 'count every rank up to it')}."
        second = {
            top - safe + 1: f"nobody has shown that rank {safe - 1} fails",
            top - safe: f"rank {safe} itself and rank {safe - 1} are left out",
            top + 1: "there is no rank 0 to score: when all ranks are feasible, all of them must be tried",
            top: "you can stop at the first rank from above that fails",
            safe: "the safe rank is about the ranks above it: count from the top",
        }
        if b != right:
            return f"{case}, {b} scores for the safe rank: {second.get(b, 'count from max_rank down')}."
    return None


def _cases() -> list[tuple[Tensor, Tensor]]:
    """Right or wrong before and after: (N,) bools whose drops and standard errors all differ."""
    g = torch.Generator().manual_seed(3)
    cases = []
    for size, broken, mended in ((400, 0.06, 0.3), (150, 0.2, 0.1)):
        before = torch.rand(size, generator=g) < 0.9
        luck = torch.rand(size, generator=g)
        cases.append((before, torch.where(before, luck >= broken, luck < mended)))
    return cases


def _drop_error(answer: object) -> str | None:
    if not callable(answer):
        return "give a function of (before, after) that returns the drop and its standard error."
    measure = cast(Callable[[Tensor, Tensor], Pair], answer)
    for before, after in _cases():
        given = measure(before.clone(), after.clone())
        if not isinstance(given, tuple | list | Tensor) or len(given) != 2:
            return "return a pair: the drop, then its standard error."
        drop, error = float(given[0]), float(given[1])
        p, q, size = float(before.double().mean()), float(after.double().mean()), len(before)
        d = before.double() - after.double()
        right = float(d.std()) / math.sqrt(size)
        if not math.isclose(drop, p - q, abs_tol=1e-6):
            wrong = {
                q - p: "the drop is before minus after: a loss is positive.",
                100 * (p - q): "give fractions, not percentages.",
                size * (p - q): "you give samples; divide by their number.",
                float(d.abs().mean()): "a sample that was mended counts against one that was lost.",
            }
            close = [hint for value, hint in wrong.items() if math.isclose(drop, value, abs_tol=1e-6)]
            return close[0] if close else "the drop is the accuracy before minus the accuracy after."
        unpaired = math.sqrt((p * (1 - p) + q * (1 - q)) / size)
        slips = {
            unpaired: "this treats the two scores as unrelated, but they are paired: same samples twice.",
            float(d.std()): "this is the spread of one sample; divide by the root of their number.",
            right**2: "this is the variance; take its root.",
            math.sqrt(q * (1 - q) / size): "this is the error of one accuracy, not of the drop.",
            float(d.std()) / size: "divide by the root of the number of samples, not by the number.",
        }
        if not math.isclose(error, right, rel_tol=1e-2):
            close = [hint for value, hint in slips.items() if math.isclose(error, value, rel_tol=1e-2)]
            return close[0] if close else "take the spread of before - after, sample by sample."
    return None


JUDGES: dict[str, Judge] = {"3.1": _gain, "3.2": _fewest, "3.3": _drop_error}
