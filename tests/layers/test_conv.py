"""LowRankConv against torch's own convolution by the composed kernel, over drawn settings of every kind."""

import copy
import io
import math
import random
import re

import numpy as np
import pytest
import torch
from oracles import DTYPES, eps, snapshot
from torch import nn

from lowrank_utils import LowRankConv
from lowrank_utils.factors.unfold import FORMS, largest_rank

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MODES = ("zeros", "reflect", "replicate", "circular")


def drawn(seed, form=None):
    """A convolution, a form and a rank for it, and an input, all drawn."""
    rng = random.Random(seed)
    form = form or FORMS[seed % len(FORMS)]
    d = 2 if form == "spatial" else rng.choice((1, 2, 3))
    groups = rng.choice((1, 1, 2, 3))
    c_in, c_out = groups * rng.randint(1, 3), groups * rng.randint(1, 4)
    k = tuple(rng.randint(1, 4 if d < 3 else 3) for _ in range(d))
    dilation = tuple(rng.choice((1, 1, 2)) for _ in range(d))
    padding = rng.choice(["same", "valid", "numbers", "numbers", "number"])
    stride = tuple(1 if padding == "same" else rng.choice((1, 1, 2, 3)) for _ in range(d))
    if padding == "numbers":
        padding = tuple(rng.randint(0, 3) for _ in range(d))
    elif padding == "number":
        padding = rng.randint(0, 2)
    torch.manual_seed(seed)
    conv = CONV[d](
        c_in,
        c_out,
        k if rng.random() < 0.8 else k[0],
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=rng.random() < 0.6,
        padding_mode=rng.choice(MODES),
        dtype=torch.float64,
    )
    top = largest_rank(tuple(conv.weight.shape), form, groups)
    if form == "tucker2":
        rank = tuple(rng.randint(1, most) for most in top)
    else:
        rank = rng.randint(1, min(top, 4) if form == "cp" else top)
    lead = rng.choice([(2,), (1,), ()])
    space = [
        rng.randint(8, 11 if d < 3 else 9) for _ in range(d)
    ]  # at least the widest kernel, (4 - 1) 2 + 1
    x = torch.randn(*lead, c_in, *space, dtype=torch.float64)
    return conv, form, rank, x


def by_weight(conv, weight, x):
    """The same convolution by another kernel: torch's module, in which the weight is overwritten."""
    other = copy.deepcopy(conv)
    other.weight.data = weight.detach().clone()
    return other(x)


def close(got, wanted, room):
    return got.shape == wanted.shape and torch.allclose(got, wanted, rtol=room, atol=room)


@pytest.mark.parametrize("seed", range(420))
def test_the_layer_is_the_convolution_by_its_composed_kernel(seed):
    conv, form, rank, x = drawn(seed)
    layer = LowRankConv.from_conv(conv, rank, form)
    wanted = by_weight(conv, layer.weight, x)
    assert layer.weight.shape == conv.weight.shape and layer.rank == rank and layer.form == form
    assert close(layer(x), wanted, 1e-11)
    assert close(layer.to_conv()(x), wanted, 1e-11)
    plain = layer.to_sequential()
    assert {type(stage) for stage in plain} == {type(conv)} and close(plain(x), wanted, 1e-11)
    for i in {"channel": [1], "input": [0], "kernel": [1], "spatial": []}.get(
        form, [0, -1]
    ):  # 1 x 1: no padding
        assert (plain[i].padding, plain[i].padding_mode) == ("valid", "zeros")
    single = LowRankConv.from_conv(copy.deepcopy(conv).float(), rank, form)
    assert single.weight.dtype == torch.float32
    assert close(single(x.float()), by_weight(conv.float(), single.weight, x.float()), 1e-5)


