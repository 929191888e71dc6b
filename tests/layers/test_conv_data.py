"""LowRankConv by moments: the outputs' error on the samples themselves, and the bias that keeps the mean."""

import dataclasses

import numpy as np
import pytest
import torch
from oracles import snapshot
from torch import nn

from lowrank_utils import LowRankConv, calibrate, compress

FORMS = {"channel": 3, "input": 2, "kernel": 2, "tucker2": (3, 2)}
SETTINGS = [
    (nn.Conv1d, {"kernel_size": 5, "stride": 2, "padding": 2}, 19),
    (nn.Conv1d, {"kernel_size": 4, "dilation": 2, "padding": "same", "padding_mode": "reflect"}, 16),
    (nn.Conv2d, {"kernel_size": (3, 2), "padding": (1, 0), "bias": False}, 9),
    (nn.Conv3d, {"kernel_size": 2, "padding": "valid"}, 5),
]


def layer_and_data(kind, options, size, seed=0):
    """Inputs whose channels and places are of very different sizes, and have a mean."""
    torch.manual_seed(seed)
    conv = kind(4, 6, **options).double()
    d = conv.weight.ndim - 2
    x = 1.0 + torch.randn(20, 4, *[size] * d).double().cumsum(-1)
    return conv, x * torch.tensor([3.0, 1.0, 0.3, 0.1]).double().view(4, *[1] * d)


def outputs(layer, x):
    with torch.no_grad():
        y = layer(x)
    return y.movedim(1, -1).reshape(-1, y.shape[1]).numpy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "options", "size"), SETTINGS)
def test_the_mean_is_kept_and_the_outputs_are_nearer(kind, options, size, form):
    conv, x = layer_and_data(kind, options, size)
    before = snapshot(conv)
    moments = calibrate(conv, x, target="inputs")[""]
    layer = LowRankConv.from_conv(conv, FORMS[form], form, moments=moments)
    plain = LowRankConv.from_conv(conv, FORMS[form], form)
    assert snapshot(conv) == before and layer.rank == FORMS[form] and layer.form == form
    assert layer.bias is not None and layer.bias.dtype == conv.weight.dtype
    y, ours, theirs = (outputs(made, x) for made in (conv, layer, plain))
    assert np.allclose(ours.mean(0), y.mean(0), rtol=0, atol=1e-11 * np.abs(y).max())
    wrong = [((made - y - (made - y).mean(0)) ** 2).sum() / len(y) for made in (ours, theirs)]
    if form in ("channel", "tucker2"):
        assert wrong[0] < 0.9 * wrong[1]
    if form == "channel":  # Mirsky's optimum, from the outputs themselves
        spectrum = np.linalg.eigvalsh(np.cov(y.T, bias=True))[::-1]
        assert wrong[0] == pytest.approx(spectrum[3:].sum(), rel=1e-8)


def test_channel_is_the_product_that_compress_makes():
    conv, x = layer_and_data(*SETTINGS[0])
    moments = calibrate(conv, x, target="inputs")
    one = compress(conv, {"": 3}, moments=moments)
    other = LowRankConv.from_conv(conv, 3, moments=moments[""])
    assert torch.allclose(one.weight, other.weight, atol=1e-12)
    assert torch.allclose(one.bias, other.bias, atol=1e-12)


def test_a_layer_without_a_bias_gets_one_only_where_something_is_lost():
    conv, x = layer_and_data(*SETTINGS[2])
    seen = calibrate(conv, x, target="inputs")[""]
    for trained in (True, False):
        new = LowRankConv.from_conv(conv.requires_grad_(trained), 3, moments=seen).bias
        assert new is not None and new.requires_grad is trained
    seen.mean.zero_()
    assert LowRankConv.from_conv(conv, 3, moments=seen).bias is None


@pytest.mark.parametrize(("weight", "bias"), [(True, False), (False, True)])
def test_what_is_frozen_stays_frozen(weight, bias):
    conv, x = layer_and_data(*SETTINGS[0])
    conv.weight.requires_grad_(weight)
    conv.bias.requires_grad_(bias)
    made = LowRankConv.from_conv(conv.eval(), 2, "kernel", moments=calibrate(conv, x)[""])
    assert not made.training and made.bias.requires_grad is bias
    assert all(K.requires_grad is weight for K in made.kernels)


def test_impossible_requests():
    conv, x = layer_and_data(*SETTINGS[2])
    seen = calibrate(conv, x, target="inputs")[""]
    grouped = nn.Conv2d(4, 6, (3, 2), groups=2)
    for args, said in (
        ((grouped, 1, "channel"), "groups=2 must be 1 where there are moments"),
        ((conv, 1, "cp"), "form='cp' must be one of 'channel', 'input', 'kernel', 'tucker2'"),
        ((conv, 1, "spatial"), "form='spatial' must be one of"),
        ((nn.Conv2d(3, 6, (3, 2)), 1, "kernel"), r"must be of shape (18, 18)"),
    ):
        with pytest.raises(ValueError) as caught:
            LowRankConv.from_conv(*args, moments=seen)
        assert said in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_moments_with_a_mean_that_is_none(form):
    """It goes into the bias alone, where a nan would be found by the first output."""
    conv, x = layer_and_data(*SETTINGS[2])
    seen = calibrate(conv, x, target="inputs")[""]
    for mean in (seen.mean * torch.nan, seen.mean[1:], seen.mean[None]):
        with pytest.raises(
            ValueError, match=r"^moments.mean=.* must be finite and of shape \(24,\), the numbers"
        ):
            LowRankConv.from_conv(conv, FORMS[form], form, moments=dataclasses.replace(seen, mean=mean))
