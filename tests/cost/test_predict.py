"""Predicted times: exact at the measured shapes, Amdahl's law between layers, sane on this machine."""

import math
import time

import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn

from lowrank_utils import LowRankLinear, Machine, predict_speedup

OVERHEAD, PEAK = 5.0, 5e9  # microseconds; multiply-adds a second


def ideal(aspects=(1 / 32, 1.0, 32.0), sizes=(64, 256, 1024), batches=(1, 16, 256)):
    """A machine that follows one law everywhere: overhead plus multiply-adds by a constant rate."""
    times = {}
    for aspect in aspects:
        for size in sizes:
            m, n = max(1, round(size * aspect**0.5)), max(1, round(size / aspect**0.5))
            for batch in batches:
                times[m, n, batch] = OVERHEAD * 1e-3 + 1e3 * m * n * batch / PEAK
    return Machine(OVERHEAD, 2 * OVERHEAD, times)


def law_ms(m, n, batch):
    return OVERHEAD * 1e-3 + 1e3 * m * n * batch / PEAK


@pytest.mark.parametrize("batch", [1, 3, 16, 100, 256, 1000])
@pytest.mark.parametrize(("m", "n"), [(64, 64), (100, 700), (8, 512), (2000, 4), (5000, 5000)])
def test_one_law_is_followed_between_and_beyond_the_measured_shapes(m, n, batch):
    assert ideal(aspects=(1.0,)).linear_ms(m, n, batch) == pytest.approx(law_ms(m, n, batch), rel=1e-9)


def test_measured_shapes_are_met():
    times = {(64, 64, 1): 0.011, (64, 64, 8): 0.019, (256, 256, 1): 0.05, (256, 256, 8): 0.3}
    machine = Machine(6.0, 9.0, times)
    for shape, ms in times.items():
        assert machine.linear_ms(*shape) == pytest.approx(ms, rel=1e-9)
    middle = machine.linear_ms(64, 64, 3)  # on a log scale between 5 us and 13 us
    assert middle == pytest.approx(0.006 + 0.005 * (13 / 5) ** (math.log(3) / math.log(8)), rel=1e-9)


def test_two_products_with_one_call():
    machine = ideal(aspects=(1.0,))
    m, n, r, batch = 500, 300, 20, 8
    products = 1e3 * r * (m + n) * batch / PEAK
    assert machine.pair_ms(m, n, r, batch) == pytest.approx(2 * OVERHEAD * 1e-3 + products)
    found = predict_speedup((m, n), r, batch=batch, machine=machine)
    assert found.low_rank_ms == machine.pair_ms(m, n, r, batch)
    assert found.dense_ms == machine.linear_ms(m, n, batch)
    assert found.speedup == found.dense_ms / found.low_rank_ms and found.share == 1


def test_a_small_layer_is_all_overhead():
    """On a machine with one rate, two calls can never beat one below some width."""
    machine = ideal(aspects=(1.0,))
    assert predict_speedup((16, 16), 1, machine=machine).speedup < 1
    assert predict_speedup((4096, 4096), 64, batch=64, machine=machine).speedup > 30


