"""a3, a low-rank layer: the cohort's numbers, and what each mark is for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assignments.cases import at_least, at_most, close, equal, finite, that
from assignments.checks import Checks, raises
from assignments.sandbox import Student

SECONDS = 20
CHECKS = Checks()
NAMES = {  # what other cohorts write instead: assignments/variants.py
    "forward": ("through_factors", "low_rank_forward"),
    "gradients": ("factor_gradients", "by_hand"),
    "init": ("first_factors", "drawn_factors"),
    "ratio_two_layers": ("off_by_layers", "layers_ratio"),
    "ratio_same_scale": ("off_by_scale", "scale_ratio"),
    "from_linear": ("factors_of", "cut_linear"),
    "fold": ("one_layer", "merged"),
    "saved": ("numbers_saved", "fewer_by"),
    "one_step": ("both_steps", "step_twice"),
    "largest_rank": ("rank_limit", "rank_after"),
}
# Not allowed by the text: assignments/forbidden.py
FORBIDDEN: dict[str, set[str]] = dict.fromkeys(
    (
        "LoRALinear LowRankLinear PivotedLinear break_even_rank calibrate compress "
        "low_rank_approximation truncated_svd weighted_factors"
    ).split(),
    set(),
)
Numbers = dict[str, Any]
HUGE = 200_000  # a dense matrix of this side has 160 GB
DRAWS = 40
ONES = "(lambda *shape: __import__('torch').ones(*shape))"
LINEAR = (  # an nn.Linear with the weight W and the bias b
    "(l := __import__('torch').nn.Linear({n}, {m}, bias={bias})),"
    "l.load_state_dict({{'weight': W, 'bias': b}} if {bias} else {{'weight': W}}),"
)


def numbers(seed: int) -> Numbers:
    """What changes from cohort to cohort."""
    return {"seed": seed, "m": 14 + seed % 6, "n": 20 + seed % 7, "rank": 3 + seed % 3, "points": 35}


def random(given: Numbers, key: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers in double precision, of the cohort and of `key`."""
    g = torch.Generator().manual_seed(given["seed"] + 1000 * key)
    return [torch.randn(*s, generator=g, dtype=torch.float64) for s in shapes]


SHAPES = ((17, 6), (9, 9), (5, 14))  # tall, square, wide


def same(got: Any, want: list[Tensor]) -> bool:
    """Every tensor of an answer with several."""
    if not isinstance(got, list) or len(got) != len(want):
        return that(False, f"{len(want)} results", got)
    return all(close(g, w) for g, w in zip(got, want, strict=True))


@CHECKS("forward-test", 1, "With no leading dimension, or with two, the shape or the values of y are wrong.")
def leading(student: Student, given: Numbers) -> bool:
    for m, n in SHAPES:
        U, V, b = random(given, 1, (m, 3), (3, n), (m,))
        for x in random(given, 2, (n,), (2, 4, n), (0, n)):
            if not close(student.ask("forward(x, U, V, b)", x=x, U=U, V=V, b=b), x @ (U @ V).T + b):
                return False
    return True


@CHECKS("forward-test", 1, "Without a bias, b=None, it does not work.")
def no_bias(student: Student, given: Numbers) -> bool:
    U, V, x = random(given, 3, (5, 2), (2, 8), (4, 8))
    return close(student.ask("forward(x, U, V, None)", x=x, U=U, V=V), x @ (U @ V).T)


@CHECKS("forward-test", 2, "At m = n = 200000 and rank 1 it fails: does an m x n matrix come up?")
def thin(student: Student, given: Numbers) -> bool:
    call = f"forward({ONES}(2, {HUGE}), {ONES}({HUGE}, 1), {ONES}(1, {HUGE}), {ONES}({HUGE}))[:, :3]"
    shown = f"forward at m = n = {HUGE}, rank 1, of ones"
    return close(student.ask(call, shown), np.full((2, 3), HUGE + 1.0))


def wanted(G: Tensor, x: Tensor, U: Tensor, V: Tensor) -> list[Tensor]:
    """The three gradients, by autograd."""
    leaves = [t.clone().requires_grad_() for t in (U, V, U.new_zeros(len(U)))]
    loss = (G * (x @ (leaves[0] @ leaves[1]).T + leaves[2])).sum()
    return list(torch.autograd.grad(loss, leaves))


def gradient_case(given: Numbers, key: int, m: int, n: int, *batch: int) -> dict[str, Tensor]:
    G, x, U, V = random(given, key, (*batch, m), (*batch, n), (m, 3), (3, n))
    return {"G": G, "x": x, "U": U, "V": V}


