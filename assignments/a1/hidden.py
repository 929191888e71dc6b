"""a1, truncation and Eckart-Young: the cohort's numbers, and what each mark is for."""

from typing import Any

import numpy as np
import torch

from assignments.checks import Checks, close
from assignments.sandbox import Student

SECONDS = 20
CHECKS = Checks()
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
        if not close(whole, W) or close(cut, W):  # W itself is no answer
            return False
    return True


@CHECKS(
    "truncate-test",
    1,
    "A rank of 0, below 0 or above min(m, n) must raise a ValueError with both numbers in it.",
)
def bad_rank(student: Student, given: Numbers) -> bool:
    for rank in (0, -1, 6):
        student.ask(f"truncate(W, {rank})", W=matrices(given)[2])
        said = student.complaint or ""
        if not (said.startswith("ValueError") and str(rank) in said and "5" in said):
            return False
    return True


@CHECKS("truncate-test", 1, "W was changed, or the dtype of the result is not that of W.")
def untouched(student: Student, given: Numbers) -> bool:
    W = matrices(given)[0].double()
    cut, kept = student.ask("[truncate(W, 2), W]", W=W)
    return close(kept, W) and cut.dtype == np.float64 and not close(cut, W)


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
    return bool(abs(got - want) < 1e-2 * want)  # float32 itself is off by 6e-8 / 1e-4, a few parts in 1000


@CHECKS("error-test", 1, "The error of a matrix of zeros is 0.")
def zero_error(student: Student, given: Numbers) -> bool:
    zeros, eye = (student.ask("relative_error(W, 1)", W=W) for W in (torch.zeros(4, 3), torch.eye(3)))
    return bool(zeros == 0 < eye)


@CHECKS(
    "rank-for-test", 2, "The rank is not the smallest, or too small, for some tolerance between 0.01 and 1."
)
def smallest(student: Student, given: Numbers) -> bool:
    for W in matrices(given):
        errors = [error(W, best(W, r)) for r in range(min(W.shape) + 1)]
        for tolerance in (0.013, 0.11, 0.37, 0.92):
            want = next(r for r, e in enumerate(errors) if e <= tolerance)
            if student.ask(f"rank_for_error(W, {tolerance})", W=W) != want:
                return False
    return True


@CHECKS("rank-for-test", 1, "A tolerance of 0 needs the full rank; one above 1 needs rank 0.")
def ends(student: Student, given: Numbers) -> bool:
    W, tolerances = matrices(given)[2], (0.0, 1.01, 3.0)  # at 1 itself rounding would decide
    return [student.ask(f"rank_for_error(W, {t})", W=W) for t in tolerances] == [5, 0, 0]


@CHECKS("rank-for-test", 1, "A negative tolerance must raise a ValueError.")
def negative(student: Student, given: Numbers) -> bool:
    student.ask("rank_for_error(W, -0.1)", W=matrices(given)[0])
    said, student.complaint = student.complaint or "", None
    return (
        said.startswith("ValueError")
        and student.ask("rank_for_error(W, 0.0)", W=matrices(given)[0]) is not None
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
    return isinstance(one, float) and one == two != other and bool(with_call == without)


@CHECKS("output-test", 3, "The error of the outputs is larger than it need be.")
def outputs(student: Student, given: Numbers) -> bool:
    for W in matrices(given):
        X = torch.randn(60, W.shape[1], generator=torch.Generator().manual_seed(5)) * torch.arange(
            1, W.shape[1] + 1
        )
        B = torch.as_tensor(student.ask("truncate_for(W, X, 2)", W=W, X=X)).double()
        Y = X.double() @ W.double().T
        if (
            torch.linalg.matrix_rank(B, rtol=1e-5) > 2
            or error(Y, X.double() @ B.T) > error(Y, best(Y, 2)) * 1.001
        ):
            return False
    return True


@CHECKS("output-test", 1, "With fewer samples than the rank it must still work.")
def few_samples(student: Student, given: Numbers) -> bool:
    W = matrices(given)[0]
    X = torch.randn(2, 6, generator=torch.Generator().manual_seed(5))
    B = torch.as_tensor(student.ask("truncate_for(W, X, 4)", W=W, X=X)).float()
    return close(X @ B.T, X @ W.T) and bool(torch.linalg.matrix_rank(B, rtol=1e-5) <= 4)
