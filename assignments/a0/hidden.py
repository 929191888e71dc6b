"""a0, review this notebook: the cohort's numbers, and what each mark is for."""

import math
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from assignments.cases import as_number, at_least, at_most, close, equal, finite, that
from assignments.checks import Checks
from assignments.sandbox import Student
from lowrank_utils import load_split

SECONDS = 30
CHECKS = Checks()
NAMES = {  # what other cohorts write instead: assignments/variants.py
    "cut": ("shrunk", "narrowed"),
    "fold": ("merged", "joined"),
    "trained_lite": ("fitted_lite", "learned_lite"),
    "distance": ("how_far", "apart"),
    "flops": ("cost_of_one", "flops_each"),
    "largest_rank": ("rank_limit", "top_rank"),
    "p_value": ("mcnemar", "chance_of"),
    "votes_needed": ("votes_for", "decisive_votes"),
}
# Not allowed by the text: assignments/forbidden.py
FORBIDDEN: dict[str, set[str]] = dict.fromkeys(
    ("LowRankLinear compress count_macs flopth_counts break_even_rank").split(),
    set(),
)
Numbers = dict[str, Any]


def numbers(seed: int) -> Numbers:
    """What changes from cohort to cohort."""
    return {"seed": seed, "points": 37}


RUBRIC = {
    "words": [
        (1.0, "the claim is stated as the author meant it"),
        (2.0, "an experiment that could come out either way, with the number to look at"),
        (1.0, "one thing that holds, with a reason"),
    ]
}


def generator(given: Numbers, offset: int) -> torch.Generator:
    """Draws that change with the cohort."""
    return torch.Generator().manual_seed(given["seed"] + offset)


# 1. The review: half a point for each passage

PASSAGES = {
    "A": ("luck", "What would another 30 flowers say?"),
    "B": ("not-smaller", "Look at what `small` is made of."),
    "C": ("lost-property", "Look at the first layer of `tuned`."),
    "D": ("seen-data", "Ask where the figure comes from."),
    "E": ("uncounted", "Write down the shapes of the parts."),
    "F": ("random-start", "Ask where these weights come from."),
    "G": ("transposed", "Try it at rank 2."),
    "H": ("unit", "Call it with one flower, and with 90."),
}


def diagnosed(letter: str, name: str) -> Any:
    """The judge of one passage."""
    words = "{str(k).strip().upper(): str(v).strip().lower() for k, v in diagnosis.items()}"
    return lambda student, given: (
        student.ask(f"{words}[{letter!r}]", f"diagnosis[{letter!r}]") == name
    )  # no case: it would tell the name


for letter, (name, hint) in PASSAGES.items():
    add = CHECKS("review-test", 0.5, f"Passage {letter}: another diagnosis fits. {hint}", letter)
    add(diagnosed(letter, name))


# 2. Cut