@CHECKS("gradients-test", 2, "A gradient is wrong: compare yours with autograd's, on a layer with m != n.")
def gradients(student: Student, given: Numbers) -> bool:
    cases = [gradient_case(given, 4, m, n, N) for m, n in SHAPES for N in (1, 11)]
    return all(same(student.ask("gradients(G, x, U, V)", **c), wanted(**c)) for c in cases)


@CHECKS("gradients-test", 1, "With two leading dimensions a gradient is wrong, or has the wrong shape.")
def gradients_batched(student: Student, given: Numbers) -> bool:
    case = gradient_case(given, 5, 6, 4, 3, 5)
    return same(student.ask("gradients(G, x, U, V)", **case), wanted(**case))


@CHECKS("gradients-test", 1, "It does not work where autograd is off: write the products.")
def by_hand(student: Student, given: Numbers) -> bool:
    case = gradient_case(given, 6, 6, 4, 5)
    call = "__import__('torch').inference_mode()(gradients)(G, x, U, V)"
    return same(student.ask(call, "gradients(G, x, U, V) under inference_mode", **case), wanted(**case))


@CHECKS("gradients-test", 2, "At m = n = 200000 and rank 1 it fails: does an m x n matrix come up?")
def gradients_thin(student: Student, given: Numbers) -> bool:
    G, U, V = f"{ONES}(2, {HUGE})", f"{ONES}({HUGE}, 1)", f"{ONES}(1, {HUGE})"
    shown = f"gradients at m = n = {HUGE}, rank 1, of ones"
    got = student.ask(f"[g.reshape(-1)[:2] for g in gradients({G}, {G}, {U}, {V})]", shown)
    return same(got, [torch.full((2,), v) for v in (2.0 * HUGE, 2.0 * HUGE, 2.0)])


def drawn(student: Student, given: Numbers) -> Iterator[tuple[int, int, int, np.ndarray, np.ndarray]]:
    """(m, n, r, U of (draws, m, r), V of (draws, r, n)) for tall, square and wide layers of several ranks."""
    for m, n, r in ((90, 60, 1), (60, 90, 7), (75, 75, 20)):
        seeds = f"range({given['seed'] + r}, {given['seed'] + r + DRAWS})"
        call = f"[init({m}, {n}, {r}, __import__('torch').Generator().manual_seed(i)) for i in {seeds}]"
        pairs = student.ask(call, f"init({m}, {n}, {r}, generator) with {DRAWS} generators")
        U, V = (np.stack(factor).astype(float) for factor in zip(*pairs, strict=True))
        if U.shape != (DRAWS, m, r) or V.shape != (DRAWS, r, n):
            raise ValueError("shape")
        yield m, n, r, U, V


def slack(m: int, n: int, r: int) -> float:
    """Five standard deviations of |UV|^2 over its mean: |u|^2 of m normal numbers varies by 2/m."""
    return 5 * ((2 / m + 2 / n) / (r * DRAWS)) ** 0.5


@CHECKS(
    "init-test", 2, "The product's entries do not have mean 0 and variance 1/(3n) for all m, n and ranks."
)
def variance(student: Student, given: Numbers) -> bool:
    for m, n, r, U, V in drawn(student, given):
        W = U @ V * (3 * n) ** 0.5  # of variance 1; the mean of independent entries is known to 1/sqrt(count)
        if not np.isfinite(W).all():
            return that(False, "finite factors", W)
        if not (
            at_most(
                abs((W**2).mean() - 1), slack(m, n, r), f"3n times the variance, {(W**2).mean():.4g}, less 1"
            )
            and at_most(abs(W.mean()), 5 / W.size**0.5, "the mean over its expected size")
            and equal(int(np.linalg.matrix_rank(W[0])), r)
        ):
            return False
    return True


@CHECKS("init-test", 1, "The two factors do not have the same expected squared norm.")
def balanced_start(student: Student, given: Numbers) -> bool:
    for m, n, r, U, V in drawn(student, given):
        norms = (U**2).sum(), (V**2).sum()
        if not (finite(U) and finite(V) and at_least(min(norms), 1e-9, "the smaller squared norm")):
            return False
        if not at_most(
            abs(norms[0] / norms[1] - 1), slack(m, n, r), "the ratio of the squared norms, less 1"
        ):
            return False
    return True


