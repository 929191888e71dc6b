"""a2, an honest rank search: the cohort's numbers, and what each mark is for."""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import count, islice
from typing import Any

import torch
from scipy.stats import binomtest, t
from torch import Tensor
from torch.nn.functional import one_hot

from assignments.cases import as_number, at_most, close, equal, that
from assignments.checks import Checks
from assignments.sandbox import Student

SECONDS = 30
CHECKS = Checks()
NAMES = {  # what other cohorts write instead: assignments/variants.py
    "search": ("both_ranks", "scan_ranks"),
    "misses_smallest": ("fools_bisection", "ends_too_high"),
    "returns_infeasible": ("ends_infeasible", "wrong_end"),
    "honest": ("leak_free", "without_leaks"),
    "interval": ("exact_ends", "both_ends"),
    "samples_needed": ("samples_for", "how_many"),
    "chosen": ("rank_and_score", "picked"),
    "mean_interval": ("corrected_ends", "mean_ends"),
}
# Not allowed by the text: assignments/forbidden.py
FORBIDDEN: dict[str, set[str]] = dict.fromkeys(
    ("find_rank binomtest proportion_ci").split(),
    {"leak"},
)
Numbers = dict[str, Any]
Curve = dict[int, float]
Parts = tuple[Tensor, Tensor, Tensor]


def numbers(seed: int) -> Numbers:
    """What changes from cohort to cohort."""
    return {"seed": seed, "ranks": 8 + seed % 5, "right": 26 + seed % 4, "splits": 8, "points": 30}


# 1. Search


def feasible(curve: Curve, baseline: float, max_drop: float) -> list[int]:
    """The feasible ranks, rising."""
    return sorted(rank for rank, score in curve.items() if baseline - score <= max_drop + 1e-9)


def expected(curve: Curve, baseline: float, max_drop: float) -> list[int | None]:
    """[smallest, safe]."""
    fits = feasible(curve, baseline, max_drop)
    safe = [rank for rank in fits if all(other in fits for other in curve if other > rank)]
    return [min(fits, default=None), min(safe, default=None)]


def wobbly(given: Numbers) -> list[Curve]:
    """Curves that rise and wobble: of 200 samples the net gets 190, and rank r loses some."""
    g = torch.Generator().manual_seed(given["seed"] + 11)
    curves = []
    for ranks in range(7, 13):
        lost = 60 / torch.arange(1, ranks + 1) ** 2 + 4 * torch.rand(ranks, generator=g)
        lost[-1] = 0
        curves.append({rank: (190 - int(k)) / 200 for rank, k in enumerate(lost, 1)})
    return curves


def answers(student: Student, curves: list[Curve], baseline: float, max_drop: float) -> Iterator[Any]:
    """What `search` says of each curve."""
    call = f"search(curve, {baseline!r}, {max_drop!r})"
    return (student.ask(call, f"{call} with curve = {curve}", curve=curve) for curve in curves)


@CHECKS("search-test", 1, "The smallest feasible rank is wrong on a curve that wobbles.")
def smallest(student: Student, given: Numbers) -> bool:
    curves = [*wobbly(given), {1: 0.5, 2: 0.95, 3: 0.95, 4: 0.9, 5: 0.9, 6: 0.9, 7: 0.95}]
    got = answers(student, curves, 0.95, 0.0125)
    return all(equal(a[0], expected(c, 0.95, 0.0125)[0]) for a, c in zip(got, curves, strict=True))


@CHECKS("search-test", 1, "The safe rank is wrong on a curve that wobbles.")
def safe_rank(student: Student, given: Numbers) -> bool:
    curves = [*wobbly(given), {1: 0.95, 2: 0.95, 3: 0.9, 4: 0.95, 5: 0.9, 6: 0.95, 7: 0.95}]
    got = answers(student, curves, 0.95, 0.0125)
    return all(equal(a[1], expected(c, 0.95, 0.0125)[1]) for a, c in zip(got, curves, strict=True))


