"""Chapter 1: integers of many kinds, and intervals with one slip each."""

import math
import statistics
from fractions import Fraction

import numpy as np
import torch
from scipy import stats

from answers import right, wrong


def interval(scores, n_train, n_test, *, ratio=None, quantile=None, correction=1):
    means = scores.mean(1) if scores.ndim == 2 else scores
    q = stats.t.ppf(0.975, len(means) - 1) if quantile is None else quantile
    ratio = n_test / n_train if ratio is None else ratio
    half = q * means.std(correction=correction) * (1 / len(means) + ratio) ** 0.5
    return means.mean() - half, means.mean() + half


def changed(**options):
    return lambda scores, n_train, n_test: interval(scores, n_train, n_test, **options)


def by_scipy(scores, n_train, n_test):
    means = np.asarray(scores).mean(axis=1)
    scale = stats.sem(means) * math.sqrt(1 + len(means) * n_test / n_train)
    return stats.t.interval(0.95, len(means) - 1, loc=means.mean(), scale=scale)


def clipped(scores, n_train, n_test):
    low, high = interval(scores, n_train, n_test)
    return max(0.0, float(low)), min(1.0, float(high))


def half_only(scores, n_train, n_test):
    low, high = interval(scores, n_train, n_test)
    return (low + high) / 2, (high - low) / 2


def no_root(scores, n_train, n_test):
    means = scores.mean(1)
    half = stats.t.ppf(0.975, len(means) - 1) * means.var() * (1 / len(means) + n_test / n_train)
    return means.mean() - half, means.mean() + half


def in_place(scores, n_train, n_test):
    middle = scores.mean()
    half = (interval(scores, n_train, n_test)[1] - middle).clone()
    scores -= middle
    return middle - half, middle + half