def layers(given: Numbers) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of a tall, a square and a wide layer."""
    g = generator(given, 3)
    shapes = ((13, 5), (7, 7), (6, 15))
    return [(torch.randn(m, n, generator=g), torch.randn(m, generator=g)) for m, n in shapes]


def best(W: Tensor, rank: int) -> Tensor:
    """W_r."""
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def of_cut(student: Student, W: Tensor, b: Tensor | None, rank: int, then: str, **inputs: Any) -> Any:
    """The value of `then`, in which `new` is what `cut` makes of the layer `old`."""
    m, n = W.shape
    state = {"weight": W} if b is None else {"weight": W, "bias": b}
    old = f"torch.nn.Linear({n}, {m}, bias={b is not None})"
    code = f"(lambda old: (old.load_state_dict(state), (lambda new: {then})(cut(old, {rank})))[1])({old})"
    shown = f"{then.split(',')[0]} of new = cut(nn.Linear({n}, {m}, bias={b is not None}), {rank})"
    return student.ask(code, shown, state=state, **inputs)


@CHECKS("cut-test", 2, "The new layer does not compute what W_r x + b says.")
def same_function(student: Student, given: Numbers) -> bool:
    for W, b in layers(given):
        X = torch.randn(9, W.shape[1], generator=generator(given, 4))
        for rank in (1, 4):
            want = X.double() @ best(W, rank).T + b
            if not close(of_cut(student, W, b, rank, "new(X)", X=X), want):
                return False
    return True


@CHECKS("cut-test", 1, "The new layer does not hold r(m + n) weights and m numbers of the bias.")
def smaller(student: Student, given: Numbers) -> bool:
    count = "sum(p.numel() for p in new.parameters()) + sum(p.numel() for p in new.buffers())"
    for W, b in layers(given):
        X = torch.ones(1, W.shape[1])
        if not equal(of_cut(student, W, b, 3, count), 3 * sum(W.shape) + len(b)):
            return False
        if not finite(of_cut(student, W, b, 3, "new(X)", X=X)):
            return False
    return True


@CHECKS("cut-test", 1, "After training the rank is larger than r, or training changes nothing.")
def stays_low(student: Student, given: Numbers) -> bool:
    train = "train_nn(torch.nn.Sequential(new, torch.nn.ReLU(), torch.nn.Linear({}, 3)), X, y, epochs=20)"
    for W, b in layers(given):
        m, n = W.shape
        X, y = torch.randn(40, n, generator=generator(given, 5)), torch.arange(40) % 3
        after = f"({train.format(m)}, new(torch.eye({n})) - new(torch.zeros(1, {n})))[1]"
        got = torch.as_tensor(of_cut(student, W, b, 2, after, X=X, y=y)).double().T
        moved = float((got - best(W, 2)).abs().max()) if got.shape == W.shape else math.nan
        if not (
            that(got.isfinite().all(), "finite weights after training", got)
            and at_most(torch.linalg.matrix_rank(got, rtol=1e-4), 2, "the rank after training")
            and at_least(moved, 1e-4, "the largest change of a weight by training")
        ):
            return False
    return True


@CHECKS("cut-test", 1, "A layer without a bias does not work, or the layer that was given has changed.")
def gentle(student: Student, given: Numbers) -> bool:
    W, b = layers(given)[0]
    X = torch.randn(9, 5, generator=generator(given, 6))
    spoil = "([p.data.fill_(7.0) for p in new.parameters()], torch.cat([old.weight.flatten(), old.bias]))[1]"
    return close(of_cut(student, W, None, 2, "new(X)", X=X), X.double() @ best(W, 2).T) and close(
        of_cut(student, W, b, 2, spoil), torch.cat([W.flatten(), b])
    )


# 3. Fold


def chain(given: Numbers, sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of layers between these sizes."""
    g = generator(given, 7)
    pairs = list(zip(sizes, sizes[1:], strict=False))
    return (
        [torch.randn(outs, ins, generator=g) for ins, outs in pairs],
        [torch.randn(outs, generator=g) for _, outs in pairs],
    )


def folded(student: Student, given: Numbers, sizes: list[int], part: int) -> bool:
    """Whether the weight (0) or the bias (1) is right."""
    weights, biases = chain(given, sizes)
    W, b = weights[0].double(), biases[0].double()
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        W, b = weight.double() @ W, weight.double() @ b + bias
    got = student.ask(f"fold(weights, biases)[{part}]", weights=weights, biases=biases)
    return close(got, (W, b)[part])


@CHECKS("fold-test", 1, "The weight of three layers is wrong where the middle one is 2 x 2 or larger.")
def square_core(student: Student, given: Numbers) -> bool:
    return all(folded(student, given, sizes, 0) for sizes in ([4, 2, 2, 10], [9, 5, 5, 3]))


@CHECKS("fold-test", 1, "The weight of three layers is wrong where all sizes differ.")
def unequal(student: Student, given: Numbers) -> bool:
    return all(folded(student, given, sizes, 0) for sizes in ([4, 2, 3, 10], [9, 5, 4, 3]))


@CHECKS("fold-test", 1, "The bias is wrong: each one goes through the layers after it.")
def bias_too(student: Student, given: Numbers) -> bool:
    return all(folded(student, given, sizes, 1) for sizes in ([4, 2, 2, 10], [9, 5, 5, 3]))


