"""Chapter 10: an adapter's gradients, the sum of two adapters, an adapter taken out of an update."""

import numpy as np
import torch

from answers import right, wrong
from lowrank_utils import LoRALinear, rank_for_energy, truncated_svd


def gradients(G, A, B, alpha):
    """The chain rule."""
    return alpha / len(A) * B.T @ G, alpha / len(A) * G @ A.T


def by_autograd(G, A, B, alpha):
    """A loss whose gradient by the weight is G."""
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    return torch.autograd.grad((G * (alpha / A.shape[0] * B @ A)).sum(), (A, B))


def by_layer(G, A, B, alpha):
    """The package's layer on the identity, in a list."""
    layer = LoRALinear(torch.zeros_like(G), A, B, alpha=alpha)
    (layer(torch.eye(A.shape[1], dtype=A.dtype)).T * G).sum().backward()
    return [layer.A.grad, layer.B.grad]


def by_numpy(G, A, B, alpha):
    G, A, B = G.numpy(), A.numpy(), B.numpy()
    return np.einsum("mr,mn->rn", B, G) * alpha / len(A), np.einsum("mn,rn->mr", G, A) * alpha / len(A)


def single(G, A, B, alpha):
    return tuple(x.float() for x in gradients(G, A, B, alpha))


def times(a, b):
    """Gradients with other scales: functions of alpha, r and m."""

    def answer(G, A, B, alpha):
        r, m = len(A), len(G)
        return a(alpha, r, m) * B.T @ G, b(alpha, r, m) * G @ A.T

    return answer


def both(scale):
    return times(scale, scale)


def add(first, second, weights):
    """Side by side, and one over the other."""
    left = [w * alpha / len(A) * B for (A, B, alpha), w in zip((first, second), weights, strict=True)]
    return torch.cat([first[0], second[0]]), torch.cat(left, 1)


def on_the_right(first, second, weights):
    """The scales in A, the second adapter first; numpy."""
    parts = [
        (w * a / len(A) * A.numpy(), B.numpy()) for (A, B, a), w in zip((first, second), weights, strict=True)
    ]
    (A1, B1), (A2, B2) = parts
    return np.vstack([A2, A1]), np.hstack([B2, B1])


def by_svd(first, second, weights):
    """The sum formed, and taken apart again."""
    W = sum(w * a / len(A) * B @ A for (A, B, a), w in zip((first, second), weights, strict=True))
    r = len(first[0]) + len(second[0])
    U, S, Vh = torch.linalg.svd(W, full_matrices=True)
    k = min(r, len(S))
    A, B = W.new_zeros(r, W.shape[1]), W.new_zeros(len(W), r)
    A[:k], B[:, :k] = Vh[:k], U[:, :k] * S[:k]
    return A, B


def loop(first, second, weights):
    """Column by column, as a list of two."""
    rows, columns = [], []
    for (A, B, alpha), w in zip((first, second), weights, strict=True):
        for i in range(len(A)):
            rows.append(A[i] * 2)
            columns.append(B[:, i] * w * alpha / len(A) / 2)
    return [torch.stack(rows), torch.stack(columns, 1)]


def sums(scale_a, scale_b):
    """Stacked factors with other scales: functions of w, alpha, r, and of the other's r, w, alpha."""

    def answer(first, second, weights):
        left, right_ = [], []
        for me, other, w, v in ((first, second, *weights), (second, first, *weights[::-1])):
            told = w, me[2], len(me[0]), len(other[0]), v, other[2]
            right_.append(scale_a(*told) * me[0])
            left.append(scale_b(*told) * me[1])
        return torch.cat(right_), torch.cat(left, 1)

    return answer


def one(*told):
    return 1.0


def full(w, a, r, s, v, c):
    return w * a / r


def averaged(first, second, weights):
    """A product of sums."""
    (A1, B1, _), (A2, B2, _) = first, second
    r = min(len(A1), len(A2))
    return A1[:r] + A2[:r], B1[:, :r] + B2[:, :r]


