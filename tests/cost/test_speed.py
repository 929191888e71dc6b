"""Speed with a clock of our own, and once with the real one where the margin is wide."""

import time

import pytest
import torch
from oracles import snapshot
from torch import nn

from lowrank_utils import Net, Speed, measure_latency, measure_speed
from lowrank_utils.cost import latency, speed


def test_share_and_text():
    told = Speed(gflops=1.5, peak_gflops=60.0)
    assert told.share == 0.025 and str(told) == "1.5 of 60 GFLOP/s (2.50%)"


def test_it_is_twice_the_macs_over_the_median_against_the_fastest_product(monkeypatch):
    latencies = iter([3.0, 1.0, 2.0, 9.0, 2.0])  # ms; median 2
    monkeypatch.setattr(speed, "measure_latency", lambda *a, **k: next(latencies))
    seconds = iter([0.5, 0.1, 0.2, 0.3, 0.4])  # fastest 0.1
    monkeypatch.setattr(speed, "_seconds_of_product", lambda square, threads: next(seconds))
    told = measure_speed(nn.Linear(1000, 500), torch.zeros(4, 1000), size=100)
    assert told.gflops == pytest.approx(2 * 4 * 500_000 / 2e-3 / 1e9)
    assert told.peak_gflops == pytest.approx(2 * 100**3 / 0.1 / 1e9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_is_square_of_the_models_dtype_and_the_threads_come_back(monkeypatch, dtype):
    seen, mm = [], torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda a, b: (seen.append((a.shape, a.dtype, torch.get_num_threads())), mm(a, b))[1]
    )
    before = torch.get_num_threads()
    model, x = nn.Linear(8, 8).to(dtype), torch.zeros(2, 8, dtype=dtype)
    state = snapshot(model, x)
    measure_speed(model, x, size=16, min_run_time_s=1e-6, threads=before + 1)
    assert set(seen) == {((16, 16), dtype, before + 1)} and torch.get_num_threads() == before
    assert snapshot(model, x) == state


def test_a_small_net_is_far_from_the_peak():
    assert measure_speed(Net(), torch.zeros(1, 4), size=512, min_run_time_s=0.01).share < 0.1


def test_graphics_cards_are_waited_for(monkeypatch):
    class Card(torch.Tensor):  # says that it is on a card
        device = torch.device("cuda", 0)

    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    latency.synchronize([torch.zeros(2), 3])
    assert waited == []
    latency.synchronize([torch.zeros(2), torch.zeros(2).as_subclass(Card)])
    assert waited == [torch.device("cuda", 0)]


def test_latency_waits_in_each_timed_call(monkeypatch):
    waits, real = [], time.perf_counter
    monkeypatch.setattr(latency, "synchronize", lambda tensors: waits.append(len(list(tensors))))
    calls = []
    monkeypatch.setattr(time, "perf_counter", lambda: (calls.append(len(waits)), real())[1])
    latency.measure_latency(nn.Linear(4, 4), torch.ones(1, 4), min_run_time_s=1e-9)
    assert waits[0] == 3  # weight, bias, input
    assert calls == [1, 2, 2, 3, 3, 4]  # after the warm-up, then once between start and stop


@pytest.mark.parametrize("measure", [measure_latency, measure_speed])
def test_what_computes_nothing_has_no_speed(measure):
    model, threads = nn.Linear(4, 3, device="meta"), torch.get_num_threads()
    with pytest.raises(ValueError, match=r"^model=Linear must be on a device that computes"):
        measure(model, torch.ones(2, 4, device="meta"), threads=threads + 1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("measure", [measure_latency, measure_speed])
def test_inputs_stay_as_they_are_where_the_model_works_in_place(measure):
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(40, 3))
    x = torch.randn(4, 40)
    given = x.clone()
    measure(model, x, min_run_time_s=1e-6)
    assert torch.equal(x, given) and bool((x < 0).any())


def test_inputs_keep_their_layout_and_one_tensor_given_twice_stays_one():
    """Either would change which kernels run, and so the time."""
    seen = []

    class Watch(nn.Module):
        def forward(self, x, y):
            seen.append((x is y, x.stride()))

    x = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    measure_latency(Watch(), x, x, min_run_time_s=1e-9)
    rows = torch.zeros(1, 3).expand(2, 3)
    measure_latency(Watch(), rows, rows, min_run_time_s=1e-9)
    assert set(seen) == {(True, x.stride()), (True, (0, 1))}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: measure_speed("net", x), TypeError, r"model='net' must be a torch\.nn\.Module"),
        (lambda x: measure_speed(Net(), x, size=0), ValueError, "size=0 must be an integer >= 1"),
        (lambda x: measure_speed(Net(), x, threads=0), ValueError, "threads=0 must be an integer >= 1"),
        (
            lambda x: measure_speed(Net(), x, min_run_time_s=0),
            ValueError,
            "min_run_time_s=0.0 must be a finite",
        ),
        (lambda x: measure_speed(nn.Identity(), x.long()), ValueError, "must be floating tensors"),
    ],
)
def test_impossible_requests(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(1, 4))
