"""a1, truncation and Eckart-Young: the cohort's numbers, and what each mark is for."""

from typing import Any

import numpy as np
import torch

from assignments.cases import as_number, at_least, at_most, close, equal, finite, that
from assignments.checks import Checks, raises
from assignments.sandbox import Student

SECONDS = 20
CHECKS = Checks()
NAMES = {  # what other cohorts write instead: assignments/variants.py
    "truncate": ("nearest_of_rank", "cut_to_rank"),
    "relative_error": ("lost_share", "error_of_rank"),
    "rank_for_error": ("rank_within", "rank_allowed"),
    "best_of_random": ("luckiest", "best_by_chance"),
    "truncate_for": ("cut_for", "nearest_outputs"),
}
# Not allowed by the text: assignments/forbidden.py
FORBIDDEN: dict[str, set[str]] = dict.fromkeys(
    (
        "LowRankLinear PivotedLinear calibrate compress low_rank_approximation rank_for_energy "
        "relative_error singular_values truncated_svd weighted_factors"
    ).split(),
    set(),
)
Numbers = dict[str, Any]


def numbers(seed: int) -> Numbers:
    """What changes from cohort to cohort."""
    return {"seed": seed, "m": 20 + seed % 7, "n": 12 + seed % 5, "rank": 3 + seed % 3, "points": 25}


def matrices(given: Numbers) -> list[torch.Tensor]:
    """Tall, square and wide, with a spectrum that falls."""
    g = torch.Generator().manual_seed(given["seed"] + 1)
    return [torch.randn(*s, generator=g) / torch.arange(1, s[1] + 1) for s in ((17, 6), (9, 9), (5, 14))]


def best(W: torch.Tensor, rank: int) -> torch.Tensor:
    """W_r in double precision."""
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def far(A: Any, B: torch.Tensor) -> bool:
    """Whether A is a finite matrix of B's shape, and another one."""
    A = np.asarray(A, dtype=np.float64)
    return A.shape == tuple(B.shape) and bool(1e-3 < np.abs(A - B.numpy()).max() < 1e9)


def error(W: torch.Tensor, B: torch.Tensor) -> float:
    """Relative Frobenius error of B."""
    return ((W.double() - B.double()).norm() / W.double().norm()).item()


@CHECKS("truncate-test", 2, "For a tall, a square or a wide matrix the product is not the nearest of rank r.")
def nearest(student: Student, given: Numbers) -> bool:
    return all(
        close(student.ask(f"truncate(W, {r})", W=W), best(W, r)) for W in matrices(given) for r in (1, 4)
    )


@CHECKS("truncate-test", 1, "Rank min(m, n) must be possible, and give W back, for a wide matrix too.")
def full(student: Student, given: Numbers) -> bool:
    for W in matrices(given):
        whole, cut = (student.ask(f"truncate(W, {r})", W=W) for r in (min(W.shape), 1))
        if not (close(whole, W) and that(far(cut, W), "another matrix than W at rank 1", cut)):
            return False  # W itself is no answer
    return True


@CHECKS(
    "truncate-test",
    1,
    "A rank of 0, below 0 or above min(m, n) must raise a ValueError with both numbers in it.",
)
def bad_rank(student: Student, given: Numbers) -> bool:
    W = matrices(given)[2]
    works = finite(student.ask("truncate(W, 5)", W=W))
    return works and all(raises(student, f"truncate(W, {rank})", rank, 5, W=W) for rank in (0, -1, 6))


@CHECKS("truncate-test", 1, "W was changed, or the dtype of the result is not that of W.")
def untouched(student: Student, given: Numbers) -> bool:
    W = matrices(given)[0].double()
    cut, kept = student.ask("[truncate(W, 2), W]", W=W)
    return (
        close(kept, W)
        and that(cut.dtype == np.float64, "dtype float64, that of W", cut)
        and that(far(cut, W), "another matrix than W", cut)
    )


@CHECKS("error-test", 2, "The relative error is wrong for a tall, a square or a wide matrix, or for rank 0.")
def right_error(student: Student, given: Numbers) -> bool:
    return all(
        close(student.ask(f"relative_error(W, {r})", W=W), error(W, best(W, r)))
        for W in matrices(given)
        for r in (0, 1, 3)
    )


@CHECKS("error-test", 1, "Small errors are not exact: sum the tail, do not subtract the head from the whole.")
def small_error(student: Student, given: Numbers) -> bool:
    W = best(matrices(given)[0], 2) + 1e-4 * matrices(given)[0].double()
    want = error(W.float(), best(W.float(), 2))
    got = student.ask("relative_error(W, 2)", W=W.float())
    # float32 itself is off by 6e-8 / 1e-4, a few parts in 1000
    return at_most(
        abs(as_number(got) - want), 1e-2 * want, f"the distance of {as_number(got):.6g} from {want:.6g}"
    )


