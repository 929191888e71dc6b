"""Judges of chapter 11: a whole model's predicted speed-up, a pair for plain torch, the network to ship."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lowrank_utils.exercises._answers import (
    Judge,
    NotYet,
    describe,
    function,
    matrix,
    named,
    number,
    on,
)
from lowrank_utils.exercises._which_to_ship import pick

Shape = tuple[int, int]


def _machine(m: int, n: int) -> float:
    """Milliseconds: a call, the products, and more for an output than for an input."""
    return 0.02 + 1e-5 * m * n + 3e-4 * m + 1e-4 * n


TIMES = {"norm": 0.3, "up": 2.9, "gate": 0.35, "down": 1.1, "softmax": 0.55}  # no layer's by the machine
DENSE = {"up": (400, 100), "down": (90, 400), "gate": (64, 100)}
CASES: dict[str, dict[str, int]] = {  # where each mistake shows
    "two of three layers": {"up": 16, "down": 10},
    "a rank above break-even": {"gate": 60},
    "no rank at all": {},
}


def _speedup(answer: object) -> str | None:
    asked = function(answer, "whole(times, dense, ranks, machine)")
    for case, ranks in CASES.items():
        with on(case):
            found = number(asked(dict(TIMES), dict(DENSE), dict(ranks), _machine), "one number, the speed-up")
            if hint := _why_not_the_speedup(found, ranks):
                return f"on {case}: {hint}"
    return None


def _why_not_the_speedup(found: float, ranks: Mapping[str, int]) -> str | None:
    total = sum(TIMES.values())
    pairs, factors = dict[str, float](), dict[str, float]()
    slips: dict[str, dict[str, float]] = {"turned": {}, "one": {}, "counted": {}, "never slower": {}}
    for name, r in ranks.items():
        m, n = DENSE[name]
        pairs[name] = _machine(r, n) + _machine(m, r)
        factors[name] = pairs[name] / _machine(m, n)
        slips["turned"][name] = (_machine(n, r) + _machine(r, m)) / _machine(m, n)
        slips["one"][name] = _machine(r, n) / _machine(m, n)
        slips["counted"][name] = r * (m + n) / (m * n)
        slips["never slower"][name] = min(1.0, factors[name])

    def over(shrunk: Mapping[str, float], among: Mapping[str, float] = TIMES) -> float:
        new = sum(ms * shrunk.get(name, 1.0) for name, ms in among.items())
        return sum(among.values()) / max(new, 1e-12)

    right = over(factors)
    if abs(found - right) <= 1e-6 * right:
        return None
    if not ranks:
        return "nothing is cut, so the model is exactly as fast as before: 1."
    layers = {name: TIMES[name] for name in ranks}
    absolute = total - sum(layers.values()) + sum(pairs.values())
    product = 1.0
    for factor in factors.values():
        product /= factor
    hints = {
        "that is the new time over the old one; a speed-up is the old over the new.": 1 / right,
        "these are milliseconds; a speed-up is the old time over the new one.": total / right,
        "the layers alone are that much faster; the other parts take their time too.": over(factors, layers),
        "a layer's time was measured in its place, and is not machine(m, n): shrink it by the machine's "
        "factor.": total / absolute,
        "that is the mean of the layers' speed-ups; times add up, speed-ups do not.": (
            sum(1 / factor for factor in factors.values()) / len(factors)
        ),
        "speed-ups of different layers do not multiply: their times add up.": product,
        "the factors' shapes are turned around: V is (r, n) and U is (m, r).": over(slips["turned"]),
        "that is one product of the two; the second one takes time as well.": over(slips["one"]),
        "a rank above break-even makes its layer slower: its factor counts too.": over(slips["never slower"]),
        "that shrinks times as multiply-adds shrink; ask the machine.": over(slips["counted"]),
    }
    return named(found, hints, rel_tol=1e-4) or f"{found:.4g} is not {right:.4g}, the old time over the new."


def _pairs() -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """U (m, r), Vh (r, n) that are slices of larger matrices, and a bias or none; no two sizes agree."""
    noise = torch.Generator().manual_seed(11)
    for (m, n, r), bias, dtype in (
        ((5, 7, 3), True, torch.float64),
        ((8, 4, 2), False, torch.float32),
        ((6, 9, 1), True, torch.float32),
    ):
        U = torch.randn(m, m, generator=noise, dtype=dtype)[:, :r]
        Vh = torch.randn(n, n, generator=noise, dtype=dtype)[:r]
        b = torch.randn(m + 3, generator=noise, dtype=dtype)[:m]
        yield U, Vh, b if bias else None


def _plain_state(answer: object) -> str | None:
    write = function(answer, "plain_state(U, Vh, bias)")
    for U, Vh, bias in _pairs():
        (m, r), n = U.shape, Vh.shape[1]
        with on(f"factors of {m} x {r} and {r} x {n} {'with a' if bias is not None else 'and no'} bias"):
            state = write(U, Vh, bias)
            _check_state(state, U, Vh, bias)
    return None


def _check_state(state: Any, U: Tensor, Vh: Tensor, bias: Tensor | None) -> None:
    """Raise the hint for a state that an nn.Sequential of two layers does not take as it is."""
    if not isinstance(state, Mapping):
        raise NotYet(f"give a dictionary from names to tensors, not {describe(state)}.")
    wanted = {"0.weight": Vh, "1.weight": U} | ({} if bias is None else {"1.bias": bias})
    if "0.bias" in state:
        raise NotYet("the first layer has no bias: b is added after both products.")
    if bias is None and "1.bias" in state:
        raise NotYet("there is no bias, so the state has no entry for one.")
    if set(state) != set(wanted):
        raise NotYet(f"its names are {sorted(map(str, state))}, and must be {sorted(wanted)}.")
    for name, right in wanted.items():
        given = state[name]
        if not isinstance(given, Tensor):
            raise NotYet(f"{name} must be a tensor, not {describe(given)}.")
        if given.dtype != right.dtype:
            raise NotYet(f"{name} is {given.dtype}, and the factor {right.dtype}.")
        if given.ndim == 2 and given.shape == right.mT.shape != right.shape:
            raise NotYet(f"{name} is transposed: nn.Linear holds (outputs, inputs).")
        if given.shape == (U if right is Vh else Vh).shape:
            raise NotYet("the layers are in the wrong order: Vh meets the input first.")
        found = matrix(given, tuple(right.shape), f"{name} of shape {tuple(right.shape)}")
        if not torch.equal(found, right.double()):
            raise NotYet(f"{name} has other numbers than its factor.")
    for name, right in wanted.items():
        stored = state[name].untyped_storage()
        if stored.data_ptr() == right.untyped_storage().data_ptr():
            raise NotYet(f"{name} is a view: saving it saves the whole matrix that it is a slice of.")
        if stored.nbytes() > right.numel() * right.element_size():
            raise NotYet(f"{name} lies in a larger storage, all of which would be saved: clone the slice.")


JUDGES: dict[str, Judge] = {"11.1": _speedup, "11.2": _plain_state, "11.3": pick}
