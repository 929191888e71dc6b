"""Ctrl-C at any call of a layer: model, data, hooks, modes, flags and generators are as before."""

import pytest
import torch
from oracles import snapshot
from torch import nn

from lowrank_utils import (
    accuracy,
    activation_bytes,
    calibrate,
    cascade,
    compress_within,
    cost_by_layer,
    count_macs,
    find_rank,
    measure_harm,
    measure_latency,
    train_nn,
)


class Interrupt(nn.Module):
    """Lets a number of calls pass, then raises; copies share the count."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __deepcopy__(self, memo):
        return Interrupt(self.calls)

    def forward(self, x):
        self.calls[0] -= 1
        if self.calls[0] < 0:
            raise KeyboardInterrupt
        return x


torch.manual_seed(0)
X, Y = torch.randn(40, 6), torch.randint(0, 3, (40,))
MOMENTS = calibrate(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Identity(), nn.Linear(5, 3)), X, Y)
CALLS = {
    "accuracy": lambda net: accuracy(net, X, Y),
    "activation_bytes": lambda net: activation_bytes(net, X),
    "calibrate": lambda net: calibrate(net, X, Y, batch_size=10),
    "cascade": lambda net: cascade(net, {"0": 2}, X, MOMENTS, batch_size=10),
    "compress_within": lambda net: compress_within(net, X, Y, max_drop=0.2, steps=3),
    "cost_by_layer": lambda net: cost_by_layer(net, X),
    "count_macs": lambda net: count_macs(net, X),
    "find_rank": lambda net: find_rank(net, "0", X, Y, max_drop=0.2),
    "find_rank, callable": lambda net: find_rank(net, "0", X, Y, max_drop=0.2, metric=accuracy),
    "measure_harm": lambda net: measure_harm(net, X),
    "measure_latency": lambda net: measure_latency(net, X, min_run_time_s=1e-9),  # always 4 calls
}


def world():
    """What belongs to everybody."""
    return (
        torch.get_rng_state().tolist(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.is_inference_mode_enabled(),
    )


@pytest.mark.parametrize("after", [0, 1, 2, 5])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_left_behind(name, after):
    calls = [10**9]
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), Interrupt(calls), nn.Linear(5, 3)).train()
    net[3].eval()
    CALLS[name](net)
    needed = 10**9 - calls[0]
    before, around = snapshot(net, X, Y), world()
    calls[0] = min(after, needed - 1)
    with pytest.raises(KeyboardInterrupt):
        CALLS[name](net)
    assert snapshot(net, X, Y) == before and world() == around
    assert [module.training for module in net] == [True, True, True, False]


def test_training_puts_the_modes_back():
    calls = [3]
    net = nn.Sequential(nn.Linear(6, 5), nn.Dropout(), Interrupt(calls), nn.Linear(5, 3)).eval()
    with pytest.raises(KeyboardInterrupt):
        train_nn(net, X, Y, epochs=9)
    assert not any(module.training for module in net.modules())
