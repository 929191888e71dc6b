"""Chapter 6: classes that can win, factors that follow a rescaling, and budgets that fool greed."""

import math
from fractions import Fraction

import numpy as np
import torch
from scipy.optimize import linprog

from answers import right, wrong


def scan(u, b, low=-1e7, high=1e7):
    """Winners by a fine scan, dense near 0."""
    z = torch.cat([s * torch.logspace(-4, 7, 20000, dtype=torch.float64) for s in (-1, 1)])
    z = z[(z >= low) & (z <= high)]
    return (torch.outer(z, u.double()) + b).argmax(1).unique().tolist()


def by_program(u, b):
    """A class can win if a linear programme finds a z at which it beats each other by some margin."""
    found = set()
    for c in range(len(u)):
        others = [j for j in range(len(u)) if j != c]
        A = [[float(u[j] - u[c]), 1.0] for j in others]  # (u_j - u_c) z + margin <= b_c - b_j
        limits = [float(b[c] - b[j]) for j in others]
        best = linprog([0, -1], A, limits, bounds=[(None, None), (None, 1)])
        if best.x[1] > 1e-9:
            found.add(c)
    return found


def by_hull(u, b):
    """Upper envelope by sorted slopes: keep a line if it is not hidden by its neighbours."""
    kept = []
    for c in u.argsort().tolist():
        while len(kept) > 1:
            i, j = kept[-2:]
            if (b[i] - b[c]) * (u[j] - u[i]) > (b[i] - b[j]) * (u[c] - u[i]):
                break
            kept.pop()
        kept.append(c)
    return kept


def crossings(u, b):
    """The solution's probes."""
    i, j = torch.combinations(torch.arange(len(u))).T
    z = ((b[j] - b[i]) / (u[i] - u[j])).sort().values
    probes = torch.cat([z[:1] - 1, (z[1:] + z[:-1]) / 2, z[-1:] + 1])
    return (torch.outer(probes, u) + b).argmax(1)


def no_ends(u, b):
    """Probes between crossings, none beyond them."""
    i, j = torch.combinations(torch.arange(len(u))).T
    z = ((b[j] - b[i]) / (u[i] - u[j])).sort().values
    return (torch.outer((z[1:] + z[:-1]) / 2, u) + b).argmax(1).tolist()


def ends(u, b):
    return {u.argmin().item(), u.argmax().item()}


def mask(u, b):
    return torch.isin(torch.arange(len(u)), torch.tensor(list(by_hull(u, b))))


def in_place(u, b):
    found = by_hull(u, b)
    b -= b.mean()
    return found


def by_fractions(u, b):
    """Exact: each class has an interval of z, from the crossings with steeper and with flatter lines."""
    lines = [(Fraction(float(x)), Fraction(float(y))) for x, y in zip(u, b, strict=True)]
    found = set()
    for slope, shift in lines:
        low = [(s - shift) / (slope - m) for m, s in lines if m < slope]
        high = [(s - shift) / (slope - m) for m, s in lines if m > slope]
        if not low or not high or max(low) < min(high):
            found.add(lines.index((slope, shift)))
    return frozenset(found)


def drawn(u, b):
    """Ten thousand draws of z, of standard deviation 100."""
    z = 100 * torch.randn(10000, generator=torch.Generator().manual_seed(0))
    return (torch.outer(z, u) + b).argmax(1).unique()


S_A, S_B = [2.0, 0.7], [2.0, 1.0]

