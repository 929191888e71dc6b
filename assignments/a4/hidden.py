"""a4, compress a network: the cohort's numbers, what each mark is for, and the leaderboard's figure."""

import itertools
import math
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from assignments.cases import asked, at_least, at_most, close, equal, that
from assignments.checks import Checks, raises
from assignments.sandbox import Student
from lowrank_utils import load_split, set_seed, train_nn

SECONDS = 60
CHECKS = Checks()
NAMES = {  # what other cohorts write instead: assignments/variants.py
    "parameters": ("stored_by", "count_all"),
    "break_even": ("last_worth", "rank_limit"),
    "allocate": ("share_out", "ranks_for"),
    "trap": ("bad_case", "counterexample"),
    "truncate_for": ("cut_layer", "with_bias"),
    "hand_in": ("compressor", "compressed"),
}
# Not allowed by the text: assignments/forbidden.py
FORBIDDEN: dict[str, set[str]] = dict.fromkeys(
    (
        "LowRankLinear PivotedLinear allocate_ranks break_even_rank calibrate cascade compress "
        "compress_within count_params find_rank low_rank_approximation measure_harm truncated_svd "
        "weighted_factors"
    ).split(),
    {"hand-in"},
)
Numbers = dict[str, Any]
SECRET = 7  # a teacher may change it: another network and other pictures than students can work out
SIZES = (64, 128, 64, 10)
SHAPES = [(m, n) for n, m in itertools.pairwise(SIZES)]
BOUNDS = {"loose": 4000, "tight": 2800, "acc_loose": 0.9, "acc_low": 0.75, "acc_high": 0.9}


def numbers(seed: int) -> Numbers:
    """What changes from cohort to cohort."""
    return {"seed": seed, "points": 27, "dense": sum(m * n + m for m, n in SHAPES), "held": 450} | BOUNDS


# 1. Count


@CHECKS(
    "count-test",
    2,
    "parameters: both factors and every layer's bias count, for dense and low-rank layers mixed.",
)
def parameters(student: Student, given: Numbers) -> bool:
    shapes = [(30 + given["seed"] % 9, 20), (12, 38), (10, 12), (1, 10)]
    for ranks in ([3, None, 2, None], [None] * 4, [1, 1, 1, 1], [20, 12, 10, 1]):
        want = sum(m + (m * n if r is None else r * (m + n)) for (m, n), r in zip(shapes, ranks, strict=True))
        if not equal(student.ask("parameters(shapes, ranks)", shapes=shapes, ranks=ranks), want):
            return False
    return True


