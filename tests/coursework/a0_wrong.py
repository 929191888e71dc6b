"""Typical wrong submissions of a0: the answers that differ from the reference, and their marks."""

MIXED_UP = """
names = "overfitting uncounted lost-property seen-data not-smaller random-start transposed unit"
diagnosis = dict(zip("ABCDEFGH", names.split()))
"""

SIX_OF_EIGHT = """
names = "not-smaller lost-property seen-data uncounted random-start transposed"
diagnosis = dict(zip("BCDEFG", names.split()))
"""

STILL_DENSE = """
def cut(linear, rank):
    layer = copy.deepcopy(linear)
    layer.weight.data = low_rank_approximation(linear.weight, rank).detach()
    return layer
"""

FACTORS_SHARE_THE_BIAS = """
def cut(linear, rank):
    U, S, Vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    n, m = linear.in_features, linear.out_features
    layer = nn.Sequential(nn.Linear(n, rank, bias=False), nn.Linear(rank, m))
    layer[0].weight.data, layer[1].weight.data = Vh[:rank], U[:, :rank] * S[:rank]
    layer[1].bias = linear.bias
    return layer
"""

CORE_TRANSPOSED = """
def fold(weights, biases):
    (U, C, V), (a, b, c) = weights, biases
    return (U.T @ C @ V.T).T, V @ (C @ a + b) + c
"""

LAST_BIAS = """
def fold(weights, biases):
    W = weights[0]
    for weight in weights[1:]:
        W = weight @ W
    return W, biases[-1]
"""

UNTRAINED = """
def trained_lite(rank, seed):
    set_seed(seed)
    return NetLite(rank)


def distance(V, W):
    return ((V - W).norm() / W.norm()).item()
"""

SEED_FORGOTTEN = """
def trained_lite(rank, seed):
    lite = NetLite(rank)
    train_nn(lite, data.X_train, data.y_train, epochs=500)
    return lite


def distance(V, W):
    return (V - W).abs().mean().item()
"""

AS_IN_THE_NOTEBOOK = """
def flops(net, X):
    return operations(net, X)


def largest_rank(m, n, core):
    return m * n // (m + n)
"""

OVER_THE_MODULES = """
def flops(net, X):
    return sum(2 * m.in_features * m.out_features for m in net.modules() if isinstance(m, nn.Linear))


def largest_rank(m, n, core):
    if not core:
        return m * n // (m + n)
    return int((math.sqrt((m + n) ** 2 + 4 * m * n) - (m + n)) / 2)
"""

MACS = """
def flops(net, X):
    total = []
    hooks = [m.register_forward_hook(lambda layer, i, o: total.append(o[0].numel() * layer.in_features))
             for m in net.modules() if isinstance(m, nn.Linear)]
    net(X)
    for hook in hooks:
        hook.remove()
    return sum(total)


def largest_rank(m, n, core):
    return max(r for r in range(min(m, n)) if r * (m + n) + core * r * r < m * n)
"""

ABOVE_ONE = """
def p_value(right_a, right_b):
    b = sum(x > y for x, y in zip(right_a, right_b))
    c = sum(x < y for x, y in zip(right_a, right_b))
    return 2 * sum(math.comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)


def votes_needed(alpha):
    return math.ceil(-math.log2(alpha))  # one direction only
"""

CONSTANTS = {
    "review": 'diagnosis = dict.fromkeys("ABCDEFGH", "luck")',
    "cost": "def flops(net, X): return 94\n\n\ndef largest_rank(m, n, core): return 0",
    "luck": "def p_value(right_a, right_b): return 1.0\n\n\ndef votes_needed(alpha): return 6",
}

A_BIAS_IN_BOTH = """
def cut(linear, rank):
    U, S, Vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    down, up = nn.Linear(linear.in_features, rank), nn.Linear(rank, linear.out_features)
    down.weight.data, up.weight.data = S[:rank, None] * Vh[:rank], U[:, :rank].clone()
    down.bias.data.zero_()
    up.bias.data.zero_() if linear.bias is None else up.bias.data.copy_(linear.bias)
    return nn.Sequential(down, up)
"""

THREE_LAYERS_ONLY = """
def fold(weights, biases):
    (A, B, C), (a, b, c) = weights, biases
    return C @ B @ A, C @ (B @ a + b) + c
"""

OF_THE_NORMS = """
def trained_lite(rank, seed):
    set_seed(seed)
    lite = NetLite(rank)
    train_nn(lite, data.X_train, data.y_train, epochs=500)
    return lite


def distance(V, W):
    return (abs(V.norm() - W.norm()) / W.norm()).item()
"""

ONE_DIRECTION = """
def p_value(right_a, right_b):
    b = sum(x and not y for x, y in zip(right_a, right_b))
    c = sum(y and not x for x, y in zip(right_a, right_b))
    return sum(math.comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)


def votes_needed(alpha):
    return next(k for k in range(1, 1000) if 2 * 0.5**k <= alpha)
"""

WRONG = {
    "review-mixed-up": ({"review": MIXED_UP}, {"review-test": 3.5}),
    "review-not-finished": ({"review": SIX_OF_EIGHT}, {"review-test": 3.0}),
    "still-dense": ({"cut": STILL_DENSE}, {"cut-test": 3.0}),
    "factors-share-the-bias": ({"cut": FACTORS_SHARE_THE_BIAS}, {"cut-test": 5.0}),
    "core-transposed": ({"fold": CORE_TRANSPOSED}, {"fold-test": 2.0}),
    "only-the-last-bias": ({"fold": LAST_BIAS}, {"fold-test": 2.0}),
    "never-trained": ({"learned": UNTRAINED}, {"learned-test": 3.0}),
    "seed-forgotten": ({"learned": SEED_FORGOTTEN}, {"learned-test": 3.0}),
    "as-in-the-notebook": ({"cost": AS_IN_THE_NOTEBOOK}, {"cost-test": 1.0}),
    "over-the-modules": ({"cost": OVER_THE_MODULES}, {"cost-test": 6.0}),
    "multiply-adds": ({"cost": MACS}, {"cost-test": 4.0}),
    "constants": (CONSTANTS, {"review-test": 0.5, "cost-test": 0.0, "luck-test": 0.0}),
    "above-one": ({"luck": ABOVE_ONE}, {"luck-test": 3.0}),
    "a-bias-in-both": ({"cut": A_BIAS_IN_BOTH}, {"cut-test": 4.0}),
    "three-layers-only": ({"fold": THREE_LAYERS_ONLY}, {"fold-test": 4.0}),
    "of-the-norms": ({"learned": OF_THE_NORMS}, {"learned-test": 4.0}),
    "one-direction": ({"luck": ONE_DIRECTION}, {"luck-test": 1.0}),
}

# What the feedback shows of the first case that failed, for one wrong submission of each question.
FIRST = {
    ("still-dense", "cut-test"): ["nn.Linear(5, 13", "came: 78", "wanted: 67"],
    ("core-transposed", "fold-test"): ["fold(weights, biases)", "wanted: ", "at ["],
    ("never-trained", "learned-test"): ["trained_lite(1, 1)", "share of flowers", "at least 0.8"],
    ("multiply-adds", "cost-test"): ["flops(", "came: 45", "wanted: 90"],
    ("one-direction", "luck-test"): ["p_value(A, B)", "came: 0.5", "wanted: 1"],
}

# Points that stay where every number that is no whole one becomes nan: answers of these questions hold none.
WHOLE = {"cost-test": 7.0, "luck-test": 1.0}
