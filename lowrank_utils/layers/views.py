r"""A layer is a matrix applied to rows: y = x W^T + b, with W (m, n), for each row x (n,) of its input.

What looks for ranks or cuts a model knows a layer by its ``LayerView`` alone: the matrix, the bias, the rows
that an input gives, and the same layer rebuilt from factors. A type of layer is added by one line,
``layer_view.register(MyLayer, MyView)``, with ``MyView`` a subclass of ``LayerView``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.unfold import Rank
from lowrank_utils.layers.conv_options import ConvOption
from lowrank_utils.layers.holding import linear_of
from lowrank_utils.layers.linear import LowRankLinear
from lowrank_utils.layers.pivoted import PivotedLinear

Pick = int | tuple[str, Rank]
"""A rank, or the form of a convolution and its rank."""


class LayerView:
    """A layer as W (m, n) and b (m,), applied to rows: ``nn.Linear``, and what is called like it.

    Subclass it for a layer of your own, and say what differs: where the weight lies, which rows an input
    gives, how the layer is rebuilt.

    Args:
        layer: The layer itself, which is never changed.

    Example:
        >>> seen = LayerView(nn.Linear(3, 2))
        >>> seen.weight.shape, seen.rows(torch.zeros(5, 4, 3)).shape
        (torch.Size([2, 3]), torch.Size([20, 3]))
    """

    by_itself = True  # whether the layer takes part where none is named
    can_pivot = True  # whether a PivotedLinear can stand in its place

    def __init__(self, layer: nn.Module) -> None:
        self.layer: Any = layer

    @property
    def weight(self) -> Tensor:
        """W, (m, n)."""
        W: Tensor = self.layer.weight.detach()
        return W

    @property
    def bias(self) -> Tensor | None:
        """b, (m,), or None."""
        return None if self.layer.bias is None else self.layer.bias.detach()

    def rows(self, input: Tensor) -> Tensor:
        """The rows (N, n) that an input of the layer gives.

        Args:
            input: What the layer is called with, (..., n).
        """
        return input.reshape(-1, input.shape[-1])

    def output_rows(self, output: Tensor) -> Tensor:
        """The rows (N, m) of an output.

        Args:
            output: What the layer returns, (..., m), or a gradient by it.
        """
        return output.reshape(-1, output.shape[-1])

    def output(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The output whose rows these are: ``output_rows`` turned round.

        Args:
            rows: (N, m).
            shape: Of the output.
        """
        return rows.reshape(shape)

    def dense(self, W: Tensor, bias: Tensor | None) -> nn.Module:
        """The same kind of layer with another weight and bias.

        Args:
            W: (m, n).
            bias: (m,) or None.
        """
        return linear_of(W.to(self.weight.dtype), bias)

    def forms(self) -> tuple[ConvOption, ...]:
        """Other low-rank forms than A B, each at each rank, with what it costs and loses."""
        return ()

    def in_form(self, form: str, rank: Rank) -> nn.Module:
        """The layer in one of its ``forms``.

        Args:
            form: The form's name.
            rank: r, or a pair of ranks.

        Raises:
            ValueError: If the layer has no other forms.
        """
        _checks.value_error("form", form, f"left out: {type(self.layer).__name__} has no other form")

    def low_rank(self, A: Tensor, B: Tensor, bias: Tensor | None, *, pivoted: bool = False) -> nn.Module:
        """The layer of weight A B, in the dtype of the old one.

        Args:
            A: (m, r).
            B: (r, n).
            bias: (m,) or None.
            pivoted: As a ``PivotedLinear`` instead of a ``LowRankLinear``.
        """
        form = PivotedLinear if pivoted else LowRankLinear
        return form.from_factors(A, B, bias).to(self.weight.dtype)


class TransposedView(LayerView):
    """The linear layer of transformers' GPT-2, ``Conv1D``, which holds W^T."""

    @property
    def weight(self) -> Tensor:
        """W, (m, n)."""
        W: Tensor = self.layer.weight.detach().T
        return W


class FactoredView(LayerView):
    """A layer that is in factors already; its rank can be lowered."""

    by_itself = False


class TableView(LayerView):
    """``nn.Embedding``: W (d, v) applied to rows that are one-hot, so that it is the table transposed."""

    by_itself = False
    can_pivot = False

    @property
    def weight(self) -> Tensor:
        """W, (d, v)."""
        W: Tensor = self.layer.weight.detach().T
        return W

    @property
    def bias(self) -> Tensor | None:
        """None."""
        return None

    def rows(self, input: Tensor) -> Tensor:
        """One row (v,) an index, with a single 1."""
        return nn.functional.one_hot(input.reshape(-1), self.weight.shape[1]).to(self.weight.dtype)

    def dense(self, W: Tensor, bias: Tensor | None) -> nn.Module:
        """A table with another weight; it has no place for a bias."""
        told = {key: getattr(self.layer, key) for key in ("padding_idx", "scale_grad_by_freq", "sparse")}
        return nn.Embedding(W.shape[1], len(W), **told, _weight=W.T.to(self.weight.dtype).clone())

    def low_rank(self, A: Tensor, B: Tensor, bias: Tensor | None, *, pivoted: bool = False) -> nn.Module:
        """A table of v rows of r numbers, and a linear layer from r to d: r (v + d) numbers."""
        if pivoted:
            _checks.value_error("pivoted", pivoted, "False for an nn.Embedding")
        return nn.Sequential(self.dense(B, None), LayerView(self.layer).dense(A, bias))


@functools.singledispatch
def layer_view(layer: nn.Module) -> LayerView:
    """The ``LayerView`` of a layer, by its type; ``layer_view.register(MyLayer, MyView)`` adds a type.

    Args:
        layer: ``nn.Linear``, ``nn.Conv1d``, ``nn.Conv2d``, ``nn.Conv3d``, ``nn.Embedding``, transformers'
            ``Conv1D``, ``LowRankLinear``, ``PivotedLinear``, or of a type that was registered.

    Raises:
        TypeError: If there is no view for this type of layer.

    Example:
        >>> layer_view(nn.Conv2d(3, 8, 5)).weight.shape  # 75 numbers under the kernel
        torch.Size([8, 75])
    """
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):  # no need to import transformers for it
        return TransposedView(layer)
    _checks.type_error("layer", layer, "of a type that is a matrix applied to rows, such as nn.Linear")


layer_view.register(nn.Linear, LayerView)
layer_view.register(LowRankLinear, FactoredView)
layer_view.register(PivotedLinear, FactoredView)
layer_view.register(nn.Embedding, TableView)
