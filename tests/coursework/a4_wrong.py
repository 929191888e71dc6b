"""Typical wrong submissions of a4: the answers that differ from the reference, and the marks they get."""

NO_BIASES = """
def parameters(shapes, ranks):
    return sum(m * n if r is None else r * (m + n) for (m, n), r in zip(shapes, ranks))


def break_even(m, n):
    return (m * n - 1) // (m + n)  # where it saves something, not where it costs no more
"""
BY_GAIN_ALONE = """
def allocate(shapes, spectra, budget):
    ranks, costs = [1] * len(shapes), [m + n for m, n in shapes]
    left = budget - sum(costs)
    if left < 0:
        raise ValueError(f"budget={budget} must be at least {sum(costs)}")
    while True:
        fit = [i for i, (m, n) in enumerate(shapes) if costs[i] <= left and ranks[i] < m * n // (m + n)]
        if not fit:
            return ranks
        i = max(fit, key=lambda i: spectra[i][ranks[i]] ** 2)
        ranks[i] += 1
        left -= costs[i]
"""
PAST_BREAK_EVEN = """
def allocate(shapes, spectra, budget):
    ranks, costs = [1] * len(shapes), [m + n for m, n in shapes]
    left = max(0, budget - sum(costs))
    while True:
        fit = [i for i, s in enumerate(shapes) if costs[i] <= left and ranks[i] < min(s)]
        if not fit:
            return ranks
        i = max(fit, key=lambda i: spectra[i][ranks[i]] ** 2 / costs[i])
        ranks[i] += 1
        left -= costs[i]
"""
ONE_TRAP = """
def trap(factor):
    return [(4, 4), (20, 20)], [[1.0, 1.0, 0, 0], [2.0, 2.0] + [0.0] * 18], 8 + 80  # a factor of 4
"""
BIAS_AS_IT_WAS = """
def truncate_for(W, b, X, rank):
    V = torch.linalg.svd(X @ W.T, full_matrices=False)[2][:rank]
    return V.T, V @ W, b
"""
BY_WEIGHT = """
def truncate_for(W, b, X, rank):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    A, B = U[:, :rank] * S[:rank], Vh[:rank]
    return A, B, b + (X @ W.T - X @ (A @ B).T).mean(0)
"""
UNIFORM_SVD = """
def hand_in(layers, X, y):
    out = []
    for i, (W, b) in enumerate(layers):
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        out.append((U[:, :8] * S[:8], Vh[:8], b) if i < 2 else (W, b))
    return out
"""
UNIFORM_SVD_TIGHT = UNIFORM_SVD.replace("8", "4")
AWARE_NOT_TUNED = """
def hand_in(layers, X, y):
    out = []
    for (W, b), rank in zip(layers, (6, 4, None)):
        if rank is None:
            out.append((W, b))
            continue
        mean = X.mean(0)
        A = torch.linalg.svd((X - mean) @ W.T, full_matrices=False)[2][:rank].T
        out.append((A, A.T @ W, b + W @ mean - A @ (A.T @ W @ mean)))
        X = torch.relu(X @ W.T + b)
    return out
"""
DENSE = """
def hand_in(layers, X, y):
    return layers
"""
NARROWER = """
def hand_in(layers, X, y):
    (W1, b1), (W2, b2), (W3, b3) = layers
    return [(W1[:32], b1[:32]), (W2[:16, :32], b2[:16]), (W3[:, :16], b3)]
"""
NO_LAYERS = """
def hand_in(layers, X, y):
    return [len(layer) for layer in layers]
"""
NONE_IS_FULL_RANK = """
def parameters(shapes, ranks):
    return sum(m + (m + n) * (min(m, n) if r is None else r) for (m, n), r in zip(shapes, ranks))


def break_even(m, n):
    return m * n // (m + n)
"""
SMALLER_SIDE = """
def parameters(shapes, ranks):
    return sum(m + (m * n if r is None else r * (m + n)) for (m, n), r in zip(shapes, ranks))


def break_even(m, n):
    return min(m, n)
"""
STOPS_EARLY = """
def allocate(shapes, spectra, budget):
    ranks, costs = [1] * len(shapes), [m + n for m, n in shapes]
    left = budget - sum(costs)
    if left < 0:
        raise ValueError(f"budget={budget} must be at least {sum(costs)}")
    while True:
        open_ = [i for i, (m, n) in enumerate(shapes) if ranks[i] < m * n // (m + n)]
        if not open_:
            return ranks
        i = max(open_, key=lambda i: spectra[i][ranks[i]] ** 2 / costs[i])
        if costs[i] > left:
            return ranks  # others may still fit
        ranks[i] += 1
        left -= costs[i]
"""
TOO_LARGE = """
def trap(factor):
    energy = 100.0 * factor
    side = int(4 * energy) + 5
    return [(4, 4), (side, side)], [[1.0, 1.0, 0, 0], [energy**0.5] * 2 + [0.0] * (side - 2)], 8 + 4 * side
"""
NO_ROOM = """
def trap(factor):
    return [(4, 4), (20, 20)], [[1.0, 1.0, 0, 0], [factor, factor] + [0.0] * 18], 40
"""
MEAN_FORGOTTEN = """
def truncate_for(W, b, X, rank):
    A = torch.linalg.svd((X - X.mean(0)) @ W.T, full_matrices=True)[2][:rank].T
    return A, A.T @ W, b
"""

