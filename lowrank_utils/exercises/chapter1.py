"""Judges of chapter 1: how much a small test set can say."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.stats import t
from torch import Tensor

from lowrank_utils.exercises import Judge, _whole


def _first(fits: Callable[[int], bool]) -> int:
    return next(n for n in range(1, 100_000) if fits(n))


def _samples(answer: object) -> str | None:
    two_sided = _first(lambda n: 0.025 ** (1 / n) >= 0.95)
    one_sided = _first(lambda n: 0.05 ** (1 / n) >= 0.95)
    n = _whole(answer)
    if n is None or n < 1:
        return "give the number of samples, an integer of 1 or more."
    if n in (one_sided, round(3 / 0.05)):
        return f"{n} puts all 5 % into one tail; the two-sided interval leaves 2.5 % at its lower end."
    low = 0.025 ** (1 / n)
    if n == two_sided - 1:
        return f"off by one: the lower end at n = {n} is {low:.4f}, still below 0.95; round up."
    if n < two_sided:
        return f"too few: with {n} of {n} right the interval still starts at {low:.3f}."
    return None if n == two_sided else f"enough, but not the smallest: at n = {n} it starts at {low:.4f}."


def _difference(answer: object) -> str | None:
    two_sided = _first(lambda d: 2 * 0.5**d < 0.05)
    one_sided = _first(lambda d: 0.5**d < 0.05)
    d = _whole(answer)
    if d is None and isinstance(answer, float) and 0 < answer < 1:
        return "that is a share; give the number of flowers d, an integer."
    if d is None or d < 1:
        return "give the number of flowers d, an integer of 1 or more."
    if d == one_sided:
        return f"{d} is one-sided: the coins could all have fallen on A's side too, so double the chance."
    if d == 30 - two_sided:
        return f"{d} is A's number of right flowers; d counts those on which only B is right."
    if d < two_sided:
        return f"{d} coins agree with chance {2 * 0.5**d:.3f} (both sides), which is not below 0.05."
    return None if d == two_sided else f"the chance is already below 0.05 for fewer flowers than {d}."


def _half(means: Tensor, extra: float, quantile: float, correction: int = 1) -> float:
    return quantile * float(means.std(correction=correction)) * math.sqrt(1 / len(means) + extra)


def _interval(answer: object) -> str | None:
    if not callable(answer):
        return "give the function itself, interval, and not a value that it returns."
    noise = torch.Generator().manual_seed(0)
    splits, seeds, n_train, n_test = 12, 3, 80, 20
    scores = torch.rand(splits, 1, generator=noise).double() / 5
    scores = scores + 0.7 + torch.rand(splits, seeds, generator=noise).double() / 20
    result = answer(scores.clone(), n_train, n_test)
    if not isinstance(result, tuple | list) or len(result) != 2:
        return "return a pair (low, high)."
    low, high, middle = float(result[0]), float(result[1]), float(scores.mean())
    if math.isclose(low, middle, rel_tol=1e-6):
        return "return (low, high), not the mean and a half-width."
    if abs((low + high) / 2 - middle) > 1e-6:
        return f"the interval must lie around the mean {middle:.4f}, not around {(low + high) / 2:.4f}."
    means, runs, ratio = scores.mean(1), scores.flatten(), n_test / n_train
    q, q_runs = float(t.ppf(0.975, splits - 1)), float(t.ppf(0.975, splits * seeds - 1))
    one_tail, off_by_one = float(t.ppf(0.95, splits - 1)), float(t.ppf(0.975, splits))
    hints = {
        _half(runs, ratio, q_runs): "it counts every run as a split; average over the seeds first.",
        _half(runs, 0.0, q_runs): "runs are not independent: average over the seeds, add n_test / n_train.",
        _half(scores[:, 0], ratio, q): "it uses one seed only; average over the seeds.",
        _half(means, 0.0, q): "the term n_test / n_train is missing.",
        _half(means, 1 / ratio, q): "the ratio is upside down: it is n_test / n_train.",
        _half(means, n_test / (n_train + n_test), q): "divide n_test by n_train, not by all samples.",
        _half(means, ratio, 1.96): "1.96 is the normal quantile; use Student's t with J - 1.",
        _half(means, ratio, off_by_one): "Student's t has J - 1 degrees of freedom, not J.",
        _half(means, ratio, one_tail): "the 0.95 quantile leaves 5 % in each tail; take 0.975.",
        _half(means, ratio, q, correction=0): "take the sample deviation, which divides by J - 1.",
        _half(means, ratio, 1.0): "that is one standard error; multiply by the quantile of Student's t.",
    }
    half = (high - low) / 2
    for wrong, hint in hints.items():
        if math.isclose(half, wrong, rel_tol=1e-6):
            return hint
    right = _half(means, ratio, q)
    close = math.isclose(half, right, rel_tol=1e-6)
    return None if close else f"on {splits} splits the half-width is {half:.4f}, but should be {right:.4f}."


JUDGES: dict[str, Judge] = {"1.1": _samples, "1.2": _difference, "1.3": _interval}
