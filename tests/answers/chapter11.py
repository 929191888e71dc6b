"""Answers to the exercises of chapter 11: predicted speed-ups, states for plain torch, networks to ship."""

import copy
import math
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from answers import right, wrong
from lowrank_utils import LowRankLinear, to_plain


def factors(dense, ranks, machine):
    return {
        name: (machine(r, dense[name][1]) + machine(dense[name][0], r)) / machine(*dense[name])
        for name, r in ranks.items()
    }


def by_times(times, dense, ranks, machine):
    shrunk = factors(dense, ranks, machine)
    return sum(times.values()) / sum(ms * shrunk.get(name, 1) for name, ms in times.items())


def by_amdahl(times, dense, ranks, machine):
    total = sum(times.values())
    gained = [times[name] / total * (1 - f) for name, f in factors(dense, ranks, machine).items()]
    return 1 / (1 - sum(gained))


def by_savings(times, dense, ranks, machine):
    left = total = math.fsum(times.values())
    for name, (m, n) in dense.items():
        if name in ranks:
            r = ranks[name]
            left -= times[name] * (1 - (machine(r, n) + machine(m, r)) / machine(m, n))
    return torch.tensor(total / left, dtype=torch.float64)


def by_harmonic_mean(times, dense, ranks, machine):
    speed = {name: 1 / f for name, f in factors(dense, ranks, machine).items()}
    weights = np.array(list(times.values()))
    speeds = np.array([speed.get(name, 1.0) for name in times])
    return np.average(1 / speeds, weights=weights) ** -1


def new_time(times, dense, ranks, machine):
    return sum(times.values()) / by_times(times, dense, ranks, machine)


def layers_alone(times, dense, ranks, machine):
    own = {name: times[name] for name in ranks}
    return by_times(own, dense, ranks, machine) if own else 1.0


def machine_for_measured(times, dense, ranks, machine):
    new = dict(times)
    for name, r in ranks.items():
        m, n = dense[name]
        new[name] = machine(r, n) + machine(m, r)
    return sum(times.values()) / sum(new.values())


def mean_of_speedups(times, dense, ranks, machine):
    found = [1 / f for f in factors(dense, ranks, machine).values()]
    return sum(found) / len(found) if found else 1.0


def product(times, dense, ranks, machine):
    return 1 / math.prod(factors(dense, ranks, machine).values())


def turned(times, dense, ranks, machine):
    return by_times(
        times, dense, ranks, lambda m, n: machine(m, n) if (m, n) in dense.values() else machine(n, m)
    )


def first_product(times, dense, ranks, machine):
    new = {
        name: times[name] * machine(r, dense[name][1]) / machine(*dense[name]) for name, r in ranks.items()
    }
    return sum(times.values()) / sum((times | new).values())


def by_macs(times, dense, ranks, machine):
    return by_times(times, dense, ranks, lambda m, n: m * n)


def every_layer(times, dense, ranks, machine):
    return by_times(times, dense, {name: ranks.get(name, 8) for name in dense}, machine)


def never_slower(times, dense, ranks, machine):
    return max(1.0, by_times(times, dense, ranks, machine))


def ranks_never_slower(times, dense, ranks, machine):
    shrunk = {name: min(1, f) for name, f in factors(dense, ranks, machine).items()}
    return sum(times.values()) / sum(ms * shrunk.get(name, 1) for name, ms in times.items())


def in_place(times, dense, ranks, machine):
    for name, f in factors(dense, ranks, machine).items():
        times[name] *= f
    return sum(times.values())


def state(U, Vh, bias):
    found = {"0.weight": Vh.clone(), "1.weight": U.clone()}
    return found if bias is None else found | {"1.bias": bias.clone()}


def by_sequential(U, Vh, bias):
    """Two layers, and what they say."""
    (m, r), n = U.shape, Vh.shape[1]
    pair = nn.Sequential(nn.Linear(n, r, bias=False), nn.Linear(r, m, bias=bias is not None)).to(U.dtype)
    with torch.no_grad():
        pair[0].weight.copy_(Vh)
        pair[1].weight.copy_(U)
        if bias is not None:
            pair[1].bias.copy_(bias)
    return pair.state_dict()


def by_package(U, Vh, bias):
    return to_plain(LowRankLinear.from_factors(U, Vh, bias)).state_dict()


