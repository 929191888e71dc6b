"""The form of a convolution is chosen with its rank."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lowrank_utils import (
    LowRankConv,
    PivotedLinear,
    accuracy,
    allocate_ranks,
    calibrate,
    cascade,
    compress,
    compress_within,
    conv_options,
    count_params,
)
from lowrank_utils.network.allocate import layer_options


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


def patches(x, conv):
    """Rows under the kernel of a plain nn.Conv1d or nn.Conv2d, by torch's own unfold."""
    if x.ndim == 3:
        x, size, padding = x[:, :, None], (1, *conv.kernel_size), (0, *conv.padding)
    else:
        size, padding = conv.kernel_size, conv.padding
    rows = nn.functional.unfold(x, size, padding=padding, stride=(1, *conv.stride)[-2:])
    return rows.transpose(1, 2).flatten(0, 1).numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("d", "pick"),
    [
        (1, ("kernel", 2)),
        (1, ("input", 2)),
        (1, ("tucker2", (3, 2))),
        (1, ("channel", 3)),
        (2, ("spatial", 2)),
        (2, ("kernel", 3)),
    ],
)
def test_a_form_of_the_refitted_kernel(d, pick, bias):
    """Ridge regression on augmented rows, then the form of its solution, then the mean brought back."""
    torch.manual_seed(0)
    kind = (nn.Conv1d, nn.Conv2d)[d - 1]
    net = nn.Sequential(
        kind(2, 6, 3, bias=bias), nn.Tanh(), kind(6, 5, 3, padding=1, bias=bias), nn.Tanh(), kind(5, 4, 1)
    ).double()
    X = 0.5 + torch.randn(40, 2, *[9] * d).double()
    first = ("kernel", 1)
    small = cascade(net, {"0": first, "2": pick}, X, calibrate(net, X), ridge=1e-3)
    with torch.no_grad():
        plain = LowRankConv.from_conv(net[0], 1, "kernel")  # the first: nothing before it has changed
        mean = torch.from_numpy(patches(X, net[0]).mean(0))
        b = (net[0].weight - plain.weight).flatten(1) @ mean
        assert torch.allclose(small[0].weight, plain.weight, rtol=0, atol=1e-12)
        assert torch.allclose(small[0].bias, b + (net[0].bias if bias else 0), rtol=0, atol=1e-12)
        x, y = small[:2](X), net[:3](X)
        y = y.movedim(1, -1).reshape(-1, 5).numpy()
    rows = patches(x, net[2])
    W0 = net[2].weight.detach().flatten(1).numpy()
    n, mean = rows.shape[1], rows.mean(0)
    weight = np.sqrt(1e-3 * ((rows - mean) ** 2).sum() / n)
    augmented = np.vstack([rows - mean, weight * np.eye(n)])
    W = np.linalg.lstsq(augmented, np.vstack([y - y.mean(0), weight * W0.T]), rcond=None)[0].T
    refitted = kind(6, 5, 3, padding=1).double()
    refitted.weight.data = torch.from_numpy(W).reshape(refitted.weight.shape)
    wanted = LowRankConv.from_conv(refitted, pick[1], pick[0])
    assert isinstance(small[2], LowRankConv) and (small[2].form, small[2].rank) == pick
    assert torch.allclose(small[2].weight, wanted.weight, rtol=0, atol=1e-9)
    composed = wanted.weight.detach().flatten(1).numpy()
    assert np.allclose(small[2].bias.detach(), y.mean(0) - composed @ mean, rtol=0, atol=1e-9)
    assert not np.allclose(composed, compress(net, {"2": pick})[2].weight.detach().flatten(1), atol=1e-2)


def test_a_refit_of_forms_keeps_more():
    net = smooth_net()
    x, new = torch.randn(200, 4, 48).double(), torch.randn(50, 4, 48).double()
    ranks = {"0": ("kernel", 1), "2": ("kernel", 1), "4": 2}
    moments = calibrate(net, x)
    with torch.no_grad():
        wanted = net(new)
        cut = compress(net, {k: r for k, r in ranks.items() if k != "4"})
        ours = (cascade(net, {k: ranks[k] for k in ("0", "2")}, x, moments)(new) - wanted).square().mean()
        theirs = (cut(new) - wanted).square().mean()
    assert ours < 0.9 * theirs
    wrong = {("odd", 2): "form='odd'", ("kernel", 99): "rank=99", ("kernel", 1.5): "rank=1.5"}
    for pick, said in wrong.items():
        with pytest.raises((ValueError, TypeError), match="^" + said):
            cascade(net, {"0": pick}, x, moments)


def test_other_layers_have_no_forms():
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="Linear has no other form$"):
        compress(net, {"0": ("kernel", 2)})
    with pytest.raises(ValueError, match="^form="):
        compress(nn.Conv1d(4, 4, 3), {"": ("odd", 2)})


@pytest.mark.parametrize("how", ["by data", "refitted", "by weights", "by harm"])
def test_linear_layers_are_pivoted_beside_convolutions_that_cannot_be(how):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(4, 12, 5), nn.ReLU(), nn.Flatten(), nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 5)
    ).double()
    X = torch.randn(60, 4, 10, dtype=torch.float64)
    y = net(X).argmax(1)
    options = {"refit": how == "refitted", "harm": "measured" if how == "by harm" else None}
    given = {"metric": lambda model: accuracy(model, X, y)} if how == "by weights" else {}
    data = () if how == "by weights" else (X, y)
    small, report = compress_within(net, *data, max_drop=0.3, pivoted=True, steps=4, **options, **given)
    assert report.feasible and report.params == (count_params(net), count_params(small))
    kinds = {nn.Conv1d: LowRankConv, nn.Linear: PivotedLinear}
    told = {row.layer: row for row in report.layers}
    for name in ("0", "3", "5"):
        old, new, row = net.get_submodule(name), small.get_submodule(name), told[name]
        assert type(new) is (kinds[type(old)] if row.rank is not None else type(old))
        bias = new.out_features if isinstance(new, nn.Linear | PivotedLinear) else new.out_channels
        assert row.params == sum(p.numel() for p in new.parameters()) - bias  # what the budget counted
    assert any(row.rank is not None for row in report.layers)


def test_a_rank_of_a_convolution_by_data_costs_both_factors():
    net = nn.Sequential(nn.Conv1d(4, 12, 5), nn.Flatten(), nn.Linear(72, 20))
    moments = calibrate(net, torch.randn(50, 4, 10))
    options = layer_options(net, moments, pivoted=True)
    ranks = np.arange(1, 13)
    costs = {"0": ranks * (12 + 20), "2": np.arange(1, 21) * (92 - np.arange(1, 21))}
    for name, dense in (("0", 240), ("2", 1440)):
        assert list(options[name].costs) == [*costs[name][costs[name] < dense], dense]
    for how in ({"moments": moments}, {}):
        small = compress(net, {"0": 3, "2": 3}, pivoted=True, **how)
        assert isinstance(small[0], LowRankConv) and isinstance(small[2], PivotedLinear)
