"""Chapter 1's judges: the right answer, and the hint for each mistake that people make."""

import pytest
from scipy.stats import t

from lowrank_utils.exercises import check


def interval(scores, ratio, *, quantile=None, correction=1):
    means = scores.mean(1) if scores.ndim == 2 else scores
    q = t.ppf(0.975, len(means) - 1) if quantile is None else quantile
    half = q * means.std(correction=correction) * (1 / len(means) + ratio) ** 0.5
    return means.mean() - half, means.mean() + half


def half_only(scores, n_train, n_test):
    low, high = interval(scores, n_test / n_train)
    return (low + high) / 2, (high - low) / 2


RIGHT = [
    ("1.1", 72),
    ("1.2", 6),
    ("1.3", lambda s, n_train, n_test: interval(s, n_test / n_train)),
    ("1.3", lambda s, n_train, n_test: tuple(map(float, interval(s, n_test / n_train)))),
]

WRONG = [
    ("1.1", 59, "one tail"),
    ("1.1", 60, "one tail"),
    ("1.1", 71, "off by one"),
    ("1.1", 30, "too few"),
    ("1.1", 73, "not the smallest"),
    ("1.1", 71.9, "integer"),
    ("1.1", 0, "integer"),
    ("1.1", True, "integer"),
    ("1.2", 5, "one-sided"),
    ("1.2", 1, "not below"),
    ("1.2", 24, "A's number"),
    ("1.2", 0.2, "share"),
    ("1.2", 7, "already"),
    ("1.2", "six", "integer"),
    ("1.3", (0.9, 1.0), "function"),
    ("1.3", lambda s, a, b: s.mean(), "pair"),
    ("1.3", lambda s, a, b: (0.0, 1.0), "around the mean"),
    ("1.3", half_only, "half-width"),
    ("1.3", lambda s, a, b: (s.mean(), 0.1), "half-width"),
    ("1.3", lambda s, a, b: interval(s.flatten(), b / a), "counts every run"),
    ("1.3", lambda s, a, b: interval(s.flatten(), 0.0), "independent"),
    ("1.3", lambda s, a, b: interval(s, 0.0), "missing"),
    ("1.3", lambda s, a, b: interval(s, a / b), "upside down"),
    ("1.3", lambda s, a, b: interval(s, b / (a + b)), "all samples"),
    ("1.3", lambda s, a, b: interval(s, b / a, quantile=1.96), "normal quantile"),
    ("1.3", lambda s, a, b: interval(s, b / a, quantile=t.ppf(0.975, len(s))), "not J"),
    ("1.3", lambda s, a, b: interval(s, b / a, quantile=t.ppf(0.95, len(s) - 1)), "each tail"),
    ("1.3", lambda s, a, b: interval(s, b / a, correction=0), "sample deviation"),
    ("1.3", lambda s, a, b: interval(s, b / a, quantile=1.0), "one standard error"),
    ("1.3", lambda s, a, b: interval(s, b / a, quantile=3.0), "half-width is"),
    ("1.3", lambda s: s, "raised TypeError"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_a_right_answer_is_right(exercise, answer, capsys):
    check(exercise, answer)
    assert capsys.readouterr().out == f"{exercise}: right.\n"


@pytest.mark.parametrize(("exercise", "answer", "word"), WRONG)
def test_a_mistake_is_named(exercise, answer, word, capsys):
    check(exercise, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"{exercise}: not yet: ")
    assert word in out