@CHECKS("search-test", 1, "Where no rank is feasible, or the largest one is not, the answer is wrong.")
def nothing(student: Student, given: Numbers) -> bool:
    curves = [{1: 0.2, 2: 0.7, 3: 0.8}, {1: 0.2, 2: 0.95, 3: 0.8}, {1: 0.5}]
    wanted = [[None, None], [2, None], [None, None]]
    return all(equal(a, want) for a, want in zip(answers(student, curves, 0.95, 0.05), wanted, strict=True))


@CHECKS("search-test", 1, "A rank that loses exactly max_drop is feasible, rounding or not.")
def equality(student: Student, given: Numbers) -> bool:
    pairs = [(0.97, 0.96, 0.01), (0.95, 0.9, 0.05), (0.93, 0.9, 0.03), (0.8, 0.7, 0.1)]
    return all(
        equal(
            next(answers(student, [{1: 0.1, 2: score, 3: score - 0.001, 4: baseline}], baseline, drop)),
            [2, 4],
        )
        for baseline, score, drop in pairs
    )


@CHECKS("search-test", 1, "Ranks with gaps, or not in rising order, are not searched right.")
def gaps(student: Student, given: Numbers) -> bool:
    curves = [{64: 0.95, 8: 0.95, 32: 0.94, 16: 0.8}, {10: 0.95, 3: 0.1, 5: 0.95}]
    wanted = [[8, 32], [5, 5]]
    return all(equal(a, want) for a, want in zip(answers(student, curves, 0.95, 0.0125), wanted, strict=True))


# 2. Bisection


def bisect_rank(curve: Curve, baseline: float, max_drop: float) -> int:
    """Our copy of the given function: the student's may have been changed."""
    low, high = 1, max(curve)
    while low < high:
        middle = (low + high) // 2
        if baseline - curve[middle] <= max_drop + 1e-9:
            high = middle
        else:
            low = middle + 1
    return low


def curve_of(answer: Any, ranks: int | None = None) -> Curve:
    """The student's curve, if it is one: ranks from 1 on, scores from 0 to 1."""
    if sorted(answer) != list(range(1, (ranks or len(answer)) + 1)):
        raise ValueError("ranks")
    if not all(0 <= float(score) <= 1 for score in answer.values()):
        raise ValueError("scores")
    return {rank: float(score) for rank, score in answer.items()}


TARGETS = [(0.97, 0.01), (0.5, 0.3), (0.8, 0.0)]


def gap(student: Student, ranks: int, baseline: float, drop: float) -> int:
    """How far above the smallest feasible rank the bisection ends; -1 if its rank is not feasible."""
    curve = curve_of(student.ask(f"misses_smallest({ranks}, {baseline}, {drop})"), ranks)
    fits, found = feasible(curve, baseline, drop), bisect_rank(curve, baseline, drop)
    return found - min(fits) if found in fits else -1


@CHECKS("bisect-test", 1, "On your curve the bisection finds the smallest rank, or one that is not feasible.")
def misses(student: Student, given: Numbers) -> bool:
    what = "a rank that fits, and is not the smallest"
    return all(that(gap(student, ranks, *t) > 0, what) for ranks in (3, 4, 17, 32) for t in TARGETS)


@CHECKS("bisect-test", 1, "There is a curve on which the bisection ends further above the smallest rank.")
def furthest(student: Student, given: Numbers) -> bool:
    return all(
        that(
            gap(student, ranks, *TARGETS[0]) == ranks - 1, f"a bisection that ends {ranks - 1} ranks too high"
        )
        for ranks in (3, 4, 9, 32)
    )


def infeasible_curve(student: Student, baseline: float, drop: float) -> Curve | None:
    """The student's curve, if one of its ranks is feasible and the bisection's is not."""
    curve = curve_of(student.ask(f"returns_infeasible({baseline}, {drop})"))
    fits = feasible(curve, baseline, drop)
    return curve if fits and bisect_rank(curve, baseline, drop) not in fits else None


@CHECKS("bisect-test", 1, "The bisection's rank is feasible on your curve, or no rank is.")
def infeasible(student: Student, given: Numbers) -> bool:
    what = "a feasible rank, and a bisection that ends at another one"
    return all(that(infeasible_curve(student, *target) is not None, what) for target in TARGETS)


