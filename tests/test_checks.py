"""Each message names the argument, its value and the limit."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lowrank_utils import _checks

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("value", [1, 4, np.int64(3), np.uint8(2), torch.tensor(4)])
def test_integer_takes_what_counts_as_one(value):
    got = _checks.integer(value, "r", low=1, high=4)
    assert type(got) is int and got == int(value)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0, ValueError, "r=0"),
        (5, ValueError, "r=5"),
        (-1, ValueError, "r=-1"),
        (10**20, ValueError, "r=1000"),
        (1.5, TypeError, "r=1.5"),
        (2.0, TypeError, "r=2.0"),
        (True, TypeError, "r=True"),
        (False, TypeError, "r=False"),
        (np.True_, TypeError, "r=np.True_"),
        (NAN, TypeError, "r=nan"),
        (INF, TypeError, "r=inf"),
        ("2", TypeError, "r='2'"),
        (None, TypeError, "r=None"),
        (torch.tensor(True), TypeError, "r=Tensor(shape=(), dtype=torch.bool)"),
        (torch.tensor(2.0), TypeError, "r=Tensor(shape=(), dtype=torch.float32)"),
    ],
)
def test_integer_refuses_the_rest(value, error, shown):
    with pytest.raises(error) as caught:
        _checks.integer(value, "r", low=1, high=4, why="because")
    assert str(caught.value).startswith(shown)
    assert str(caught.value).endswith("must be an integer from 1 to 4 (because)")


def test_integer_without_an_upper_limit():
    assert _checks.integer(10**9, "epochs", low=1) == 10**9
    with pytest.raises(ValueError, match=r"^epochs=0 must be an integer >= 1$"):
        _checks.integer(0, "epochs", low=1)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.25), torch.tensor(0.75), np.int8(1)])
def test_real_takes_numbers(value):
    got = _checks.real(value, "x", low=0.0, high=1.0)
    assert type(got) is float and got == float(value)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1e-9, ValueError),
        (1.5, ValueError),
        (NAN, ValueError),
        (INF, ValueError),
        (-INF, ValueError),
        (True, TypeError),
        ("0.5", TypeError),
        (None, TypeError),
        ([0.5], TypeError),
        (1j, TypeError),
        (10**400, TypeError),
        (torch.zeros(2), TypeError),
    ],
)
def test_real_refuses_the_rest(value, error):
    with pytest.raises(error, match=r"^x=.* must be a finite number >= 0 and <= 1$"):
        _checks.real(value, "x", low=0.0, high=1.0)


def test_real_may_leave_its_lower_end_out():
    assert _checks.real(0, "x", low=0.0) == 0
    with pytest.raises(ValueError, match=r"^lr=0\.0 must be a finite number > 0$"):
        _checks.real(0, "lr", low=0.0, open_low=True)


def test_number_lets_infinity_and_nan_pass():
    assert _checks.number(INF, "x") == INF and math.isnan(_checks.number(NAN, "x"))
    with pytest.raises(TypeError, match=r"^x=None must be a number$"):
        _checks.number(None, "x")


def test_choice_lists_what_is_allowed():
    assert _checks.choice("b", "method", ("b", "a")) == "b"
    for wrong in ("c", 3, None, ["a"]):
        with pytest.raises(ValueError, match=r"^method=.* must be one of 'a', 'b'$"):
            _checks.choice(wrong, "method", ("b", "a"))


@pytest.mark.parametrize(
    ("W", "error", "message"),
    [
        ([[1.0]], TypeError, "W of type list must be a torch.Tensor"),
        (np.eye(2), TypeError, "W of type ndarray must be a torch.Tensor"),
        (torch.eye(2).long(), TypeError, "W=Tensor(shape=(2, 2), dtype=torch.int64) must be of a floating"),
        (torch.eye(2).bool(), TypeError, "W=Tensor(shape=(2, 2), dtype=torch.bool) must be of a floating"),
        (torch.eye(2).cfloat(), TypeError, "dtype=torch.complex64) must be of a floating dtype"),
        (torch.ones(3), ValueError, "W=Tensor(shape=(3,), dtype=torch.float32) must be a non-empty matrix"),
        (torch.tensor(3.0), ValueError, "W=Tensor(shape=(), dtype=torch.float32) must be a non-empty matrix"),
        (torch.ones(2, 2, 2), ValueError, "shape=(2, 2, 2), dtype=torch.float32) must be a non-empty matrix"),
        (torch.ones(0, 3), ValueError, "shape=(0, 3), dtype=torch.float32) must be a non-empty matrix"),
        (torch.ones(3, 0), ValueError, "shape=(3, 0), dtype=torch.float32) must be a non-empty matrix"),
        (torch.tensor([[1.0, NAN], [INF, -INF]]), ValueError, "W of shape (2, 2) has 3 entries that are nan"),
    ],
)
def test_matrix(W, error, message):
    with pytest.raises(error) as caught:
        _checks.matrix(W)
    assert message in str(caught.value)


def test_matrix_is_detached():
    W = nn.Parameter(torch.eye(2))
    assert not _checks.matrix(W).requires_grad and W.requires_grad


def test_rank_names_the_shape():
    assert _checks.rank(4, 10, 4) == 4
    with pytest.raises(ValueError) as caught:
        _checks.rank(5, 10, 4, "max_rank")
    assert str(caught.value) == "max_rank=5 must be an integer from 1 to 4 (min(m, n) of a 10 x 4 matrix)"


X3, Y3 = torch.zeros(3, 2), torch.zeros(3)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (X3.numpy(), Y3, TypeError, "X and y must be tensors, not ndarray and Tensor"),
        (X3, [0, 1, 2], TypeError, "X and y must be tensors, not Tensor and list"),
        (X3, Y3[:2], ValueError, "y has 2 labels, but must have one for each of the 3 samples of X"),
        (X3, Y3[:0], ValueError, "X of shape (3, 2) and y of shape (0,) must not be empty"),
        (X3[:0], Y3[:0], ValueError, "X of shape (0, 2) and y of shape (0,) must not be empty"),
        (X3, torch.tensor(1), ValueError, "X of shape (3, 2) and y of shape () need a sample axis"),
        (torch.tensor(1.0), Y3, ValueError, "X of shape () and y of shape (3,) need a sample axis"),
    ],
)
def test_labelled(X, y, error, message):
    _checks.labelled(X3, Y3)
    with pytest.raises(error) as caught:
        _checks.labelled(X, y)
    assert str(caught.value) == message


def test_module():
    net = nn.ReLU()
    assert _checks.module(net) is net
    for wrong in (None, "net", nn.ReLU):
        with pytest.raises(TypeError, match=r"^model=.* must be a torch\.nn\.Module$"):
            _checks.module(wrong)


def test_packed_names_the_type_and_what_to_give_instead():
    message = r"^inputs of type list must be padded tensors and lengths, .* packed in the model's forward$"
    with pytest.raises(TypeError, match=message):
        _checks.packed([])


def test_long_values_are_cut_and_large_ones_only_named():
    with pytest.raises(ValueError) as caught:
        _checks.value_error("x", "a" * 500, "short")
    assert len(str(caught.value)) < 120 and "..." in str(caught.value)
    with pytest.raises(TypeError, match=r"^x=Sequential must be y$"):
        _checks.type_error("x", nn.Sequential(nn.Linear(2, 2)), "y")