def extract(old, new, share):
    U, S, Vh = torch.linalg.svd(new - old, full_matrices=False)
    kept = S.square().cumsum(0) / S.square().sum()
    r = int((kept < share).sum()) + 1
    return Vh[:r], U[:, :r] * S[:r]


def by_package(old, new, share):
    D = new - old
    U, S, Vh = truncated_svd(D, rank_for_energy(D, share))
    return S.sqrt()[:, None] * Vh, U * S.sqrt()


def by_gram(old, new, share):
    """Eigenvectors of D^T D, in numpy; a list."""
    D = (new - old).numpy()
    energy, V = np.linalg.eigh(D.T @ D)
    energy, V = energy[::-1], V[:, ::-1]
    r = next(r for r in range(1, len(energy) + 1) if energy[:r].sum() >= share * energy.sum())
    return [V[:, :r].T.copy(), D @ V[:, :r]]


def turned(old, new, share):
    """Any invertible mixture has the same product."""
    A, B = extract(old, new, share)
    T = torch.eye(len(A), dtype=A.dtype) * 3 + 1
    return T @ A, B @ torch.linalg.inv(T)


def of(factors, rank=None, update=lambda old, new: new - old):
    """An extraction with another rank, difference or pair of factors."""

    def answer(old, new, share):
        U, S, Vh = torch.linalg.svd(update(old, new), full_matrices=False)
        r = (
            len(extract(old, new, share)[0])
            if rank is None
            else rank(S, share, len(extract(old, new, share)[0]))
        )
        return factors(U, S, Vh, r)

    return answer


def usual(U, S, Vh, r):
    return Vh[:r], U[:, :r] * S[:r]


