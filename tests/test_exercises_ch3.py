"""Chapter 3's judges: the right answer passes, each typical slip gets the hint that names it."""

import math

import pytest

from lowrank_utils.exercises.chapter3 import JUDGES


def difference(before, after):
    return before.double() - after.double()


def paired(before, after):
    d = difference(before, after)
    return d.mean(), d.std() / len(d) ** 0.5


def by_mcnemar(before, after):
    """The same standard error from the counts of lost and gained samples alone."""
    size, lost, gained = len(before), int((before & ~after).sum()), int((after & ~before).sum())
    return (lost - gained) / size, math.sqrt(lost + gained - (lost - gained) ** 2 / size) / size


def unpaired(before, after):
    p, q = before.double().mean(), after.double().mean()
    return p - q, ((p * (1 - p) + q * (1 - q)) / len(before)) ** 0.5


def fewest(smallest, safe, max_rank):
    return smallest, min(max_rank, max_rank - safe + 2)


@pytest.mark.parametrize(
    ("exercise", "answer"), [("3.1", 76), ("3.2", fewest), ("3.3", paired), ("3.3", by_mcnemar)]
)
def test_a_right_answer_passes(exercise, answer):
    assert JUDGES[exercise](answer) is None


@pytest.mark.parametrize(
    ("exercise", "answer", "word"),
    [
        ("3.1", 614, "without a core"),
        ("3.1", 538, "with a core"),
        ("3.1", -76, "sign"),
        ("3.1", 77, "off by one"),
        ("3.1", 66, "square"),
        ("3.1", 75.9, "whole number"),
        ("3.1", 1000, "too many"),
        ("3.1", 3, "too few"),
        ("3.2", (10, 12), "function"),
        ("3.2", lambda a, b, c: a, "pair"),
        ("3.2", lambda a, b, c: fewest(a, b, c)[::-1], "swapped"),
        ("3.2", lambda a, b, c: (a - 1, c - b + 2), "itself"),
        ("3.2", lambda a, b, c: (c, c - b + 2), "stop at the first one"),
        ("3.2", lambda a, b, c: (5, c - b + 2), "bisection"),
        ("3.2", lambda a, b, c: (2 * a, c - b + 2), "up to it"),
        ("3.2", lambda a, b, c: (a, c - b + 1), "rank 21 fails"),
        ("3.2", lambda a, b, c: (a, c - b), "left out"),
        ("3.2", lambda a, b, c: (a, c), "from above"),
        ("3.2", lambda a, b, c: (a, b), "above it"),
        ("3.2", lambda a, b, c: (a, c - b + 2), "no rank 0"),
        ("3.2", lambda a, b, c: (a, 0), "down"),
        ("3.3", 0.01, "function"),
        ("3.3", lambda b, a: paired(b, a)[0].item() and (0.1,), "pair"),
        ("3.3", lambda b, a: paired(a, b), "positive"),
        ("3.3", lambda b, a: [100 * x for x in paired(b, a)], "fractions"),
        ("3.3", lambda b, a: [len(b) * x for x in paired(b, a)], "samples"),
        ("3.3", lambda b, a: (difference(b, a).abs().mean(), 0.1), "mended"),
        ("3.3", lambda b, a: (0.5, 0.1), "accuracy before"),
        ("3.3", unpaired, "paired"),
        ("3.3", lambda b, a: (paired(b, a)[0], difference(b, a).std()), "root of their number"),
        ("3.3", lambda b, a: (paired(b, a)[0], paired(b, a)[1] ** 2), "variance"),
        ("3.3", lambda b, a: (paired(b, a)[0], a.double().std() / len(a) ** 0.5), "one accuracy"),
        ("3.3", lambda b, a: (paired(b, a)[0], difference(b, a).std() / len(a)), "not by the number"),
        ("3.3", lambda b, a: (paired(b, a)[0], 1.0), "sample by sample"),
    ],
)
def test_a_slip_is_named(exercise, answer, word):
    hint = JUDGES[exercise](answer)
    assert hint is not None and word in hint
    assert hint.endswith(".")
