"""The judge of a choice among compressed networks: by size and validation score, never by the test score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lowrank_utils.exercises._answers import NotYet, function, items, number, on, whole

Network = tuple[int, float, float]
CHOICES: dict[str, tuple[float, list[Network], float]] = {
    "eight networks": (
        0.95,
        [
            (900, 0.95, 0.91),
            (400, 0.935, 0.905),
            (1000, 0.99, 0.92),
            (400, 0.94, 0.90),
            (700, 0.945, 0.93),
            (200, 0.90, 0.96),
            (300, 0.92, 0.97),
            (100, 0.60, 0.55),
        ],
        0.02,
    ),
    "a low baseline": (0.5, [(99, 0.49, 0.52), (80, 0.48, 0.51), (60, 0.41, 0.47), (40, 0.39, 0.5)], 0.1),
    "a drop that is just allowed": (0.95, [(70, 0.96, 0.9), (50, 0.94, 0.92), (90, 0.97, 0.91)], 0.01),
    "a smaller network that is better": (0.8, [(90, 0.8, 0.7), (30, 0.85, 0.75)], 0.0),
    "no network within the drop": (0.9, [(20, 0.85, 0.95), (10, 0.8, 0.9)], 0.02),
}


def pick(answer: object) -> str | None:
    """Judge of ``pick(baseline, networks, max_drop)``."""
    choose = function(answer, "pick(baseline, networks, max_drop)")
    for case, (baseline, networks, max_drop) in CHOICES.items():
        with on(case):
            given = choose(baseline, list(networks), max_drop)
            fitting = [one for one in networks if baseline - one[1] <= max_drop + 1e-9]
            if not fitting:
                if not (isinstance(given, str) and given == "stop"):
                    raise NotYet("none keeps the score within the drop, so the answer is the text 'stop'.")
                continue
            if isinstance(given, str):
                raise NotYet("there is a network within the drop; at exactly max_drop it is within.")
            pair = items(given, "the pair (params, test score)", 2)
            params = whole(pair[0], "a whole number of parameters first", low=1)
            score = number(pair[1], "the test score second")
            _check_choice(params, score, baseline, networks, max_drop)
    return None


def _check_choice(
    params: int, score: float, baseline: float, networks: Sequence[Network], max_drop: float
) -> None:
    """Raise the hint for a pair that is not the smallest network's within the drop."""

    def best(fits: Callable[[Network], bool], key: Callable[[Network], Any]) -> tuple[int, float] | None:
        among = [one for one in networks if fits(one)]
        chosen = min(among, key=key) if among else None
        return None if chosen is None else (chosen[0], chosen[2])

    def smallest(one: Network) -> tuple[int, float]:
        return one[0], -one[1]

    def within(one: Network) -> bool:
        return baseline - one[1] <= max_drop + 1e-9

    def same(pair: tuple[int, float] | None) -> bool:
        return pair is not None and pair[0] == params and abs(pair[1] - score) <= 1e-9

    if same(best(within, smallest)):
        return
    right = min((one for one in networks if within(one)), key=smallest)
    hints = (
        (best(lambda one: baseline - one[2] <= max_drop + 1e-9, smallest), "that looks at the test scores."),
        (
            (right[0], right[1]),
            "that is its validation score; the choice was made on it, so report the test.",
        ),
        (
            best(within, lambda one: -one[1]),
            "that has the best validation score; ship the smallest in reach.",
        ),
        (best(within, lambda one: -one[2]), "that has the best test score, which the choice must not see."),
        (
            best(within, lambda one: (one[0], -one[2])),
            "of two equally small ones take the better validation score, whatever their test scores.",
        ),
        (best(within, lambda one: (one[0], one[1])), "of two equally small ones take the better validation."),
        (
            best(lambda one: baseline - one[1] < max_drop - 1e-9, smallest),
            "at exactly max_drop it is within.",
        ),
        (
            best(lambda one: one[1] >= baseline * (1 - max_drop) - 1e-9, smallest),
            "the drop is a difference, and not a share of the baseline.",
        ),
        (
            best(lambda one: abs(baseline - one[1]) <= max_drop + 1e-9, smallest),
            "a network that is better than the baseline is within the drop, too.",
        ),
        (best(lambda one: True, smallest), "that is the smallest of all, whatever it lost."),
        (best(within, lambda one: 0), "that is the first within the drop; there is a smaller one."),
    )
    for pair, hint in hints:
        if same(pair):
            raise NotYet(hint)
    raise NotYet("another network is the smallest within the drop.")
