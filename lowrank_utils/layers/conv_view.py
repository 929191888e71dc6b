"""A convolution as a matrix applied to rows: the patches under its kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.unfold import Rank
from lowrank_utils.layers.conv import LowRankConv
from lowrank_utils.layers.conv_options import ConvOption, conv_options
from lowrank_utils.layers.stages import Stage
from lowrank_utils.layers.views import LayerView, layer_view


class ConvView(LayerView):
    """A convolution: W (m, n K) applied to the patches under its kernel, one row for each place."""

    can_pivot = False

    @property
    def weight(self) -> Tensor:
        """W, (m, n K), K the size of the kernel."""
        W: Tensor = self.layer.weight.detach().flatten(1)
        return W

    def rows(self, input: Tensor) -> Tensor:
        """The patches (N L, n K), L places of each of N samples."""
        stage = Stage.of(self.layer)
        x = stage.padded(input if input.ndim == self.layer.weight.ndim else input[None])
        d = len(stage.kernel_size)
        for axis, (k, step, hop) in enumerate(
            zip(stage.kernel_size, stage.stride, stage.dilation, strict=True), start=2
        ):
            x = x.unfold(axis, hop * (k - 1) + 1, step)[..., ::hop]  # one more axis at the end
        places = range(2, 2 + d)
        return x.permute(0, *places, 1, *range(2 + d, 2 + 2 * d)).reshape(-1, self.weight.shape[1])

    def output_rows(self, output: Tensor) -> Tensor:
        """The rows (N L, m) of an output (N, m, ...) or (m, ...)."""
        channels = output.ndim - len(self.layer.kernel_size) - 1
        return output.movedim(channels, -1).reshape(-1, self.weight.shape[0])

    def output(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The output of this shape whose rows (N L, m) these are."""
        channels = len(shape) - len(self.layer.kernel_size) - 1
        last = [*shape[:channels], *shape[channels + 1 :], shape[channels]]
        return rows.reshape(last).movedim(-1, channels)

    def dense(self, W: Tensor, bias: Tensor | None) -> nn.Module:
        """The same convolution with another kernel (m, n K) and bias."""
        kernel = W.to(self.weight.dtype).reshape(self.layer.weight.shape)
        return Stage.of(self.layer).layer(kernel, None if bias is None else bias.to(self.weight.dtype))

    def forms(self) -> tuple[ConvOption, ...]:
        """The forms of ``conv_options``."""
        return conv_options(self.layer).options

    def in_form(self, form: str, rank: Rank) -> nn.Module:
        """As ``LowRankConv.from_conv``."""
        return LowRankConv.from_conv(self.layer, rank, form)

    def low_rank(self, A: Tensor, B: Tensor, bias: Tensor | None, *, pivoted: bool = False) -> nn.Module:
        """Form ``channel``: r kernels (r, n, *k), then their mixture (m, r)."""
        if pivoted:
            _checks.value_error("pivoted", pivoted, "False for a convolution")
        conv, ones = self.layer, [1] * len(self.layer.kernel_size)
        kernels = [B.reshape(len(B), *conv.weight.shape[1:]), A.reshape(*A.shape, *ones)]
        return LowRankConv(
            kernels,
            bias,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            padding_mode=conv.padding_mode,
        ).to(self.weight.dtype)


for _conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
    layer_view.register(_conv, ConvView)