@CHECKS("fold-test", 1, "One, two or five layers do not work.")
def any_number(student: Student, given: Numbers) -> bool:
    lengths = ([4, 3], [4, 2, 5], [3, 4, 5, 2, 6, 7])
    return all(folded(student, given, sizes, part) for sizes in lengths for part in (0, 1))


# 4. Learned


def net_of(student: Student, rank: int, seed: int, before: int = 1) -> list[Tensor]:
    """Weights and biases of u1, core1, v1, fc2 of the student's net, after `before` other draws."""
    net = f"[p.detach() for p in trained_lite({rank}, {seed}).parameters()]"
    got = student.ask(
        f"[torch.randn({before}), {net}][1]", f"trained_lite({rank}, {seed}), after other draws"
    )
    parameters = [torch.as_tensor(p) for p in got]
    shapes = [(rank, 4), (rank,), (rank, rank), (rank,), (10, rank), (10,), (3, 10), (3,)]
    if [tuple(p.shape) for p in parameters] != shapes or not all(p.isfinite().all() for p in parameters):
        raise ValueError("not the parameters of a NetLite, or not finite")
    return parameters


def share_right(parameters: list[Tensor], X: Tensor, y: Tensor) -> float:
    """The accuracy of a NetLite with these parameters."""
    u, a, core, b, v, c, W, d = parameters
    x = torch.relu(((X @ u.T + a) @ core.T + b) @ v.T + c)
    return ((x @ W.T + d).argmax(1) == y).double().mean().item()


@CHECKS("learned-test", 2, "The net of some rank or seed has not learned to tell the flowers apart.")
def has_learned(student: Student, given: Numbers) -> bool:
    data = load_split("iris", val_size=0.2, seed=given["seed"], stratify=True)
    for rank in (1, 2, 3):
        net = net_of(student, rank, given["seed"] % 1000 + rank)
        if not at_least(
            share_right(net, data.X_train, data.y_train), 0.8, "the share of flowers it tells right"
        ):
            return False
    return True


@CHECKS("learned-test", 1, "The same seed does not give the same net, or two seeds do.")
def seeded(student: Student, given: Numbers) -> bool:
    first, again, other = net_of(student, 2, 5), net_of(student, 2, 5, before=7), net_of(student, 2, 6)
    same = all(map(torch.equal, first, again))
    return that(same, "the same net again") and that(
        not torch.equal(first[0], other[0]), "another net for seed 6"
    )


@CHECKS("learned-test", 1, "The distance is not that of V from W as a share of W, in the Frobenius norm.")
def share_of_W(student: Student, given: Numbers) -> bool:
    g = generator(given, 8)
    for m, n in ((4, 3), (3, 8)):
        V, W = torch.randn(m, n, generator=g), 10 * torch.randn(m, n, generator=g)
        for one, two in ((V, W), (W, V), (10 * W, W)):
            got, want = student.ask("distance(V, W)", V=one, W=two), (one - two).norm() / two.norm()
            if not close(got, want):
                return False
    return True


# 5. Cost

NETS = [
    ("torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))", 7, 2 * (35 + 10)),
    ("torch.nn.Linear(6, 9, bias=False)", 6, 2 * 54),
]


@CHECKS("cost-test", 1, "For a batch of one sample the number is not that of its FLOPs.")
def one_sample(student: Student, given: Numbers) -> bool:
    return all(equal(student.ask(f"flops({net}, torch.ones(1, {n}))"), want) for net, n, want in NETS)


@CHECKS("cost-test", 1, "The number depends on how many samples are in the batch.")
def any_batch(student: Student, given: Numbers) -> bool:
    found = [[student.ask(f"flops({net}, torch.ones({k}, {n}))") for k in (1, 2, 50)] for net, n, _ in NETS]
    whole = all(isinstance(x, int) and 0 < x < 10**6 for row in found for x in row)
    same = all(len(set(row)) == 1 for row in found) if whole else False
    return that(same, "the same for 1, 2 and 50 samples", found[0]) and that(
        found[0] != found[1], "another number for another net", found[1]
    )


