"""Chapter 3: ranks gained, scores for a proof, and the standard error of a paired drop."""

import math

import numpy as np
import torch

from answers import right, wrong


def fewest(smallest, safe, max_rank):
    return smallest, min(max_rank, max_rank - safe + 2)


def by_loops(smallest, safe, max_rank):
    """Two searches, run: from below until a rank fits, from above until one fails."""
    first = len(list(range(1, smallest + 1)))
    second = 0
    for rank in range(max_rank, 0, -1):
        second += 1
        if rank < safe:
            break
    return first, second


def granted(smallest, safe, max_rank):
    """The counts where it is known beforehand that max_rank fits."""
    return min(smallest, max(1, max_rank - 1)), max_rank - safe + (safe > 1)


def bisection(smallest, safe, max_rank):
    steps = math.ceil(math.log2(max_rank))
    return steps, steps


def difference(before, after):
    return before.double() - after.double()


def paired(before, after):
    d = difference(before, after)
    return d.mean(), d.std() / len(d) ** 0.5


def by_counts(before, after):
    """From the counts of lost and gained samples alone."""
    size, lost, gained = len(before), int((before & ~after).sum()), int((after & ~before).sum())
    return (lost - gained) / size, math.sqrt(lost + gained - (lost - gained) ** 2 / size) / size


def by_covariance(before, after):
    C = np.cov(np.stack([before.numpy(), after.numpy()]).astype(float))
    drop = before.float().mean() - after.float().mean()
    return float(drop), np.sqrt((C[0, 0] + C[1, 1] - 2 * C[0, 1]) / len(before))


def population(before, after):
    d = np.subtract(before.numpy(), after.numpy(), dtype=float)
    return np.array([d.mean(), d.std() / np.sqrt(len(d))])


def bootstrap(before, after):
    d = difference(before, after)
    draws = torch.randint(len(d), (200, len(d)), generator=torch.Generator().manual_seed(0))
    return d.mean(), d[draws].mean(1).std()


def mcnemar(before, after):
    changed = (before != after).sum()
    return difference(before, after).mean(), changed.sqrt() / len(before)


def unpaired(before, after):
    p, q = before.double().mean(), after.double().mean()
    return p - q, ((p * (1 - p) + q * (1 - q)) / len(before)) ** 0.5


def binomial(before, after):
    drop = difference(before, after).mean().abs()
    return difference(before, after).mean(), (drop * (1 - drop) / len(before)) ** 0.5


def many_draws(before, after):
    d = difference(before, after)
    draws = torch.randint(len(d), (4000, len(d)), generator=torch.Generator().manual_seed(0))
    return d.mean(), d[draws].mean(1).std()


def changed_only(before, after):
    d = difference(before, after)
    d = d[d != 0]
    return paired(before, after)[0], d.std() / len(d) ** 0.5


def error(make):
    """The right drop with another error."""
    return lambda before, after: (paired(before, after)[0], make(before, after))


def drop(make):
    """Another drop with the right error."""
    return lambda before, after: (make(before, after), paired(before, after)[1])


def jackknife(before, after):
    d, size = difference(before, after), len(before)
    left_out = (d.sum() - d) / (size - 1)
    spread = (left_out - left_out.mean()).square().sum()
    return d.mean(), (spread * (size - 1) / size) ** 0.5


def one(scores):
    return scores.double().std() / len(scores) ** 0.5


def in_place(before, after):
    pair = paired(before, after)
    before &= after
    return pair


