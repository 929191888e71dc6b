"""A model with adapters: what it computes, what of it is trained, what it shares."""

import pytest
import torch
from oracles import snapshot
from torch import nn

from lowrank_utils import LoRALinear, adapt


def net_of():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(8, 6), nn.Tanh())
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), inner, nn.Linear(6, 3)).double()


@pytest.mark.parametrize("start", ["zeros", "pissa"])
def test_it_starts_as_the_model_and_trains_the_adapters_alone(start):
    net, x = net_of(), torch.randn(9, 5).double()
    before = snapshot(net)
    made = adapt(net, {"0": 2, "2.0": 3}, scaling=2.0, start=start)
    assert torch.allclose(made(x), net(x), rtol=0, atol=1e-13)
    trained = {name for name, p in made.named_parameters() if p.requires_grad}
    assert trained == {"0.A", "0.B", "2.0.A", "2.0.B"}
    assert (made[0].scaling, made[2][0].scaling) == (2.0, 2.0) and made[2][0].rank == 3
    made[3].weight.data.zero_()  # nothing is shared
    made[0].W.data.zero_()
    assert snapshot(net)["bytes"] == before["bytes"]
    assert all(p.requires_grad for p in net.parameters())


def test_a_model_that_is_frozen_already_gets_adapters_that_are_not():
    made = adapt(net_of().requires_grad_(False), {"0": 2})
    assert {name for name, p in made.named_parameters() if p.requires_grad} == {"0.A", "0.B"}


def test_training_moves_no_frozen_number_and_the_merged_net_is_as_large_as_the_old_one():
    net, x = net_of(), torch.randn(9, 5).double()
    made = adapt(net, {"0": 2, "3": 1})
    adam = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(5):
        adam.zero_grad()
        made(x).square().sum().backward()
        adam.step()
    assert torch.equal(made[0].W, net[0].weight) and torch.equal(made[2][0].weight, net[2][0].weight)
    assert not torch.allclose(made(x), net(x))
    wanted = made(x)
    for i in (0, 3):
        made[i] = made[i].merge()
    assert torch.allclose(made(x), wanted, rtol=0, atol=1e-12)
    assert [p.shape for p in made.parameters()] == [p.shape for p in net.parameters()]


def test_hooks_and_mode_stay():
    net, seen = net_of().eval(), []
    net[0].register_forward_hook(lambda *told: seen.append(type(told[0])))
    made = adapt(net, {"0": 2})
    made(torch.zeros(1, 5).double())
    assert seen == [LoRALinear] and not made[0].training


@pytest.mark.parametrize(
    ("ranks", "how", "error", "words"),
    [
        ({"1": 2}, {}, ValueError, "^layer='1' must be one of the layers"),
        ({"9": 2}, {}, ValueError, "^layer='9' must be one of the layers"),
        ({"0": 6}, {}, ValueError, r"^ranks\['0'\]=6 must be an integer from 1 to 5"),
        ({"0": 1.5}, {}, TypeError, r"^ranks\['0'\]=1.5"),
        ({"0": 1}, {"scaling": 0.0}, ValueError, "^scaling=0.0"),
        ({"0": 1}, {"start": "svd"}, ValueError, "^start='svd' must be one of 'pissa', 'zeros'"),
    ],
)
def test_errors(ranks, how, error, words):
    with pytest.raises(error, match=words):
        adapt(net_of(), ranks, **how)


def test_another_layer_is_refused_by_name():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(TypeError, match="^layer '0'=Conv2d must be an nn.Linear"):
        adapt(net, {"0": 1})
    with pytest.raises(TypeError, match="model='net' must be"):
        adapt("net", {})