@CHECKS("error-test", 1, "The error of a matrix of zeros is 0.")
def zero_error(student: Student, given: Numbers) -> bool:
    zeros, eye = (student.ask("relative_error(W, 1)", W=W) for W in (torch.zeros(4, 3), torch.eye(3)))
    return (
        equal(zeros, 0.0)
        and at_least(eye, 0.1, "the unit matrix at rank 1")
        and at_most(eye, 1.0, "the unit matrix")
    )


@CHECKS(
    "rank-for-test", 2, "The rank is not the smallest, or too small, for some tolerance between 0.01 and 1."
)
def smallest(student: Student, given: Numbers) -> bool:
    for W in matrices(given):
        errors = [error(W, best(W, r)) for r in range(min(W.shape) + 1)]
        for tolerance in (0.013, 0.11, 0.37, 0.92):
            want = next(r for r, e in enumerate(errors) if e <= tolerance)
            if not equal(student.ask(f"rank_for_error(W, {tolerance})", W=W), want):
                return False
    return True


@CHECKS("rank-for-test", 1, "A tolerance of 0 needs the full rank; one above 1 needs rank 0.")
def ends(student: Student, given: Numbers) -> bool:
    W, tolerances = matrices(given)[2], (0.0, 1.01, 3.0)  # at 1 itself rounding would decide
    return all(
        equal(student.ask(f"rank_for_error(W, {t})", W=W), want)
        for t, want in zip(tolerances, (5, 0, 0), strict=True)
    )


@CHECKS("rank-for-test", 1, "A negative tolerance must raise a ValueError.")
def negative(student: Student, given: Numbers) -> bool:
    W = matrices(given)[0]
    return raises(student, "rank_for_error(W, -0.1)", W=W) and equal(
        student.ask("rank_for_error(W, 0.0)", W=W), 6
    )


@CHECKS("search-test", 2, "The smallest error over the trials is not what these draws give.")
def same_draws(student: Student, given: Numbers) -> bool:
    for W, trials in zip(matrices(given), (1, 7, 40), strict=True):
        g = torch.Generator().manual_seed(given["seed"] + trials)
        want = min(
            error(W, W @ torch.linalg.pinv(C) @ C)
            for C in (torch.randn(2, W.shape[1], generator=g) for _ in range(trials))
        )
        if not close(student.ask(f"best_of_random(W, 2, {trials}, {given['seed'] + trials})", W=W), want):
            return False
    return True


@CHECKS(
    "search-test",
    1,
    "The same seed must give the same answer again, another one another; leave the global generator alone.",
)
def repeatable(student: Student, given: Numbers) -> bool:
    call, seed, draw = "best_of_random(W, 2, 5, 3)", "torch.manual_seed(8)", "torch.randn(3).tolist()"
    one, two = student.ask(f"[{call}, {draw}, {call}][::2]", W=matrices(given)[0])
    with_call, without = student.ask(
        f"[({seed}, {call}, {draw})[2], ({seed}, {draw})[1]]", W=matrices(given)[0]
    )
    other = student.ask("best_of_random(W, 2, 5, 4)", W=matrices(given)[0])
    if not all(isinstance(x, float) and 0 <= x <= 1 for x in (one, two, other)):
        return that(False, "a share between 0 and 1, a Python float", one)
    return (
        equal(two, one)
        and that(one != other, "another answer for another seed", other)
        and that(with_call == without, "torch's global generator left alone", with_call)
    )


@CHECKS("output-test", 3, "The error of the outputs is larger than it need be.")
def outputs(student: Student, given: Numbers) -> bool:
    for W in matrices(given):
        X = torch.randn(60, W.shape[1], generator=torch.Generator().manual_seed(5)) * torch.arange(
            1, W.shape[1] + 1
        )
        B = torch.as_tensor(student.ask("truncate_for(W, X, 2)", W=W, X=X)).double()
        Y = X.double() @ W.double().T
        least = error(Y, best(Y, 2))
        if not (
            that(B.isfinite().all(), "a matrix of finite numbers", B.numpy())
            and at_most(torch.linalg.matrix_rank(B, rtol=1e-5), 2, "its rank")
            and at_most(error(Y, X.double() @ B.T), least * 1.001, "the relative error of the outputs")
        ):
            return False
    return True


@CHECKS("output-test", 1, "With fewer samples than the rank it must still work.")
def few_samples(student: Student, given: Numbers) -> bool:
    W = matrices(given)[0]
    X = torch.randn(2, 6, generator=torch.Generator().manual_seed(5))
    B = torch.as_tensor(student.ask("truncate_for(W, X, 4)", W=W, X=X)).float()
    return close((X @ B.T).numpy(), X @ W.T) and at_most(
        torch.linalg.matrix_rank(B, rtol=1e-5), 4, "its rank"
    )