def whole_ratio(scores, n_train, n_test):
    return interval(scores, n_train, n_test, ratio=n_test // n_train)


def runs_for_splits(scores, n_train, n_test):
    """The right deviation and quantile, but 1 / J counts the seeds."""
    means = scores.mean(1)
    half = stats.t.ppf(0.975, len(means) - 1) * means.std() * (1 / scores.numel() + n_test / n_train) ** 0.5
    return means.mean() - half, means.mean() + half


def by_hand(scores, n_train, n_test):
    """No array at all."""
    means = [statistics.fmean(row) for row in scores.tolist()]
    root = math.hypot(len(means) ** -0.5, math.sqrt(n_test / n_train))
    half = stats.t.isf(0.025, len(means) - 1) * statistics.stdev(means) * root
    return statistics.fmean(means) - half, statistics.fmean(means) + half


def over_splits(scores, n_train, n_test):
    return interval(scores.mean(0), n_train, n_test)


def printed(scores, n_train, n_test):
    print("low", "high")


ANSWERS = [
    right("1.1", "float", 72.0),
    right("1.1", "numpy", np.int64(72)),
    right("1.1", "tensor", torch.tensor(72)),
    right("1.1", "tensor of one float", torch.tensor([72.0])),
    right("1.1", "fraction", Fraction(144, 2)),
    wrong("1.1", "one-sided", 59, "one tail"),
    wrong("1.1", "rule of three", 60, "one tail"),
    wrong("1.1", "rounded down", 71, "off by one"),
    wrong("1.1", "not rounded", math.log(0.025) / math.log(0.95), "an integer of 1 or more, not 71.9"),
    wrong("1.1", "textbook interval", 1, "starts at 0.025"),
    wrong("1.1", "thirty", 30, "too few"),
    wrong("1.1", "Wilson", 73, "Wilson"),
    wrong("1.1", "solution's other goal", 368, "not the smallest: at n = 368"),
    wrong("1.1", "one too many of Wilson's", 74, "not the smallest"),
    wrong("1.1", "zero", 0, "not 0"),
    wrong("1.1", "negative", -72, "not -72"),
    wrong("1.1", "truth value", True, "not True"),
    wrong("1.1", "numpy truth value", np.True_, "not True"),
    wrong("1.1", "tensor of a truth value", torch.tensor(True), "integer"),
    wrong("1.1", "text", "72", "not the text '72'"),
    wrong("1.1", "nan", math.nan, "not nan"),
    wrong("1.1", "inf", torch.tensor(math.inf), "not inf"),
    wrong("1.1", "complex", 72 + 0j, "integer"),
    wrong("1.1", "tensor of two", torch.tensor([71, 72]), "tensor of shape (2,)"),
    wrong("1.1", "list", [72], "a list of 1"),
    right("1.2", "float", 6.0),
    right("1.2", "numpy", np.int32(6)),
    right("1.2", "tensor", torch.tensor(6)),
    right("1.2", "array of one", np.array([6])),
    wrong("1.2", "one-sided", 5, "one-sided"),
    wrong("1.2", "one coin", 1, "not below"),
    wrong("1.2", "four", 4, "chance 0.125"),
    wrong("1.2", "A's flowers", 24, "A's number"),
    wrong("1.2", "share of the flowers", 0.2, "is a share"),
    wrong("1.2", "the chance itself", 2 * 0.5**6, "is a chance"),
    wrong("1.2", "the one-sided chance", 0.5**5, "is a chance"),
    wrong("1.2", "one too many", 7, "already"),
    wrong("1.2", "percent", 80, "30 flowers only"),
    wrong("1.2", "all", 30, "already"),
    wrong("1.2", "zero", 0, "1 to 30"),
    wrong("1.2", "not rounded", 5.3, "not 5.3"),
    wrong("1.2", "text", "six", "text 'six'"),
    wrong("1.2", "nan", math.nan, "nan"),
    right("1.3", "pair of tensors", interval),
    right("1.3", "one tensor", lambda *a: torch.stack(interval(*a))),
    right("1.3", "floats in a list", lambda *a: [float(x) for x in interval(*a)]),
    right("1.3", "array", lambda *a: np.array([float(x) for x in interval(*a)])),
    right("1.3", "scipy's interval", by_scipy),
    right("1.3", "clipped to accuracies", clipped),
    right("1.3", "without arrays", by_hand),
    wrong("1.3", "ratio rounded down", whole_ratio, "n_test / n_train is missing"),
    wrong("1.3", "runs counted as splits once", runs_for_splits, "the half-width is"),
    right("1.3", "float32", lambda s, a, b: interval(s.float(), a, b)),
    wrong("1.3", "value for function", (0.9, 1.0), "the function interval itself"),
    wrong("1.3", "text for function", "interval", "the function interval itself"),
    wrong("1.3", "mean alone", lambda s, a, b: s.mean(), "pair (low, high)"),
    wrong("1.3", "three values", lambda *a: (*interval(*a), 0.0), "pair (low, high), not a tuple of 3"),
    wrong("1.3", "set", lambda *a: set(interval(*a)), "pair (low, high), not a set"),
    wrong("1.3", "constants of the chapter", lambda s, a, b: (0.94, 1.0), "lies around 0.97"),
    wrong("1.3", "mean and half-width", half_only, "not the mean and a half-width"),
    wrong("1.3", "high first", lambda *a: interval(*a)[::-1], "lower end comes first"),
    wrong("1.3", "every run a split", lambda s, a, b: interval(s.flatten(), a, b), "counts every run"),
    wrong("1.3", "runs, no overlap", lambda s, a, b: interval(s.flatten(), a, b, ratio=0), "independent"),
    wrong("1.3", "seeds for splits", over_splits, "the half-width is"),
    wrong("1.3", "first seed", lambda s, a, b: shifted(s, interval(s[:, 0], a, b)), "one seed only"),
    wrong("1.3", "first seed and its mean", lambda s, a, b: interval(s[:, 0], a, b), "lies around"),
    wrong("1.3", "no overlap", changed(ratio=0), "n_test / n_train is missing"),
    wrong("1.3", "ratio upside down", lambda s, a, b: interval(s, b, a), "upside down"),
    wrong("1.3", "share of all", lambda s, a, b: interval(s, a + b, b), "not by all samples"),
    wrong("1.3", "30/120 fixed", changed(ratio=30 / 120), "use the arguments"),
    wrong("1.3", "fits the first case only", changed(ratio=0.5), "on 7 splits, 1 seeds, 40 + 60 samples"),
    wrong("1.3", "normal quantile", changed(quantile=1.96), "normal quantile"),
    wrong(
        "1.3", "J degrees", lambda s, a, b: interval(s, a, b, quantile=stats.t.ppf(0.975, len(s))), "not J"
    ),
    wrong("1.3", "100 splits fixed", changed(quantile=stats.t.ppf(0.975, 99)), "fits the chapter only"),
    wrong(
        "1.3",
        "one tail",
        lambda s, a, b: interval(s, a, b, quantile=stats.t.ppf(0.95, len(s) - 1)),
        "each tail",
    ),
    wrong("1.3", "population deviation", changed(correction=0), "sample deviation"),
    wrong("1.3", "one standard error", changed(quantile=1.0), "one standard error"),
    wrong("1.3", "variance", no_root, "take its root"),
    wrong("1.3", "three sigma", changed(quantile=3.0), "the half-width is"),
    wrong("1.3", "percent", lambda *a: [100 * x for x in interval(*a)], "lies around"),
    wrong("1.3", "nan", lambda s, a, b: (math.nan, math.nan), "not nan"),
    wrong("1.3", "inf", lambda s, a, b: (-math.inf, math.inf), "not -inf"),
    wrong("1.3", "texts", lambda *a: [f"{x:.2f}" for x in interval(*a)], "two numbers"),
    wrong("1.3", "one argument", lambda scores: scores, "raised TypeError"),
    wrong("1.3", "in place", in_place, "changes its argument scores"),
    wrong("1.3", "prints", printed, "it prints, but"),
    wrong("1.3", "exits", lambda *a: exit(), "raised SystemExit"),
]


def shifted(scores, ends):
    """The same width around the mean of all scores."""
    half = (ends[1] - ends[0]) / 2
    return scores.mean() - half, scores.mean() + half
