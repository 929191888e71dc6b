"""Typical wrong submissions of a2: the answers that differ from the reference, and their marks."""

SEARCH_BY_BISECTION = """
def search(curve, baseline, max_drop):
    low, high = 1, max(curve)
    while low < high:
        middle = (low + high) // 2
        if baseline - curve[middle] <= max_drop:
            high = middle
        else:
            low = middle + 1
    return low, low
"""

FIRST_GAP = """
def search(curve, baseline, max_drop):
    smallest = safe = None
    for rank, score in curve.items():
        if baseline - score <= max_drop:
            smallest = smallest or rank
            safe = safe or rank
        else:
            safe = None
    return smallest, safe
"""

LONG_CURVES = """
def misses_smallest(ranks, baseline, max_drop):
    curve = {rank: baseline for rank in range(1, ranks + 1)}
    curve[(1 + ranks) // 2] = 0.0
    return curve


def returns_infeasible(baseline, max_drop):
    return {1: 0.0, 2: baseline, 3: 0.0, 4: 0.0, 5: 0.0, 6: 0.0, 7: 0.0, 8: 0.0}
"""

PIPELINE = """
def honest(X, y, parts, keep, max_drop):
    train, val, test = parts
    every = torch.cat(parts)
    X = X.sign() * X.abs().sqrt()
    kept = separation(X[{features}], y[{features}]).topk(keep).indices.sort().values
    mean, std = X[{scale}][:, kept].mean(0), X[{scale}][:, kept].std(0)
    Z = (X[:, kept] - mean) / std
    W, b = fit(Z[train], y[train])
    baseline = share_right(Z[{choose}], W, b, y[{choose}])
    for rank in range(1, 11):
        W_r = low_rank_approximation(W, rank)
        if baseline - share_right(Z[{choose}], W_r, b, y[{choose}]) <= max_drop + 1e-9:
            break
    return {{"kept": kept, "mean": mean, "std": std, "rank": rank,
            "accuracy": share_right(Z[{report}], W_r, b, y[{report}])}}
"""


def pipeline(
    features: str = "train", scale: str = "train", choose: str = "val", report: str = "test"
) -> dict[str, str]:
    """The honest pipeline, but for the parts that are named."""
    return {"leak": PIPELINE.format(features=features, scale=scale, choose=choose, report=report)}


NORMAL_INTERVAL = """
def interval(k, n, confidence=0.95):
    p = k / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return max(0.0, p - half), min(1.0, p + half)


def samples_needed(claim, confidence=0.95):
    return math.ceil(math.log(1 - confidence) / math.log(claim))  # one-sided
"""

SMALL_NUMBERS_ONLY = """
def interval(k, n, confidence=0.95):
    def end(k, tail):
        low, high = 0.0, 1.0
        for _ in range(60):
            p = (low + high) / 2
            low, high = (p, high) if tail(p) else (low, p)
        return low

    def mass(numbers, p):
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in numbers)

    low = end(k, lambda p: mass(range(k, n + 1), p) < 0.025) if k else 0.0
    high = end(k, lambda p: mass(range(k + 1), p) > 0.025) if k < n else 1.0
    return low, high


def samples_needed(claim, confidence=0.95):
    n = 1
    while interval(n, n, confidence)[0] < claim:
        n += 1
    return n
"""

SPLITS = """
def chosen(runs, max_drop):
    rows = []
    for run in runs:
        fits = [r for r, score in run["{part}"].items() if run["{part}_baseline"] - score <= max_drop + 1e-9]
        {rows}
    return rows


def mean_interval(scores, n_train, n_test, confidence=0.95):
    from scipy.stats import t

    a = torch.tensor(scores, dtype=torch.float64)
    half = {half}
    return a.mean().item(), a.mean().item() - half, a.mean().item() + half
"""
DENSE = 'rows.append((min(fits), run["test"][min(fits)]) if fits else (None, run["test_baseline"]))'
DROPPED = 'rows += [(min(fits), run["test"][min(fits)])] if fits else []'
PROMISED = 'rows.append((min(fits), run["val"][min(fits)]) if fits else (None, run["val_baseline"]))'
NEVER_CUT = 'rows.append((None, run["test_baseline"]))'
QUANTILE = "float(t.ppf((1 + confidence) / 2, len(a) - 1))"
CORRECTED = QUANTILE + " * a.std().item() * math.sqrt(1 / len(a) + n_test / n_train)"
NAIVE = QUANTILE + " * a.std().item() / math.sqrt(len(a))"
FIXED = "1.96 * a.std().item() * math.sqrt(1 / len(a) + n_test / n_train)"


