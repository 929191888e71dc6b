"""Judges of chapter 1: how much a small test set can say."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.stats import t
from torch import Tensor

from lowrank_utils.exercises._answers import Judge, NotYet, function, items, named, number, on, whole

FLOWERS = 30
CASES = ((12, 3, 90, 45), (7, 1, 40, 60), (20, 5, 150, 15))  # splits, seeds, n_train, n_test


def _first(fits: Callable[[int], bool]) -> int:
    return next(n for n in range(1, 100_000) if fits(n))


def _samples(answer: object) -> str | None:
    n = whole(answer, "the number of samples, an integer of 1 or more", low=1)
    two_sided = _first(lambda n: 0.025 ** (1 / n) >= 0.95)
    one_sided = _first(lambda n: 0.05 ** (1 / n) >= 0.95)
    wilson = _first(lambda n: n / (n + 1.96**2) >= 0.95)  # the lower end of Wilson's interval for n of n
    low = 0.025 ** (1 / n)
    if n == two_sided:
        return None
    if n in (one_sided, round(3 / 0.05)):
        return f"{n} puts all 5 % into one tail; the two-sided interval leaves 2.5 % at its lower end."
    if n == two_sided - 1:
        return f"off by one: the lower end at n = {n} is {low:.4f}, still below 0.95; round up."
    if n < two_sided:
        return f"too few: with {n} of {n} right the interval still starts at {low:.3f}."
    if n == wilson:
        return f"one too many, or Wilson's interval: the exact one starts at {low:.4f} there, above 0.95."
    return f"enough, but not the smallest: at n = {n} it starts at {low:.4f}."


def _difference(answer: object) -> str | None:
    wanted = f"the number of flowers d, an integer from 1 to {FLOWERS}"
    two_sided = _first(lambda d: 2 * 0.5**d < 0.05)
    one_sided = _first(lambda d: 0.5**d < 0.05)
    given = number(answer, wanted)
    if 0 < given < 1:
        chances = [sides * 0.5**d for sides in (1, 2) for d in range(1, FLOWERS + 1)]
        what = "chance" if any(math.isclose(given, c, rel_tol=1e-2) for c in chances) else "share"
        return f"{given:g} is a {what}; give {wanted}."
    d = whole(answer, wanted, low=1)
    if d == two_sided:
        return None
    if d == one_sided:
        return f"{d} is one-sided: the coins could all have fallen on A's side too, so double the chance."
    if d == FLOWERS - two_sided:
        return f"{d} is A's number of right flowers; d counts those on which only B is right."
    if d < two_sided:
        return f"{d} coins agree with chance {2 * 0.5**d:.3f} (both sides), which is not below 0.05."
    if d > FLOWERS:
        return f"there are {FLOWERS} flowers only; give {wanted}."
    return f"the chance is already below 0.05 for fewer flowers than {d}."


def _scores(splits: int, seeds: int) -> Tensor:
    """Accuracies (splits, seeds) whose interval lies inside 0 to 1."""
    noise = torch.Generator().manual_seed(splits)
    between = torch.rand(splits, 1, generator=noise).double() / 5
    return between + 0.5 + torch.rand(splits, seeds, generator=noise).double() / 20


def _half(means: Tensor, extra: float, quantile: float, correction: int = 1) -> float:
    return quantile * float(means.std(correction=correction)) * math.sqrt(1 / len(means) + extra)


def _slips(scores: Tensor, n_train: int, n_test: int) -> dict[str, float]:
    """Half-widths of the intervals that people compute, by the hint that each of them earns."""
    means, runs, ratio = scores.mean(1), scores.flatten(), n_test / n_train
    J = len(means)
    q, q_runs = float(t.ppf(0.975, J - 1)), float(t.ppf(0.975, len(runs) - 1))
    variance = float(means.var()) * (1 / J + ratio)
    return {
        "it counts every run as a split; average over the seeds first.": _half(runs, ratio, q_runs),
        "runs are not independent: average over the seeds, add n_test / n_train.": _half(runs, 0.0, q_runs),
        "it uses one seed only; average over the seeds.": _half(scores[:, 0], ratio, q),
        "the term n_test / n_train is missing.": _half(means, 0.0, q),
        "the ratio is upside down: it is n_test / n_train.": _half(means, 1 / ratio, q),
        "divide n_test by n_train, not by all samples.": _half(means, n_test / (n_train + n_test), q),
        "n_test / n_train is 0.25 in the chapter only; use the arguments.": _half(means, 0.25, q),
        "1.96 is the normal quantile; use Student's t with J - 1.": _half(means, ratio, 1.96),
        "Student's t has J - 1 degrees of freedom, not J.": _half(means, ratio, float(t.ppf(0.975, J))),
        "Student's t for 100 splits fits the chapter only; J is the number of splits that are given.": _half(
            means, ratio, float(t.ppf(0.975, 99))
        ),
        "the 0.95 quantile leaves 5 % in each tail; take 0.975.": _half(
            means, ratio, float(t.ppf(0.95, J - 1))
        ),
        "take the sample deviation, which divides by J - 1.": _half(means, ratio, q, correction=0),
        "that is one standard error; multiply by the quantile of Student's t.": _half(means, ratio, 1.0),
        "that is a variance; take its root before you multiply by the quantile.": q * variance,
    }


def _interval(answer: object) -> str | None:
    interval = function(answer, "interval(scores, n_train, n_test)")
    for splits, seeds, n_train, n_test in CASES:
        with on(f"{splits} splits, {seeds} seeds, {n_train} + {n_test} samples"):
            scores = _scores(splits, seeds)
            ends = items(interval(scores, n_train, n_test), "a pair (low, high)", 2)
            low, high = (number(end, "two numbers, low and high") for end in ends)
            if hint := _judge_ends(low, high, scores, n_train, n_test):
                raise NotYet(hint)
    return None


def _judge_ends(low: float, high: float, scores: Tensor, n_train: int, n_test: int) -> str | None:
    middle, half, J = float(scores.mean()), (high - low) / 2, len(scores)
    if math.isclose(low, middle, rel_tol=1e-5):
        return "return (low, high), not the mean and a half-width."
    if high < low:
        return f"({low:.4f}, {high:.4f}) is the wrong way round: the lower end comes first."
    if not abs((low + high) / 2 - middle) <= 1e-5:
        return f"the mean is {middle:.4f}, but your interval lies around {(low + high) / 2:.4f}."
    right = _half(scores.mean(1), n_test / n_train, float(t.ppf(0.975, J - 1)))
    if math.isclose(half, right, rel_tol=1e-4):
        return None
    hint = named(half, _slips(scores, n_train, n_test), rel_tol=1e-4)
    return hint or f"the half-width is {half:.4f}, but should be {right:.4f}."


JUDGES: dict[str, Judge] = {"1.1": _samples, "1.2": _difference, "1.3": _interval}
