"""Chapter 4: chains, twins of a net, free numbers, and the least cost of two factors."""

import math
from copy import deepcopy
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from answers import right, wrong
from lowrank_utils import Net, singular_values


def twin(net, *, row=None, bias="scale", column="divide", last=1.0):
    a = torch.linspace(0.5, 3, 10) if row is None else row
    new = deepcopy(net)
    new.fc1.weight.data *= a[:, None]
    if bias == "scale":
        new.fc1.bias.data *= a
    if column != "leave":
        new.fc2.weight.data *= 1 / a if column == "divide" else a
    new.fc2.bias.data *= last
    return new


def changed(**options):
    return lambda net: twin(net, **options)


def renumbered(net):
    new = deepcopy(net)
    new.fc1.weight.data, new.fc1.bias.data = net.fc1.weight.data.flip(0), net.fc1.bias.data.flip(0)
    new.fc2.weight.data = net.fc2.weight.data.flip(1)
    return new


def half_renumbered(net):
    new = renumbered(net)
    new.fc2.weight.data = net.fc2.weight.data.clone()
    return new


def one_long_row(net):
    """One hidden unit a thousand times as long."""
    a = torch.ones(10)
    a[3] = 1000
    return twin(net, row=a)


def by_state_dict(net):
    """Built anew, in float64, from scaled copies."""
    new, state = Net().double(), {name: value.double() for name, value in net.state_dict().items()}
    state["fc1.weight"], state["fc1.bias"] = state["fc1.weight"] * 4, state["fc1.bias"] * 4
    state["fc2.weight"] = state["fc2.weight"] / 4
    new.load_state_dict(state)
    return new


def random_scales(net):
    """By the global generator."""
    return twin(net, row=torch.empty(10).uniform_(3, 9))


def in_place(net):
    net.fc1.weight.data *= 2
    net.fc1.bias.data *= 2
    net.fc2.weight.data /= 2
    return net


def half_a_copy(net):
    """A new Net, but fc2's bias is the old one: to train the twin is to train the net."""
    new = Net()
    new.fc1.weight.data, new.fc1.bias.data = 4 * net.fc1.weight.data, 4 * net.fc1.bias.data
    new.fc2.weight.data, new.fc2.bias.data = net.fc2.weight.data / 4, net.fc2.bias.data
    return new


def same_parameter(net):
    new = twin(net)
    new.fc2.bias = net.fc2.bias
    return new


def one_power_of_two(net):
    """The shortest row times 2^20, which no float rounds."""
    new, i = deepcopy(net), net.fc1.weight.norm(dim=1).argmin()
    with torch.no_grad():
        new.fc1.weight[i] *= 2**20
        new.fc1.bias[i] *= 2**20
        new.fc2.weight[:, i] /= 2**20
    return new


def undone(net):
    """A weight that forward never uses."""

    class Fake(Net):
        def forward(self, x):
            return net(x)

    return Fake()


def other_shape(net):
    new = Net()
    new.fc1, new.fc2 = nn.Linear(4, 20), nn.Linear(20, 3)
    return new


def with_nan(net):
    new = twin(net)
    new.fc1.weight.data[0, 0] = math.nan
    return new


def jacobian(m, n, r):
    J = torch.func.jacrev(torch.matmul, (0, 1))(torch.randn(m, r).double(), torch.randn(r, n).double())
    return torch.linalg.matrix_rank(torch.cat([j.reshape(m * n, -1) for j in J], 1))


def balanced(W):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return (((U * S.sqrt()) ** 2).sum() + ((S.sqrt()[:, None] * Vh) ** 2).sum()) / 2


def lopsided(W):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return ((U * S).square().sum() + Vh.square().sum()) / 2


def by_descent(W):
    """Factors found by gradient descent on their cost, along changes of basis that keep the product."""
    with torch.enable_grad():
        U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        log = torch.full_like(S, 0.5, requires_grad=True)
        step = torch.optim.Adam([log], lr=0.05)
        for _ in range(150):
            cost = (
                (U * S.sqrt() * log.exp()).square().sum()
                + ((S.sqrt() / log.exp())[:, None] * Vh).square().sum()
            ) / 2
            step.zero_grad()
            cost.backward()
            step.step()
    return cost


def by_eigenvalues(W):
    return torch.linalg.eigvalsh(W @ W.T).clamp_min(0).sqrt().sum()


def energy(W):
    return singular_values(W).square().sum()


def in_place_penalty(W):
    W /= 2
    return 2 * singular_values(W).sum()


def printed(W):
    print(singular_values(W).sum())