def splits(part: str = "val", rows: str = DENSE, half: str = CORRECTED) -> dict[str, str]:
    """The right answer to question 5, but for what is named."""
    return {"splits": SPLITS.format(part=part, rows=rows, half=half)}


STRICTLY_LESS = """
def search(curve, baseline, max_drop):
    fits = [rank for rank in curve if baseline - curve[rank] < max_drop]
    safe = [rank for rank in fits if all(other in fits for other in curve if other > rank)]
    return min(fits, default=None), min(safe, default=None)
"""

ALWAYS_RISING = """
def misses_smallest(ranks, baseline, max_drop):
    return {rank: baseline * rank / ranks for rank in range(1, ranks + 1)}


def returns_infeasible(baseline, max_drop):
    return {1: 0.0, 2: 0.0, 3: 0.0}
"""

FOR_ONE_BASELINE = """
def misses_smallest(ranks, baseline, max_drop):
    low = {rank: 0.5 for rank in range(1, ranks + 1)}
    return low | {1: 0.97, ranks: 0.97}


def returns_infeasible(baseline, max_drop):
    return {1: 0.97, 2: 0.5, 3: 0.5}
"""

WILSON = """
def interval(k, n, confidence=0.95):
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    p, size = k / n, n + z * z
    middle, half = (k + z * z / 2) / size, z * math.sqrt(n * p * (1 - p) + z * z / 4) / size
    return middle - half, middle + half


def samples_needed(claim, confidence=0.95):
    n = 1
    while n * math.log(claim) > math.log((1 - confidence) / 2):
        n += 1
    return n


import statistics
"""

WRONG = {
    "bisection-for-a-search": ({"search": SEARCH_BY_BISECTION}, {"search-test": 0.0}),
    "in-the-order-of-the-dict": ({"search": FIRST_GAP}, {"search-test": 4.0}),
    "long-curves": ({"bisect": LONG_CURVES}, {"bisect-test": 3.0}),
    "all-leaks": (pipeline("every", "every", "test"), {"leak-test": 0.0}),
    "only-scaling-mended": (pipeline("every", "train", "test"), {"leak-test": 1.0}),
    "rank-still-on-test": (pipeline(choose="test"), {"leak-test": 3.0}),
    "reports-validation": (pipeline(report="val"), {"leak-test": 4.0}),
    "normal-interval": ({"interval": NORMAL_INTERVAL}, {"interval-test": 0.0}),
    "small-n-and-95-only": ({"interval": SMALL_NUMBERS_ONLY}, {"interval-test": 3.0}),
    "peeks-and-naive": (splits("test", half=NAIVE), {"splits-test": 3.0}),
    "drops-a-split-and-1.96": (splits(rows=DROPPED, half=FIXED), {"splits-test": 3.0}),
    "never-cut": (splits(rows=NEVER_CUT), {"splits-test": 3.0}),
    "reports-the-promise": (splits(rows=PROMISED), {"splits-test": 4.0}),
    "strictly-less": ({"search": STRICTLY_LESS}, {"search-test": 5.0}),
    "always-rising": ({"bisect": ALWAYS_RISING}, {"bisect-test": 0.0}),
    "for-one-baseline": ({"bisect": FOR_ONE_BASELINE}, {"bisect-test": 2.0}),
    "wilson": ({"interval": WILSON}, {"interval-test": 1.0}),
}

# What the feedback shows of the first case that failed, for one wrong submission of each question.
FIRST = {
    ("strictly-less", "search-test"): ["search(curve, 0.97, 0.01)", "wanted: [2, 4]"],
    ("long-curves", "bisect-test"): ["misses_smallest(", "ranks too high"],
    ("reports-validation", "leak-test"): ["honest(X, y, parts, 12", "float64 (280, 150)", "wanted: 0."],
    ("normal-interval", "interval-test"): ["interval(1, 7, 0.95)", "came: [0, ", "at ["],
    ("never-cut", "splits-test"): ["chosen(runs, 0.01)", "came: [None", "wanted: ["],
}

# Points that stay where every number that is no whole one becomes nan: answers of these questions hold none.
WHOLE = {"leak-test": 1.0, "search-test": 6.0, "interval-test": 1.0, "splits-test": 1.0}
