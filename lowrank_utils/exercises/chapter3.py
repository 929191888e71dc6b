"""Judges of chapter 3: ranks gained without a core, the fewest scores for a proof, how sure a drop is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import (
    Judge,
    NotYet,
    by_letter,
    function,
    items,
    named,
    number,
    on,
    whole,
)
from lowrank_utils.factors.ranks import break_even_rank

SHAPE = (3072, 768)
SEARCHES = ((10, 22, 32), (3, 7, 50), (6, 6, 9), (4, 32, 32), (9, 9, 9), (1, 1, 8), (1, 2, 8), (1, 1, 1))


def _gain(answer: object) -> str | None:
    m, n = SHAPE
    plain, core = break_even_rank(m, n), break_even_rank(m, n, core=True)
    square = break_even_rank(n, n) - break_even_rank(n, n, core=True)
    wanted = "the number of ranks gained, a whole number"
    given = number(answer, wanted)
    if 0 < abs(given) < 1:
        return f"{given:g} is a share; give {wanted}."
    gained, right = whole(answer, wanted), plain - core
    if gained == right:
        return None
    hints = {
        plain: "this is the break-even rank without a core; subtract the one with a core.",
        core: "this is the break-even rank with a core; count how many more you get without it.",
        -right: "the sign is turned round: without the core you can afford more ranks, not fewer.",
        square: f"this is the gain of a square {n} x {n} layer; this one is {m} x {n}.",
        right + 1: "off by one: both break-even ranks are the largest that cost no more than dense.",
        right - 1: "off by one: both break-even ranks are the largest that cost no more than dense.",
    }
    many = "too many" if gained > right else "too few"
    rule = "the largest r with r(m + n) <= mn, less the largest with r^2 + r(m + n) <= mn."
    return hints.get(gained, f"{many}: the gain is {rule}")


def _fewest(answer: object) -> str | None:
    fewest = function(answer, "answer(smallest, safe, max_rank)")
    wanted = "back a pair: the count for the smallest rank, then the count for the safe rank"
    for smallest, safe, top in SEARCHES:
        with on(f"smallest={smallest}, safe={safe}, max_rank={top}"):
            counts = items(by_letter(fewest(smallest, safe, top), "ab"), wanted, 2)
            a, b = (whole(count, wanted) for count in counts)
            if hint := _judge_counts(a, b, smallest, safe, top):
                raise NotYet(hint)
    return None


def _judge_counts(a: int, b: int, smallest: int, safe: int, top: int) -> str | None:
    right = top if safe == 1 else top - safe + 2
    if (a, b) == (right, smallest) != (smallest, right):
        return "the two counts are swapped: the smallest rank comes first."
    first = {
        smallest - 1: "the rank itself must be scored too, to show that it is feasible",
        top: "a scan tries every rank, but you can stop at the first one that fits",
        math.ceil(math.log2(top)): "bisection is that short, but an untried rank below may be feasible",
        1: "a lucky first score shows that the rank fits, but not that no smaller one does",
    }
    if a != smallest:
        return f"{a} scores for the smallest rank: {first.get(a, 'count every rank up to it')}."
    second = {
        top - safe: f"rank {safe} itself and rank {safe - 1} are left out",
        top + 1: "there is no rank 0 to score: when all ranks are feasible, all of them must be tried",
        top: "you can stop at the first rank from above that fails",
        safe: "the safe rank is about the ranks above it: count from the top",
        right - 1: f"one is missing: rank {safe} to rank {top} must be seen to fit"
        + (f", and rank {safe - 1} to fail" if safe > 1 else ""),
    }
    return (
        None if b == right else f"{b} scores for the safe rank: {second.get(b, 'count from max_rank down')}."
    )


def _cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Right or wrong before and after: (N,) bools with a loss, a gain and a drop of zero."""
    g = torch.Generator().manual_seed(3)
    cases = {}
    for size, broken, mended in ((400, 0.06, 0.3), (150, 0.3, 0.1), (90, 0.02, 0.9)):
        before = torch.rand(size, generator=g) < 0.85
        luck = torch.rand(size, generator=g)
        after = torch.where(before, luck >= broken, luck < mended)
        cases[
            f"{size} samples, {int((before & ~after).sum())} lost, {int((after & ~before).sum())} gained"
        ] = (
            before,
            after,
        )
    even = torch.arange(120) % 10 > 0
    return cases | {"120 samples, 12 lost, 12 gained": (even, even.roll(1))}


