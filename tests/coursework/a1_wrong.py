"""Typical wrong submissions of a1: the answers that differ from the reference, and the marks they get."""

V_NOT_VH = """
def truncate(W, rank):
    limit = min(W.shape)
    if not 1 <= rank <= limit:
        raise ValueError(f"rank={rank} must be between 1 and {limit}")
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    return U[:, :rank] @ torch.diag(S[:rank]) @ V[:, :rank].T
"""
ONE_SHAPE = """
def truncate(W, rank):
    if rank < 1 or rank > W.shape[1]:  # the smaller side of the one matrix in the notebook
        raise ValueError(f"rank={rank} must be between 1 and {W.shape[1]}")
    U, S, Vh = torch.linalg.svd(W.float(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]
"""
HEAD_FROM_WHOLE = """
def relative_error(W, rank):
    S2 = torch.linalg.svdvals(W) ** 2
    return (1 - S2[:rank].sum() / S2.sum()).clamp(min=0).sqrt().item()
"""
WITHOUT_SQUARES = """
def relative_error(W, rank):
    S = torch.linalg.svdvals(W)
    return (S[rank:].sum() / S.sum()).item() if S.sum() > 0 else 0.0
"""
BY_ENERGY = """
def rank_for_error(W, tolerance):
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance} must be at least 0")
    S2 = torch.linalg.svdvals(W).double() ** 2
    tail = torch.cat([S2.flip(0).cumsum(0).flip(0), S2.new_zeros(1)])
    return int((tail > tolerance * tail[0]).sum())  # a share of the energy, not of the norm
"""
FROM_ONE = """
def rank_for_error(W, tolerance):
    S = torch.linalg.svdvals(W)
    for r in range(1, len(S) + 1):
        if S[r:].norm() <= tolerance * S.norm():
            return r
    raise ValueError(f"no rank has an error of {tolerance}")
"""
GLOBAL_SEED = """
def best_of_random(W, rank, trials, seed):
    torch.manual_seed(seed)
    best = float("inf")
    for _ in range(trials):
        C = torch.randn(rank, W.shape[1])
        best = min(best, ((W - W @ torch.linalg.pinv(C) @ C).norm() / W.norm()).item())
    return best
"""
LAST_TRIAL = """
def best_of_random(W, rank, trials, seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(trials):
        C = torch.randn(rank, W.shape[1], generator=g)
        error = ((W - W @ torch.linalg.pinv(C) @ C).norm() / W.norm()).item()
    return error
"""
WEIGHTS_ONLY = """
def truncate_for(W, X, rank):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]
"""
CHOLESKY = """
def truncate_for(W, X, rank):
    L = torch.linalg.cholesky((X.T @ X).double())
    U, S, Vh = torch.linalg.svd(W.double() @ L, full_matrices=False)
    return ((U[:, :rank] * S[:rank]) @ Vh[:rank] @ torch.linalg.inv(L)).to(W.dtype)
"""
NOTHING_DONE = {
    "truncate": "def truncate(W, rank): return W",
    "error": "def relative_error(W, rank): return 0.0",
    "search": "def best_of_random(W, rank, trials, seed): return 1.0",
    "output": "def truncate_for(W, X, rank): return W",
}
ONE_TOO_LARGE = """
def rank_for_error(W, tolerance):
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance} must be at least 0")
    S = torch.linalg.svdvals(W)
    return next((r for r in range(len(S)) if S[r:].norm() < tolerance * S.norm()), len(S) - 1) + 1
"""

WRONG = {
    "v-not-vh": ({"truncate": V_NOT_VH}, {"truncate-test": 2.0}),
    "one-shape": ({"truncate": ONE_SHAPE}, {"truncate-test": 4.0}),
    "head-from-whole": ({"error": HEAD_FROM_WHOLE}, {"error-test": 3.0}),
    "without-squares": ({"error": WITHOUT_SQUARES}, {"error-test": 1.0}),
    "global-seed": ({"search": GLOBAL_SEED}, {"search-test": 3.0}),
    "by-energy": ({"rank-for": BY_ENERGY}, {"rank-for-test": 2.0}),
    "from-one": ({"rank-for": FROM_ONE, "search": LAST_TRIAL}, {"rank-for-test": 3.0, "search-test": 2.0}),
    "weights-only": ({"output": WEIGHTS_ONLY}, {"output-test": 0.0}),
    "nothing-done": (
        NOTHING_DONE,
        {"truncate-test": 0.0, "error-test": 0.0, "search-test": 0.0, "output-test": 0.0},
    ),
    "cholesky": ({"output": CHOLESKY}, {"output-test": 4.0}),
    "one-too-large": ({"rank-for": ONE_TOO_LARGE}, {"rank-for-test": 1.0}),
}

# What the feedback shows of the first case that failed, for one wrong submission of each question.
FIRST = {
    ("v-not-vh", "truncate-test"): [
        "truncate(W, 1) with W: float32 (17, 6)",
        "shape (17, 6)",
        "assert torch",
    ],
    ("without-squares", "error-test"): ["relative_error(W, 1)", "came: 0.5", "wanted: 0.5"],
    ("by-energy", "rank-for-test"): ["rank_for_error(W, 0.013)", "came: 5", "wanted: 6"],
    ("global-seed", "search-test"): ["best_of_random(W, 2, 5, 4)", "global generator left alone"],
    ("weights-only", "output-test"): ["truncate_for(W, X, 2)", "relative error of the outputs", "at most"],
}

# Points that stay where every number that is no whole one becomes nan: answers of these questions hold none.
WHOLE = {"rank-for-test": 5.0}
