"""The stages of a low-rank convolution: plain convolutions that slide over some axes of the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import _checks
from lowrank_utils.factors.unfold import FORMS, Rank, factor_shapes, sliding_axes
from lowrank_utils.layers.holding import holding

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MODES = ("zeros", "reflect", "replicate", "circular")
FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Stage(NamedTuple):
    """What nn.ConvNd is told beside its channels."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str

    @classmethod
    def of(cls, conv: Conv) -> Stage:
        """What this convolution was told."""
        sizes = conv.kernel_size, conv.stride, conv.padding, conv.dilation
        return cls(*sizes, conv.groups, conv.padding_mode)

    @classmethod
    def checked(
        cls,
        kernel_size: tuple[int, ...],
        stride: object,
        padding: object,
        dilation: object,
        groups: int,
        padding_mode: str,
    ) -> Stage:
        """The same from settings of the user's, each for every axis of the kernel."""
        d = len(kernel_size)
        steps, dilation = _checks.sizes(stride, "stride", d), _checks.sizes(dilation, "dilation", d)
        if isinstance(padding, str):
            _checks.choice(padding, "padding", ("valid", "same") if max(steps) == 1 else ("valid",))
        else:
            padding = _checks.sizes(padding, "padding", d, low=0)
        return cls(
            kernel_size, steps, padding, dilation, groups, _checks.choice(padding_mode, "padding_mode", MODES)
        )

    def padded(self, x: Tensor) -> Tensor:
        """The input (N, c, *) with its margins."""
        return F.pad(x, self.margins(), mode=self.padding_mode.replace("zeros", "constant"))

    def along(self, axes: tuple[int, ...], kernel_size: Sequence[int], groups: int) -> Stage:
        """The stage that does of all this what concerns some axes: steps and padding of the others are none.

        Padding with zeros commutes with what comes before it where that adds no bias and slides along other
        axes; so does padding that repeats the input's own entries.
        """
        padding = self.padding
        if not isinstance(padding, str):
            padding = tuple(p if axis in axes else 0 for axis, p in enumerate(padding))
        return Stage(
            kernel_size=tuple(kernel_size),
            stride=tuple(s if axis in axes else 1 for axis, s in enumerate(self.stride)),
            padding=padding if axes else "valid",
            dilation=self.dilation,  # where the kernel is 1 wide, it is nothing
            groups=groups,
            padding_mode=self.padding_mode if axes else "zeros",
        )

    def margins(self) -> list[int]:
        """F.pad's list, last axis first: what stands before and after the input along each axis."""
        flat: list[int] = []
        for axis in reversed(range(len(self.kernel_size))):
            if not isinstance(self.padding, str):
                flat += [self.padding[axis]] * 2
                continue
            total = self.dilation[axis] * (self.kernel_size[axis] - 1) if self.padding == "same" else 0
            flat += [total // 2, total - total // 2]  # torch's: an odd one goes behind
        return flat

    def run(self, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of x (N, c, *) or (c, *) with a kernel (o, c / groups, *kernel_size)."""
        padding: str | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self.margins(), mode=self.padding_mode)
            padding = "valid"
        convolve = FUNCTIONS[len(self.kernel_size)]
        return convolve(x, kernel, bias, self.stride, padding, self.dilation, self.groups)

    def layer(self, kernel: Tensor, bias: Tensor | None) -> Conv:
        """The nn.ConvNd with a copy of this kernel and bias."""
        kind, channels = LAYERS[len(self.kernel_size)], (kernel.shape[1] * self.groups, len(kernel))
        given = {"weight": kernel, "bias": bias}
        conv: Any = holding(kind, *channels, bias=bias is not None, parameters=given, **self._asdict())
        return conv  # type: ignore[no-any-return]


def chain(kernels: Sequence[Tensor], form: str, whole: Stage, in_channels: int) -> list[Stage]:
    """The stages of a form, of which ``whole`` is the composition."""
    stages, channels = [], in_channels
    for kernel, axes in zip(kernels, sliding_axes(form, len(whole.kernel_size)), strict=True):
        stages.append(whole.along(axes, kernel.shape[2:], groups=channels // kernel.shape[1]))
        channels = len(kernel)
        if form == "kernel":  # the basis runs on every input channel
            channels *= in_channels
    return stages


def composed(kernels: Sequence[Tensor], form: str, groups: int) -> tuple[tuple[int, ...], Rank]:
    """Shape (m, n, *k) and rank of what the kernels compose, if they are a chain of that form."""
    shapes, limit = [tuple(K.shape) for K in kernels], f"a chain of form {form!r} at groups={groups}"
    d = len(shapes[0]) - 2 if shapes else 0
    if d not in LAYERS or any(len(shape) != d + 2 or min(shape) == 0 for shape in shapes):
        _checks.value_error("kernels", shapes, limit)
    _checks.kernel_form(form, FORMS, d)
    if len(shapes) != len(sliding_axes(form, d)):
        _checks.value_error("kernels", shapes, limit)
    r = shapes[0][0] // (1 if form == "kernel" else groups)
    rank: Rank = (shapes[1][0] // groups, r) if form == "tucker2" else r
    n = shapes[1][1] // max(r, 1) if form == "kernel" else shapes[0][1]
    k = (max(shape[2 + axis] for shape in shapes) for axis in range(d))
    whole = (shapes[-1][0], n, *k)
    if whole[0] % groups or factor_shapes(whole, rank, form, groups) != shapes:
        _checks.value_error("kernels", shapes, limit)
    return whole, rank
