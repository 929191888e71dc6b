"""A convolution whose kernel is stored as the kernels of a chain of smaller convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.unfold import FORMS, Rank, compose, kernel_factors
from lowrank_utils.factors.weighted_unfold import weighted_kernel_factors
from lowrank_utils.layers.stages import Conv, Stage, chain, composed

Made = TypeVar("Made", bound=nn.Module)


class LowRankConv(nn.Module):
    r"""y = W * x + b with the kernel W (m, n, *k) stored as a chain of smaller kernels.

    The forms are those of Denton et al. 2014 (``channel``, ``input``), ``kernel`` (r basis kernels on
    every input channel, then mixed), Jaderberg et al. 2014 (``spatial``), Kim et al. 2016 (``tucker2``)
    and Lebedev et al. 2015 (``cp``). Strides, padding and dilation of an axis belong to the stage that slides
    along it. No stage before the last has a bias, so padding commutes with those that do not slide:
    the layer is the convolution by its ``weight`` under every padding mode.

    Args:
        kernels: The stages' kernels, first stage first, as ``from_conv`` makes them.
        bias: b (m,) or None, of the last stage.
        form: "channel", "input", "kernel", "spatial", "tucker2" or "cp".
        stride: Of each axis.
        padding: Of each axis, or "same" or "valid".
        dilation: Of each axis.
        groups: Number of groups; each has factors of its own, but for the basis of ``kernel``.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shape:
        (N, in_channels, ...) or (in_channels, ...), as ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Conv3d``.

    Raises:
        TypeError: If ``groups``, or an entry of a setting, is no integer.
        ValueError: If ``form`` is unknown, ``kernels`` are no chain of that form, the bias is not of the
            chain's outputs, or a setting does not fit the kernel's axes.

    Reference:
        Denton et al. 2014; Jaderberg et al. 2014; Lebedev et al. 2015; Kim et al. 2016.

    Example:
        >>> layer = LowRankConv.from_conv(nn.Conv2d(16, 32, 3, padding=1), rank=4)
        >>> layer(torch.zeros(1, 16, 8, 8)).shape, layer.weight.shape
        (torch.Size([1, 32, 8, 8]), torch.Size([32, 16, 3, 3]))
    """

    def __init__(
        self,
        kernels: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        form: str = "channel",
        stride: Sequence[int],
        padding: str | Sequence[int],
        dilation: Sequence[int],
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.form, groups = _checks.choice(form, "form", FORMS), _checks.integer(groups, "groups", low=1)
        shape, self.rank = composed(kernels, form, groups)
        self.out_channels, self.in_channels = shape[0], shape[1] * groups
        if bias is not None and bias.shape != (self.out_channels,):
            _checks.value_error("bias", bias, f"of shape ({self.out_channels},), one for each output")
        self.kernels = nn.ParameterList(nn.Parameter(kernel.detach().clone()) for kernel in kernels)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self._whole = Stage.checked(shape[2:], stride, padding, dilation, groups, padding_mode)
        self._stages = chain(kernels, form, self._whole, self.in_channels)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, ...) -> (N, m, ...), one stage after another."""
        x, kernels = input, self._plain_kernels()
        for stage, kernel in zip(self._stages[:-1], kernels[:-1], strict=True):
            x = stage.run(x, kernel)
        return self._stages[-1].run(x, kernels[-1], self.bias)

    def _plain_kernels(self) -> list[Tensor]:
        """The stages' kernels as plain convolutions take them: the basis of ``kernel`` once a channel."""
        kernels: list[Tensor] = list(self.kernels)
        if self.form == "kernel":  # a depthwise convolution is quicker than samples of one channel
            kernels[0] = kernels[0].repeat(self.in_channels, *[1] * (kernels[0].ndim - 1))
        return kernels

    @property
    def weight(self) -> Tensor:
        """The composed kernel W, (m, n, *k)."""
        return compose(list(self.kernels), self.form)

    @classmethod
    @torch.no_grad()
    def from_conv(
        cls, conv: Conv, rank: Rank, form: str = "channel", *, moments: Moments | None = None
    ) -> Self:
        r"""The layer whose weight is ``conv.weight`` in this form and rank; the bias is copied.

        The closest for the four forms that are matrices, the truncated higher-order SVD for ``tucker2``, and
        for ``cp`` what alternating least squares finds. Mode, dtype, device, and whether weight and bias
        are trained, are the convolution's.

        With moments the closest in a norm by the covariance Sigma of the patches, and the bias grows by
        (W - W~) E[x]: ||(W - W~) Sigma^1/2||_F for ``channel``, and for ``tucker2`` by alternating least
        squares; for ``input`` by C in Sigma's place, the channels' covariance at one tap, and for ``kernel``
        by T, the taps' in one channel. Those two neglect what a closed form cannot know, and need not be
        better than the weights alone; ``tucker2`` gains most.

        Args:
            conv: Convolution with kernel (m, n, *k); it is not changed.
            rank: r of each group, or for ``tucker2`` the pair (r_out, r_in).
            form: "channel", "input", "kernel", "spatial", "tucker2" or "cp".
            moments: The layer's, from ``calibrate``; for the four forms above, of one group.

        Raises:
            TypeError: If ``conv`` is no convolution or ``rank`` no integer (or pair of integers).
            ValueError: If an argument is out of range, or the weight or a moment is not finite.
            ImportError: If ``form`` is "cp" and tensorly is not installed.

        Reference:
            Denton et al. 2014; Jaderberg et al. 2014; Lebedev et al. 2015; Kim et al. 2016; Kalle et al. 2025
            (moments).

        Example:
            >>> conv = nn.Conv1d(6, 4, 5, stride=2)
            >>> layer = LowRankConv.from_conv(conv, 5, "kernel")  # all five taps: nothing is lost
            >>> torch.allclose(layer.weight, conv.weight, atol=1e-6)
            True
        """
        conv = _checks.convolution(conv)
        bias = conv.bias
        if moments is None:
            kernels = kernel_factors(conv.weight, rank, form, groups=conv.groups)
        else:
            if conv.groups > 1:
                _checks.value_error("groups", conv.groups, "1 where there are moments")
            kernels = weighted_kernel_factors(conv.weight, rank, form, moments.covariance)
            mean, size = moments.mean.double(), conv.weight[0].numel()
            if mean.shape != (size,) or not bool(mean.isfinite().all()):
                limit = f"finite and of shape ({size},), the numbers in a patch"
                _checks.value_error("moments.mean", mean, limit)
            lost = (conv.weight - compose(kernels, form)).flatten(1).double() @ mean  # (m,)
            if bias is not None or bool(lost.any()):  # a layer without a bias has none if it would be zero
                bias = (lost if bias is None else bias + lost).to(conv.weight.dtype)
        layer = cls(
            kernels,
            bias,
            form=form,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            padding_mode=conv.padding_mode,
        )
        layer.kernels.requires_grad_(conv.weight.requires_grad)
        if layer.bias is not None:
            like = conv.weight if conv.bias is None else conv.bias
            layer.bias.requires_grad_(like.requires_grad)
        return layer.train(conv.training)

    def to_conv(self) -> Conv:
        """The plain convolution with the same weight and bias, as a copy."""
        conv = self._whole.layer(self.weight, self.bias)
        conv.weight.requires_grad_(any(kernel.requires_grad for kernel in self.kernels))
        return self._as_this_one(conv)

    def to_sequential(self) -> nn.Sequential:
        """The chain as plain convolutions, for tools that know no other, as a copy.

        The basis of ``kernel`` becomes a depthwise convolution, which repeats it for each input channel.
        """
        kernels = self._plain_kernels()
        biases = [None] * (len(kernels) - 1) + [self.bias]
        layers = nn.Sequential(*map(Stage.layer, self._stages, kernels, biases))
        for layer, kernel in zip(layers, self.kernels, strict=True):
            layer.weight.requires_grad_(kernel.requires_grad)
        return self._as_this_one(layers)

    def _as_this_one(self, made: Made) -> Made:
        """In this layer's mode, its bias trained if this layer's is."""
        for name, parameter in made.named_parameters():
            if name.endswith("bias") and self.bias is not None:
                parameter.requires_grad_(self.bias.requires_grad)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        channels = f"{self.in_channels}, {self.out_channels}, rank={self.rank}, form={self.form!r}"
        said = [f"{name}={value!r}" for name, value in self._whole._asdict().items()]
        return ", ".join([channels, *said, f"bias={self.bias is not None}"])
