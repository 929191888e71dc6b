"""Convolutions against the libraries that decompose them, before training and after a little of it."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable
from decimal import Decimal
from tempfile import TemporaryDirectory

import torch
from claims import Row, rounds
from pitch import CONVS, detector, right, same_share, tones
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import (
    LowRankConv,
    allocate_ranks,
    compress,
    conv_options,
    count_macs,
    count_params,
    measure_harm,
    set_seed,
)

SHARES = (0.5, 0.35, 0.25)


def numbers(net: nn.Module) -> int:
    """Numbers that the five layers store, without their biases."""
    kept = {name for name, _ in net.named_parameters() if name.split(".")[0] in CONVS and "bias" not in name}
    return sum(net.get_parameter(name).numel() for name in kept)


def by_tltorch(net: nn.Module, share: float, factorization: str) -> nn.Module:
    """Every layer as tensorly-torch's FactorizedConv, by its own rule for a share of the numbers."""
    import tltorch

    small = copy.deepcopy(net)
    for name in CONVS:
        conv = net.get_submodule(name)
        W = conv.weight[..., 0]  # type: ignore[index]  # its width is 1
        plain = nn.Conv1d(W.shape[1], W.shape[0], W.shape[2])
        plain.weight.data, plain.bias.data = W.detach().clone(), conv.bias.detach().clone()  # type: ignore
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = tltorch.FactorizedConv.from_conv(plain, rank=share, factorization=factorization)
        small.set_submodule(name, Flat(layer))
    return small.eval()


class Flat(nn.Module):
    """A layer for (N, C, T), called with (N, C, T, 1)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, 1) -> (N, C', T', 1)."""
        return self.layer(x[..., 0])[..., None]


def by_aimet(net: nn.Module, share: float, scheme: str, score: Callable[[nn.Module], float]) -> nn.Module:
    """AIMET's greedy selection of a ratio for each layer, by a score with labels."""
    import logging

    from aimet_torch.common.defs import (
        CompressionScheme,
        CostMetric,
        GreedySelectionParameters,
        RankSelectScheme,
    )
    from aimet_torch.compress import ModelCompressor
    from aimet_torch.defs import SpatialSvdParameters, WeightSvdParameters

    logging.disable(logging.INFO)
    ours = numbers(net)
    every = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    ratio = Decimal(str(round((every - ours + share * ours) / every, 4)))
    greedy = GreedySelectionParameters(target_comp_ratio=ratio, num_comp_ratio_candidates=10)
    told = {"modules_to_ignore": [net.conv1, net.classifier]}
    if scheme == "weight_svd":
        P = WeightSvdParameters
        auto = P.AutoModeParams(rank_select_scheme=RankSelectScheme.greedy, select_params=greedy, **told)
    else:
        P = SpatialSvdParameters
        auto = P.AutoModeParams(greedy_select_params=greedy, **told)
    with TemporaryDirectory() as folder, contextlib.chdir(folder):  # it leaves its scores behind
        small, _ = ModelCompressor.compress_model(
            net,
            eval_callback=lambda model, *_, **__: score(model) / 100,
            eval_iterations=None,
            input_shape=(1, 1024),
            compress_scheme=CompressionScheme[scheme],
            cost_metric=CostMetric.memory,
            parameters=P(P.Mode.auto, auto),
        )
    logging.disable(logging.NOTSET)
    return small


def pitch_libraries() -> list[Row]:
    """The five layers of the pitch detector by libraries, at no more numbers than ours; no training."""
    net, (x, cents), (some, labels) = detector(), tones(3000, seed=1), tones(300, seed=2)
    harm, rows = measure_harm(net, some, layers=CONVS), []
    for share in SHARES:
        small = compress(net, allocate_ranks(net, share, layers=CONVS, harm=harm), calibration=some)
        others = {
            "AIMET, weight SVD": by_aimet(net, share, "weight_svd", lambda m: right(m, some, labels)),
            "AIMET, spatial SVD": by_aimet(net, share, "spatial_svd", lambda m: right(m, some, labels)),
            "tensorly-torch, Tucker": by_tltorch(net, share, "tucker"),
            "tensorly-torch, tensor train": by_tltorch(net, share, "tt"),
            "tensorly-torch, CP": by_tltorch(net, share, "cp"),
        }
        told = ", ".join(
            f"{name} {right(other, x, cents):.1f} % at {numbers(other) / numbers(net):.0%}"
            for name, other in others.items()
        )
        ours = right(small, x, cents)
        claim = f"pitch detector against libraries, {share:.0%} of five convolutions"
        rows.append(
            Row(
                claim,
                f"{ours:.1f} % at {numbers(small) / numbers(net):.0%}",
                told,
                ours,
                right(net, x, cents) - {0.5: 0.7, 0.35: 1.7, 0.25: 4.2}[share],
                shown="{:.1f} %",
                table="accuracy",
            )
        )
    return rows


