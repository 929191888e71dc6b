"""What a model costs, counted by hand, on a real file and with a clock of our own."""

import math
import random
import time

import numpy as np
import pytest
import torch
from oracles import snapshot
from torch import nn
from torch.nn.utils import prune

from lowrank_utils import (
    Cost,
    CostTable,
    LowRankLinear,
    Machine,
    Net,
    NetLite,
    cost_table,
    count_macs,
    count_params,
    flopth_counts,
    measure_latency,
    measure_speed,
    predict_speedup,
    size_bytes,
)


def _tied():
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        (nn.Linear(4, 10), 50),
        (nn.Linear(4, 10, bias=False), 40),
        (nn.ReLU(), 0),
        (Net(), 83),
        (NetLite(1), 60),
        (nn.BatchNorm1d(7), 14),
        (nn.Conv2d(3, 8, 5), 8 * 75 + 8),
        (_tied(), 25 + 10),
        (LowRankLinear(20, 10, 3), 3 * 30 + 10),
        (LowRankLinear(20, 10, 3, core=True), 9 + 3 * 30 + 10),
    ],
)
def test_count_params(model, numbers):
    assert count_params(model) == numbers


def test_a_frozen_parameter_counts_and_a_truncated_weight_still_has_all_its_numbers():
    net = Net()
    net.fc1.requires_grad_(False)
    net.fc1.weight.data[:, 1:] = 0  # rank 1, in a dense matrix
    assert count_params(net) == 83


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_size_is_that_of_the_file(dtype, tmp_path):
    net = Net().to(dtype)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    # the archive's own name, "net" or "archive", stands at each of a dozen entries, padded to 64 bytes
    assert abs(size_bytes(net) - (tmp_path / "net.pt").stat().st_size) <= 12 * 64
    assert size_bytes(net) > 83 * dtype.itemsize


def test_size_grows_by_the_bytes_of_the_numbers():
    small, large = nn.Linear(100, 100), nn.Linear(1000, 100)
    assert abs(size_bytes(large) - size_bytes(small) - 4 * 900 * 100) <= 128
    assert size_bytes(LowRankLinear(1000, 100, 4)) < size_bytes(large) / 10


def test_a_view_is_written_with_all_of_its_storage():
    whole = torch.randn(500, 500)
    trap, clone = nn.Module(), nn.Module()
    trap.U = nn.Parameter(whole[:, :4])
    clone.U = nn.Parameter(whole[:, :4].clone())
    assert count_params(trap) == count_params(clone) == 2000
    assert size_bytes(trap) > 4 * 250_000 and size_bytes(clone) < 4 * 2000 + 4096


class Clock:
    """A perf_counter that shows what a list says."""

    def __init__(self, seconds):
        self.now, self.seconds, self.running = 0.0, iter(seconds), False

    def __call__(self):
        if self.running:
            self.now += next(self.seconds)
        self.running = not self.running
        return self.now


