"""Inputs that several layers read are summed once, and the moments are those of each layer by itself."""

from unittest import mock

import pytest
import torch
from oracles import Lambda
from torch import nn

from lowrank_utils import Moments, calibrate, unpack_attention


def lone(model, X, **options):
    """Each layer's moments from a run in which no other layer takes part."""
    names = list(calibrate(model, X, **options))
    return {name: calibrate(model, X, layers=[name], **options)[name] for name in names}


def counted(model, X, **options):
    """The moments, and how many inputs were summed for them."""
    with mock.patch.object(Moments, "add", autospec=True, side_effect=Moments.add) as add:
        found = calibrate(model, X, **options)
    return found, add.call_count


def same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, moments in wanted.items():
        assert (got[name].rows, got[name].samples) == (moments.rows, moments.samples)
        for field in ("mean", "covariance", "gradient"):
            assert torch.equal(getattr(got[name], field), getattr(moments, field)), (name, field)


@pytest.mark.parametrize("size", [256, 7])
def test_query_key_and_value(size):
    torch.manual_seed(0)
    model = unpack_attention(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval())
    X = torch.randn(20, 5, 8)
    got, sums = counted(model, X, batch_size=size)
    same(got, lone(model, X, batch_size=size))
    assert len(got) == 6 and sums == 4 * -(-20 // size)  # q, k and v together


def three(forward):
    torch.manual_seed(1)
    return Lambda(forward, a=nn.Linear(6, 4), b=nn.Linear(6, 4), c=nn.Linear(6, 4)).eval()


def odd_batches(s, x):
    return s.a(x) + s.b(x) + (s.c(x) if len(x) % 2 else s.c(2 * x))


def changed_between(s, x):
    x = x * 1
    one = s.a(x)
    x.mul_(2)
    return one + s.b(x) + s.c(x)


def twice(s, x):
    return s.a(x) + s.a(x) + s.b(x) + s.c(x)


def another_first(s, x):
    return s.c(x.exp()) + s.a(x) + s.c(x) + s.b(x)


def in_turn(s, x):
    return s.a(x) + s.b(x.exp()) + s.c(x) if len(x) > 5 else s.b(x) + s.a(x) + s.c(x)


@pytest.mark.parametrize("forward", [odd_batches, changed_between, twice, another_first, in_turn])
def test_whatever_the_layers_read(forward):
    model = three(forward)
    for X in (torch.randn(30, 6), [torch.randn(n, 6) for n in (5, 6, 7, 0, 4)]):
        options = {"batch_size": 7} if isinstance(X, torch.Tensor) else {}
        same(calibrate(model, X, **options), lone(model, X, **options))
