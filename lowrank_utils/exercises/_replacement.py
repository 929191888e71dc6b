"""The judge of exercise 8.3: does a replacement compute what the convolution computes?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_utils.exercises._answers import NotYet, describe, function, on
from lowrank_utils.layers.conv import LowRankConv


def _conv(seed: int, n: int, m: int, k: int, *, scale: float = 1.0, **told: Any) -> nn.Conv2d:
    """A convolution with seeded weights and bias, whose scale is that of its outputs."""
    noise = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(n, m, k, **told)
    for parameter in conv.parameters():
        drawn = torch.randn(parameter.shape, generator=noise, dtype=torch.float64) * scale
        parameter.data.copy_(drawn / parameter[0].numel() ** 0.5)
    made: nn.Conv2d = conv.requires_grad_(False)
    return made


def _but(conv: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    """The same convolution with another kernel."""
    other = copy.deepcopy(conv)
    other.weight.data.copy_(weight.expand_as(conv.weight))
    return other


def _chain(conv: nn.Conv2d, r: int) -> nn.Module:
    """Form ``channel``: stride and padding in the first stage, r channels between the two."""
    return LowRankConv.from_conv(conv, r).to_sequential()


class _Then(nn.Module):
    """A convolution, and a function of its output."""

    def __init__(self, conv: nn.Conv2d, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.then = conv, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def _pairs() -> Iterator[tuple[str, nn.Conv2d, nn.Module, bool, str]]:
    """A case, a convolution, what may replace it, whether it does, and what to tell who is wrong about it."""
    conv = _conv(1, 5, 4, 3)
    rounded = "it is the same layer but for rounding: allow the outputs a small relative difference."
    yield "all of a chain's channels kept", conv, _chain(conv, 4), True, rounded
    other = _but(conv, _conv(2, 5, 4, 3).weight)
    yield "other weights", conv, other, False, "the shapes agree, the outputs do not."
    kernel = conv.weight
    yield (
        "a kernel averaged over its inputs", conv, _but(conv, kernel.mean(1, keepdim=True)), False,
        "where all input channels are alike the outputs agree: draw every channel by itself.",
    )  # fmt: skip
    yield (
        "a kernel averaged over its taps", conv, _but(conv, kernel.mean((2, 3), keepdim=True)), False,
        "where the input is constant the outputs agree: draw every pixel by itself.",
    )  # fmt: skip
    unbiased = _but(conv, kernel)
    unbiased.bias = None
    yield "the bias left out", conv, unbiased, False, "the bias is part of the function."
    short = "one rank too few misses some per cent: more than rounding, which is a millionth."
    yield "one rank too few", conv, _chain(conv, 3), False, short
    yield (
        "a kernel averaged over its rows", conv, _but(conv, kernel.mean(2, keepdim=True)), False,
        "where the input is constant along its height the outputs agree: draw every pixel by itself.",
    )  # fmt: skip
    yield (
        "a kernel averaged over its columns", conv, _but(conv, kernel.mean(3, keepdim=True)), False,
        "where the input is constant along its width the outputs agree: draw every pixel by itself.",
    )  # fmt: skip
    exchanged = _but(conv, kernel[[0, 1, 3, 2]])
    exchanged.bias.data.copy_(conv.bias.data[[0, 1, 3, 2]])  # type: ignore[union-attr]
    yield (
        "the last two outputs exchanged", conv, exchanged, False,
        "norms, means and the first outputs agree: compare each number with the one in its place.",
    )  # fmt: skip
    yield (
        "1.003 times the output", conv, _Then(conv, lambda y: 1.003 * y), False,
        "three in a thousand are more than rounding, and a cosine does not see them.",
    )  # fmt: skip
    around = _conv(3, 5, 4, 3, padding=1)
    turned = _but(around, around.weight)
    turned.padding_mode = "circular"
    turned._reversed_padding_repeated_twice = [1, 1, 1, 1]
    yield (
        "another padding",
        around,
        turned,
        False,
        "they differ at the margin alone: compare all of the output.",
    )
    small = _conv(4, 5, 4, 3, scale=1e-7)
    yield (
        "weights of 1e-7", small, _but(small, -small.weight), False,
        "compare the difference with the size of the output: here all outputs are tiny.",
    )  # fmt: skip
    large = _conv(5, 5, 4, 3, scale=1e6)
    yield (
        "weights of a million", large, _chain(large, 4), True,
        "compare the difference with the size of the output: here rounding alone is large.",
    )  # fmt: skip
    positive = _conv(6, 5, 4, 3)
    for parameter in positive.parameters():
        parameter.data.abs_()
    yield (
        "a ReLU behind", positive, _Then(positive, torch.relu), False,
        "for positive inputs they agree: draw inputs of both signs.",
    )  # fmt: skip
    broken = _Then(conv, lambda y: y * math.nan)
    yield "nan", conv, broken, False, "every comparison with nan is false: ask that the difference is small."
    alike = _but(conv, kernel[:1])
    alike.bias.data.fill_(0.5)  # type: ignore[union-attr]
    yield (
        "one output channel for four",
        alike,
        _Then(alike, lambda y: y[:, :1]),
        False,
        "torch stretches one channel over four: compare shapes too.",
    )
    wide = _conv(7, 3, 6, 7, stride=2, padding=2, dilation=2, dtype=torch.float64)
    yield "a wide kernel in double precision", wide, _chain(wide, 6), True, rounded


def keeps(answer: object) -> str | None:
    """What is wrong with a ``keeps(conv, other)``, or None."""
    test = function(answer, "keeps(conv, other)")
    for case, conv, other, same, hint in _pairs():
        torch.manual_seed(8)
        with on(case):
            said = test(conv, other)
            if isinstance(said, Tensor | np.ndarray | np.generic) and said.shape in ((), (1,)):
                said = said.item()
            if not isinstance(said, bool):
                raise NotYet(f"return True or False, not {describe(said)}.")
            if said is not same:
                raise NotYet(f"your function says {said}; {hint}")
    return None
