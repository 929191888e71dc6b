"""The seed's two nets, and what the seed notebook prints with them."""

import math

import pytest
import torch
from torch import nn

from lowrank_utils import (
    Net,
    NetLite,
    OptimizeRank,
    Split,
    accuracy,
    load_split,
    set_seed,
    singular_values,
    train_nn,
)


@pytest.fixture(scope="module")
def iris() -> Split:
    return load_split("iris")


@pytest.fixture(scope="module")
def trained(iris):
    set_seed(42)
    net = Net()
    train_nn(net, iris.X_train, iris.y_train, epochs=1000)
    return net


def test_net_is_the_seeds():
    torch.manual_seed(0)
    net = Net()
    torch.manual_seed(0)
    fc1, fc2 = nn.Linear(4, 10), nn.Linear(10, 3)  # drawn in the same order
    x = torch.randn(5, 4)
    assert torch.equal(net(x), fc2(torch.relu(fc1(x))))
    assert sum(p.numel() for p in net.parameters()) == 83
    assert net[0] is net.fc1 is net.get_first_layer() and net[1] is net.fc2


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_netlite_is_the_seeds(rank):
    torch.manual_seed(0)
    net = NetLite(rank)
    torch.manual_seed(0)
    layers = [nn.Linear(4, rank), nn.Linear(rank, rank), nn.Linear(rank, 10), nn.Linear(10, 3)]
    x = torch.randn(5, 4)
    h = layers[2](layers[1](layers[0](x)))
    assert torch.equal(net(x), layers[3](torch.relu(h)))
    assert [net[i] for i in range(4)] == [net.u1, net.core1, net.v1, net.fc2]
    assert net.return_decomposed_layers() == (net.u1, net.core1, net.v1)
    assert sum(p.numel() for p in net.parameters()) == (rank * rank + 14 * rank) + (2 * rank + 10) + 33


def test_netlites_composed_weight():
    """The seed left one transpose out; at rank 1 nobody sees it."""
    torch.manual_seed(1)
    for rank, agrees in ((1, True), (2, False)):
        u1, core1, v1 = NetLite(rank).double().return_decomposed_layers()
        W = v1.weight @ core1.weight @ u1.weight
        x = torch.randn(6, 4, dtype=torch.float64)
        linear_part = v1(core1(u1(x))) - v1(core1(u1(torch.zeros_like(x))))
        assert torch.allclose(x @ W.T, linear_part, atol=1e-14)
        slip = u1.weight.T @ core1.weight @ v1.weight.T
        assert torch.allclose(slip.T, W, atol=1e-14) is agrees


@pytest.mark.parametrize("net", [Net(), NetLite(2)])
def test_the_index_ends(net):
    count = len(list(net.children()))
    assert len(list(net)) == count  # iteration stops at IndexError
    for index in (count, -1):
        with pytest.raises(IndexError, match=rf"^index={index} must be from 0 to {count - 1}$"):
            net[index]


@pytest.mark.parametrize(
    ("rank", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (5, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        (None, TypeError),
        (math.nan, TypeError),
    ],
)
def test_impossible_ranks(rank, error):
    with pytest.raises(error) as caught:
        NetLite(rank)
    assert str(caught.value) == f"rank={rank!r} must be an integer from 1 to 4 (min(m, n) of a 10 x 4 matrix)"


def test_the_seeds_net_is_right_30_times_of_30(iris, trained):
    right = trained(iris.X_test).argmax(1) == iris.y_test
    assert right.sum() == 30 == len(right)
    assert accuracy(trained, iris.X_test, iris.y_test) == 1.0


def test_its_singular_values(trained):
    assert [round(s, 2) for s in singular_values(trained.fc1.weight).tolist()] == [3.21, 1.31, 0.88, 0.69]


def test_the_seeds_search(iris, trained, capsys):
    rank, diff, saved = OptimizeRank(iris.X_train, trained, iris.y_train).optimize_rank_binary_search()
    assert capsys.readouterr().out == "Max rank: 2\n"
    assert rank == 1 and 0 <= diff <= 0.1 and saved == 0.625  # 1 - (1 + 14) / 40
    brute = OptimizeRank(iris.X_train, trained, iris.y_train).optimize_rank_brute_force()
    assert brute == (rank, diff, saved)


def test_the_seeds_netlite_was_never_trained(iris):
    scores = []
    for seed in range(20):
        set_seed(seed)
        scores.append(accuracy(NetLite(1), iris.X_test, iris.y_test))
    # 20 nets whose guesses have nothing to do with the class: 1/3 +- 3 deviations of at most 0.5 / sqrt(20)
    assert abs(sum(scores) / 20 - 1 / 3) <= 3 * 0.5 / math.sqrt(20) and max(scores) < 0.9
    set_seed(42)
    net = NetLite(1)
    train_nn(net, iris.X_train, iris.y_train)
    assert accuracy(net, iris.X_test, iris.y_test) > 0.9
