"""Typical wrong submissions of a3: the answers that differ from the reference, and the marks they get."""

FORWARD = """
def forward(x, U, V, b):
    return torch.nn.functional.linear(x, U @ V, b)  # the product, which the layer is there to avoid
"""
TWO_DIMENSIONS = """
def gradients(G, x, U, V):
    return torch.mm(G.T, x @ V.T), torch.mm((G @ U).T, x), G.sum(0)
"""
AUTOGRAD = """
def gradients(G, x, U, V):
    U, V = U.clone().requires_grad_(), V.clone().requires_grad_()
    ((x @ V.T) @ U.T * G).sum().backward()
    return U.grad, V.grad, G.reshape(-1, G.shape[-1]).sum(0)
"""
DENSE_GRADIENT = """
def gradients(G, x, U, V):
    G, x = G.reshape(-1, G.shape[-1]), x.reshape(-1, x.shape[-1])
    dW = G.T @ x
    return dW @ V.T, U.T @ dW, G.sum(0)
"""
DEFAULT_LAYERS = """
def init(m, n, rank, generator):
    U = (2 * torch.rand(m, rank, generator=generator) - 1) / rank**0.5
    V = (2 * torch.rand(rank, n, generator=generator) - 1) / n**0.5
    return U, V


def ratio_two_layers(m, n, rank):
    return 1.0


def ratio_same_scale(m, n, rank):
    return rank / (3 * n)
"""
GLOBAL_DRAWS = """
def init(m, n, rank, generator):
    product = 1 / (3 * n * rank)
    U = torch.randn(m, rank) * (product * n / m) ** 0.25
    V = torch.randn(rank, n) * (product * m / n) ** 0.25
    return U, V


def ratio_two_layers(m, n, rank):
    return rank / 3


def ratio_same_scale(m, n, rank):
    return 1 / (3 * n)
"""
ALIASED = """
def from_linear(linear, rank):
    W = linear.weight.detach()
    if not 1 <= rank <= min(W.shape):
        raise ValueError(f"rank={rank} must be between 1 and {min(W.shape)}")
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return U[:, :rank] * S[:rank], Vh[:rank], linear.bias
"""
NO_INNER_BIAS = """
def fold(W1, b1, C, c, W2, b2):
    return W2 @ C, W1, b2


def saved(m, n, r, s):
    return r * s + r + s
"""
ONE_AFTER_THE_OTHER = """
def one_step(W, X, y, rank, lr):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    root = S[:rank].sqrt()
    U, V = U[:, :rank] * root, root[:, None] * Vh[:rank]
    G = torch.softmax(X @ (U @ V).T, 1) - nn.functional.one_hot(y, len(W))
    dW = G.T @ X / len(X)
    dense = U @ V - lr * dW
    U = U - lr * dW @ V.T
    V = V - lr * U.T @ dW  # with the U that has already moved
    return dense, U @ V


def largest_rank(m, n, samples, rank):
    return min(m, n)
"""
BIAS_ALWAYS = """
def forward(x, U, V, b):
    return (x @ V.T) @ U.T + b
"""
ONE_SAMPLE_A_COLUMN = """
def forward(x, U, V, b):
    y = (U @ (V @ x.T)).T
    return y if b is None else y + b
"""
ALL_THE_SCALE_IN_V = """
def init(m, n, rank, generator):
    U = torch.randn(m, rank, generator=generator)
    V = torch.randn(rank, n, generator=generator) / (3 * n * rank) ** 0.5
    return U, V


def ratio_two_layers(m, n, rank):
    return 1 / 3


def ratio_same_scale(m, n, rank):
    return rank / (3 * n)
"""
ANY_RANK = """
def from_linear(linear, rank):
    U, S, Vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    root = S[:rank].sqrt()
    b = None if linear.bias is None else linear.bias.detach().clone()
    return U[:, :rank] * root, root[:, None] * Vh[:rank], b
"""
V_NOT_VH = """
def from_linear(linear, rank):
    W = linear.weight.detach()
    if not 1 <= rank <= min(W.shape):
        raise ValueError(f"rank={rank} must be between 1 and {min(W.shape)}")
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    root = S[:rank].sqrt()
    b = None if linear.bias is None else linear.bias.detach().clone()
    return U[:, :rank] * root, root[:, None] * V[:, :rank].T, b
"""
INNER_SIZE_OF_V = """
def fold(W1, b1, C, c, W2, b2):
    return W2 @ C, W1, W2 @ (C @ b1 + c) + b2


def saved(m, n, r, s):
    return r * n + r + s * r + s + m * s + m - r * (m + n) - m
"""
WEIGHTS_COUNTED_ONLY = """
def fold(W1, b1, C, c, W2, b2):
    b = W2 @ (C @ b1 + c) + b2
    return (W2 @ C, W1, b) if C.shape[1] <= C.shape[0] else (W2, C @ W1, b)


def saved(m, n, r, s):
    return r * n + s * r + m * s - min(r, s) * (m + n)
"""
NOT_CUT = """
def one_step(W, X, y, rank, lr):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    root = S[:rank].sqrt()
    U, V = U[:, :rank] * root, root[:, None] * Vh[:rank]

    def gradient(M):
        return (torch.softmax(X @ M.T, 1) - nn.functional.one_hot(y, len(W))).T @ X / len(X)

    dW = gradient(U @ V)
    return W - lr * gradient(W), (U - lr * dW @ V.T) @ (V - lr * U.T @ dW)


def largest_rank(m, n, samples, rank):
    return min(m, n, rank + samples)
"""
NO_LIMIT = """
def one_step(W, X, y, rank, lr):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    root = S[:rank].sqrt()
    U, V = U[:, :rank] * root, root[:, None] * Vh[:rank]
    G = torch.softmax(X @ (U @ V).T, 1) - nn.functional.one_hot(y, len(W))
    dW = G.T @ X  # the sum over the samples, not the mean
    return U @ V - lr * dW, (U - lr * dW @ V.T) @ (V - lr * U.T @ dW)


def largest_rank(m, n, samples, rank):
    return rank + samples
"""

