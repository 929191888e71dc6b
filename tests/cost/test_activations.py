"""Bytes that autograd keeps for the backward pass: sums written out by hand, and memory really held."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from oracles import Lambda, snapshot
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.utils.checkpoint import checkpoint

from lowrank_utils import LowRankLinear, Net, activation_bytes
from lowrank_utils.cost.activations import saved_bytes


def z(*shape):
    return torch.randn(shape)


@pytest.mark.parametrize(
    ("make", "inputs", "numbers"),  # float32: 4 bytes each
    [
        (lambda: nn.Linear(4, 10), (z(120, 4),), 120 * 4),  # its input
        (Net, (z(120, 4),), 120 * (4 + 10)),  # ReLU's output is fc2's input: once
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), (z(2, 8),), 2 * (8 + 8)),
        (lambda: LowRankLinear(1024, 1024, 64), (z(32, 1024),), 32 * (1024 + 64)),
        (lambda: LowRankLinear(8, 6, 2, core=True), (z(3, 8),), 3 * (8 + 2 + 2)),
        (lambda: nn.Sequential(nn.Linear(8, 6), nn.Sigmoid()), (z(2, 8),), 2 * (8 + 6)),
        (lambda: nn.Sequential(nn.Linear(8, 6), nn.GELU()), (z(2, 8),), 2 * (8 + 6)),  # its input
        (lambda: nn.Conv2d(3, 4, 3), (z(2, 3, 9, 9),), 2 * 3 * 81),
        (lambda: Lambda(lambda s, x: s.a(s.a(x)), a=nn.Linear(8, 8)), (z(2, 8),), 2 * (8 + 8)),
        # a view keeps the whole storage: the input of the layer is one column of it
        (lambda: Lambda(lambda s, x: s.a(x[:, :1]), a=nn.Linear(1, 3)), (z(50, 70),), 50 * 70),
    ],
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_closed_forms(make, inputs, numbers, mode):
    model = make()
    with mode():
        assert activation_bytes(model, *inputs) == 4 * numbers


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_bytes_are_those_of_the_dtype(dtype):
    assert activation_bytes(Net().to(dtype), z(120, 4).to(dtype)) == dtype.itemsize * 120 * 14


def test_masks_and_indices_have_their_own_sizes():
    dropout = nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5))  # in training: the mask, as bool
    assert activation_bytes(dropout, z(2, 8)) in (4 * 16 + 12, 4 * 16 + 4 * 12)
    assert activation_bytes(dropout.eval(), z(2, 8)) == 4 * 16
    pool = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2))  # its input, and an int64 for each output
    assert activation_bytes(pool, z(2, 3, 8, 8)) == 4 * 2 * 3 * 64 + 4 * 2 * 4 * 64 + 8 * 2 * 4 * 16


def test_it_is_what_the_graph_keeps_alive():
    """Without us: every storage that the forward makes, and which of them outlive it."""
    model, x, made = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 64), nn.Tanh()), z(5, 8), {}

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            storage = out.untyped_storage()
            made[storage._cdata] = weakref.ref(storage), storage.nbytes()
            return out

    with Watch():
        y = model(x)
    gc.collect()
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    alive = sum(size for key, (ref, size) in made.items() if ref() is not None and key not in own)
    assert activation_bytes(model, x) == alive + 4 * x.numel() == 4 * 5 * (8 + 32 + 64)
    del y


def test_a_checkpoint_keeps_its_input_only():
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)))
    wrapped = Lambda(lambda s, x: checkpoint(s.layers, x, use_reentrant=False), layers=layers)
    x = z(10, 16).requires_grad_()
    assert activation_bytes(layers, x) == 4 * 160 * 5
    assert activation_bytes(wrapped, x) < 4 * 160 * 2


def test_fused_attention_saves_no_square():
    model = Lambda(lambda s, x: sdpa(*s.qkv(x).chunk(3, -1)), qkv=nn.Linear(8, 24))
    length = 512
    kept = activation_bytes(model, z(1, 2, length, 8))
    assert kept < 4 * 2 * length * length  # Q, K, V and a row of sums, not the length x length weights


def test_frozen_layers_save_nothing():
    net = Net()
    net.fc1.requires_grad_(False)
    assert activation_bytes(net, z(120, 4)) == 4 * 120 * 10
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="backward=True must be False"):
        activation_bytes(net, z(120, 4))


def test_whose_they_are_and_nothing_is_left_behind():
    model, x = nn.Sequential(nn.Linear(8, 6), nn.Dropout(), nn.BatchNorm1d(6), nn.Linear(6, 2)), z(5, 8)
    before = snapshot(model, x)
    saved = saved_bytes(model, (x,))
    assert snapshot(model, x) == before
    assert saved["0"] == 4 * 40 and saved["3"] == 4 * 30 and set(saved) <= {"0", "1", "2", "3"}


@pytest.mark.parametrize("wrong", [None, "net", nn.Linear])
def test_a_model_must_be_a_module(wrong):
    with pytest.raises(TypeError, match=r"^model=.* must be a torch\.nn\.Module$"):
        activation_bytes(wrong, z(2, 8))