ANSWERS = [
    right("10.1", "chain rule", gradients),
    right("10.1", "autograd", by_autograd),
    right("10.1", "the package's layer", by_layer),
    right("10.1", "numpy", by_numpy),
    right("10.1", "single precision", single),
    right("10.2", "stacked", add),
    right("10.2", "scales in A, second first", on_the_right),
    right("10.2", "SVD of the sum", by_svd),
    right("10.2", "column by column", loop),
    right("10.3", "SVD", extract),
    right("10.3", "the package", by_package),
    right("10.3", "Gram matrix", by_gram),
    right("10.3", "mixed", turned),
    wrong("10.1", "pair for function", (1, 2), "itself, which is then called as"),
    wrong("10.1", "no scale", both(lambda a, r, m: 1.0), "scale is missing"),
    wrong("10.1", "alpha for alpha / r", both(lambda a, r, m: a), "not alpha."),
    wrong("10.1", "scale twice", both(lambda a, r, m: (a / r) ** 2), "twice"),
    wrong("10.1", "divided", both(lambda a, r, m: r / a), "divided"),
    wrong("10.1", "no scale for B", times(lambda a, r, m: a / r, lambda a, r, m: 1.0), "by B has no scale"),
    wrong("10.1", "no scale for A", times(lambda a, r, m: 1.0, lambda a, r, m: a / r), "by A has no scale"),
    wrong("10.1", "downhill", both(lambda a, r, m: -a / r), "downhill"),
    wrong("10.1", "mean", both(lambda a, r, m: a / r / m), "averaged"),
    wrong("10.1", "B first", lambda *told: gradients(*told)[::-1], "first, then"),
    wrong(
        "10.1", "transposed", lambda *told: tuple(x.T for x in gradients(*told)), "first a matrix of shape"
    ),
    wrong("10.1", "by A from A", lambda G, A, B, alpha: (A, gradients(G, A, B, alpha)[1]), "one entry of A"),
    wrong("10.1", "by B from B", lambda G, A, B, alpha: (gradients(G, A, B, alpha)[0], B), "one entry of B"),
    wrong("10.1", "composed", lambda G, A, B, alpha: alpha / len(A) * B @ A, "pair"),
    wrong("10.1", "nan", lambda *told: tuple(x * float("nan") for x in gradients(*told)), "nan"),
    wrong(
        "10.1", "in place", lambda G, A, B, alpha: gradients(G, A, B.mul_(2), alpha), "changes its argument B"
    ),
    wrong("10.2", "a sum", 3, "itself, which is then called as"),
    wrong("10.2", "product of sums", averaged, "shape"),
    wrong("10.2", "no scales", sums(one, lambda w, *told: w), "alpha / r are missing"),
    wrong("10.2", "alpha for alpha / r", sums(one, lambda w, a, *told: w * a), "not alpha."),
    wrong("10.2", "scales twice", sums(lambda w, a, r, *told: a / r, full), "scales are in both"),
    wrong("10.2", "weights twice", sums(lambda w, *told: w, full), "weights are in both"),
    wrong("10.2", "all twice", sums(full, full), "once is enough"),
    wrong("10.2", "no weights", sums(one, lambda w, a, r, *told: a / r), "weights are missing"),
    wrong(
        "10.2", "weights exchanged", sums(one, lambda w, a, r, s, v, c: v * a / r), "weight is at the other"
    ),
    wrong("10.2", "scales exchanged", sums(one, lambda w, a, r, s, v, c: w * c / s), "scale is at the other"),
    wrong(
        "10.2",
        "rank of the sum",
        sums(one, lambda w, a, r, s, *told: w * a / (r + s)),
        "of the adapter itself",
    ),
    wrong("10.2", "B first", lambda *told: add(*told)[::-1], "first, then"),
    wrong(
        "10.2",
        "stacked alike",
        lambda f, s, w: (torch.cat([f[0], s[0]]), torch.cat([f[1].T, s[1].T])),
        "shape",
    ),
    wrong("10.2", "dense", lambda f, s, w: add(f, s, w)[1] @ add(f, s, w)[0], "pair"),
    wrong("10.2", "in place", lambda f, s, w: add((f[0].mul_(2), *f[1:]), s, w), "argument first"),
    wrong("10.2", "difference", sums(one, lambda w, a, r, *told: -w * a / r), "not the weighted sum"),
    wrong("10.2", "nan", lambda *told: tuple(x * float("nan") for x in add(*told)), "nan"),
    wrong("10.3", "rank for function", 4, "itself, which is then called as"),
    wrong("10.3", "old minus new", of(usual, update=lambda old, new: old - new), "leads away"),
    wrong("10.3", "no singular values", of(lambda U, S, Vh, r: (Vh[:r], U[:, :r])), "missing"),
    wrong("10.3", "twice", of(lambda U, S, Vh, r: (S[:r, None] * Vh[:r], U[:, :r] * S[:r])), "in both"),
    wrong("10.3", "root in one", of(lambda U, S, Vh, r: (Vh[:r], U[:, :r] * S[:r].sqrt())), "root"),
    wrong("10.3", "of the new weight", of(usual, update=lambda old, new: new), "cut the difference"),
    wrong("10.3", "smallest", of(lambda U, S, Vh, r: (Vh[-r:], U[:, -r:] * S[-r:])), "smallest"),
    wrong("10.3", "B first", lambda *told: extract(*told)[::-1], "first, then"),
    wrong("10.3", "one too few", of(usual, lambda S, share, r: r - 1), "one more"),
    wrong("10.3", "all", of(usual, lambda S, share, r: len(S)), "all singular values"),
    wrong("10.3", "one too many", of(usual, lambda S, share, r: r + (len(S) == 5)), "not the smallest"),
    wrong(
        "10.3",
        "no squares",
        of(usual, lambda S, share, r: int((S.cumsum(0) / S.sum() < share).sum()) + 1),
        "sum of the squares",
    ),
    wrong(
        "10.3",
        "rank of the new weight",
        lambda old, new, share: of(usual, lambda *told: rank_for_energy(new, share))(old, new, share),
        "rank of the new weight",
    ),
    wrong("10.3", "rows of the update", of(lambda U, S, Vh, r: (Vh[:r], U[:, :r] + 1)), "truncated SVD"),
    wrong("10.3", "dense", lambda old, new, share: new - old, "pair"),
    wrong("10.3", "nan", lambda *told: tuple(x * float("nan") for x in extract(*told)), "nan"),
    wrong(
        "10.3", "in place", lambda old, new, share: extract(old, new.sub_(old) + old, share), "argument new"
    ),
]