@CHECKS("cost-test", 1, "A second call gives another number, or hooks stay in the net.")
def no_trace(student: Student, given: Numbers) -> bool:
    (net, n, _), (small, k, _) = NETS
    left = "sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())"
    call = f"flops(net, torch.ones(3, {n}))"
    first, second, hooks = student.ask(f"(lambda net: [{call}, {call}, {left}])({net})")
    again = equal(second, first) and equal(hooks, 0)
    other = student.ask(f"flops({small}, torch.ones(3, {k}))")
    whole = all(isinstance(x, int) and 0 < x < 10**6 for x in (first, other))
    return again and that(whole and other != first, "another whole number for another net", other)


@CHECKS("cost-test", 1, "A layer that the net calls twice does not count twice.")
def called_twice(student: Student, given: Numbers) -> bool:
    call = "flops(torch.nn.Sequential(one, torch.nn.ReLU(), {}), torch.ones(1, 6))"
    make = "(lambda one: [{}, {}])(torch.nn.Linear(6, 6))".format(
        call.format("one"), call.format("torch.nn.Identity()")
    )
    twice, once = student.ask(make)
    whole = isinstance(once, int) and 0 < once < 10**6
    return that(whole, "a whole number above 0 if it is called once", once) and equal(twice, 2 * once)


def ranks_right(student: Student, cases: list[tuple[int, int]], core: bool) -> bool:
    """`largest_rank` against a search over all ranks."""
    return all(
        equal(
            student.ask(f"largest_rank({m}, {n}, {core})"),
            max(r for r in range(m * n + 1) if r * (m + n) + core * r * r <= m * n),
        )
        for m, n in cases
    )


@CHECKS("cost-test", 1, "The largest rank with a core is wrong for some shape.")
def with_core(student: Student, given: Numbers) -> bool:
    shapes = [(40, 40), (33, 100), (15, 10), (2 + given["seed"] % 9, 50), (12, 20), (90, 90)]
    return ranks_right(student, shapes, True)


@CHECKS("cost-test", 1, "The largest rank is wrong without a core, or where no rank saves anything.")
def without_core(student: Student, given: Numbers) -> bool:
    shapes = [(40, 40), (33, 100), (4, 4), (6, 3), (1, 9), (1, 1)]
    return ranks_right(student, shapes, False) and ranks_right(student, [(1, 9), (2, 2), (1, 1)], True)


# 6. Luck


def p_right(student: Student, cases: list[tuple[int, int, int, int]]) -> bool:
    """`p_value` for (b, c, both right, both wrong) against scipy's binomial test."""
    for b, c, both, neither in cases:
        pairs = [(True, False)] * b + [(True, True)] * both + [(False, True)] * c + [(False, False)] * neither
        right_a, right_b = ([bool(x) for x in part] for part in zip(*pairs, strict=True))
        want = binomtest(b, b + c).pvalue if b + c else 1.0
        if not close(student.ask("p_value(A, B)", A=right_a, B=right_b), want, tolerance=1e-9):
            return False
    return True


@CHECKS("luck-test", 2, "The p-value is wrong for some pair of nets that differ.")
def differ(student: Student, given: Numbers) -> bool:
    last = (7, 8, 5, given["seed"] % 9)
    return p_right(student, [(1, 0, 29, 0), (2, 9, 11, 3), (12, 3, 300, 40), (0, 6, 0, 0), last])


@CHECKS("luck-test", 1, "Where the nets never differ, or equally often in both directions, p is 1.")
def even(student: Student, given: Numbers) -> bool:
    uneven = student.ask("p_value([True] * 6, [False] * 6)")
    below = (
        at_most(uneven, 0.5, "p where one net is right six times, the other never") and as_number(uneven) > 0
    )
    return below and p_right(student, [(0, 0, 20, 10), (4, 4, 20, 2), (1, 1, 0, 0)])


@CHECKS("luck-test", 1, "The number of samples that must fall to one net is not the smallest for some alpha.")
def votes(student: Student, given: Numbers) -> bool:
    return all(
        equal(student.ask(f"votes_needed({alpha})"), math.ceil(math.log2(2 / alpha) - 1e-9))
        for alpha in (0.05, 0.01, 0.25, 0.001, 0.4)
    )
