"""The judge of exercise 7.3: who won, over splits that overlap, by the corrected interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from scipy.stats import t
from torch import Tensor

from lowrank_utils.exercises._answers import function


def _said(gap: Tensor, half: float | Tensor) -> str:
    return "undecided" if abs(float(gap)) <= float(half) else ("a" if float(gap) > 0 else "b")


def _half(x: Tensor, n_train: int, n_test: int, *, q: float = 0.975, less: int = 1, df: int = 0) -> float:
    """Half of the corrected 95 % interval; the options are slips: another level, J - less, other df."""
    error = float(x.std(correction=less)) * math.sqrt(1 / len(x) + n_test / n_train)
    return float(t.ppf(q, df or len(x) - 1)) * error


def _verdict_of(a: Tensor, b: Tensor, n_train: int, n_test: int, **slip: Any) -> str:
    return _said((a - b).mean(), _half(a - b, n_train, n_test, **slip))


def _unpaired(a: Tensor, b: Tensor, n_train: int, n_test: int) -> str:
    return _said(a.mean() - b.mean(), sum(_half(x, n_train, n_test) for x in (a, b)))


def _matches() -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """Scores of two methods on the same splits, and the sizes of the training and test part."""
    easy = torch.tensor([0.90, 0.84, 0.95, 0.88, 0.81, 0.92], dtype=torch.float64)  # splits differ in ease
    small = torch.tensor([0.012, 0.008, 0.011, 0.009, 0.010, 0.010], dtype=torch.float64)
    loose = torch.tensor([0.011, 0.001, 0.013, 0.002, 0.012, 0.003], dtype=torch.float64)
    yield easy, easy - small, 700, 200  # clear only in pairs
    yield easy - small, easy, 700, 200
    yield easy, easy - loose, 500, 500  # clear only for splits that do not overlap
    yield easy - loose, easy, 500, 500
    yield easy, easy - loose + loose.mean(), 700, 200  # level
    three = torch.tensor([0.024, 0.008, 0.016], dtype=torch.float64)
    yield easy[:3], easy[:3] - three, 900, 1  # clear by the normal quantile, not by Student's
    yield easy[:3], easy[:3] - three + 0.0045, 900, 1  # 2.5 errors: nor by a 90 % interval of Student's
    bigger = torch.tensor([0.06, 0.04, 0.05, 0.07, 0.05], dtype=torch.float64)
    yield easy[:5] - bigger, easy[:5], 400, 100
    unit = (loose - loose.mean()) / loose.std() * 0.01
    yield easy, easy - 0.54 + 0.01 * unit, 700, 200  # clear in every way; the gaps are not all the same
    # 2.57 errors decide; 3.9 here are 2.62 standard deviations, and less than the 4.03 of a 99 % interval
    for times, n_train, n_test in ((3.0, 700, 200), (3.9, 700, 200), (2.45, 700, 200), (2.2, 500, 500)):
        error = 0.01 * (1 / 6 + n_test / n_train) ** 0.5
        yield easy, easy - unit - times * error, n_train, n_test


def verdict(answer: object) -> str | None:
    """A hint for who won each match, or None if all are right."""
    decide = function(answer, "verdict(a, b, n_train, n_test)")
    cases = list(_matches())
    found = [decide(a, b, *sizes) for a, b, *sizes in cases]
    right = [_verdict_of(*case) for case in cases]
    odd = [said for said in found if not isinstance(said, str) or said not in ("a", "b", "undecided")]
    if odd:
        return f'return "a", "b" or "undecided", not {odd[0]!r}.'
    if found == right:
        return None
    for wrong, hint in (
        (
            [{"a": "b", "b": "a"}.get(x, x) for x in right],
            "the sign is reversed: a wins where a - b is above zero.",
        ),
        (
            [_unpaired(*case) for case in cases],
            "the splits are the same: take the interval of the differences.",
        ),
        (
            [_verdict_of(a, b, 1, 0) for a, b, *_ in cases],
            "the splits overlap: add n_test / n_train to 1 / J.",
        ),
        (["a" if a.mean() > b.mean() else "b" for a, b, *_ in cases], "the larger mean need not win."),
        (["undecided"] * len(cases), "some of the matches are clear."),
        (
            [_verdict_of(*case, q=0.995) for case in cases],
            "that is a 99 % interval; 95 % of Student's t lie within its quantile 0.975.",
        ),
        (
            [_verdict_of(*case, q=0.95) for case in cases],
            "that is a 90 % interval; 95 % of Student's t lie within its quantile 0.975.",
        ),
        (
            [_verdict_of(*case, df=10**9) for case in cases],
            "that is the normal quantile; for few splits take Student's t with J - 1 degrees of freedom.",
        ),
        (
            [_verdict_of(*case, less=0) for case in cases],
            "that divides by J; a standard deviation of J differences divides by J - 1.",
        ),
        (
            [_verdict_of(a, b, n + m, m) for a, b, n, m in cases],
            "add n_test over n_train, not over all samples.",
        ),
        (
            [_said((a - b).mean(), 2.57 * (a - b).std()) for a, b, *_ in cases],
            "that is the spread of single splits; the error of their mean is smaller.",
        ),
    ):
        if found == wrong:
            return hint
    (a, b, *sizes), said, true = next(
        (case, x, y) for case, x, y in zip(cases, found, right, strict=True) if x != y
    )
    d = [round(float(x), 3) for x in a - b]
    return f'for differences {d}, {sizes[0]} and {sizes[1]} samples, say "{true}", not "{said}".'