@CHECKS("init-test", 1, "The same generator must give the same factors again, and a used one others.")
def own_generator(student: Student, given: Numbers) -> bool:
    g, call = "__import__('torch').Generator().manual_seed(4)", "init(5, 7, 3, g)"
    between = "__import__('torch').randn(3)"
    calls = f"[init(5, 7, 3, {g}), {between}, (g := {g}) and {call}, {call}]"
    one, _, two, three = student.ask(
        calls, "init(5, 7, 3, generator), twice with the same seed, then once more"
    )
    others = all(1e-6 < np.abs(a - b).max() < 1e9 for a, b in zip(two, three, strict=True))
    return same(one, [torch.as_tensor(t) for t in two]) and that(
        others, "other factors from a used generator"
    )


def formula(student: Student, name: str, want: Any) -> bool:
    sizes = ((10, 40, 2), (40, 10, 7), (33, 33, 33))
    return all(close(student.ask(f"{name}({m}, {n}, {r})"), want(m, n, r)) for m, n, r in sizes)


@CHECKS("init-test", 1, "ratio_two_layers is not what you measure: what variance has each of the layers?")
def two_layers(student: Student, given: Numbers) -> bool:
    return formula(student, "ratio_two_layers", lambda m, n, r: 1 / 3)


@CHECKS("init-test", 1, "ratio_same_scale is not what you measure: an entry is a sum of how many terms?")
def same_scale(student: Student, given: Numbers) -> bool:
    return formula(student, "ratio_same_scale", lambda m, n, r: r / (3 * n))


def start(student: Student, W: Tensor, b: Tensor | None, rest: str) -> Any:
    """The value of `rest` where `l` is an nn.Linear with W and b."""
    m, n = W.shape
    code = f"[{LINEAR.format(m=m, n=n, bias=b is not None)} {rest}][-1]"
    return student.ask(code, f"{rest} where l = nn.Linear({n}, {m}, bias={b is not None})", W=W.float(), b=b)


def layers(given: Numbers) -> list[tuple[Tensor, Tensor]]:
    """W in double precision, with a spectrum that falls, and b."""
    fade = [torch.arange(1, n + 1) for _, n in SHAPES]
    return [
        (random(given, 7, s)[0] / f, random(given, 8, s[:1])[0].float())
        for s, f in zip(SHAPES, fade, strict=True)
    ]


@CHECKS("from-linear-test", 2, "The product is not the best of that rank, for a tall, square or wide layer.")
def best(student: Student, given: Numbers) -> bool:
    for W, b in layers(given):
        for r in (1, 4):
            U, V, _ = start(student, W, b, f"from_linear(l, {r})")
            S, W_r = torch.linalg.svdvals(W), torch.as_tensor(U).double() @ torch.as_tensor(V).double()
            least = (S[r:].norm() + 1e-4 * S[0]).item()
            if not (
                that(U.shape == (len(W), r), f"U of {len(W)} x {r}", U)
                and at_most((W - W_r).norm(), least, "the error of the product")
            ):
                return False
    return True


@CHECKS("from-linear-test", 1, "The factors are not balanced: U^T U is not V V^T.")
def balanced(student: Student, given: Numbers) -> bool:
    W, b = layers(given)[2]
    U, V, _ = start(student, W, b, "from_linear(l, 3)")
    return close(U.T @ U, V @ V.T) and at_least(np.abs(U.T @ U).max(), 1e-6, "the largest entry of U^T U")


@CHECKS("from-linear-test", 1, "The bias is a copy, or None if there is none; nothing asks for a gradient.")
def bias(student: Student, given: Numbers) -> bool:
    W, b = layers(given)[0]
    change = "(t := from_linear(l, 2)), before := t[2].tolist(), t[2].mul_(0), [before, l.bias, l.weight]"
    kept = start(student, W, b, change)
    grads = start(student, W, b, "[t.requires_grad for t in from_linear(l, 2)]")
    none = start(student, W, None, "from_linear(l, 2)")
    return (
        same(kept, [b, b, W])
        and equal(grads, [False] * 3)
        and len(none) == 3
        and that(none[2] is None, "None for the bias", none[2])
    )


@CHECKS(
    "from-linear-test",
    1,
    "A rank below 1 or above min(m, n) must raise a ValueError with both numbers in it.",
)
def bad_rank(student: Student, given: Numbers) -> bool:
    W, b = layers(given)[2]
    linear = LINEAR.format(m=5, n=14, bias=True)
    U, V, _ = start(student, W, b, "from_linear(l, 5)")
    return (
        finite(U)
        and finite(V)
        and all(
            raises(
                student,
                f"[{linear} from_linear(l, {rank})][-1]",
                rank,
                5,
                shown=f"from_linear(l, {rank})",
                W=W.float(),
                b=b,
            )
            for rank in (0, -1, 6)
        )
    )