def test_the_drawn_settings_have_everything():
    seen = {"d": set(), "mode": set(), "padding": set(), "bias": set(), "groups": set(), "batched": set()}
    stepped = 0
    for seed in range(420):
        conv, _, _, x = drawn(seed)
        d = conv.weight.ndim - 2
        seen["d"].add(d)
        seen["mode"].add((conv.padding_mode, type(conv.padding), d))
        seen["padding"].add(conv.padding if isinstance(conv.padding, str) else "numbers")
        seen["bias"].add(conv.bias is None)
        seen["groups"].add(conv.groups)
        seen["batched"].add(x.ndim == d + 2)
        stepped += max(conv.stride) > 1 and max(conv.dilation) > 1
    assert seen["d"] == {1, 2, 3} and seen["padding"] == {"same", "valid", "numbers"}
    assert len(seen["mode"]) == 4 * 2 * 3 and seen["bias"] == seen["batched"] == {True, False}
    assert seen["groups"] == {1, 2, 3} and stepped > 50


@pytest.mark.parametrize("seed", range(1000, 1120))
def test_full_rank_is_the_convolution(seed):
    conv, form, _, x = drawn(seed, form=[f for f in FORMS if f != "cp"][seed % 5])
    rank = largest_rank(tuple(conv.weight.shape), form, conv.groups)
    conv = conv.float()
    layer = LowRankConv.from_conv(conv, rank, form)
    assert close(layer(x.float()), conv(x.float()), 1e-5)
    assert close(layer.weight, conv.weight, 1e-6)


@pytest.mark.parametrize("seed", range(5, 41, 6))
def test_cp_comes_near_the_convolution(seed):
    conv, form, _, x = drawn(seed)
    assert form == "cp"
    rank = largest_rank(tuple(conv.weight.shape), form, conv.groups)
    layer = LowRankConv.from_conv(conv, rank, form)
    assert float((layer.weight - conv.weight).detach().norm()) <= 2e-3 * float(conv.weight.detach().norm())
    assert float((layer(x) - conv(x)).detach().norm()) <= 5e-3 * float(conv(x).detach().norm())


def test_where_the_padding_happens_is_seen():
    """With a bias before the padding, the input form would be another layer."""
    conv = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)
    layer = LowRankConv.from_conv(conv, 3, "input")
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    first, last = layer.to_sequential()
    assert torch.allclose(last(first(x)), conv(x))
    first.bias = nn.Parameter(torch.ones(3, dtype=torch.float64))
    inner = last(first(x))[..., 1:-1, 1:-1] - conv(x)[..., 1:-1, 1:-1]
    edge = last(first(x))[..., 0, :] - conv(x)[..., 0, :]
    assert not torch.allclose(inner.mean((0, 2, 3)), edge.mean((0, 2)))