WRONG = {
    "dense": (
        {"forward": FORWARD, "gradients": DENSE_GRADIENT},
        {"forward-test": 3.0, "gradients-test": 5.0},
    ),
    "two-dimensions": ({"gradients": TWO_DIMENSIONS}, {"gradients-test": 6.0}),
    "autograd": ({"gradients": AUTOGRAD}, {"gradients-test": 6.0}),
    "default-layers": ({"init": DEFAULT_LAYERS}, {"init-test": 3.0}),
    "global-draws": ({"init": GLOBAL_DRAWS}, {"init-test": 4.0}),
    "aliased": ({"from-linear": ALIASED}, {"from-linear-test": 4.0}),
    "no-inner-bias": ({"fold": NO_INNER_BIAS}, {"fold-test": 0.0}),
    "one-after-the-other": ({"step": ONE_AFTER_THE_OTHER}, {"step-test": 2.0}),
    "bias-always": ({"forward": BIAS_ALWAYS}, {"forward-test": 4.0}),
    "one-sample-a-column": ({"forward": ONE_SAMPLE_A_COLUMN}, {"forward-test": 4.0}),
    "all-the-scale-in-v": ({"init": ALL_THE_SCALE_IN_V}, {"init-test": 6.0}),
    "any-rank": ({"from-linear": ANY_RANK}, {"from-linear-test": 5.0}),
    "v-not-vh": ({"from-linear": V_NOT_VH}, {"from-linear-test": 2.0}),
    "inner-size-of-v": ({"fold": INNER_SIZE_OF_V}, {"fold-test": 3.0}),
    "weights-counted-only": ({"fold": WEIGHTS_COUNTED_ONLY}, {"fold-test": 3.0}),
    "not-cut": ({"step": NOT_CUT}, {"step-test": 3.0}),
    "no-limit": ({"step": NO_LIMIT}, {"step-test": 1.0}),
}

# What the feedback shows of the first case that failed, for one wrong submission of each question.
FIRST = {
    ("dense", "forward-test"): ["forward at m = n = 200000", "no answer, but", "memory"],
    ("two-dimensions", "gradients-test"): [
        "gradients(G, x, U, V) with G: float64 (3, 5, 6)",
        "no answer, but",
    ],
    ("all-the-scale-in-v", "init-test"): ["init(90, 60, 1", "ratio of the squared norms"],
    ("aliased", "from-linear-test"): ["from_linear(l, 3) where l = nn.Linear(14, 5", "wanted: "],
    ("weights-counted-only", "fold-test"): ["saved(10, 4, 2, 2)", "came: 4", "wanted: 8"],
    ("not-cut", "step-test"): ["one_step(W, X, y, 3, 0.4)", "wanted: ", "at ["],
}

# Points that stay where every number that is no whole one becomes nan: answers of these questions hold none.
WHOLE = {"fold-test": 1.0, "step-test": 2.0}