ANSWERS = [
    right("3.1", "integer", 76),
    right("3.1", "float", 76.0),
    right("3.1", "numpy", np.int64(76)),
    right("3.1", "tensor", torch.tensor(76.0)),
    wrong("3.1", "without core", 614, "without a core"),
    wrong("3.1", "with core", 538, "with a core"),
    wrong("3.1", "sign", -76, "sign"),
    wrong("3.1", "one too many", 77, "off by one"),
    wrong("3.1", "one too few", 75, "off by one"),
    wrong("3.1", "square layer", 66, "square"),
    wrong("3.1", "not rounded", 76.16, "whole number"),
    wrong("3.1", "share", 0.14, "is a share"),
    wrong("3.1", "parameters", 538**2, "too many"),
    wrong("3.1", "a few", 3, "too few"),
    wrong("3.1", "zero", 0, "too few"),
    wrong("3.1", "pair of ranks", (614, 538), "a tuple of 2"),
    wrong("3.1", "text", "76", "the text '76'"),
    wrong("3.1", "nan", math.nan, "not nan"),
    right("3.2", "list", lambda *a: list(fewest(*a))),
    right("3.2", "tensor", lambda *a: torch.tensor(fewest(*a))),
    right("3.2", "array of floats", lambda *a: np.array(fewest(*a), float)),
    right("3.2", "loops", by_loops),
    right("3.2", "two cases", lambda a, b, c: (a, c if b == 1 else c - b + 2)),
    right("3.2", "dictionary", lambda *a: dict(zip("ba", fewest(*a)[::-1], strict=True))),
    wrong("3.2", "dictionary of other keys", lambda *a: dict(enumerate(fewest(*a))), "pair"),
    wrong("3.2", "value for function", (10, 12), "the function answer itself"),
    wrong("3.2", "one count", lambda a, b, c: a, "pair"),
    wrong("3.2", "three counts", lambda a, b, c: (a, b, c), "pair"),
    wrong("3.2", "set", lambda *a: set(fewest(*a)), "pair"),
    wrong("3.2", "texts", lambda a, b, c: ("a", "b"), "pair"),
    wrong("3.2", "nan", lambda a, b, c: (a, math.nan), "pair"),
    wrong("3.2", "swapped", lambda *a: fewest(*a)[::-1], "swapped"),
    wrong("3.2", "the chapter's numbers", lambda a, b, c: (10, 12), "smallest=3, safe=7"),
    wrong("3.2", "rank itself untried", lambda a, b, c: (a - 1, fewest(a, b, c)[1]), "itself"),
    wrong("3.2", "whole scan", lambda a, b, c: (c, fewest(a, b, c)[1]), "stop at the first one"),
    wrong("3.2", "luck", lambda a, b, c: (1, fewest(a, b, c)[1]), "lucky"),
    wrong("3.2", "lucky pair", lambda a, b, c: (min(a, 2), fewest(a, b, c)[1]), "every rank up to it"),
    wrong("3.2", "bisection", bisection, "bisection"),
    wrong("3.2", "twice", lambda a, b, c: (2 * a, fewest(a, b, c)[1]), "up to it"),
    wrong("3.2", "nobody failed", lambda a, b, c: (a, c - b + 1), "rank 21 to fail"),
    wrong("3.2", "between only", lambda a, b, c: (a, c - b), "left out"),
    wrong("3.2", "scan for safe", lambda a, b, c: (a, c), "from above"),
    wrong("3.2", "from below", lambda a, b, c: (a, b), "above it"),
    wrong("3.2", "rank 0", lambda a, b, c: (a, c - b + 2), "no rank 0"),
    wrong("3.2", "nothing", lambda a, b, c: (a, 0), "from max_rank down"),
    wrong("3.2", "max_rank granted", granted, "must be seen to fit"),
    wrong(
        "3.2",
        "max_rank granted for safe",
        lambda a, b, c: (a, granted(a, b, c)[1]),
        "rank 32 must be seen to fit",
    ),
    wrong(
        "3.2",
        "max_rank granted for smallest",
        lambda a, b, c: (granted(a, b, c)[0], fewest(a, b, c)[1]),
        "max_rank=9: 8 scores",
    ),
    wrong(
        "3.2",
        "safe rank 1",
        lambda a, b, c: (a, c - b + 2 if b > 1 else c - 1),
        "rank 1 to rank 8 must be seen to fit.",
    ),
    wrong("3.2", "safe rank 2", lambda a, b, c: (a, c - b + 2 if b > 2 else c - 1), "safe=1, max_rank=8"),
    wrong(
        "3.2",
        "(a) scored for (b)",
        lambda a, b, c: (a, fewest(a, b, c)[1] - (a == b > 1)),
        "smallest=6, safe=6",
    ),
    wrong(
        "3.2",
        "one score at the top",
        lambda a, b, c: (a, 1 if b == c else fewest(a, b, c)[1]),
        "safe=32, max_rank=32",
    ),
    wrong("3.2", "two arguments", lambda a, b: (a, b), "raised TypeError"),
    right("3.3", "counts", by_counts),
    right("3.3", "covariance in numpy", by_covariance),
    right("3.3", "divided by N, an array", population),
    right("3.3", "jackknife", jackknife),
    wrong(
        "3.3",
        "drop for its square",
        error(lambda b, a: ((b != a).double().mean() - difference(b, a).mean().abs()).sqrt() / len(b) ** 0.5),
        "sample by sample",
    ),
    wrong(
        "3.3",
        "the larger count alone",
        error(lambda b, a: max((b & ~a).sum(), (a & ~b).sum()) ** 0.5 / len(b)),
        "sample by sample",
    ),
    right("3.3", "one tensor", lambda *a: torch.stack(paired(*a))),
    right("3.3", "list of floats", lambda *a: [float(x) for x in paired(*a)]),
    wrong("3.3", "value for function", 0.01, "the function answer itself"),
    wrong("3.3", "drop alone", lambda *a: paired(*a)[0], "pair"),
    wrong("3.3", "gain", lambda b, a: paired(a, b), "positive"),
    wrong("3.3", "percent", lambda *a: [100 * x for x in paired(*a)], "fractions"),
    wrong("3.3", "samples", drop(lambda b, a: len(b) * difference(b, a).mean()), "divide by their number"),
    wrong("3.3", "changed share", drop(lambda b, a: (b != a).double().mean()), "mended"),
    wrong("3.3", "relative drop", drop(lambda b, a: difference(b, a).mean() / b.double().mean()), "relative"),
    wrong(
        "3.3",
        "never a gain",
        drop(lambda b, a: difference(b, a).mean().clamp_min(0)),
        "2 lost, 17 gained: 0.0000 came",
    ),
    wrong("3.3", "lost only", drop(lambda b, a: (b & ~a).double().mean()), "accuracy before minus"),
    wrong("3.3", "the chapter's zero", lambda b, a: (0.0, 0.008), "accuracy before minus"),
    wrong("3.3", "unpaired", unpaired, "paired"),
    wrong("3.3", "McNemar", mcnemar, "McNemar"),
    wrong("3.3", "200 bootstrap draws", bootstrap, "by a formula"),
    wrong("3.3", "4000 bootstrap draws", many_draws, "by a formula"),
    wrong("3.3", "sign dropped", error(lambda b, a: one(b != a)), "keep the sign"),
    wrong(
        "3.3",
        "binomial of the changed share",
        error(lambda b, a: (b != a).double().std(correction=0) / len(b) ** 0.5),
        "keep the sign",
    ),
    wrong("3.3", "binomial of the drop", binomial, "can count -1"),
    wrong("3.3", "changed samples only", changed_only, "all of them"),
    wrong("3.3", "spread", error(lambda b, a: difference(b, a).std()), "root of their number"),
    wrong("3.3", "variance", error(lambda b, a: paired(b, a)[1] ** 2), "variance"),
    wrong("3.3", "error after", error(lambda b, a: one(a)), "error of one accuracy"),
    wrong("3.3", "error before", error(lambda b, a: one(b)), "accuracy before, not"),
    wrong("3.3", "divided by N", error(lambda b, a: difference(b, a).std() / len(a)), "not by the number"),
    wrong("3.3", "error in points", error(lambda b, a: 100 * paired(b, a)[1]), "in points"),
    wrong("3.3", "two errors", error(lambda b, a: 2 * paired(b, a)[1]), "two standard errors"),
    wrong("3.3", "interval", error(lambda b, a: 1.96 * paired(b, a)[1]), "1.96"),
    wrong("3.3", "guess", error(lambda b, a: 1.0), "sample by sample"),
    wrong("3.3", "no error", error(lambda b, a: 0.0), "sample by sample"),
    wrong("3.3", "nan", error(lambda b, a: math.nan), "not nan"),
    wrong("3.3", "subtracts bools", lambda b, a: (b - a).mean(), "raised"),
    wrong("3.3", "in place", in_place, "changes its argument before"),
]