def _drop_error(answer: object) -> str | None:
    measure = function(answer, "answer(before, after)")
    for case, (before, after) in _cases().items():
        with on(case):
            pair = items(measure(before, after), "back a pair: the drop, then its standard error", 2)
            drop, error = (number(value, "two finite numbers, the drop and its error") for value in pair)
            if hint := _judge_drop(drop, before, after) or _judge_error(error, before, after):
                raise NotYet(hint)
    return None


def _judge_drop(drop: float, before: Tensor, after: Tensor) -> str | None:
    d = before.double() - after.double()
    right, size = float(d.mean()), len(d)
    if math.isclose(drop, right, abs_tol=1e-6):
        return None
    hints = {
        "the drop is before minus after: a loss is positive.": -right,
        "give fractions, not percentages.": 100 * right,
        "you give samples; divide by their number.": size * right,
        "a sample that was mended counts against one that was lost.": float(d.abs().mean()),
        "a relative drop; subtract the accuracies, and divide by nothing.": right
        / float(before.double().mean()),
    }
    hint = named(drop, hints, rel_tol=0, abs_tol=1e-6)
    return hint or f"{drop:.4f} came; the drop is the accuracy before minus the accuracy after."


def _judge_error(error: float, before: Tensor, after: Tensor) -> str | None:
    p, q, size = float(before.double().mean()), float(after.double().mean()), len(before)
    d = before.double() - after.double()
    drop, spread, changed = abs(float(d.mean())), float(d.std()), float(d.abs().sum())
    share = changed / size
    right = spread / math.sqrt(size)
    if math.isclose(error, right, rel_tol=6e-3):  # N or N - 1, as you like
        return None
    related = "this treats the two scores as unrelated, but they are paired: same samples twice."
    mcnemar = (
        "this is McNemar's error, sqrt(lost + gained) / N, which takes a drop of zero for granted; "
        "measure the spread around the drop that you found."
    )
    slips = {
        mcnemar: math.sqrt(changed) / size,
        related: math.sqrt((p * (1 - p) + q * (1 - q)) / size),
        "this is the spread of one sample; divide by the root of their number.": spread,
        "this is the variance; take its root.": right**2,
        "this is the error of one accuracy, not of the drop.": math.sqrt(q * (1 - q) / size),
        "this is the error of the accuracy before, not of the drop.": math.sqrt(p * (1 - p) / size),
        "this takes the drop for an accuracy; a sample can count -1, too.": math.sqrt(
            drop * (1 - drop) / size
        ),
        "only samples that changed were counted; N is the number of all of them.": float(d[d != 0].std())
        / math.sqrt(changed),
        "this is the error of the share that changed; keep the sign, a gain counts -1.": math.sqrt(
            share * (1 - share) / size
        ),
        "the drop is a fraction, but its error is in points.": 100 * right,
        "two standard errors are an interval; give one.": 2 * right,
        "this is 1.96 standard errors; give one.": 1.96 * right,
        "divide by the root of the number of samples, not by the number.": spread / size,
    }
    if hint := named(error, slips, rel_tol=6e-3):
        return hint
    way = "take the spread of before - after, sample by sample"
    if math.isclose(error, right, rel_tol=0.1):
        return f"an error of {error:.5f} is near; {way}, by a formula: random draws would have luck in them."
    return f"an error of {error:.4f} came; {way}."


JUDGES: dict[str, Judge] = {"3.1": _gain, "3.2": _fewest, "3.3": _drop_error}
