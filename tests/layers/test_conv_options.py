"""conv_options against the layers themselves: their parameters, their dispatched products, their kernels."""

import itertools
import math
import re

import pytest
import torch
from oracles import snapshot
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lowrank_utils import LowRankConv, conv_options
from lowrank_utils.layers.conv_options import ConvOption, ConvOptions

CONVS = [
    (nn.Conv1d(6, 8, 5, stride=2, padding=3), (40,)),
    (nn.Conv1d(6, 8, 4, padding="same", padding_mode="circular"), (11,)),
    (
        nn.Conv1d(6, 8, 3, padding=3),
        (1,),
    ),  # more positions after than before: rank 5 of input saves these alone
    (nn.Conv2d(4, 6, 3, padding=1), (7, 9)),
    (nn.Conv2d(4, 6, (3, 5), stride=(2, 3), dilation=(1, 2), padding=(0, 2)), (9, 12)),
    (nn.Conv2d(6, 6, 3, groups=6, padding_mode="reflect", padding=1), (6, 6)),  # depthwise
    (nn.Conv2d(6, 9, 3, groups=3, bias=False, padding="valid"), (8, 5)),
    (nn.Conv2d(5, 7, 1, stride=2), (6, 6)),
    (nn.Conv3d(3, 4, (2, 3, 2), stride=(1, 2, 1), padding=1), (4, 6, 5)),
]
ROOM = 2e-6  # the layer's kernels are float32


def macs_run(module, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("conv", "size"), CONVS)
def test_every_option_is_what_the_layer_holds_runs_and_loses(conv, size):
    found = conv_options(conv, size)
    x = torch.zeros(1, conv.in_channels, *size)
    W = conv.weight.detach().double()
    assert found.params == W.numel() and found.macs == macs_run(conv, x) and found.size == size
    assert len(found.options) > 0
    bias = 0 if conv.bias is None else conv.bias.numel()
    for option in found.options:
        layer = LowRankConv.from_conv(conv, option.rank, option.form)
        assert option.params == sum(p.numel() for p in layer.parameters()) - bias
        assert option.macs == macs_run(layer, x)
        missed = float((layer.weight.detach().double() - W).norm() / W.norm())
        assert option.error == pytest.approx(missed, abs=ROOM), option
        assert option.params < found.params or option.macs < found.macs


@pytest.mark.parametrize(("conv", "size"), CONVS)
def test_no_rank_that_saves_is_left_out(conv, size):
    found = conv_options(conv, size)
    listed = {(o.form, o.rank) for o in found.options}
    x = torch.zeros(1, conv.in_channels, *size)
    for form, rank in itertools.product(("channel", "input", "kernel", "spatial"), range(1, 99)):
        try:
            layer = LowRankConv.from_conv(conv, rank, form)
        except ValueError:
            continue
        numbers = sum(K.numel() for K in layer.kernels)
        saves = numbers < conv.weight.numel() or macs_run(layer, x) < found.macs
        assert ((form, rank) in listed) is saves, (form, rank)


@pytest.mark.parametrize(("conv", "size"), CONVS)
def test_errors_fall_with_the_rank(conv, size):
    for form, options in itertools.groupby(conv_options(conv).options, key=lambda o: o.form):
        options = list(options)
        errors = [o.error for o in options]
        assert errors == sorted(errors, reverse=True), form
        if form == "tucker2":
            top = options[-1].rank
            assert all(abs(a * top[1] - b * top[0]) <= max(top) for a, b in (o.rank for o in options))
        else:
            assert [o.rank for o in options] == list(range(1, len(options) + 1))


@pytest.mark.parametrize(("conv", "size"), CONVS)
def test_a_position_costs_its_share_of_a_large_input(conv, size):
    """Multiply-adds for one output position are those of a large input over its number of positions."""
    large = tuple(840 * s for s in conv.stride)
    whole = {(o.form, o.rank): o.macs for o in conv_options(conv, large).options}
    one = conv_options(conv)
    assert one.size is None and one.macs == conv.weight.numel()
    places = conv_options(conv, large).macs / one.macs
    seen = 0
    for option in one.options:
        if (option.form, option.rank) in whole:
            seen += 1
            assert whole[option.form, option.rank] / places == pytest.approx(option.macs, rel=0.02)
    assert seen > 0


def test_tuckers_pairs_are_the_balanced_ones():
    found = conv_options(nn.Conv2d(4, 6, 3))
    pairs = [o.rank for o in found.options if o.form == "tucker2"]
    assert pairs == [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4), (6, 4)][: len(pairs)] and len(pairs) >= 4


def test_the_smooth_axis_is_found():
    """Kernels that are two smooth taps on every channel: two basis kernels lose nothing, other forms do."""
    torch.manual_seed(0)
    conv = nn.Conv1d(8, 16, 9, dtype=torch.float64)
    t = torch.linspace(0, math.pi, 9, dtype=torch.float64)
    basis = torch.stack([t.sin(), t.cos()])  # (2, 9)
    conv.weight.data = torch.einsum("mnr,rk->mnk", torch.randn(16, 8, 2, dtype=torch.float64), basis)
    found = conv_options(conv)
    best = found.best(300)
    assert (best.form, best.rank, best.params) == ("kernel", 2, 2 * 9 + 2 * 8 * 16) and best.error < 1e-7
    others = [o.error for o in found.options if o.form != "kernel" and o.params <= 300]
    assert min(others) > 0.3


