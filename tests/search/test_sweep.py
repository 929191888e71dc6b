"""Sweeps: the same values on one process and on two, in any order; failures are tried again, and noted."""

import dataclasses
import functools
import hashlib
import math
import random
import subprocess
import sys
import time

import joblib
import numpy as np
import pytest
import torch

from lowrank_utils import sweep

AXES = {"layer": ["a", "b"], "rank": [1, 2, 4], "seed": [0, 1]}


def draws(layer, rank, seed):
    """What depends on every generator, and on threads if there were two."""
    W = torch.randn(40, 40)
    return float(torch.linalg.svdvals(W)[rank]) + np.random.rand() + random.random() + seed


def test_order_and_values():
    found = sweep(lambda **point: tuple(point.values()), AXES)
    expected = [(layer, r, seed) for layer in "ab" for r in (1, 2, 4) for seed in (0, 1)]
    assert list(found.values) == expected == [tuple(point.values()) for point in found.points]
    assert found.tries == (1,) * 12 and found.failed == {}


def test_a_grid_of_one_point_and_a_result_that_cannot_be_set_anew():
    found = sweep(lambda seed: seed, {"seed": [1]})
    assert found.values == (1,) and found.over("seed") == {(): [1]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.tries = (2,)


def test_bit_for_bit_on_two_processes_and_with_other_points():
    alone = sweep(draws, AXES)
    assert len(set(alone.values)) == len(alone.values)
    assert sweep(draws, AXES, n_jobs=2).values == alone.values
    with joblib.parallel_config(backend="threading", n_jobs=1):
        assert sweep(draws, AXES).values == alone.values
    turned = sweep(draws, {"seed": [1], "rank": [4], "layer": ["b"]})  # one point, in another order of axes
    assert turned.values[0] == alone.values[-1]


def dtype_of_new(seed):
    """What a task's new tensors are of, and a draw of it."""
    return str(torch.ones(1).dtype), torch.rand(1).item()


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_the_callers_default_dtype_on_every_backend(backend):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        alone = sweep(dtype_of_new, {"seed": range(3)})
        with joblib.parallel_config(backend=backend, n_jobs=2):
            assert sweep(dtype_of_new, {"seed": range(3)}) == alone
        assert alone.values[0][0] == "torch.float64" == str(torch.get_default_dtype())
    finally:
        torch.set_default_dtype(before)


def test_a_task_that_sets_the_default_dtype_sets_it_for_itself():
    def task(seed):
        was = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return was

    assert sweep(task, {"seed": [0, 1]}).values == (torch.float32, torch.float32)
    assert torch.get_default_dtype() == torch.float32


PLAIN = [
    0,
    -1,
    2.5,
    1e-9,
    True,
    None,
    "a",
    "it's",
    "x at 0x1",
    b"a",
    (),
    (1,),
    (1, "b"),
    [],
    [1, [2]],
    len,
    torch.nn.ReLU,
    {"k": (1, 2)},
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_the_seed_is_the_hash_of_the_points_repr(value):
    """What is stored of a sweep hangs on it."""
    point = {"rank": 3, "layer": value}
    written = repr(sorted(point.items())).encode()
    seed = int.from_bytes(hashlib.sha256(written).digest()[:4], "big")
    found = sweep(lambda **_: torch.initial_seed(), {name: [value] for name, value in point.items()})
    assert found.values == (seed,)


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [(np.int64(3), 3), (np.float64(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a")],
)
def test_a_numpy_scalar_draws_as_the_number_that_it_is(scalar, plain):
    for axes in ([scalar], [plain]), ([[scalar]], [[plain]]), ([{"k": scalar}], [{"k": plain}]):
        one, other = (sweep(lambda rank: torch.rand(1).item(), {"rank": values}) for values in axes)
        assert one.values == other.values


FUNCTIONS = """
import torch
from torch import nn
from lowrank_utils import sweep

_ = [object() for _ in range({objects})]  # another address for what follows

def f():
    pass

values = [f, lambda: None, torch.relu, nn.functional.relu, nn.ReLU, len, (f, 1), [f], {{"act": f}}]
values += [{{f: 1}}, {{"some", "texts", "in", "a", "set"}}, frozenset("abcdefgh")]
print(sweep(lambda value, seed: torch.rand(1).item(), {{"value": values, "seed": [0]}}).values)
"""


def test_functions_and_classes_draw_the_same_in_another_process():
    programs = [FUNCTIONS.format(objects=n) for n in (0, 100_000)]
    first, second = (
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
        for text in programs
    )
    assert first == second and len(set(eval(first))) == 12


class Described:
    def __repr__(self):
        return "Described()"


def test_an_object_that_describes_itself_is_a_value():
    draw = {"value": [Described()]}
    first, second = (sweep(lambda value: torch.rand(1).item(), draw) for _ in range(2))
    assert first.values == second.values


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ([0, object()], r"axes\['value'\]\[1\]=<object object at 0x.*>"),
        ([(0, object())], r"axes\['value'\]\[0\]\[1\]=<object object at 0x.*>"),
        ([{"act": object()}], r"axes\['value'\]\[0\]\['act'\]=<object object at 0x.*>"),
        ([functools.partial(draws, rank=1)], r"axes\['value'\]\[0\]=functools.partial\(<function draws.*"),
        ([random.Random(0).seed], r"axes\['value'\]\[0\]=<bound method .*"),
        ([[].append], r"axes\['value'\]\[0\]=<built-in method append of list .*"),
        ([{object(): 1}], r"axes\['value'\]\[0\]=<object object at 0x.*>"),
    ],
)
def test_a_value_that_prints_as_an_address_is_refused(values, where):
    with pytest.raises(TypeError, match=f"^{where} must be a number, a text, a function, or what has a"):
        sweep(lambda value: 0, {"value": values})


def test_generators_and_threads_are_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = sweep(lambda seed: torch.get_num_threads(), {"seed": [0, 1]})
        assert found.values == (1, 1) and torch.get_num_threads() == 2
        sweep(draws, AXES)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert np.array_equal(np.random.get_state()[1], before[1])


def passes(compiled, seed):
    """How often a compiled function was handed to its compiler."""
    seen = []

    def compiler(module, inputs):
        seen.append(module)
        return module.forward

    torch.compile(lambda x: 2 * x + 1, backend=compiler)(torch.ones(3))
    return len(seen)


def test_what_a_task_compiles_is_compiled():
    assert passes(True, 0) == 1
    assert sweep(passes, {"compiled": [True], "seed": [0]}).values == (1,)


def slow_draws(seed):
    """A sum of draws between which another thread has its chance."""
    total = 0.0
    for _ in range(20):
        total += torch.rand(()).item() + np.random.rand() + random.random()
        time.sleep(0.001)
    return total


def nested(seed):
    """A sweep within a task, which draws before and after it."""
    first = slow_draws(seed)
    inner = sweep(slow_draws, {"seed": [seed, seed + 1]}, n_jobs=2)
    return first, inner.values, slow_draws(seed)


@pytest.mark.parametrize("task", [slow_draws, nested])
def test_threads_share_the_generators_and_give_the_same(task):
    before = torch.get_rng_state(), torch.get_num_threads()
    wanted = sweep(task, {"seed": range(4)}).values
    with joblib.parallel_config(backend="threading", n_jobs=4):
        assert sweep(task, {"seed": range(4)}).values == wanted
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_num_threads() == before[1]


def trained(net, sizes, seed):
    """A task that changes what it is given."""
    sizes.pop()
    with torch.no_grad():
        net.weight += torch.randn_like(net.weight)
    return net.weight.tolist(), list(sizes), 1 / sizes.count(3)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_task_has_values_of_its_own(n_jobs):
    net = torch.nn.Linear(3, 2)
    before, axes = net.weight.tolist(), {"net": [net], "sizes": [[1, 3, 2], [1, 2]], "seed": [0, 1, 2]}
    found = sweep(trained, axes, n_jobs=n_jobs)
    assert net.weight.tolist() == before and axes["sizes"] == [[1, 3, 2], [1, 2]]
    assert found.points[0]["net"] is net and found.points[5]["sizes"] == [1, 2]
    assert set(found.failed) == {3, 4, 5}  # also when it is tried again
    for i in range(3):
        one = {name: [value] for name, value in found.points[i].items()}
        assert sweep(trained, one).values == (found.values[i],) and found.values[i][1] == [1, 3]


def test_what_cannot_be_copied_is_handed_on():
    assert sweep(lambda of, seed: of.sqrt(4.0), {"of": [math], "seed": [0]}).values == (2.0,)


class Flaky:
    """Fails at some points for the first few calls."""

    def __init__(self, times):
        self.left = dict(times)

    def __call__(self, seed):
        value = torch.rand(1).item()  # a second try must draw the same
        if self.left.get(seed, 0) > 0:
            self.left[seed] -= 1
            raise OSError(f"the disk of task {seed} is full")
        return value


def test_a_failing_task_is_tried_again_and_gives_the_same():
    calm = sweep(Flaky({}), {"seed": range(4)})
    found = sweep(Flaky({1: 1, 2: 2}), {"seed": range(4)}, retries=2)
    assert found.values == calm.values and found.tries == (1, 2, 3, 1) and not found.failed


def test_what_keeps_failing_is_noted_and_the_others_go_on():
    found = sweep(Flaky({2: 9}), {"seed": range(4)}, retries=1)
    assert found.failed == {2: "OSError: the disk of task 2 is full"}
    assert found.values[2] is None and found.tries == (1, 1, 2, 1)
    assert len(found.over("seed")[()]) == 3


def test_an_interrupt_is_no_failure():
    def stop(seed):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(stop, {"seed": [0]})


def test_over():
    found = sweep(lambda rank, seed: 10 * rank + seed, {"rank": [1, 2], "seed": [0, 1, 2]})
    assert found.over("seed") == {(1,): [10, 11, 12], (2,): [20, 21, 22]}
    assert found.over("rank") == {(0,): [10, 20], (1,): [11, 21], (2,): [12, 22]}
    with pytest.raises(ValueError, match="axis='layer' must be one of 'rank', 'seed'"):
        found.over("layer")


def test_over_values_that_are_no_keys():
    axes = {"sizes": [[4, [8, 2]], [4]], "options": [{"lr": [1, 2]}, {3, 1}], "seed": [0, 1]}
    found = sweep(lambda sizes, options, seed: 10 * len(sizes) + seed, axes)
    keys = [
        ((4, (8, 2)), (("lr", (1, 2)),)),
        ((4, (8, 2)), (1, 3)),
        ((4,), (("lr", (1, 2)),)),
        ((4,), (1, 3)),
    ]
    assert found.over("seed") == dict(zip(keys, [[20, 21], [20, 21], [10, 11], [10, 11]], strict=True))


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ((3, AXES), TypeError, "task=3 must be a function"),
        ((draws, [1, 2]), TypeError, r"axes=\[1, 2\] must be a mapping"),
        ((draws, {"seed": [0], "rank": 5}), TypeError, r"axes\['rank'\]=5 must be a list of values"),
        (
            (draws, {"seed": [0], "data": "iris"}),
            TypeError,
            r"axes\['data'\]='iris' must be a list of values",
        ),
        ((draws, {}), ValueError, "axes={} must be a mapping with at least one axis"),
        ((draws, {"seed": []}), ValueError, "axes={'seed': \\[\\]} must be"),
    ],
)
def test_bad_input(told, error, words):
    with pytest.raises(error, match=words):
        sweep(*told)


@pytest.mark.parametrize("bad", [-1, 1.5, "1"])
def test_bad_retries(bad):
    with pytest.raises((ValueError, TypeError), match="retries=.* must be an integer >= 0"):
        sweep(draws, AXES, retries=bad)
