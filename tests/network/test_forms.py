"""The form of a convolution is chosen with its rank."""

import itertools

import pytest
import torch
from torch import nn

from lowrank_utils import (
    LowRankConv,
    allocate_ranks,
    calibrate,
    cascade,
    compress,
    compress_within,
    conv_options,
    count_params,
)


def smooth_net():
    """Two convolutions whose filters share two shapes along time, and a dense head."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(4, 12, 16), nn.ReLU(), nn.Conv1d(12, 12, 16), nn.ReLU(), nn.Conv1d(12, 3, 1)
    )
    t = torch.linspace(0, 3, 16)
    shapes = torch.stack([t.cos(), t.sin()])
    for conv in (net[0], net[2]):
        mix = torch.randn(*conv.weight.shape[:2], 2)
        conv.weight.data = mix @ shapes + 0.02 * torch.randn(conv.weight.shape)
    return net.double()


def loss_of(net, ranks):
    """Shares of energy lost, summed over the layers."""
    total = 0.0
    for name, conv in net.named_modules():
        if isinstance(conv, nn.Conv1d):
            W = conv.weight.detach()
            cut = compress(net, {name: ranks[name]}).get_submodule(name).weight if name in ranks else W
            total += float((W - cut.detach()).square().sum() / W.square().sum())
    return total


@pytest.mark.parametrize("budget", [0.12, 0.2, 0.35, 0.6])
def test_the_choice_is_that_of_all_forms_at_all_ranks(budget):
    net = smooth_net()
    convs = {name: conv for name, conv in net.named_modules() if isinstance(conv, nn.Conv1d)}
    limit = budget * sum(conv.weight.numel() for conv in convs.values())
    every = []
    for conv in convs.values():
        options = [
            (o.params, o.error**2) for o in conv_options(conv).options if o.params < conv.weight.numel()
        ]
        every.append([*options, (conv.weight.numel(), 0.0)])
    fits = [c for c in itertools.product(*every) if sum(cost for cost, _ in c) <= limit]
    least = min(sum(loss for _, loss in c) for c in fits)
    ranks = allocate_ranks(net, budget)
    small = compress(net, ranks)
    weights = sum(p.numel() for name, p in small.named_parameters() if "bias" not in name)
    assert weights <= limit
    assert loss_of(net, ranks) == pytest.approx(least, abs=1e-10)


def test_smooth_filters_get_the_kernel_form():
    net = smooth_net()
    ranks = allocate_ranks(net, 0.35)
    assert {form for form, _ in ranks.values()} == {"kernel"} and set(ranks) == {"0", "2"}
    channel = {name: max(1, int(0.35 * c.weight.numel() / (c.weight[0].numel() + len(c.weight))))
               for name, c in net.named_modules() if name in ranks}  # fmt: skip
    x = torch.randn(20, 4, 64).double()
    with torch.no_grad():
        ours, theirs = ((compress(net, r)(x) - net(x)).norm() for r in (ranks, channel))
    assert ours < theirs / 5
    assert isinstance(compress(net, ranks)[0], LowRankConv)


def test_the_report_says_the_form():
    net = smooth_net()
    small, report = compress_within(net, metric=lambda m: float(count_params(m) > 600), max_drop=0.0, steps=8)
    assert "kernel " in str(report) and report.feasible
    for row in report.layers:
        if row.rank is not None:
            form, rank = row.rank
            again = LowRankConv.from_conv(net.get_submodule(row.layer), rank, form)
            W = net.get_submodule(row.layer).weight
            assert row.params == sum(k.numel() for k in again.kernels)
            assert row.error == pytest.approx(float((W - again.weight).norm() / W.norm()), abs=1e-9)


def test_with_data_the_form_is_that_of_the_weighted_factors():
    net, x = smooth_net(), torch.randn(30, 4, 64).double()
    moments = calibrate(net, x)
    ranks = allocate_ranks(net, 0.3, moments=moments)
    assert all(isinstance(rank, int) for rank in ranks.values())
    with pytest.raises(TypeError, match=r"^ranks\['0'\]=\('kernel', 2\) must be an integer"):
        cascade(net, {"0": ("kernel", 2)}, x, moments)


def test_other_layers_have_no_forms():
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="Linear has no other form$"):
        compress(net, {"0": ("kernel", 2)})
    with pytest.raises(ValueError, match="^form="):
        compress(nn.Conv1d(4, 4, 3), {"": ("odd", 2)})