ANSWERS = [
    right("6.1", "solution, a tensor with repeats", crossings),
    right("6.1", "scan, a list", scan),
    right("6.1", "linear programmes", by_program),
    right("6.1", "envelope, a tuple", lambda u, b: tuple(by_hull(u, b))),
    right("6.1", "array", lambda u, b: np.array(by_hull(u, b))),
    right("6.1", "fractions, a frozen set", by_fractions),
    right("6.1", "set of floats", lambda u, b: {float(c) for c in by_hull(u, b)}),
    right("6.1", "set of tensors", lambda u, b: set(torch.tensor(by_hull(u, b)))),
    right("6.1", "keys of a dictionary", lambda u, b: dict.fromkeys(by_hull(u, b)).keys()),
    wrong("6.1", "value for function", {1, 2}, "the function answer itself"),
    wrong("6.1", "the chapter's classes", lambda u, b: {3, 4, 6, 8}, "on 10 classes"),
    wrong("6.1", "steepest", ends, "steepest lines"),
    wrong("6.1", "steepest up", lambda u, b: [u.argmax().item()], "wins for some z"),
    wrong("6.1", "largest bias", lambda u, b: {b.argmax().item()}, "wins for some z"),
    wrong("6.1", "positive z", lambda u, b: scan(u, b, low=0), "negative"),
    wrong("6.1", "z from -10 to 10", lambda u, b: scan(u, b, low=-10, high=10), "wins for some z"),
    wrong(
        "6.1",
        "z from -1000 to 1000 at steps of 10",
        lambda u, b: (torch.outer(torch.arange(-1000, 1001, 10.0), u) + b).argmax(1).tolist(),
        "wins for some z",
    ),
    wrong("6.1", "random draws", drawn, "wins for some z"),
    wrong("6.1", "bottom", lambda u, b: by_hull(-u, -b), "bottom"),
    wrong("6.1", "all", lambda u, b: range(len(u)), "not every class"),
    wrong("6.1", "all ten", lambda u, b: range(10), "not every class"),
    wrong("6.1", "counted from 1", lambda u, b: range(1, len(u) + 1), "counted from 0"),
    wrong("6.1", "winners counted from 1", lambda u, b: [c + 1 for c in by_hull(u, b)], "on 10 classes"),
    wrong("6.1", "between only", lambda u, b: set(by_hull(u, b)) - ends(u, b), "far ends"),
    wrong("6.1", "no probe beyond", no_ends, "negative"),
    wrong("6.1", "one too many", lambda u, b: {*by_hull(u, b), *range(4)}, "never on top"),
    wrong("6.1", "no such class", lambda u, b: {*by_hull(u, b), 26}, "no class 26"),
    wrong("6.1", "mask", mask, "not a mask"),
    wrong("6.1", "empty", lambda u, b: set(), "wins for some z"),
    wrong("6.1", "number", lambda u, b: 4, "the set of classes that can win, each a whole number, not 4"),
    wrong("6.1", "names", lambda u, b: {"three"}, "the text 'three'"),
    wrong("6.1", "text", lambda u, b: "3468", "the text '3468'"),
    wrong("6.1", "scores", lambda u, b: (u + b).tolist(), "whole number"),
    wrong("6.1", "matrix", lambda u, b: torch.outer(u, b), "a tensor of shape"),
    wrong("6.1", "nan", lambda u, b: [math.nan], "not nan"),
    wrong("6.1", "nothing", lambda u, b: None, "returns None"),
    wrong("6.1", "one argument", lambda u: set(), "raised TypeError"),
    wrong("6.1", "in place", in_place, "changes its argument b"),
    right("6.2", "sets", {"0": {"loss"}, "2": {"output", "loss"}}),
    right("6.2", "integer keys", {0: {"loss"}, 2: {"output", "loss"}}),
    right("6.2", "numpy keys", {np.int64(0): ["loss"], np.int64(2): ["loss", "output"]}),
    right("6.2", "text and list", {"2": ["output", "loss"], "0": "loss"}),
    right("6.2", "tuples with repeats", {"0": ("loss", "loss"), "2": ("loss", "output")}),
    right("6.2", "frozen sets and capitals", {0: frozenset({"Loss"}), 2: frozenset({"OUTPUT", " loss"})}),
    wrong("6.2", "set alone", {"loss"}, "dictionary"),
    wrong("6.2", "pair of sets", ({"loss"}, {"output", "loss"}), "dictionary"),
    wrong("6.2", "one layer", {"0": {"loss"}}, "dictionary"),
    wrong("6.2", "other layers", {"0": {"loss"}, "1": {"output", "loss"}}, "dictionary"),
    wrong("6.2", "one layer twice", {"0": {"loss"}, 0: {"output", "loss"}}, "dictionary"),
    wrong("6.2", "numbers for names", {"0": {1}, "2": {2, 3}}, "each name is a text"),
    wrong("6.2", "number for a set", {"0": 1, "2": 2}, "a set of names"),
    wrong("6.2", "lists of lists", {"0": [["loss"]], "2": [["output"]]}, "a set of names"),
    wrong("6.2", "unknown name", {"0": {"two-sided"}, "2": {"loss"}}, "the names are"),
    wrong("6.2", "swapped", {"0": {"output", "loss"}, "2": {"loss"}}, "swapped"),
    wrong("6.2", "those that change", {"0": {"svd", "output"}, "2": {"svd"}}, "do change"),
    wrong("6.2", "all", {"0": {"svd", "output", "loss"}, "2": {"svd", "output", "loss"}}, "SVD"),
    wrong("6.2", "svd in layer 2", {"0": {"loss"}, "2": {"svd", "output", "loss"}}, "SVD"),
    wrong("6.2", "none", {"0": {}, "2": None}, "gradients shrink"),
    wrong("6.2", "output in layer 0", {"0": {"loss", "output"}, "2": {"loss", "output"}}, "other units"),
    wrong("6.2", "no loss in layer 0", {"0": set(), "2": {"output", "loss"}}, "gradients shrink"),
    wrong("6.2", "loss alone", {"0": {"loss"}, "2": {"loss"}}, "W C W^T"),
    wrong("6.2", "output alone", {"0": {"loss"}, "2": {"output"}}, "as before"),
    right("6.3", "solution", (S_A, S_B, 140)),
    right("6.3", "spends all, and loses", ([2, 0.7, 0.05, 0.05], [2, 1], 140)),
    right("6.3", "zeros, a loss without bound", ((1, 0.6, 0), (9, 1, 0), 159)),
    right("6.3", "exactly twice", ([1, 0.5], [1, math.sqrt(0.5)], 140)),
    right("6.3", "arrays and a float", [np.array(S_A), np.array(S_B), 140.0]),
    right("6.3", "tensors", (torch.tensor(S_A), torch.tensor(S_B), torch.tensor(140))),
    right("6.3", "full spectra", ([2, 0.7] + [0] * 8, [2, 1] + [0] * 28, 140)),
    right("6.3", "large units", ([2e200, 0.7e200], [2e200, 1e200], 140)),
    right("6.3", "small units", ([2e-200, 0.7e-200], [2e-200, 1e-200], 140)),
    right("6.3", "a budget between", (S_A, S_B, 159.5)),
    wrong("6.3", "number", 3, "three things"),
    wrong("6.3", "no budget", (S_A, S_B), "three things"),
    wrong("6.3", "dictionary", {"A": S_A, "B": S_B, "budget": 140}, "three things"),
    wrong("6.3", "budget first", (140, S_A, S_B), "a budget"),
    wrong("6.3", "numbers for spectra", (2.0, 1.0, 140), "values of A as a list"),
    wrong("6.3", "text in a spectrum", ([2.0], ["a"], 140), "values of B as a list of finite numbers"),
    wrong("6.3", "nan in a spectrum", ([2.0, math.nan], S_B, 140), "not nan"),
    wrong("6.3", "inf in a spectrum", ([math.inf, 0.7], S_B, 140), "not inf"),
    wrong("6.3", "budget of inf", (S_A, S_B, math.inf), "not inf"),
    wrong(
        "6.3",
        "11 of 10",
        ([2, 0.7] + [0] * 9, S_B, 140),
        "layer A is 10 x 10: it has 10 singular values, not 11",
    ),
    wrong("6.3", "22 of 10", ([2, 0.7] + [0] * 20, S_B, 140), "not 22"),
    wrong("6.3", "31 of 30", (S_A, [2, 1] + [0] * 29, 140), "layer B is 30 x 30"),
    wrong("6.3", "none", ([], S_B, 140), "not 0"),
    wrong("6.3", "ascending", ([0.7, 2.0], S_B, 140), "largest comes first"),
    wrong("6.3", "negative", ([2.0, -0.7], S_B, 140), "layer A: singular values are not negative"),
    wrong("6.3", "small budget", (S_A, S_B, 79), "80"),
    wrong("6.3", "budget for all", (S_A, S_B, 160), "nothing left to lose"),
    wrong("6.3", "all zero", ([0, 0], [0, 0], 140), "nothing left to lose"),
    wrong("6.3", "not tempted", ([2.0, 0.5], S_B, 140), "greed's ranks [1, 2] are the best"),
    wrong("6.3", "layers swapped", (S_B, S_A, 140), "are the best"),
    wrong("6.3", "not twice", ([2.0, 0.8], S_B, 140), "1.56 times"),
    wrong("6.3", "nearly twice", ([2.0, 0.7072], S_B, 140), "2.00 times the best, not twice"),
]