def test_latency_is_the_median_in_milliseconds(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", Clock([0.001, 0.002, 0.5, 0.004, 9.0]))
    assert measure_latency(nn.Linear(4, 4), torch.ones(1, 4), min_run_time_s=0.4) == pytest.approx(2.0)
    monkeypatch.setattr(time, "perf_counter", Clock([0.001, 0.002, 0.003, 0.004, 9.0]))
    assert measure_latency(nn.Linear(4, 4), torch.ones(1, 4), min_run_time_s=0.0001) == pytest.approx(
        2.0
    )  # 3 calls
    monkeypatch.setattr(time, "perf_counter", Clock([0.001] * 5 + [9.0]))
    assert measure_latency(nn.Linear(4, 4), torch.ones(1, 4), min_run_time_s=0.0045) == pytest.approx(1.0)


class Spy(nn.Module):
    def __init__(self, fail=False):
        super().__init__()
        self.inner, self.seen, self.fail = nn.Linear(4, 4), [], fail
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        SEEN.append((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        if self.fail:
            raise ArithmeticError
        return self.norm(self.inner(x))


SEEN = []


@pytest.mark.parametrize("threads", [1, 2])
def test_latency_runs_in_eval_mode_without_gradients_and_changes_nothing(threads):
    model, x = Spy().train(), torch.ones(3, 4)
    before = snapshot(model, x)
    SEEN.clear()
    assert measure_latency(model, x, min_run_time_s=1e-6, threads=threads) > 0
    assert len(SEEN) >= 4 and set(SEEN) == {(False, False, threads)}
    assert snapshot(model, x) == before


def test_latency_puts_the_threads_back_when_the_forward_raises():
    model = Spy(fail=True)
    before = snapshot(model)
    with pytest.raises(ArithmeticError):
        measure_latency(model, torch.ones(3, 4), threads=torch.get_num_threads() + 1)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_run_time_s": 0}, ValueError, "min_run_time_s=0.0 must be a finite number > 0"),
        ({"min_run_time_s": math.nan}, ValueError, "min_run_time_s=nan must be a finite number > 0"),
        ({"min_run_time_s": math.inf}, ValueError, "min_run_time_s=inf must be a finite number > 0"),
        ({"min_run_time_s": "1"}, TypeError, "min_run_time_s='1' must be a finite number > 0"),
        ({"threads": 0}, ValueError, "threads=0 must be an integer >= 1"),
        ({"threads": True}, TypeError, "threads=True must be an integer >= 1"),
    ],
)
def test_impossible_latency_requests(options, error, message):
    with pytest.raises(error) as caught:
        measure_latency(nn.Linear(4, 4), torch.ones(1, 4), **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("function", [count_params, size_bytes, measure_latency])
@pytest.mark.parametrize("wrong", [None, "net", nn.Linear, torch.ones(2)])
def test_a_model_must_be_a_module(function, wrong):
    with pytest.raises(TypeError, match=r"^model=.* must be a torch\.nn\.Module$"):
        function(wrong)


def test_cost_table_holds_what_the_single_functions_say():
    models, x = {"dense": Net(), "rank 1": NetLite(1)}, torch.ones(120, 4)
    before = [snapshot(m, x) for m in models.values()]
    table = cost_table(models, x, latency=False)
    assert [row.name for row in table.rows] == ["dense", "rank 1"]
    for name, model in models.items():
        assert table[name] == Cost(name, count_params(model), count_macs(model, x), size_bytes(model), None)
    assert [snapshot(m, x) for m in models.values()] == before
    assert (table["dense"].macs, table["rank 1"].macs) == (8400, 5400)  # 120 x 70 and 120 x 45
    timed = cost_table({"dense": models["dense"]}, x)
    assert timed["dense"].latency_ms > 0


def test_cost_table_prints_aligned():
    rows = (Cost("dense", 1_048_576, 1_048_576, 4_195_000, 1.25), Cost("a longer name", 8, 9, 10, 0.5))
    lines = str(CostTable(rows)).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3
    assert lines[0].split() == ["model", "params", "MACs", "bytes", "latency_ms"]
    assert lines[1].split() == ["dense", "1,048,576", "1,048,576", "4,195,000", "1.250"]
    assert lines[2].startswith("a longer name ") and lines[2].endswith(" 0.500")
    assert "latency" not in str(CostTable((Cost("a", 1, 2, 3, None),)))


def test_cost_table_without_a_name_or_a_model():
    with pytest.raises(KeyError, match=r"name='c' must be one of \['a'\]"):
        _ = CostTable((Cost("a", 1, 2, 3, None),))["c"]
    with pytest.raises(ValueError, match=r"^models=\{\} must be a mapping with at least one model$"):
        cost_table({})
    with pytest.raises(TypeError, match=r"^models=\[1\] must be a mapping \{name: model\}$"):
        cost_table([1])


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ("net", TypeError, r"^models\['b'\]='net' must be a torch\.nn\.Module$"),
        (nn.Linear(4, 4, device="meta"), ValueError, "must be a module with numbers to write, and not on"),
    ],
)
def test_cost_table_refuses_a_model_before_it_times_the_others(wrong, error, words):
    SEEN.clear()
    with pytest.raises(error, match=words):
        cost_table({"a": Spy(), "b": wrong}, torch.ones(3, 4))
    assert SEEN == []


class Counts(nn.Module):
    """A forward that writes into a parameter."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        with torch.no_grad():
            self.p.add_(1)
        return x @ torch.ones(4, 3) + self.p


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x: cost_table({"a": model}, x),
        lambda model, x: measure_latency(model, x, min_run_time_s=1e-6),
        lambda model, x: measure_speed(model, x, size=16, min_run_time_s=1e-6),
        flopth_counts,
    ],
)
def test_a_forward_that_writes_into_weights_does_not_change_the_model(measure):
    counts, words = Counts(), nn.Embedding(4, 3, max_norm=1.0)
    with torch.no_grad():
        words.weight.mul_(9)
    before = words.weight.clone()
    measure(counts, torch.ones(2, 4))
    measure(words, torch.arange(4))
    assert counts.p.tolist() == [0, 0, 0] and torch.equal(words.weight, before)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # weight_norm is the old one
@pytest.mark.parametrize("old", [nn.utils.weight_norm, lambda net: prune.l1_unstructured(net, "weight", 0.5)])
def test_a_weight_that_has_a_history_is_no_hindrance(old):
    model, x = old(nn.Linear(4, 3)), torch.ones(2, 4)
    model(x)
    assert not model.weight.is_leaf
    assert cost_table({"a": model}, x)["a"].latency_ms > 0
    assert measure_speed(model, x, size=16, min_run_time_s=1e-6).gflops > 0
    assert flopth_counts(model, x)[0] == 24


class Draws(nn.Module):
    """A forward that draws from every generator."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x + torch.rand(4)) + np.random.rand() + random.random()


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x: cost_table({"a": model}, x),
        lambda model, x: measure_latency(model, x, min_run_time_s=1e-6),
        lambda model, x: measure_speed(model, x, size=16, min_run_time_s=1e-6),
        lambda model, x: predict_speedup(model, {"fc": 1}, x, machine=Machine(1.0, 2.0, {(8, 8, 1): 1.0})),
        flopth_counts,
    ],
)
def test_how_often_a_model_was_called_does_not_show_in_the_generators(measure):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    model = Draws()
    before = states()
    measure(model, torch.ones(2, 4))
    assert states() == before


def test_a_model_without_numbers_has_no_size():
    with pytest.raises(
        ValueError, match="^model=Linear must be a module with numbers to write, and not on the"
    ):
        size_bytes(nn.Linear(4, 3, device="meta"))