def by_numpy(U, Vh, bias):
    made = {"1.weight": torch.from_numpy(U.numpy().copy()), "0.weight": torch.from_numpy(Vh.numpy().copy())}
    return made if bias is None else {**made, "1.bias": torch.tensor(bias.tolist(), dtype=bias.dtype)}


def ordered(U, Vh, bias):
    return OrderedDict(
        (name, copy.deepcopy(t.contiguous().clone())) for name, t in state(U, Vh, bias).items()
    )


def renamed(**names):
    def answer(U, Vh, bias):
        return {names.get(name.replace(".", "_"), name): t for name, t in state(U, Vh, bias).items()}

    return answer


def views(U, Vh, bias):
    return {"0.weight": Vh, "1.weight": U} | ({} if bias is None else {"1.bias": bias})


def detached_views(U, Vh, bias):
    return {name: t.detach() for name, t in views(U, Vh, bias).items()}


def padded(U, Vh, bias):
    """Copies of the right numbers, in storages of twice the size."""
    return {name: torch.cat([t, t])[: len(t)] for name, t in views(U, Vh, bias).items()}


def each(change):
    """The right state with each tensor changed."""
    return lambda U, Vh, bias: {name: change(t) for name, t in state(U, Vh, bias).items()}


def exchanged(U, Vh, bias):
    found = state(U, Vh, bias)
    return found | {"0.weight": found["1.weight"], "1.weight": found["0.weight"]}


def layers(U, Vh, bias):
    return to_plain(LowRankLinear.from_factors(U, Vh, bias))


def none_for_no_bias(U, Vh, bias):
    return state(U, Vh, bias) | ({"1.bias": None} if bias is None else {})


def network(baseline, networks, max_drop):
    fitting = [one for one in networks if baseline - one[1] <= max_drop + 1e-9]
    if not fitting:
        return "stop"
    params, _, test = min(fitting, key=lambda one: (one[0], -one[1]))
    return params, test


def by_sorting(baseline, networks, max_drop):
    for params, val, test in sorted(networks, key=lambda one: (one[0], -one[1])):
        if val > baseline - max_drop or math.isclose(val, baseline - max_drop):
            return [params, test]
    return "stop"


def by_numpy_array(baseline, networks, max_drop):
    table = np.array(networks)
    table = table[np.round(baseline - table[:, 1] - max_drop, 6) <= 0]
    if not len(table):
        return "stop"
    return table[np.lexsort((-table[:, 1], table[:, 0]))[0]][[0, 2]]


def by_tensor(baseline, networks, max_drop):
    found = network(baseline, networks, max_drop)
    return found if found == "stop" else torch.tensor(found, dtype=torch.float64)


def by(fits=lambda b, d, one: b - one[1] <= d + 1e-9, key=lambda one: (one[0], -one[1]), give=2):
    """Another filter, another order, another number."""

    def answer(baseline, networks, max_drop):
        fitting = [one for one in networks if fits(baseline, max_drop, one)]
        if not fitting:
            return "stop"
        chosen = min(fitting, key=key)
        return chosen[0], chosen[give]

    return answer


def first_found(baseline, networks, max_drop):
    for params, val, test in networks:
        if baseline - val <= max_drop + 1e-9:
            return params, test
    return "stop"


def never_stops(baseline, networks, max_drop):
    found = network(baseline, networks, max_drop)
    return min(networks)[::2] if found == "stop" else found