def test_best_is_the_least_error_within_the_numbers():
    found = conv_options(CONVS[3][0])
    for most in (0, 10, 60, 150, 10**6):
        fits = [o for o in found.options if o.params <= most]
        best = found.best(most)
        assert (best is None) is (not fits)
        assert best is None or best.error == min(o.error for o in fits)
    assert found.best(5) is None and found.best(10**6) is not None


def test_of_two_equal_errors_the_smaller_is_best():
    options = [ConvOption("input", 2, params, 9, error) for params, error in ((8, 0.5), (6, 0.5), (4, 0.7))]
    for listed in (options, options[::-1]):
        assert ConvOptions(tuple(listed), 10, 9, None).best(9).params == 6


@pytest.mark.parametrize(
    ("most", "error", "message"),
    [
        ("a", TypeError, "max_params='a' must be a finite number >= 0"),
        (None, TypeError, "max_params=None must be a finite number >= 0"),
        (-1, ValueError, "max_params=-1.0 must be a finite number >= 0"),
        (math.nan, ValueError, "max_params=nan must be a finite number >= 0"),
    ],
)
def test_best_needs_a_number(most, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        conv_options(CONVS[3][0]).best(most)


def test_it_prints_a_table():
    torch.manual_seed(0)
    found = conv_options(nn.Conv2d(32, 64, 3, padding=1), 16)
    lines = str(found).splitlines()
    assert lines[0].split() == ["form", "rank", "params", "MACs", "error"]
    assert lines[1].split() == ["dense", "18,432", "100%", "4,718,592", "100%", "0.000"]
    shown = [line.split() for line in lines[2:]]
    assert {row[0] for row in shown} == {"channel", "input", "kernel", "spatial", "tucker2"}
    assert len(shown) <= 25 and max(map(len, lines)) < 60
    by_name = {
        (o.form, "x".join(map(str, o.rank)) if o.form == "tucker2" else str(o.rank)): o for o in found.options
    }
    for form, rank, params, _, macs, _, error in shown:
        o = by_name[form, rank]
        assert (f"{o.params:,}", f"{o.macs:,}", f"{o.error:.3f}") == (params, macs, error)
    half = max((o for o in found.options if o.form == "channel" and o.params <= 9216), key=lambda o: o.rank)
    assert ["channel", str(half.rank)] in [row[:2] for row in shown]


def test_a_zero_kernel_loses_nothing():
    conv = nn.Conv2d(3, 4, 3)
    conv.weight.data.zero_()
    assert {o.error for o in conv_options(conv).options} == {0.0}


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_a_kernel_is_no_matter(size):
    conv = nn.Conv2d(3, 4, 3)
    before = [o.error for o in conv_options(conv).options]
    conv.weight.data *= size
    assert [o.error for o in conv_options(conv).options] == pytest.approx(before, abs=1e-6)


def test_nothing_is_changed_or_drawn():
    conv = nn.Conv2d(3, 4, 3)
    before = snapshot(conv)
    conv_options(conv, 8)
    assert snapshot(conv) == before


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, ValueError, "size=0 must be an integer >= 1"),
        (2.0, TypeError, "size=2.0 must be an integer >= 1"),
        ((8,), ValueError, "size=(8,) must be 2 integers, one for each axis"),
        ((8, True), TypeError, "size[1]=True must be an integer >= 1"),
        ((8, 4), ValueError, "size=(8, 4) must be at least 5 along axis 1"),
        ("8", TypeError, "size='8' must be an integer"),
    ],
)
def test_impossible_sizes(size, error, message):
    with pytest.raises(error) as caught:
        conv_options(nn.Conv2d(3, 4, 3, dilation=2), size)
    assert message in str(caught.value)


def test_only_convolutions():
    for wrong in (nn.Linear(3, 3), nn.ConvTranspose1d(3, 3, 3), None):
        with pytest.raises(TypeError, match=r"^conv=.* must be an nn.Conv1d, nn.Conv2d or nn.Conv3d$"):
            conv_options(wrong)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv1d(2, 3, 7, padding=2), (3,)),  # no larger than the kernel once both ends are padded
        (nn.Conv2d(2, 3, (3, 7), padding=(0, 2)), (3, 3)),
        (nn.Conv2d(2, 3, (7, 3), padding=(2, 0)), (3, 3)),
        (nn.Conv2d(2, 3, (5, 3), padding=(3, 1), stride=(1, 2)), (4, 6)),
    ],
)
def test_each_axis_has_its_own_padding_at_both_ends(conv, size):
    x = torch.zeros(1, 2, *size)
    assert conv_options(conv, size).macs == conv.weight.numel() * conv(x)[0, 0].numel()
    less = tuple(min(s, 2) for s in size)  # where torch finds no room for the kernel, so does the list
    if any(s + 2 * p < k for s, p, k in zip(less, conv.padding, conv.kernel_size, strict=True)):
        with pytest.raises(ValueError, match="^size="):
            conv_options(conv, less)