@CHECKS("bisect-test", 1, "There is a shorter curve on which the bisection's rank is not feasible.")
def shortest(student: Student, given: Numbers) -> bool:
    what = "a curve that does it with as few ranks as possible"
    return all(that(len(infeasible_curve(student, *target) or range(9)) == 3, what) for target in TARGETS)


# 3. Leaks


def separation(X: Tensor, y: Tensor) -> Tensor:
    """Between-class share of each feature's variance."""
    T = one_hot(y, 10).double()
    counts = T.sum(0).clamp(min=1)[:, None]
    centred = X - X.mean(0)
    return (counts * (T.T @ centred / counts) ** 2).sum(0) / (centred**2).sum(0).clamp(min=1e-9)


def share_right(Z: Tensor, W: Tensor, b: Tensor, y: Tensor) -> float:
    """Accuracy."""
    return ((Z @ W.T + b).argmax(1) == y).double().mean().item()


def classifier(Z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias by ridge regression."""
    T, centred = one_hot(y, 10).double(), Z - Z.mean(0)
    W = torch.linalg.solve(centred.T @ centred + torch.eye(Z.shape[1]).double(), centred.T @ T).T
    return W, T.mean(0) - W @ Z.mean(0)


def cut(W: Tensor, rank: int) -> Tensor:
    """W_r."""
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def root(X: Tensor) -> Tensor:
    """The pipeline's first step."""
    return X.sign() * X.abs().sqrt()


DROP = 0.0321  # of 80 samples: not a whole number of them, so that rounding cannot decide


def samples(seed: int) -> tuple[Tensor, Tensor, Parts]:
    """Five classes among noise; the test part is shifted and its labels are shuffled."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(280) % 5
    X = torch.randn(280, 150, generator=g).double()
    X[:, :12] += 1.5 * torch.randn(5, 12, generator=g).double()[y]
    train, val, test = torch.randperm(280, generator=g).split([120, 80, 80])
    X[test] = 3 * X[test] + 2
    y[test] = y[test][torch.randperm(80, generator=g)]
    return X, y, (train, val, test)


def rank_on(Z: Tensor, W: Tensor, b: Tensor, y: Tensor) -> int:
    """The smallest rank within DROP on these samples."""
    baseline = share_right(Z, W, b, y)
    return next(r for r in range(1, 11) if baseline - share_right(Z, cut(W, r), b, y) <= DROP + 1e-9)


def telling(X: Tensor, y: Tensor, parts: Parts) -> bool:
    """Whether each leak changes what it should not: the features, and the rank, whatever else leaks."""
    train, val, test = parts
    looks = [train, torch.cat([train, val]), torch.cat(parts)]
    kept = [separation(root(X[look]), y[look]).topk(12).indices.sort().values for look in looks]
    if torch.equal(kept[0], kept[1]) or torch.equal(kept[0], kept[2]):
        return False
    for columns in (kept[0], kept[2]):
        for look in (train, torch.cat(parts)):
            Z = root(X)[:, columns]
            Z = (Z - Z[look].mean(0)) / Z[look].std(0)
            W, b = classifier(Z[train], y[train])
            if rank_on(Z[val], W, b, y[val]) == rank_on(Z[test], W, b, y[test]):
                return False
    return True


@lru_cache
def sets(first: int) -> list[tuple[Tensor, Tensor, Parts]]:
    """Two sets of samples that tell every leak from none."""
    return list(islice((s for s in map(samples, count(first)) if telling(*s)), 2))


Run = tuple[dict[str, Any], Tensor, Tensor, Parts]


def runs_of(student: Student, given: Numbers) -> Iterator[Run]:
    """What `honest` returns for each set, with the transformed features, the labels and the parts."""
    call = f"dict(honest(X, y, parts, 12, {DROP}))"
    return (
        (student.ask(call, f"honest(X, y, parts, 12, {DROP})", X=X, y=y, parts=parts), root(X), y, parts)
        for X, y, parts in sets(1000 + 100 * given["seed"])
    )


def their(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """The columns that the student kept, and what they were scaled by."""
    got = run[0]
    return tuple(torch.as_tensor(got[k]) for k in ("kept", "mean", "std"))  # type: ignore[return-value]


@CHECKS("leak-test", 1, "Which features are kept depends on more than the training part.")
def kept_features(student: Student, given: Numbers) -> bool:
    for run in runs_of(student, given):
        _, X, y, (train, _, _) = run
        if not equal(
            sorted(their(run)[0].tolist()),
            separation(X[train], y[train]).topk(12).indices.sort().values.tolist(),
        ):
            return False
    return True


@CHECKS("leak-test", 1, "Mean or standard deviation depend on more than the training part.")
def scaling(student: Student, given: Numbers) -> bool:
    for run in runs_of(student, given):
        kept, mean, std = their(run)
        train = run[1][run[3][0]][:, kept]
        if not (close(mean, train.mean(0)) and close(std, train.std(0))):
            return False
    return True


@CHECKS("leak-test", 1, "The rank is not the smallest one that the validation part allows.")
def rank_on_validation(student: Student, given: Numbers) -> bool:
    for run in runs_of(student, given):
        (kept, mean, std), (got, X, y, (train, val, _)) = their(run), run
        Z = (X[:, kept] - mean) / std
        finite = that(bool(Z.isfinite().all()), "finite mean and std, and no std of 0", std)
        if not finite or not equal(got["rank"], rank_on(Z[val], *classifier(Z[train], y[train]), y[val])):
            return False
    return True


@CHECKS("leak-test", 2, "The accuracy is not the one that the honest pipeline has on the test part.")
def honest_accuracy(student: Student, given: Numbers) -> bool:
    for run in runs_of(student, given):
        got, X, y, (train, val, test) = run
        X = X[:, separation(X[train], y[train]).topk(12).indices]
        Z = (X - X[train].mean(0)) / X[train].std(0)
        W, b = classifier(Z[train], y[train])
        rank = rank_on(Z[val], W, b, y[val])
        want = share_right(Z[test], cut(W, rank), b, y[test])
        if not (equal(got["rank"], rank) and close(got["accuracy"], want, tolerance=1e-6)):
            return False
    return True


# 4. The interval


def ends_right(student: Student, cases: list[tuple[int, int, float]]) -> bool:
    """Both ends for each (k, n, confidence), against scipy."""
    for k, n, confidence in cases:
        want = binomtest(k, n).proportion_ci(confidence, method="exact")
        if not close(student.ask(f"interval({k}, {n}, {confidence})"), [want.low, want.high], tolerance=2e-6):
            return False
    return True


@CHECKS("interval-test", 1, "The interval is wrong for some k between 1 and n - 1, with n up to 200.")
def inner(student: Student, given: Numbers) -> bool:
    cases = [(1, 7), (13, 20), (97, 100), (150 + given["seed"] % 9, 200)]
    return ends_right(student, [(k, n, 0.95) for k, n in cases])


@CHECKS("interval-test", 1, "The interval is wrong where no answer, or every answer, was right.")
def all_or_none(student: Student, given: Numbers) -> bool:
    return ends_right(student, [(0, 12, 0.95), (30, 30, 0.95), (1, 1, 0.95), (0, 1, 0.95)])


@CHECKS("interval-test", 1, "The confidence is not taken into account as it should be.")
def other_confidence(student: Student, given: Numbers) -> bool:
    return ends_right(student, [(13, 20, 0.8), (3, 40, 0.99), (40, 40, 0.68)])


@CHECKS("interval-test", 1, "The interval is wrong, or fails, where n is 1500 or more.")
def many(student: Student, given: Numbers) -> bool:
    return ends_right(student, [(1000, 2000, 0.95), (1741, 1797, 0.95), (5, 1500, 0.95)])


@CHECKS("interval-test", 1, "The number of samples, all right, is not the smallest that the claim takes.")
def needed(student: Student, given: Numbers) -> bool:
    for claim, confidence in ((0.5, 0.95), (0.97, 0.95), (0.995, 0.95), (0.97, 0.9), (0.8, 0.99)):
        want = next(n for n in range(1, 10_000) if n * math.log(claim) <= math.log((1 - confidence) / 2))
        if not equal(student.ask(f"samples_needed({claim}, {confidence})"), want):
            return False
    return True


# 5. Several splits


def splits(given: Numbers) -> list[dict[str, Any]]:
    """Runs whose validation and test curves disagree; in the last one no rank is feasible."""
    g = torch.Generator().manual_seed(given["seed"] + 5)
    runs = []
    for j in range(6):
        lost = 40 / torch.arange(1, 13) ** 2
        val, test = (torch.rand(12, generator=g) * 5 + lost for _ in range(2))
        run: dict[str, Any] = {"val_baseline": 0.95, "test_baseline": (180 + j) / 200}
        run["val"] = {rank: (190 - int(k)) / 200 for rank, k in enumerate(val, 1)}
        run["test"] = {rank: (180 + j - int(k)) / 200 for rank, k in enumerate(test, 1)}
        run["val"][12] = 0.95
        runs.append(run)
    runs[-1]["val"] = {rank: 0.9 for rank in runs[-1]["val"]}
    return runs


def rows_of(student: Student, runs: list[dict[str, Any]]) -> Any:
    """What the student makes of the runs."""
    return student.ask("chosen(runs, 0.01)", runs=runs)


@CHECKS("splits-test", 1, "The rank is not the smallest that is feasible on its split's validation part.")
def rank_by_split(student: Student, given: Numbers) -> bool:
    runs = splits(given)[:-1]
    want = [expected(run["val"], run["val_baseline"], 0.01)[0] for run in runs]
    return equal([row[0] for row in rows_of(student, runs)], want)


@CHECKS("splits-test", 1, "The score is not the one on the test part at the rank that you return.")
def score_on_test(student: Student, given: Numbers) -> bool:
    runs = splits(given)[:-1]
    rows = rows_of(student, runs)
    return equal([row[1] for row in rows], [run["test"][row[0]] for run, row in zip(runs, rows, strict=True)])


@CHECKS("splits-test", 1, "Where no rank is feasible the full net stays, and its test score counts.")
def full_net_stays(student: Student, given: Numbers) -> bool:
    runs = splits(given)[-2:]
    rows = rows_of(student, runs)
    want = [None, runs[1]["test_baseline"]]
    return (
        that(len(rows) == 2, "a row for each split", rows)
        and isinstance(rows[0][0], int)
        and equal(rows[1], want)
    )


def corrected(scores: list[float], n_train: int, n_test: int, confidence: float) -> list[float]:
    """[mean, low, high] after Nadeau and Bengio."""
    J = len(scores)
    a = torch.tensor(scores, dtype=torch.float64)
    half = t.ppf((1 + confidence) / 2, J - 1) * a.std().item() * math.sqrt(1 / J + n_test / n_train)
    return [a.mean().item(), a.mean().item() - half, a.mean().item() + half]


@CHECKS("splits-test", 2, "The interval is not the corrected one for some number of splits or some sizes.")
def overlap(student: Student, given: Numbers) -> bool:
    base = [0.9, 0.93, 0.91, 0.96, 0.95, 0.89, 0.97]
    cases = [(base[:5], 1078, 360), (base, 90, 30), (base[:2], 500, 100)]
    for scores, n_train, n_test in cases:
        got = student.ask(f"mean_interval(scores, {n_train}, {n_test})", scores=scores)
        if not close(got, corrected(scores, n_train, n_test, 0.95), tolerance=1e-6):
            return False
    return True


@CHECKS("splits-test", 1, "A higher confidence does not widen the interval by what it should.")
def confidence(student: Student, given: Numbers) -> bool:
    scores = [0.9, 0.93, 0.91, 0.96]
    ends = [student.ask(f"mean_interval(scores, 1078, 360, {c})", scores=scores) for c in (0.8, 0.99)]
    widths = [high - low for _, low, high in ends]
    want = t.ppf(0.995, 3) / t.ppf(0.9, 3)
    if not all(0 < width < 10 for width in widths):
        return that(False, "an interval of a finite width above 0", widths)
    off = abs(as_number(widths[1]) / as_number(widths[0]) - want)
    return at_most(
        off, 1e-4, f"the distance of {widths[1] / widths[0]:.6g}, 99 % to 80 % wide, from {want:.6g}"
    )