ANSWERS = [
    right("4.1", "integer", 10),
    right("4.1", "float", 10.0),
    right("4.1", "numpy", np.int64(10)),
    right("4.1", "tensor", torch.tensor(10)),
    right("4.1", "rounded by numpy", np.ceil(1 + 2 * np.log(100) / np.log(3))),
    wrong("4.1", "factors, not layers", 9, "first layer"),
    wrong("4.1", "variance", 6, "variance"),
    wrong("4.1", "variance of five", 5, "still 11.1%"),
    wrong("4.1", "eight", 8, "still 2.1%"),
    wrong("4.1", "one", 1, "still 100.0%"),
    wrong("4.1", "one too many", 11, "smallest"),
    wrong("4.1", "a hundred", 100, "smallest"),
    wrong("4.1", "not rounded", 1 + 2 * math.log(100) / math.log(3), "an integer of 1 or more, not 9.38361"),
    wrong("4.1", "truth value", True, "not True"),
    wrong("4.1", "zero", 0, "1 or more"),
    wrong("4.1", "text", "10", "text '10'"),
    wrong("4.1", "nan", math.nan, "nan"),
    right("4.2", "scaled", twin),
    right("4.2", "scaled and renumbered", lambda net: twin(renumbered(net))),
    right("4.2", "all rows by 4, built anew in float64", by_state_dict),
    right("4.2", "one long row", one_long_row),
    right("4.2", "shrunk", changed(row=torch.linspace(0.01, 0.4, 10))),
    right("4.2", "random scales", random_scales),
    right("4.2", "one row by a power of two", one_power_of_two),
    wrong("4.2", "memory shared", half_a_copy, "fc2.bias of both nets is one memory"),
    wrong("4.2", "parameter shared", same_parameter, "fc2.bias of both nets is one memory"),
    wrong(
        "4.2",
        "net for function",
        Net(),
        "the function twin itself, which is then called as twin(net), not an object",
    ),
    wrong("4.2", "weight", lambda net: net.fc1.weight, "must return a Net, not a tensor of shape (10, 4)"),
    wrong("4.2", "state dict", lambda net: net.state_dict(), "must return a Net"),
    wrong(
        "4.2",
        "other net",
        lambda net: nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3)),
        "a Net, not an object",
    ),
    wrong("4.2", "wider net", other_shape, "layers and shapes"),
    wrong("4.2", "same net", lambda net: net, "0%"),
    wrong("4.2", "copy", deepcopy, "0%"),
    wrong("4.2", "in place", in_place, "changes its argument net"),
    wrong("4.2", "eval mode", lambda net: twin(net.eval()), "changes its argument net"),
    wrong("4.2", "renumbered", renumbered, "changed places"),
    wrong(
        "4.2",
        "renumbered, a little longer",
        lambda net: twin(renumbered(net), row=torch.full((10,), 1.2)),
        "differs by 20%",
    ),
    wrong("4.2", "too little", changed(row=torch.full((10,), 1.2)), "beyond 50 %"),
    wrong("4.2", "just too little", changed(row=torch.full((10,), 1.49)), "beyond 50 %"),
    wrong("4.2", "negative scales", changed(row=torch.linspace(-2, -1, 10)), "a > 0"),
    wrong(
        "4.2", "a unit switched off", changed(row=torch.tensor([0.0, *[2.0] * 9]), column="leave"), "a > 0"
    ),
    wrong("4.2", "bias left", changed(bias="leave"), "fc1.bias"),
    wrong("4.2", "fc2 left", changed(column="leave"), "divide"),
    wrong("4.2", "fc2 multiplied", changed(column="multiply"), "once more"),
    wrong("4.2", "fc2's bias scaled", changed(last=2.0), "leave it alone"),
    wrong("4.2", "half renumbered", half_renumbered, "undo"),
    wrong("4.2", "fresh net", lambda net: Net(), "undo"),
    wrong("4.2", "another forward", undone, "undo"),
    wrong("4.2", "nan", with_nan, "nan or infinite"),
    wrong("4.2", "no argument", lambda: Net(), "raised TypeError"),
    right("4.3", "formula", lambda m, n, r: r * (m + n) - r * r),
    right("4.3", "by the conditions", lambda m, n, r: m * n - (m - r) * (n - r)),
    right("4.3", "spanning rows", lambda m, n, r: r * n + (m - r) * r),
    right("4.3", "float", lambda m, n, r: r * (m + n - r) / 1),
    right("4.3", "fraction", lambda m, n, r: Fraction(r * (m + n - r))),
    right("4.3", "rank of the Jacobian", jacobian),
    wrong("4.3", "value for function", 18, "the function freedom itself"),
    wrong("4.3", "the chapter's value", lambda m, n, r: 18, "it gives 18, but W can move in 9 directions"),
    wrong("4.3", "stored", lambda m, n, r: r * (m + n), "stored"),
    wrong("4.3", "r, not r squared", lambda m, n, r: r * (m + n) - r, "not r"),
    wrong("4.3", "one scale", lambda m, n, r: r * (m + n) - 1, "more than one scale"),
    wrong("4.3", "symmetric A", lambda m, n, r: r * (m + n) - r * (r + 1) // 2, "symmetric"),
    wrong("4.3", "orthogonal A", lambda m, n, r: r * (m + n) - r * (r - 1) // 2, "orthogonal"),
    wrong("4.3", "twice A", lambda m, n, r: r * (m + n) - 2 * r * r, "once"),
    wrong("4.3", "added", lambda m, n, r: r * (m + n) + r * r, "subtracted"),
    wrong("4.3", "all matrices", lambda m, n, r: m * n, "any rank"),
    wrong("4.3", "conditions", lambda m, n, r: (m - r) * (n - r), "not free"),
    wrong("4.3", "rank", lambda m, n, r: r, "it gives 1, but W can move in 9 directions"),
    wrong("4.3", "square matrices", lambda m, n, r: 2 * r * n - r * r, "m=4, n=6, r=1 it gives 11"),
    wrong("4.3", "half", lambda m, n, r: r * (m + n - r) + 0.5, "whole number"),
    wrong("4.3", "nan", lambda m, n, r: math.nan, "not nan"),
    wrong("4.3", "text", lambda m, n, r: "r(m + n) - r^2", "whole number"),
    wrong("4.3", "nothing", lambda m, n, r: None, "returns None"),
    wrong(
        "4.3", "raises", lambda m, n, r: 1 // (r - 1), "m=4, n=6, r=1: your function raised ZeroDivisionError"
    ),
    right("4.4", "singular values", lambda W: singular_values(W).sum().item()),
    right("4.4", "nuclear norm", lambda W: torch.linalg.matrix_norm(W, "nuc")),
    right("4.4", "numpy", lambda W: np.linalg.svd(W.numpy(), compute_uv=False).sum()),
    right("4.4", "array of one", lambda W: np.array([np.linalg.norm(W.numpy(), "nuc")])),
    right("4.4", "cost of balanced factors", balanced),
    right("4.4", "eigenvalues", by_eigenvalues),
    right("4.4", "descent, with a gradient", by_descent),
    wrong("4.4", "value for function", 3.0, "the function penalty itself"),
    wrong("4.4", "decay of W", lambda W: energy(W) / 2, "W itself"),
    wrong("4.4", "squared norm", energy, "squared Frobenius"),
    wrong("4.4", "norm", torch.linalg.norm, "Frobenius norm of W"),
    wrong("4.4", "no half", lambda W: 2 * singular_values(W).sum(), "one half"),
    wrong("4.4", "one factor", lambda W: singular_values(W).sum() / 2, "both factors"),
    wrong("4.4", "largest", lambda W: torch.linalg.matrix_norm(W, 2), "largest"),
    wrong("4.4", "mean", lambda W: singular_values(W).mean(), "averages"),
    wrong("4.4", "lopsided factors", lopsided, "share"),
    wrong("4.4", "roots", lambda W: singular_values(W).sqrt().sum(), "adds up roots"),
    wrong("4.4", "entries", lambda W: W.abs().sum(), "entries of W"),
    wrong("4.4", "trace", lambda W: W.diagonal().sum(), "no factors"),
    wrong("4.4", "zero", lambda W: 0.0, "no factors"),
    wrong("4.4", "minus infinity", lambda W: -math.inf, "one finite number, not -inf"),
    wrong("4.4", "plenty", lambda W: 1e6, "beaten"),
    wrong("4.4", "first four only", lambda W: singular_values(W)[:4].sum(), "on a W of shape (5, 5)"),
    wrong("4.4", "nan", lambda W: math.nan, "not nan"),
    wrong("4.4", "eigenvalues of W", lambda W: torch.linalg.eigvals(W).abs().sum(), "raised"),
    wrong("4.4", "W", lambda W: W, "shape (7, 4)"),
    wrong("4.4", "all singular values", singular_values, "one finite number"),
    wrong("4.4", "text", lambda W: "sum of sigma", "one finite number"),
    wrong("4.4", "prints", printed, "it prints, but"),
    wrong("4.4", "in place", in_place_penalty, "changes its argument W"),
    wrong("4.4", "two arguments", lambda W, r: 0.0, "raised TypeError"),
]