def net_of(*sizes):
    layers = [nn.Linear(n, m) for n, m in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(*layers)


def test_amdahl():
    """With each layer's share as it was timed, the rest unchanged."""
    net, x = net_of(256, 256, 256), torch.zeros(8, 256)
    before = snapshot(net)
    found = predict_speedup(net, {"0": 16}, x, machine=ideal())
    assert snapshot(net) == before
    layer = predict_speedup((256, 256), 16, batch=8, machine=ideal())
    assert found.layers == {"0": pytest.approx(layer.speedup)}
    law = 1 / (1 - found.share * (1 - 1 / layer.speedup))
    assert found.speedup == pytest.approx(law) and 0 < found.share < 1
    assert "of the time is in these layers" in str(found)


def test_rows_of_each_call_count():
    """A layer that is called twice, on rows of its own each time."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(256, 256)

        def forward(self, x):
            return self.layer(x).sum() + self.layer(input=x[:, :1]).sum()

    found = predict_speedup(Twice(), 16, torch.zeros(2, 30, 256), machine=ideal())
    dense = law_ms(256, 256, 60) + law_ms(256, 256, 2)
    pair = ideal().pair_ms(256, 256, 16, 60) + ideal().pair_ms(256, 256, 16, 2)
    assert found.layers["layer"] == pytest.approx(dense / pair, rel=1e-6)


def test_inputs_stay_as_they_are_where_the_model_works_in_place():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(40, 30))
    x = torch.randn(4, 40)
    given = x.clone()
    predict_speedup(model, 2, x, machine=ideal())
    assert torch.equal(x, given) and bool((x < 0).any())


def test_one_rank_goes_where_it_saves():
    net = net_of(64, 64, 2)  # of 2 x 64 rank 8 saves nothing
    assert set(predict_speedup(net, 8, torch.zeros(1, 64), machine=ideal()).layers) == {"0"}


def test_a_layer_that_is_never_called_saves_nothing():
    net = Lambda(lambda s, x: s.a(x), a=nn.Linear(64, 64), b=nn.Linear(64, 64))
    found = predict_speedup(net, {"b": 4}, torch.zeros(1, 64), machine=ideal())
    assert found.layers == {"b": 1.0} and found.speedup == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        (((64, 64), 65), ValueError, "rank=65 must be an integer from 1 to 64"),
        (((64, 64), {"0": 1}), TypeError, "rank=.* must be an integer for a single layer"),
        (((64, 0), 1), ValueError, r"target\[1\]=0 must be an integer >= 1"),
        (((64,), 1), TypeError, r"target=\(64,\) must be a torch.nn.Module or a pair"),
        ((64, 1), TypeError, "target=64 must be"),
        ((nn.Linear(2, 2), {"": 1}), ValueError, "inputs=.* must be what to call the model with"),
        ((nn.Linear(4, 4), {"": 9}, torch.zeros(1, 4)), ValueError, r"rank\[''\]=9 must be"),
        ((nn.Linear(4, 4), {"x": 1}, torch.zeros(1, 4)), ValueError, "layer='x' must be one of"),
        (
            (nn.Conv1d(4, 4, 3), {"": 1}, torch.zeros(1, 4, 9)),
            TypeError,
            r"rank\[''\]=1 must be of",
        ),
    ],
)
def test_bad_input(told, error, words):
    with pytest.raises(error, match=words):
        predict_speedup(*told, machine=ideal())


@pytest.mark.parametrize(("name", "value"), [("batch", 0), ("machine", "fast")])
def test_bad_options(name, value):
    with pytest.raises((ValueError, TypeError), match=f"{name}={value!r} must be"):
        predict_speedup((4, 4), 1, **{"machine": ideal(), name: value})


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"seconds": -1.0}, {"threads": 0}, {"threads": 1.5}])
def test_bad_measure(bad):
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(bad))}=.* must be"):
        Machine.measure(**bad)


@pytest.mark.parametrize("bad", [(0, 4, 1), (4, 0, 1), (4, 4, 0)])
def test_bad_shapes(bad):
    with pytest.raises(ValueError, match="must be an integer >= 1"):
        ideal().linear_ms(*bad)


@pytest.fixture(scope="module")
def machine():
    return Machine.measure(seconds=0.5)


def test_what_was_measured_is_plausible(machine):
    state = torch.get_rng_state()
    start = time.thread_time()
    again = Machine.measure(seconds=0.5)
    assert time.thread_time() - start < 20  # two passes of about 0.6 s here
    assert torch.equal(torch.get_rng_state(), state)
    assert again.times_ms.keys() == machine.times_ms.keys()
    for found in (machine, again):
        assert 0 < found.overhead_us < 1000
        assert found.overhead_us < 2 * found.pair_us  # less, but both are timed, and a busy machine is uneven
        assert found.peak_gflops > 0.5 and found.memory_gb_s > 0.1
        assert "GFLOP/s" in str(found)


def test_a_wide_layer_is_predicted_within_a_factor_of_two(machine):
    """One shape between those measured, by the processor's time: the benchmarks hold the tight figure."""
    dense, low = nn.Linear(768, 768), LowRankLinear(768, 768, 48)
    x = torch.zeros(64, 768)

    @torch.no_grad()
    def fastest(layer):
        took = []
        for _ in range(30):
            start = time.thread_time()
            layer(x)
            took.append(time.thread_time() - start)
        return min(took)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ratio = fastest(dense) / fastest(low)
    torch.set_num_threads(threads)
    predicted = predict_speedup((768, 768), 48, batch=64, machine=machine).speedup
    assert 0.5 < predicted / ratio < 2
