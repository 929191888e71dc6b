"""The backward pass: a product has two gradients, each as dear as itself, and only those needed are run."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_macs import GRAD_MODES, ZOO, Fn, Raw, Self, Tied, Twice, encoder, insists_on_flash, z
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from lowrank_utils import LowRankLinear, Net, count_macs


def with_gradient(x: Any) -> Any:
    if isinstance(x, nn.utils.rnn.PackedSequence):
        return type(x)(x.data.clone().requires_grad_(), x.batch_sizes)
    floating = lambda t: isinstance(t, Tensor) and t.is_floating_point()  # noqa: E731
    return tree_map(lambda t: t.clone().requires_grad_() if floating(t) else t, x)


NO_BACKWARD = {"addmm in place", "mm out", "nothing", "sdpa flash inside"}
OTHERWISE = {"bilinear", "cdist of many"}
OTHERWISE |= {row[0] for row in ZOO if row[0].startswith(("rnn", "lstm", "gru"))}
LAW = [row for row in ZOO if row[0] not in NO_BACKWARD | OTHERWISE]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own; count_macs' fail below
@pytest.mark.parametrize(("make", "inputs", "macs"), [row[1:] for row in LAW], ids=[row[0] for row in LAW])
def test_where_everything_has_a_gradient_the_backward_is_twice_the_forward(make, inputs, macs):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="count_macs")
        assert count_macs(make(), *map(with_gradient, inputs), backward=True) == 2 * macs


def test_the_list_of_exceptions_is_short():
    assert len(LAW) >= 55 and len(ZOO) - len(LAW) <= 17


x, h = 10 * 24 * 4, 10 * 24 * 6  # an LSTM with 4 inputs and 6 states, 10 tokens: 4 gates of 6
start = 2 * 24 * 6  # the state that 2 sequences start with is no parameter: no gradient for it


@pytest.mark.parametrize(
    ("make", "inputs", "macs"),
    [
        (lambda: nn.LSTM(4, 6), (z(5, 2, 4),), x + 2 * h - start),
        (lambda: nn.LSTM(4, 6), (z(5, 2, 4).requires_grad_(),), 2 * x + 2 * h - start),
        (lambda: nn.LSTM(4, 6), with_gradient((z(5, 2, 4), (z(1, 2, 6), z(1, 2, 6)))), 2 * x + 2 * h),
        (lambda: nn.RNN(4, 6), (z(5, 2, 4),), (x + 2 * h - start) // 4),
        (lambda: nn.GRU(4, 6), (z(5, 2, 4),), (x + 2 * h - start) * 3 // 4),
        (lambda: nn.LSTMCell(4, 6), (z(2, 4),), 2 * 24 * (4 + 6)),  # state zero: both weight gradients
        (
            lambda: nn.Bilinear(3, 4, 5),  # a (7, 3), W (5, 3, 4), b (7, 4), two by two
            with_gradient((z(7, 3), z(7, 4))),
            7 * (5 * 12 + 12) + 7 * (5 * 12 + 5 * 4) + 7 * (5 * 3 + 5 * 12),
        ),
        (lambda: nn.Bilinear(3, 4, 5), (z(7, 3), z(7, 4)), 7 * (5 * 3 + 5 * 12)),
        # the two columns of norms that torch puts beside the points have no product in the backward pass
        (lambda: Fn(torch.cdist), with_gradient((z(2, 30, 7), z(2, 31, 7))), 2 * 2 * 30 * 31 * 7),
        # no gradient for the input: the first layer pays once, the others twice
        (Net, (z(120, 4),), 120 * (40 + 2 * 30)),
        (lambda: nn.Conv2d(3, 4, 3), (z(2, 3, 9, 7),), 2 * 4 * 35 * 27),
        (lambda: nn.ConvTranspose2d(6, 4, 3, groups=2), (z(1, 6, 5, 4),), 6 * 20 * 2 * 9),
        (lambda: LowRankLinear(8, 6, 3), (z(2, 8),), 2 * (3 * 8 + 2 * 3 * 6)),
        (lambda: LowRankLinear(8, 6, 3, core=True), (z(2, 8),), 2 * (3 * 8 + 2 * 9 + 2 * 3 * 6)),
        (Raw, (z(2, 8),), 2 * (8 * 3 + 2 * 3 * 6)),
        (Twice, (z(2, 8),), 2 * (64 + 2 * 64)),
        (Tied, (torch.arange(10).reshape(2, 5),), 2 * 10 * 88),  # the head's input has a gradient
        (lambda: Self(False), (z(2, 5, 8),), 10 * (3 * 64 + 2 * 64) + 2 * 2 * 2 * 25 * 8),
        (encoder, (z(2, 5, 8),), 2 * 3 * (10 * (4 * 64 + 256) + 2 * 2 * 25 * 8) - 10 * 3 * 64),
    ],
)
@pytest.mark.parametrize("mode", GRAD_MODES)
def test_closed_forms_where_not_everything_has_a_gradient(make, inputs, macs, mode):
    model = make()
    with mode(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="count_macs")
        assert count_macs(model, *inputs, backward=True) == macs


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def test_a_frozen_layer_saves_its_own_gradient_and_what_lies_before_it():
    x = z(120, 4)
    assert count_macs(frozen(Net(), "fc1"), x, backward=True) == 120 * 30  # nothing goes back beyond fc2
    assert count_macs(frozen(Net(), "fc2"), x, backward=True) == 120 * (40 + 30)  # through fc2, not into it
    with pytest.raises(ValueError, match=r"^backward=True must be False, or the model must return a tensor"):
        count_macs(frozen(Net(), "fc1", "fc2"), x, backward=True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_runs_its_forward_again(reentrant):
    net, x = Net(), z(120, 4).requires_grad_()
    saved = Fn(lambda x: checkpoint(net, x, use_reentrant=reentrant))
    saved.net = net
    again = 0 if reentrant else 30  # the other kind stops once it has what it needs: fc2's output is not
    assert count_macs(saved, x, backward=True) == 120 * (2 * 70 + 70 - again)


def test_all_outputs_count():
    model = nn.Linear(8, 6)
    both = Fn(lambda x: {"a": [model(x)], "b": (model(x), 3, x.argmax())})
    both.model = model
    assert count_macs(both, z(2, 8), backward=True) == 2 * 2 * 48


def test_what_has_no_formula_is_named_in_the_backward_too():
    q = z(2, 4, 5, 8).requires_grad_()
    with pytest.warns(
        UserWarning, match="no formula for aten::_scaled_dot_product_flash_attention_for_cpu_backward"
    ):
        assert count_macs(Fn(insists_on_flash), q, backward=True) == 0


def test_gradients_flags_and_generators_are_left_alone():
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.BatchNorm1d(8)), z(4, 8)
    model[0].weight.grad = torch.ones(8, 8)
    b = torch.backends
    flags = lambda: (b.mkldnn.enabled, b.cudnn.enabled, b.mha.get_fastpath_enabled(), torch.is_grad_enabled())  # noqa: E731
    before, generator = flags(), torch.get_rng_state()
    assert count_macs(model, x, backward=True) == 4 * 64
    assert flags() == before and torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(model[0].weight.grad, torch.ones(8, 8)) and model[0].bias.grad is None
    assert model[2].num_batches_tracked == 0
    with pytest.raises(RuntimeError):
        count_macs(model, z(4, 7), backward=True)
    assert flags() == before


def test_meta_and_other_threads_of_a_graph():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(50_000, 50_000), nn.Linear(50_000, 10))
        macs = count_macs(model, torch.empty(64, 50_000), backward=True)
    assert macs == 64 * (25 * 10**8 + 2 * 500_000)
    y = (z(3, 3).requires_grad_() @ z(3, 3)).sum()  # nodes that were there before
    assert count_macs(nn.Linear(8, 6), z(2, 8), backward=True) == 2 * 48
    y.backward()


@pytest.mark.parametrize(
    "f",
    [torch.linalg.inv, torch.linalg.svd, torch.linalg.cholesky, torch.linalg.matrix_exp, torch.linalg.qr],
)
def test_a_decomposition_is_named(f):
    with pytest.warns(UserWarning, match="count_macs has no formula for aten::"):
        count_macs(Fn(lambda a: f(a @ a.T + torch.eye(3))), z(3, 3))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="count_macs")
        assert count_macs(Fn(lambda a: F.normalize(a) + a.norm() + torch.linalg.cross(a, a)), z(3, 3)) == 0