def chain(given: Numbers, m: int, n: int, r: int, s: int) -> dict[str, Tensor]:
    parts = random(given, 9, (r, n), (r,), (s, r), (s,), (m, s), (m,))
    return dict(zip(("W1", "b1", "C", "c", "W2", "b2"), parts, strict=True))


def folded(student: Student, p: dict[str, Tensor]) -> bool:
    U, V, b = student.ask("fold(W1, b1, C, c, W2, b2)", **p)
    inner = min(p["C"].shape)
    bias = p["W2"] @ (p["C"] @ p["b1"] + p["c"]) + p["b2"]
    sizes = (len(p["W2"]), inner), (inner, p["W1"].shape[1])
    fits = that((U.shape, V.shape) == sizes, f"U and V of {sizes[0]} and {sizes[1]}", U)
    return fits and close(U @ V, p["W2"] @ p["C"] @ p["W1"]) and close(b, bias)


@CHECKS("fold-test", 2, "The folded layer is not the same function: the product is wrong, or the bias is.")
def square_core(student: Student, given: Numbers) -> bool:
    return all(folded(student, chain(given, m, n, 3, 3)) for m, n in SHAPES)


@CHECKS(
    "fold-test", 1, "With a core that is not square the function differs, or the inner size is too large."
)
def other_core(student: Student, given: Numbers) -> bool:
    return all(folded(student, chain(given, 8, 7, r, s)) for r, s in ((4, 2), (2, 4)))


@CHECKS("fold-test", 1, "saved: count both forms, all biases included, for cores that are not square too.")
def count(student: Student, given: Numbers) -> bool:
    for m, n, r, s in ((10, 4, 2, 2), (30, 20, 5, 3), (8, 9, 2, 6)):
        want = r * n + r + s * r + s + m * s + m - min(r, s) * (m + n) - m
        if not equal(student.ask(f"saved({m}, {n}, {r}, {s})"), want):
            return False
    return True


def stepped(W: Tensor, X: Tensor, y: Tensor, rank: int, lr: float) -> list[Tensor]:
    """Both ways of one step, by autograd."""
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    cut = [U[:, :rank] * S[:rank].sqrt(), S[:rank, None].sqrt() * Vh[:rank]]
    out = []
    for leaves in ([cut[0] @ cut[1]], cut):
        leaves = [t.clone().requires_grad_() for t in leaves]
        product = leaves[0] @ leaves[1] if len(leaves) == 2 else leaves[0]
        grads = torch.autograd.grad(torch.nn.functional.cross_entropy(X @ product.T, y), leaves)
        new = [(t - lr * g).detach() for t, g in zip(leaves, grads, strict=True)]
        out.append(new[0] @ new[1] if len(new) == 2 else new[0])
    return out


def steps(student: Student, given: Numbers, which: int) -> bool:
    for m, n in SHAPES:
        W, X = random(given, 10, (m, n), (9, n))
        y = torch.arange(9) % m
        got = student.ask("one_step(W, X, y, 3, 0.4)", W=W, X=X, y=y)
        if not (
            that(len(got) == 2, "two matrices", got) and close(got[which], stepped(W, X, y, 3, 0.4)[which])
        ):
            return False
    return True


@CHECKS("step-test", 1, "The dense matrix after the step is wrong: cut, then one step on all its entries.")
def dense_step(student: Student, given: Numbers) -> bool:
    return steps(student, given, 0)


@CHECKS("step-test", 1, "The factors' product after the step is wrong: balanced factors, both moved at once.")
def factored_step(student: Student, given: Numbers) -> bool:
    return steps(student, given, 1)


@CHECKS("step-test", 2, "largest_rank: what rank does the gradient of N samples have, and what is the limit?")
def rank_after(student: Student, given: Numbers) -> bool:
    cases = (
        (10, 40, 1, 3),
        (40, 10, 5, 3),
        (12, 30, 64, 2),
        (30, 12, 64, 2),
        (20, 20, 18, 3),
        (20, 20, 6, 3),
    )
    return all(
        equal(student.ask(f"largest_rank({m}, {n}, {N}, {r})"), min(m, n, r + N)) for m, n, N, r in cases
    )
