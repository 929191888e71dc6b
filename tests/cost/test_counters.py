"""flopth leaves nothing behind when it is called through flopth_counts, and a mess when it is not."""

import json
import subprocess
import sys

import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn

from lowrank_utils import LowRankLinear, Net, NetLite, flopth_counts

X = torch.linspace(-1, 1, 480).reshape(120, 4)

# what flopth_counts must not do: first it shows that it does not, then flopth that it does
FACTS = """
import json
import torch
from torch import nn
from lowrank_utils import Net, flopth_counts
from flopth import flopth

call, X = nn.Linear.__call__, torch.ones(120, 4)

def fails(action):
    try:
        action()
    except KeyError:
        return True
    return False

def facts(count):
    net = Net().train()
    keys = list(net.state_dict())
    count(net)
    other, fresh = nn.Linear(4, 2), Net()
    other(X), fresh(X)
    return {
        "__call__ is another": nn.Linear.__call__ is not call,
        "state_dict has grown": list(net.state_dict()) != keys,
        "left in eval mode": not net.training,
        "a later forward is counted too": hasattr(other, "flops"),
        "a count after a forward fails": fails(lambda: count(fresh)),  # the seed's KeyError
    }

ours = facts(lambda net: flopth_counts(net, X))
print(json.dumps([ours, facts(lambda net: flopth(net, inputs=(X,)))]))
"""


def test_the_trap_is_real_and_ours_does_not_fall_into_it():
    ran = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    ours, plain = json.loads(ran.stdout.splitlines()[-1])
    assert len(ours) == len(plain) == 5
    assert not any(ours.values()), ours
    assert all(plain.values()), plain


@pytest.mark.parametrize(("net", "counts"), [(Net(), (8400, 83)), (NetLite(1), (5400, 60))])
def test_the_seeds_figures(net, counts):
    got = flopth_counts(net, X)
    assert got == counts and [type(c) for c in got] == [int, int]


@pytest.mark.parametrize("train", [True, False])
def test_nothing_is_left_behind(train, capsys):
    class Leaf(nn.Module):  # a class of ours with a __call__ of its own
        def __call__(self, x):
            return super().__call__(x) + 1

        def forward(self, x):
            return x

    net = nn.Sequential(Net(), Leaf(), nn.BatchNorm1d(3), nn.ReLU()).train(train)
    net[2].eval()
    call, own, base = nn.Linear.__call__, Leaf.__call__, nn.Module.__call__
    kept, before = net[0](X).detach().clone(), snapshot(net, X)
    first = flopth_counts(net, X)
    assert nn.Linear.__call__ is call is base and Leaf.__call__ is own
    for leaf in (nn.Linear, nn.BatchNorm1d, nn.ReLU):
        assert "__call__" not in vars(leaf)
    assert snapshot(net, X) == before
    assert torch.equal(net[0](X), kept) and snapshot(net, X) == before
    assert flopth_counts(net, X) == first  # it can be called again
    assert capsys.readouterr().out == ""  # "Op Leaf is not supported" is not printed


def test_also_when_the_forward_raises():
    net = Net()
    before = snapshot(net)
    with pytest.raises(RuntimeError):
        flopth_counts(net, torch.ones(3, 7))
    assert "__call__" not in vars(nn.Linear) and snapshot(net) == before
    assert flopth_counts(net, X) == (8400, 83)


def test_gradients_are_free_to_flow_afterwards():
    net = Net()
    flopth_counts(net, X)
    net(X).sum().backward()
    assert net.fc1.weight.grad is not None and not any("flops" in name for name, _ in net.named_buffers())


def test_what_flopth_does_not_see():
    """Its number is no exact count: that is why the book has count_macs."""
    assert flopth_counts(LowRankLinear(4, 10, 2), X)[0] == 0  # raw parameters
    relu = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
    assert (
        flopth_counts(relu, X)[0] == 8400 + 120 * 10 != flopth_counts(Net(), X)[0]
    )  # nn.ReLU, not torch.relu
    twice = Lambda(lambda s, x: s.a(s.a(x)), a=nn.Linear(4, 4))
    assert flopth_counts(twice, X)[0] == 120 * 16  # the second call is lost


@pytest.mark.parametrize("wrong", [None, "net", nn.Linear])
def test_a_model_must_be_a_module(wrong):
    with pytest.raises(TypeError, match=r"^model=.* must be a torch\.nn\.Module$"):
        flopth_counts(wrong, X)