@CHECKS(
    "count-test",
    1,
    "break_even is wrong: for a rank that costs just as much, a wide layer, or one that never saves.",
)
def break_even(student: Student, given: Numbers) -> bool:
    cases = ((64, 64), (10, 64), (3, 6), (6, 3), (100, 101), (1, 50), (2, 2))
    return all(equal(student.ask(f"break_even({m}, {n})"), m * n // (m + n)) for m, n in cases)


# 2. Allocate and 3. its trap

Instance = tuple[list[tuple[int, int]], list[list[float]], int]


def greedy(shapes: list[tuple[int, int]], spectra: list[list[float]], budget: float) -> list[int]:
    """The rule of question 2."""
    ranks, costs = [1] * len(shapes), [m + n for m, n in shapes]
    left = budget - sum(costs)
    while True:
        fit = [i for i, (m, n) in enumerate(shapes) if costs[i] <= left and ranks[i] < m * n // (m + n)]
        if not fit:
            return ranks
        i = max(fit, key=lambda i: spectra[i][ranks[i]] ** 2 / costs[i])
        ranks[i], left = ranks[i] + 1, left - costs[i]


def tails(spectrum: list[float], limit: int) -> np.ndarray:
    """What rank 1, 2, ..., limit loses."""
    squares = np.asarray(spectrum, dtype=np.float64) ** 2
    return np.array([squares[r:].sum() for r in range(1, limit + 1)])


def least_loss(shapes: list[tuple[int, int]], spectra: list[list[float]], budget: float) -> float:
    """The smallest loss within the budget, over all choices."""
    cost, loss = np.zeros(1), np.zeros(1)
    for (m, n), S in zip(shapes, spectra, strict=True):
        limit = m * n // (m + n)
        cost = np.add.outer(cost, np.arange(1, limit + 1) * (m + n)).ravel()
        loss = np.add.outer(loss, tails(S, limit)).ravel()
    return float(loss[cost <= budget].min())


def instances(given: Numbers) -> list[Instance]:
    """Networks of two to four layers; the rule stays below their break-even ranks, another mark's matter."""
    g = np.random.default_rng(given["seed"] + 11)
    small, large = [2.0] + [1.5] * 19, [3.0] + [2.0] * 59  # the larger gain costs too much
    out: list[Instance] = [([(20, 20), (60, 60)], [small, large], 160 + 125)]
    for count in (2, 3, 4, 4):
        shapes = [(int(g.integers(12, 40)), int(g.integers(12, 40))) for _ in range(count)]
        spectra = [sorted((g.random(min(s)) * g.uniform(1, 2)).tolist(), reverse=True) for s in shapes]
        least = sum(m + n for m, n in shapes)
        for budget in (least, 2 * least + 5, 3 * least + 1):
            ranks = greedy(shapes, spectra, budget)
            if all(r < m * n // (m + n) for r, (m, n) in zip(ranks, shapes, strict=True)):
                out.append((shapes, spectra, budget))
    return out


@CHECKS(
    "allocate-test",
    2,
    "The ranks are not those of the rule: gain per stored number, of those that still fit.",
)
def ranks_of_rule(student: Student, given: Numbers) -> bool:
    call = "allocate(shapes, spectra, budget)"
    return all(
        equal(
            student.ask(call, shapes=shapes, spectra=spectra, budget=budget), greedy(shapes, spectra, budget)
        )
        for shapes, spectra, budget in instances(given)
    )


@CHECKS(
    "allocate-test", 1, "With an ample budget a layer goes above its break-even rank, or does not reach it."
)
def ample(student: Student, given: Numbers) -> bool:
    shapes, spectra = [(6, 3), (4, 12), (9, 9)], [[1.0] * 3, [0.5] * 4, [2.0] * 9]
    return equal(student.ask("allocate(shapes, spectra, 10000)", shapes=shapes, spectra=spectra), [2, 3, 4])


@CHECKS(
    "allocate-test",
    1,
    "If rank 1 does not fit everywhere, a ValueError with the budget and the least one is due.",
)
def too_small(student: Student, given: Numbers) -> bool:
    call = "allocate([(6, 4), (5, 9)], [[1.0] * 4, [1.0] * 5], {})"
    return raises(student, call.format(23), 23, 24) and equal(student.ask(call.format(24)), [1, 1])


def trapped(student: Student, factor: float) -> bool:
    """Whether the rule loses `factor` times the least possible, on a valid instance."""
    shapes, spectra, budget = student.ask(f"trap({factor})")
    limits = [m * n // (m + n) for m, n in shapes]
    valid = len(shapes) == len(spectra) <= 3 and max(max(s) for s in shapes) <= 2000 and min(limits) >= 1
    small = valid and math.isfinite(budget) and sum(m + n for m, n in shapes) <= budget
    if not (small and math.prod(int(k) for k in limits) <= 100_000):
        return that(False, "a network of the allowed size, within its budget", [shapes, budget])
    for (m, n), S in zip(shapes, spectra, strict=True):
        if not (len(S) == min(m, n) and min(S) >= 0 and max(S) <= 1e6 and (np.diff(S) <= 0).all()):
            return that(False, "singular values from 0 to a million, largest first, min(m, n) of them", S)
    ranks = greedy(shapes, spectra, budget)
    lost = sum(float(tails(S, r)[-1]) for S, r in zip(spectra, ranks, strict=True))
    least = least_loss(shapes, spectra, budget)
    return at_least(lost, 1e-12, "the energy that the rule loses") and at_least(
        lost,
        factor * least * (1 - 1e-9),
        f"the energy that the rule loses; the least possible is {least:.4g}",
    )


@CHECKS("trap-test", 2, "trap(2) is not valid, or the rule loses less than twice the least possible.")
def twice(student: Student, given: Numbers) -> bool:
    return trapped(student, 2)


@CHECKS(
    "trap-test",
    1,
    "For a factor of 10 it is not valid, or the rule loses less than ten times the least possible.",
)
def ten_times(student: Student, given: Numbers) -> bool:
    return trapped(student, 10)


@CHECKS("trap-test", 1, "For other factors, up to 100, it is not valid, or the rule does not lose enough.")
def any_factor(student: Student, given: Numbers) -> bool:
    return trapped(student, 100) and trapped(student, 37.5)


# 4. Data-aware truncation with a free bias


def aware_cases(given: Numbers) -> list[dict[str, Tensor]]:
    """Tall, square and wide layers; inputs after a ReLU, whose mean is far from 0."""
    g = torch.Generator().manual_seed(given["seed"] + 21)
    out = []
    for m, n in ((17, 6), (9, 9), (5, 14)):
        X = torch.relu(torch.randn(80, n, generator=g) + 1.5) * torch.arange(1, n + 1)
        out.append({"W": torch.randn(m, n, generator=g), "b": torch.randn(m, generator=g), "X": X})
    return out


def aware_error(student: Student, case: dict[str, Tensor], rank: int) -> tuple[float, float, float]:
    """Error of the student's layer, the least with the bias as it was, and the least."""
    W, b, X = (case[k].double() for k in ("W", "b", "X"))
    A, B, c = (torch.as_tensor(t).double() for t in student.ask(f"truncate_for(W, b, X, {rank})", **case))
    if not (A.shape[1] <= rank and c.shape == b.shape):
        raise ValueError("shape")
    Y = X @ W.T
    least = [torch.linalg.svdvals(M)[rank:].norm().item() for M in (Y, Y - Y.mean(0))]
    return (Y + b - X @ (A @ B).T - c).norm().item(), least[0], least[1]


@CHECKS("aware-test", 1, "The error of the outputs is larger than it need be even with the bias as it was.")
def aware_fixed(student: Student, given: Numbers) -> bool:
    errors = (aware_error(student, case, r) for case in aware_cases(given) for r in (1, 3))
    return all(at_most(got, fixed * 1.001, "the error of the outputs") for got, fixed, _ in errors)


@CHECKS("aware-test", 2, "The error of the outputs is larger than it need be: what can the bias do?")
def aware_free(student: Student, given: Numbers) -> bool:
    errors = (aware_error(student, case, r) for case in aware_cases(given) for r in (1, 3))
    return all(at_most(got, free * 1.001, "the error of the outputs") for got, _, free in errors)


@CHECKS("aware-test", 1, "With fewer samples than the rank it does not work, or W, b or X was changed.")
def aware_few(student: Student, given: Numbers) -> bool:
    case = aware_cases(given)[0]
    few = case | {"X": case["X"][:2]}
    kept = student.ask("[truncate_for(W, b, X, 4), W, b, X][1:]", **few)
    got, *_ = aware_error(student, few, 4)
    scale = (few["X"] @ few["W"].T).norm().item()
    return at_most(got, 1e-4 * scale, "the error of the outputs") and all(
        close(k, few[name]) for k, name in zip(kept, ("W", "b", "X"), strict=True)
    )


# 5. The compressed network

Layers = list[tuple[Tensor, ...]]


@cache
def unseen(seed: int) -> tuple[Layers, Tensor, Tensor, Tensor, Tensor]:
    """A network, what it was trained on, and held-out pictures: pixels and labels in an order of our own."""
    split = load_split("digits", test_size=0.25, seed=10_000 + 100 * SECRET + seed)
    g = torch.Generator().manual_seed(split.X_train.shape[0] + 100 * SECRET + seed)
    pixels, names = torch.randperm(SIZES[0], generator=g), torch.randperm(SIZES[-1], generator=g)
    X, y = split.X_train[:, pixels], names[split.y_train]
    X_held, y_held = split.X_test[:, pixels], names[split.y_test]
    set_seed(1000 + SECRET + seed)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    train_nn(net, X, y, epochs=30, batch_size=32, weight_decay=1e-3)
    dense: Layers = [(f.weight.detach(), f.bias.detach()) for f in net if isinstance(f, nn.Linear)]
    return dense, X, y, X_held, y_held


def judge(layers: Any, X: Tensor, y: Tensor) -> tuple[int, float] | None:
    """(parameters, accuracy) of what was handed in, rebuilt here; None if it has not the right form."""
    if not isinstance(layers, list) or len(layers) != len(SHAPES):
        return None
    stored, H = 0, X.double().numpy()
    for i, (layer, (m, n)) in enumerate(zip(layers, SHAPES, strict=True)):
        if len(layer) not in (2, 3) or not all(
            isinstance(t, np.ndarray) and t.dtype.kind == "f" for t in layer
        ):
            return None
        *factors, b = (t.astype(np.float64) for t in layer)
        inner = factors[0].shape[1:] if len(factors) == 2 else ()
        wanted = [(m, *inner), (*inner, n)] if len(factors) == 2 else [(m, n)]
        finite = all((np.abs(t) <= 1e9).all() for t in (*factors, b))
        if [f.shape for f in factors] != wanted or b.shape != (m,) or not finite:
            return None
        for F in reversed(factors):
            H = H @ F.T
        H = H + b if i == len(SHAPES) - 1 else np.maximum(H + b, 0)
        stored += sum(t.size for t in layer)
    return stored, float((H.argmax(1) == y.numpy()).mean())


_judged: WeakKeyDictionary[Student, tuple[tuple[int, float] | None, str | None]] = WeakKeyDictionary()


def judged(student: Student, given: Numbers) -> tuple[int, float] | None:
    """`judge` of what the student's function returns; it is called once."""
    if student not in _judged:
        dense, X, y, X_held, y_held = unseen(given["seed"])
        layers, result = student.ask("hand_in(layers, X, y)", layers=dense, X=X, y=y), None
        if student.short:  # it ran out of time: the figure is not tried again
            _judged[student] = None, student.complaint
            return None
        # it may have a form that cannot be read at all; the leaderboard asks for it outside of a check
        with suppress(Exception):
            result = judge(layers, X_held, y_held)
        _judged[student] = result, student.complaint
    result, student.complaint = _judged[student]
    asked("hand_in(layers, X, y)", {}, result, None)
    return result


def within(student: Student, given: Numbers, size: str, accuracy: str) -> bool:
    result = judged(student, given)
    if result is None:
        return False
    if not student.complaint:  # only read if the mark is missed; rounded down, so that 0.899 is not 0.90
        student.complaint = f"{result[0]} parameters, {math.floor(100 * result[1]) / 100:.2f} right"
    return at_most(result[0], given[size], "the number of parameters") and at_least(
        result[1], given[accuracy], "the accuracy on unseen pictures"
    )


@CHECKS(
    "hand-in-test",
    1,
    "The result is not a list of (W, b) or (A, B, b) of floating-point tensors of the right sizes.",
)
def form(student: Student, given: Numbers) -> bool:
    return judged(student, given) is not None


@CHECKS(
    "hand-in-test",
    2,
    "Row 1 of the table: too many parameters, or too low an accuracy on the unseen pictures.",
)
def loose(student: Student, given: Numbers) -> bool:
    return within(student, given, "loose", "acc_loose")


@CHECKS(
    "hand-in-test",
    2,
    "Row 2 of the table: too many parameters, or too low an accuracy on the unseen pictures.",
)
def tight_low(student: Student, given: Numbers) -> bool:
    return within(student, given, "tight", "acc_low")


@CHECKS(
    "hand-in-test",
    2,
    "Row 3 of the table: too many parameters, or too low an accuracy on the unseen pictures.",
)
def tight_high(student: Student, given: Numbers) -> bool:
    return within(student, given, "tight", "acc_high")


def leaderboard(student: Student, numbers: Numbers) -> dict[str, float]:
    """Parameters, fewer is better, of a network that reaches `acc_high`; nothing for one that does not."""
    result = judged(student, numbers)
    return {"parameters": float(result[0])} if result and result[1] >= numbers["acc_high"] else {}