@pytest.mark.parametrize("form", FORMS)
def test_numbers_held_and_multiplied(form):
    conv = nn.Conv2d(6, 8, (3, 5), padding=2, groups=2)
    rank = (2, 3) if form == "tucker2" else 2
    layer = LowRankConv.from_conv(conv, rank, form)
    m, n, K = 8, 3, 15
    wanted = {
        "channel": 2 * (2 * n * K) + m * 2,
        "input": 2 * (2 * n) + m * 2 * K,
        "kernel": 2 * K + m * n * 2,
        "spatial": 2 * (2 * n * 3) + m * 2 * 5,
        "tucker2": 2 * (3 * n + 2 * 3 * K) + m * 2,
        "cp": 2 * (2 * n + 2 * 3 + 2 * 5) + m * 2,
    }[form]
    assert sum(p.numel() for p in layer.parameters()) == wanted + 8
    plain = sum(p.numel() for p in layer.to_sequential().parameters())
    assert plain == wanted + 8 + (5 * 2 * K if form == "kernel" else 0)  # the basis, for each channel


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_the_convolutions_by_the_chain_rule(form):
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect", dtype=torch.float64)
    layer = LowRankConv.from_conv(conv, (2, 1) if form == "tucker2" else 2, form)
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    layer(x).tanh().square().sum().backward()
    got = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    weight = layer.weight
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    y = nn.functional.conv2d(padded, weight, layer.bias, stride=2, groups=2)
    y.tanh().square().sum().backward()
    assert all(torch.allclose(g, p.grad, atol=1e-12) for g, p in zip(got, layer.parameters(), strict=True))
    assert all(float(g.abs().max()) > 0 for g in got)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_shared_or_changed_or_drawn(form, training):
    conv = nn.Conv2d(4, 6, 3).train(training)
    conv.weight.grad = torch.ones_like(conv.weight)
    before = snapshot(conv)
    layer = LowRankConv.from_conv(conv, (3, 3) if form == "tucker2" else 3, form)
    others = [layer.to_conv(), layer.to_sequential()]
    assert snapshot(conv) == before  # generators too
    assert all(made.training == training for made in (layer, *others, *others[1]))
    owned = [p.untyped_storage().data_ptr() for made in (conv, layer, *others) for p in made.parameters()]
    assert len(set(owned)) == len(owned)
    kept = layer.weight.detach().clone()
    for made in others:
        assert all(p.requires_grad and p.is_leaf for p in made.parameters())
        for p in made.parameters():
            p.data.zero_()
    assert torch.equal(layer.weight, kept) and snapshot(conv) == before


@pytest.mark.parametrize(("weight", "bias"), [(True, False), (False, True), (False, False)])
def test_what_is_frozen_stays_frozen(weight, bias):
    conv = nn.Conv1d(3, 4, 3)
    conv.weight.requires_grad_(weight)
    conv.bias.requires_grad_(bias)
    layer = LowRankConv.from_conv(conv, 2, "kernel")
    for made in (layer, layer.to_conv(), layer.to_sequential()):
        for name, p in made.named_parameters():
            assert p.requires_grad is (bias if name.endswith("bias") else weight), name


@pytest.mark.parametrize("form", FORMS)
def test_a_chain_that_is_trained_in_part(form):
    conv = nn.Conv2d(4, 6, 3)
    for which in range(2):
        layer = LowRankConv.from_conv(conv, (2, 2) if form == "tucker2" else 2, form)
        for i, kernel in enumerate(layer.kernels):
            kernel.requires_grad_(i == which)
        assert [stage.weight.requires_grad for stage in layer.to_sequential()] == [
            kernel.requires_grad for kernel in layer.kernels
        ]
        assert layer.to_conv().weight.requires_grad and layer.to_sequential()[-1].bias.requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_dtype_and_device_are_kept(form, dtype):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, dtype=torch.float64).to(dtype)
    layer = LowRankConv.from_conv(conv, (6, 4) if form == "tucker2" else 4, form)
    for made in (layer, layer.to_conv(), layer.to_sequential()):
        assert {p.dtype for p in made.parameters()} == {dtype}
    if form == "tucker2":  # full rank: three factors, each rounded once
        W = conv.weight.detach().double()
        missed = float((layer.weight.detach().double() - W).norm())
        assert missed <= 24 * eps(dtype) * float(W.norm())
    assert layer(torch.zeros(1, 4, 5, 5, dtype=dtype)).dtype == dtype
    assert layer.to("meta").to_conv().weight.device.type == "meta"


def test_it_can_be_saved_copied_and_loaded():
    conv = nn.Conv2d(64, 64, 3, padding="same", padding_mode="circular")
    layer = LowRankConv.from_conv(conv, 2, "spatial")
    x = torch.randn(1, 64, 8, 8)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    assert file.tell() < 4 * sum(p.numel() for p in layer.parameters()) + 4096
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    other = LowRankConv.from_conv(nn.Conv2d(64, 64, 3, padding="same", padding_mode="circular"), 2, "spatial")
    other.load_state_dict(layer.state_dict())
    for made in (copy.deepcopy(layer), torch.load(file, weights_only=False), other):
        assert torch.equal(made(x), layer(x))
    assert set(layer.state_dict()) == {"kernels.0", "kernels.1", "bias"}


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_batch_has_an_empty_answer(form):
    layer = LowRankConv.from_conv(nn.Conv2d(4, 6, 3), (2, 2) if form == "tucker2" else 2, form)
    assert layer(torch.zeros(0, 4, 8, 8)).shape == (0, 6, 6, 6)


