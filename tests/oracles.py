"""What the tests compare with: numpy, plain torch and brute force, without a line of ``lowrank_utils``."""

import copy
import os
import random
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

# two threads that wait for each other make small nets ten times slower; `make processors` asks for two
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = ((7, 3), (5, 5), (3, 8), (1, 4), (4, 1), (1, 1))  # tall, square, wide, a row, a column, a number


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def work_eps(dtype: torch.dtype) -> float:
    """Precision of the SVD: half precision is factored in float32."""
    return eps(torch.float32 if dtype in HALVES else dtype)


def with_spectrum(m: int, n: int, s: list[float], seed: int = 0) -> Tensor:
    """A float64 (m, n) matrix with these singular values."""
    rng = np.random.default_rng(seed)
    k = min(m, n)
    left = np.linalg.qr(rng.standard_normal((m, k)))[0]
    right = np.linalg.qr(rng.standard_normal((n, k)))[0]
    return torch.from_numpy((left * np.asarray(s)) @ right.T)


def kernel_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """A random float64 kernel (m, n, *k)."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


PATCHES = ("full", "skewed", "rank-deficient", "one moves", "constant")


def covariance_of(shape: tuple[int, ...], kind: str, seed: int = 1) -> Tensor:
    """Of a kernel's patches, (n K, n K), of one of the kinds of ``PATCHES``."""
    size = int(np.prod(shape[1:]))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4 * size, size))
    if kind == "skewed":
        x = x * np.logspace(0, -2, size) @ rng.standard_normal((size, size))
    if kind == "rank-deficient":
        x = x[:, : (size + 1) // 2] @ rng.standard_normal(((size + 1) // 2, size))
    if kind == "one moves":
        x[:, 1:] = 0
    return torch.from_numpy(x.T @ x / len(x)) * (kind != "constant")


def truncations(W: Tensor) -> Callable[[int], Tensor]:
    """numpy's truncated SVD in float64, as a function of the rank."""
    U, S, Vh = np.linalg.svd(W.detach().double().numpy(), full_matrices=False)
    return lambda rank: torch.from_numpy((U[:, :rank] * S[:rank]) @ Vh[:rank])


def truncated(W: Tensor, rank: int) -> Tensor:
    return truncations(W)(rank)


def tail(W: Tensor, rank: int) -> float:
    """The closed-form Eckart-Young error: the root of the sum of the squares of s_{r+1}, s_{r+2}, ..."""
    S = np.linalg.svd(W.detach().double().numpy(), compute_uv=False)
    return float(np.sqrt((S[rank:] ** 2).sum()))


def plain_accuracy(logits: Tensor, y: Tensor) -> float:
    return float(np.mean(logits.numpy().argmax(-1) == y.numpy()))


def plain_auc(logits: Tensor, y: Tensor) -> float:
    """Mann and Whitney's statistic of each class against the rest, averaged."""
    z = logits.double().numpy()
    P = np.exp(z - z.max(1, keepdims=True))
    P /= P.sum(1, keepdims=True)
    areas = []
    for c in range(P.shape[1]):
        mine = y.numpy() == c
        a, b = mine.sum(), (~mine).sum()
        areas.append((rankdata(P[:, c])[mine].sum() - a * (a + 1) / 2) / (a * b))
    return float(np.mean(areas))


PLAIN = {"accuracy": plain_accuracy, "auc": plain_auc}


def outputs_with(model: nn.Module, layer: str, X: Tensor, W: Tensor | None) -> Tensor:
    """Outputs of a deep copy in eval mode, its layer's weight overwritten by W."""
    other = copy.deepcopy(model).eval()
    linear = other.get_submodule(layer)
    with torch.no_grad():
        if W is not None:
            linear.weight.copy_(W)
        return other(X.clone())


def outputs_by_truncation(model: nn.Module, layer: str, X: Tensor, rank: int) -> Tensor:
    return outputs_with(model, layer, X, truncated(model.get_submodule(layer).weight, rank))


def full_outputs(model: nn.Module, X: Tensor) -> Tensor:
    return outputs_with(model, "", X, None)


def brute_force(
    model: nn.Module, layer: str, X: Tensor, y: Tensor, metric: str, max_rank: int
) -> tuple[float, dict[int, float]]:
    """Baseline and curve, a deep copy and a full forward for each rank."""
    score, W = PLAIN[metric], truncations(model.get_submodule(layer).weight)
    curve = {r: score(outputs_with(model, layer, X, W(r)), y) for r in range(1, max_rank + 1)}
    return score(full_outputs(model, X), y), curve


def smallest(baseline: float, curve: dict[int, float], max_drop: float) -> tuple[int | None, int | None]:
    """(rank, safe rank) by the definition, with room for the rounding of one subtraction."""
    fits = [r for r, score in curve.items() if baseline - score <= max_drop + 1e-12]
    safe = [r for r in curve if all(q in fits for q in curve if q >= r)]
    return min(fits, default=None), min(safe, default=None)


def snapshot(model: nn.Module, *tensors: Tensor) -> dict[str, object]:
    """Everything of a model, its tensors and the generators that a function must leave alone."""
    modules = dict(model.named_modules(remove_duplicate=False))
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "bytes": {k: (id(v), v.dtype, _bytes(v)) for k, v in model.state_dict(keep_vars=True).items()},
        "grads": {k: None if p.grad is None else _bytes(p.grad) for k, p in model.named_parameters()},
        "requires_grad": {k: p.requires_grad for k, p in model.named_parameters()},
        "training": {k: m.training for k, m in modules.items()},
        "modules": {k: (id(m), type(m), sorted(vars(m))) for k, m in modules.items()},
        "hooks": {k: [list(getattr(m, h).items()) for h in hooks] for k, m in modules.items()},
        "inputs": [_bytes(t) for t in tensors],
        "torch": _bytes(torch.get_rng_state()),
        "numpy": repr(np.random.get_state()),
        "python": hash(random.getstate()),
        "modes": (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype()),
        "calls": [c.__dict__.get("__call__") for c in {type(m): 0 for m in modules.values()}],
    }


def _bytes(t: Tensor) -> bytes:
    return t.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


class Lambda(nn.Module):
    """Layers by name, and a forward that is given as a function of (self, x)."""

    def __init__(self, forward: Callable[["Lambda", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)