ANSWERS = [
    right("11.1", "times", by_times),
    right("11.1", "Amdahl's law", by_amdahl),
    right("11.1", "savings, as a tensor", by_savings),
    right("11.1", "harmonic mean in numpy", by_harmonic_mean),
    right("11.1", "one number in an array", lambda *told: np.array([by_times(*told)])),
    right("11.2", "clones", state),
    right("11.2", "two layers", by_sequential),
    right("11.2", "the package", by_package),
    right("11.2", "numpy, in another order", by_numpy),
    right("11.2", "an ordered dictionary", ordered),
    right("11.3", "minimum", network),
    right("11.3", "sorted, a list", by_sorting),
    right("11.3", "numpy", by_numpy_array),
    right("11.3", "tensor", by_tensor),
    wrong("11.1", "a number", 2.0, "itself, which is then called as"),
    wrong("11.1", "new over old", lambda *told: 1 / by_times(*told), "old over the new"),
    wrong("11.1", "milliseconds", new_time, "milliseconds"),
    wrong("11.1", "layers alone", layers_alone, "other parts"),
    wrong("11.1", "the machine's time for the measured one", machine_for_measured, "measured in its place"),
    wrong("11.1", "mean of speed-ups", mean_of_speedups, "mean"),
    wrong("11.1", "product of speed-ups", product, "multiply"),
    wrong("11.1", "shapes turned", turned, "turned around"),
    wrong("11.1", "first product", first_product, "one product"),
    wrong("11.1", "multiply-adds", by_macs, "ask the machine"),
    wrong("11.1", "every layer cut", every_layer, "is not"),
    wrong("11.1", "never slower than dense", never_slower, "above break-even"),
    wrong("11.1", "no layer slower than dense", ranks_never_slower, "above break-even"),
    wrong("11.1", "in place", in_place, "changes its argument times"),
    wrong("11.1", "no rank looked up", lambda times, dense, ranks, machine: machine(*ranks), "raised"),
    wrong("11.1", "text", lambda *told: f"{by_times(*told):.2f} x", "one number"),
    wrong("11.2", "a dictionary for the function", {"0.weight": 1}, "itself, which is then called as"),
    wrong("11.2", "the layers", layers, "dictionary"),
    wrong("11.2", "the product", lambda U, Vh, b: {"weight": U @ Vh, "bias": b}, "must be"),
    wrong("11.2", "names of the factors", lambda U, Vh, b: {"U": U, "Vh": Vh, "bias": b}, "must be"),
    wrong("11.2", "views", views, "view"),
    wrong("11.2", "detached views", detached_views, "view"),
    wrong("11.2", "clones in a larger storage", padded, "larger storage"),
    wrong("11.2", "order exchanged", exchanged, "wrong order"),
    wrong("11.2", "transposed", each(lambda t: t.T if t.ndim == 2 else t), "transposed"),
    wrong("11.2", "bias in the first layer", renamed(**{"1_bias": "0.bias"}), "first layer has no bias"),
    wrong("11.2", "no bias", lambda U, Vh, b: state(U, Vh, None), "must be"),
    wrong("11.2", "None for no bias", none_for_no_bias, "no entry"),
    wrong("11.2", "single precision", each(torch.Tensor.float), "float64"),
    wrong("11.2", "arrays", each(torch.Tensor.numpy), "must be a tensor"),
    wrong("11.2", "scaled", each(lambda t: 2 * t), "other numbers"),
    wrong("11.2", "nan", each(lambda t: t * math.nan), "nan"),
    wrong("11.3", "a pair for the function", (400, 0.93), "itself, which is then called as"),
    wrong("11.3", "by the test score", by(lambda b, d, one: b - one[2] <= d + 1e-9), "test scores"),
    wrong("11.3", "validation score reported", by(give=1), "validation score"),
    wrong("11.3", "best validation", by(key=lambda one: -one[1]), "smallest in reach"),
    wrong("11.3", "best test score", by(key=lambda one: -one[2]), "must not see"),
    wrong("11.3", "tie by the test score", by(key=lambda one: (one[0], -one[2])), "whatever their test"),
    wrong("11.3", "size alone", by(key=lambda one: one[0]), "equally small"),
    wrong("11.3", "no tolerance", by(lambda b, d, one: b - one[1] <= d), "exactly max_drop"),
    wrong("11.3", "strict", by(lambda b, d, one: b - one[1] < d - 1e-9), "exactly max_drop"),
    wrong("11.3", "relative drop", by(lambda b, d, one: one[1] >= b * (1 - d) - 1e-9), "difference"),
    wrong("11.3", "absolute difference", by(lambda b, d, one: abs(b - one[1]) <= d + 1e-9), "better than"),
    wrong("11.3", "smallest of all", by(lambda b, d, one: True), "whatever it lost"),
    wrong("11.3", "first found", first_found, "first"),
    wrong("11.3", "never stops", never_stops, "'stop'"),
    wrong("11.3", "always stops", lambda *told: "stop", "there is a network"),
    wrong("11.3", "None", lambda *told: None, "returns None"),
    wrong("11.3", "the whole row", lambda b, n, d: n[0], "pair"),
    wrong("11.3", "in place", lambda b, n, d: n.sort() or network(b, n, d), "changes its argument networks"),
]  # fmt: skip