WRONG = {
    "no-biases": ({"count": NO_BIASES}, {"count-test": 0.0}),
    "by-gain-alone": ({"allocate": BY_GAIN_ALONE}, {"allocate-test": 3.0}),
    "past-break-even": ({"allocate": PAST_BREAK_EVEN}, {"allocate-test": 3.0}),
    "one-trap": ({"trap": ONE_TRAP}, {"trap-test": 3.0}),
    "bias-as-it-was": ({"aware": BIAS_AS_IT_WAS}, {"aware-test": 3.0}),
    "by-weight": ({"aware": BY_WEIGHT, "hand-in": UNIFORM_SVD}, {"aware-test": 1.0, "hand-in-test": 4.0}),
    "uniform-svd-tight": ({"hand-in": UNIFORM_SVD_TIGHT}, {"hand-in-test": 2.0}),
    "aware-not-tuned": ({"hand-in": AWARE_NOT_TUNED}, {"hand-in-test": 4.0}),
    "dense": ({"hand-in": DENSE}, {"hand-in-test": 1.0}),
    "no-layers": ({"hand-in": NO_LAYERS}, {"hand-in-test": 0.0}),
    "narrower": ({"hand-in": NARROWER}, {"hand-in-test": 0.0}),
    "none-is-full-rank": ({"count": NONE_IS_FULL_RANK}, {"count-test": 1.0}),
    "smaller-side": ({"count": SMALLER_SIDE}, {"count-test": 3.0}),
    "stops-early": ({"allocate": STOPS_EARLY}, {"allocate-test": 3.0}),
    "too-large": ({"trap": TOO_LARGE}, {"trap-test": 3.0}),
    "no-room": ({"trap": NO_ROOM}, {"trap-test": 0.0}),
    "mean-forgotten": ({"aware": MEAN_FORGOTTEN}, {"aware-test": 0.0}),
}

# What the feedback shows of the first case that failed, for one wrong submission of each question.
FIRST = {
    ("smaller-side", "count-test"): ["break_even(64, 64)", "came: 64", "wanted: 32"],
    ("by-gain-alone", "allocate-test"): ["allocate(shapes, spectra, budget)", "came: [", "wanted: ["],
    ("one-trap", "trap-test"): ["trap(10)", "the least possible is", "at least"],
    ("bias-as-it-was", "aware-test"): ["truncate_for(W, b, X, 1)", "error of the outputs", "at most"],
    ("aware-not-tuned", "hand-in-test"): [
        "hand_in(layers, X, y)",
        "accuracy on unseen pictures",
        "0.80 right",
    ],
}

# Points that stay where every number that is no whole one becomes nan: answers of these questions hold none.
WHOLE = {"count-test": 4.0, "allocate-test": 5.0}