def test_it_prints_its_sizes():
    layer = LowRankConv.from_conv(nn.Conv1d(6, 4, 5, bias=False, padding=2), 3, "kernel")
    assert repr(layer).startswith(
        "LowRankConv(\n  6, 4, rank=3, form='kernel', kernel_size=(5,), stride=(1,), padding=(2,), "
        "dilation=(1,), groups=1, padding_mode='zeros', bias=False\n"
    )


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Padded(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(nn.functional.pad(x, (1, 1)), weight, bias)


class Named(nn.Conv2d):
    """A subclass that computes the same."""


def test_a_subclass_that_computes_something_else_is_refused():
    for wrong in (Standardised(3, 4, 3), Padded(3, 4, 3)):
        with pytest.raises(
            TypeError, match=rf"^conv={type(wrong).__name__} must be an nn.Conv2d with its own"
        ):
            LowRankConv.from_conv(wrong, 1)
    assert LowRankConv.from_conv(Named(3, 4, 3), 1).rank == 1


@pytest.mark.parametrize(
    "wrong", [nn.Linear(3, 3), nn.ConvTranspose2d(3, 4, 3), torch.ones(3, 3, 3), None, "conv"]
)
def test_only_convolutions(wrong):
    with pytest.raises(TypeError, match=r"^conv=.* must be an nn.Conv1d, nn.Conv2d or nn.Conv3d$"):
        LowRankConv.from_conv(wrong, 1)


def test_a_lazy_convolution_has_no_weight_yet():
    with pytest.raises(TypeError, match=r"^conv=LazyConv2d must be a convolution with a weight"):
        LowRankConv.from_conv(nn.LazyConv2d(4, 3), 1)


@pytest.mark.parametrize(
    ("rank", "form", "error", "message"),
    [
        (0, "channel", ValueError, "rank=0 must be an integer from 1 to 4"),
        (5, "channel", ValueError, "rank=5 must be an integer from 1 to 4"),
        (4, "input", ValueError, "rank=4 must be an integer from 1 to 3"),
        (6, "kernel", ValueError, "rank=6 must be an integer from 1 to 5"),
        (1, "spatial", ValueError, "form='spatial' must be a form for 1-D kernels"),
        (1, "tucker2", TypeError, "rank=1 must be a pair (r_out, r_in)"),
        ((1, 4), "tucker2", ValueError, "rank[1]=4 must be an integer from 1 to 3"),
        ((1, 1), "channel", TypeError, "rank=(1, 1) must be an integer from 1 to 4"),
        (1.0, "channel", TypeError, "rank=1.0"),
        (True, "cp", TypeError, "rank=True"),
        (1, "svd", ValueError, "form='svd' must be one of"),
        (1, None, ValueError, "form=None must be one of"),
    ],
)
def test_impossible_requests(rank, form, error, message):
    conv = nn.Conv1d(3, 4, 5)
    before = snapshot(conv)
    with pytest.raises(error) as caught:
        LowRankConv.from_conv(conv, rank, form)
    assert message in str(caught.value) and snapshot(conv) == before


def test_a_kernel_must_be_finite():
    conv = nn.Conv1d(3, 4, 5)
    conv.weight.data[0, 0, 0] = math.inf
    with pytest.raises(ValueError, match="has 1 entries that are nan or inf"):
        LowRankConv.from_conv(conv, 1)


@pytest.mark.parametrize(
    ("kernels", "form"),
    [
        ([(2, 3, 5), (4, 3, 1)], "channel"),
        ([(2, 1, 5), (4, 3, 1)], "kernel"),
        ([(2, 3, 5)], "kernel"),
        ([(2, 3, 1), (4, 2, 5)], "channel"),  # it is of the form input
        ([(2, 3, 5), (4, 2, 1)], "input"),
        ([(2, 3, 5), (4, 2, 1), (4, 4, 1)], "channel"),
        ([(2, 3, 5)], "channel"),
        ([(2, 3, 5), (4, 2)], "channel"),
        ([(0, 3, 5), (4, 0, 1)], "channel"),
        ([(2, 3), (4, 2)], "channel"),
        ([(2, 3, 1), (4, 2, 5)], "tucker2"),
        ([(2, 3, 1), (4, 2, 5), (6, 3, 1)], "tucker2"),
        ([(2, 3, 1), (2, 2, 5), (6, 2, 1)], "cp"),
        ([], "tucker2"),
    ],
)
def test_kernels_that_are_no_chain(kernels, form):
    steps = {"stride": (1,), "padding": (0,), "dilation": (1,)}
    with pytest.raises(ValueError, match=rf"^kernels=\[.* must be a chain of form '{form}' at groups=1$"):
        LowRankConv([torch.ones(shape) for shape in kernels], form=form, **steps)


@pytest.mark.parametrize("groups", [3, 4])
def test_kernels_of_other_groups(groups):
    """Two kernels cannot be one for each of three groups, nor four outputs be in threes."""
    kernels = [torch.ones(2 if groups == 3 else 4, 3, 5), torch.ones(6, 1, 1)]
    with pytest.raises(ValueError, match=f"must be a chain of form 'channel' at groups={groups}$"):
        LowRankConv(kernels, stride=(1,), padding=(0,), dilation=(1,), groups=groups)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"bias": torch.ones(99)},
            ValueError,
            "bias=Tensor(shape=(99,), dtype=torch.float32) must be of shape (4,)",
        ),
        ({"padding_mode": "foo"}, ValueError, "padding_mode='foo' must be one of 'circular', "),
        ({"padding": "full"}, ValueError, "padding='full' must be one of 'same', 'valid'"),
        ({"padding": "same", "stride": (2, 1)}, ValueError, "padding='same' must be one of 'valid'"),
        ({"padding": (-1, 0)}, ValueError, "padding[0]=-1 must be an integer >= 0"),
        ({"stride": (1,)}, ValueError, "stride=(1,) must be 2 integers, one for each axis"),
        ({"dilation": (1, 0)}, ValueError, "dilation[1]=0 must be an integer >= 1"),
        ({"groups": 0}, ValueError, "groups=0 must be an integer >= 1"),
        ({"groups": "1"}, TypeError, "groups='1' must be an integer >= 1"),
        ({"form": "svd"}, ValueError, "form='svd' must be one of"),
    ],
)
def test_impossible_settings_of_a_chain(options, error, message):
    kernels = [torch.ones(2, 3, 5, 5), torch.ones(4, 2, 1, 1)]
    given = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)} | options
    with pytest.raises(error, match="^" + re.escape(message)):
        LowRankConv(kernels, **given)


def test_a_chain_by_hand():
    """A vertical edge, blurred: (k_h x 1) then (1 x k_w)."""
    down = torch.tensor([1.0, 2.0, 1.0]).view(1, 1, 3, 1)
    across = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    steps = {"stride": (1, 1), "padding": "same", "dilation": (1, 1)}
    sobel = LowRankConv([down, across], form="spatial", **steps)
    assert sobel.weight[0, 0].tolist() == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    x = torch.from_numpy(np.tile([0.0, 0.0, 1.0, 1.0], (4, 1))).float()[None]
    assert sobel(x)[0, 1].tolist() == [0, 4, 4, -4]