class Composed(nn.Module):
    """A low-rank convolution run as its one dense kernel, which is quicker in training."""

    def __init__(self, layer: LowRankConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, 1) -> (N, C', T', 1)."""
        return F.conv2d(x, self.layer.weight, self.layer.bias)


def distilled(net: nn.Module, small: nn.Module, x: Tensor, steps: int, seed: int = 0) -> nn.Module:
    """``small`` after some steps of Adam towards the dense net's scores on tones without labels."""
    set_seed(seed)
    student, layers = copy.deepcopy(small).eval().requires_grad_(True), {}
    for name in CONVS:
        if isinstance(layer := student.get_submodule(name), LowRankConv):
            layers[name] = layer
            student.set_submodule(name, Composed(layer))
    with torch.no_grad():
        wanted = torch.cat([net(part) for part in x.split(250)]).sigmoid()
    student.conv1.requires_grad_(False)  # type: ignore[union-attr]
    student.conv1_BN.requires_grad_(False)  # type: ignore[union-attr]
    adam = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=2e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, total_steps=steps)
    for _ in range(steps):
        i = torch.randint(len(x), (32,))
        loss = F.binary_cross_entropy_with_logits(student(x[i]), wanted[i])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        cycle.step()
    for name, layer in layers.items():
        student.set_submodule(name, layer)
    return student


def pitch_distilled() -> list[Row]:
    """After training on 2000 tones without labels: what the choice of forms and ranks is still worth."""
    net, (x, cents), (some, _), (more, _) = (
        detector(),
        tones(3000, seed=1),
        tones(300, seed=2),
        tones(2000, seed=3),
    )
    harm, dense, rows = measure_harm(net, some[:50], layers=CONVS, measure="kl"), right(net, x, cents), []
    for share, room in ((0.25, 1.2), (0.15, 4.7)):
        measured, by_energy = (allocate_ranks(net, share, layers=CONVS, harm=h) for h in (harm, None))
        even = allocate_ranks(net, share, layers=CONVS, norm=16)
        small = compress(net, measured, calibration=some)
        nets = {
            "by energy": compress(net, by_energy, calibration=some),
            "even energies (norm=16)": compress(net, even, calibration=some),
            "kernel form, equal shares": same_share(net, share, "kernel"),
            "Tucker-2": same_share(net, share, "tucker2"),
            "channel SVD": same_share(net, share, "channel"),
        }
        told = ", ".join(
            f"{name} {right(distilled(net, other, more, 100), x, cents):.1f} %"
            for name, other in nets.items()
        )
        ours = right(distilled(net, small, more, 100), x, cents)
        rows.append(
            Row(
                f"pitch detector, {share:.0%} of five convolutions, 100 steps without labels",
                f"{ours:.1f} %",
                f"{told}, dense {dense:.1f} %, ours before {right(small, x, cents):.1f} %",
                ours,
                dense - room,
                shown="{:.1f} %",
                table="accuracy",
            )
        )
    return rows


def chains() -> list[Row]:
    """A convolution at a quarter of its numbers, each form as a chain: time against multiply-adds."""
    torch.manual_seed(0)
    layers = {
        "64 to 128 channels, 3 x 3, 14 x 14": (nn.Conv2d(64, 128, 3, padding=1), (64, 14, 14)),
        "256 to 256 channels, 3 x 3, 14 x 14": (nn.Conv2d(256, 256, 3, padding=1), (256, 14, 14)),
        "16 to 32 channels, 64 taps, 79": (nn.Conv1d(16, 32, 64), (16, 79)),
        "128 to 16 channels, 64 taps, 191": (nn.Conv1d(128, 16, 64), (128, 191)),
    }
    rows = []
    for what, (conv, shape) in layers.items():
        best = {}
        for o in conv_options(conv).options:
            if o.params <= conv.weight.numel() / 4:
                best[o.form] = o.rank  # the last has the most numbers
        for form, rank in best.items():
            chain = LowRankConv.from_conv(conv, rank, form).requires_grad_(False)
            ratios, times = [], []
            for batch in (1, 8, 32):
                x = torch.randn(batch, *shape)
                with torch.no_grad():
                    dense, ours = rounds(lambda c=conv, x=x: c(x), lambda c=chain, x=x: c(x), repeat=5)
                ratios.append(dense / ours)
                times.append((ours, dense))
            macs = count_macs(chain, x[:1]) / count_macs(conv, x[:1])
            share = (count_params(chain) - len(conv.bias)) / conv.weight.numel()  # type: ignore[arg-type]
            rows.append(
                Row(
                    f"{form} at {share:.0%} of the numbers, {macs:.0%} of the multiply-adds; {what}",
                    ", ".join(f"{a:.2f}" for a, _ in times) + " ms at batch 1, 8, 32",
                    ", ".join(f"{b:.2f}" for _, b in times) + " ms dense",
                    min(ratios),
                )
            )
    return rows


CONVOLUTIONS = [pitch_libraries, pitch_distilled, chains]
