"""The pivoted form of a rank-r matrix: r of its rows, and how the others follow from them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from scipy.linalg import qr as pivoted_qr
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.svd import balanced_factors
from lowrank_utils.layers.holding import frozen_as, linear_of
from lowrank_utils.layers.linear import LowRankLinear, Product


def _applied(
    x: Tensor, P: Tensor, start: Tensor | None, C: Tensor, shift: Tensor | None, place: Tensor | None
) -> Tensor:
    """(..., n) -> (..., m): the pivots' outputs, the others from them, and all in W's order."""
    y = _stacked(x, P, start, C, shift)  # its parts are freed here: the gather finds memory that is warm
    return y if place is None else y.index_select(-1, place)


def _stacked(x: Tensor, P: Tensor, start: Tensor | None, C: Tensor, shift: Tensor | None) -> Tensor:
    """(..., n) -> (..., m), in the order of [P; C P]."""
    z = nn.functional.linear(x, P, start)  # (..., r)
    return torch.cat([z, nn.functional.linear(z, C, shift)], -1)


class PivotedLinear(nn.Module):
    r"""y = x W^T + b with W of rank r, stored as r pivot rows P (r, n) and C (m - r, r): the others are C P.

    Holds r(m + n - r) numbers, fewer than mn for every r < min(m, n): two factors hold r^2 more, so
    their break-even rank is a limit of their form, not of the rank. A column-pivoted QR of W^T
    chooses the rows, which keeps C small.

    Args:
        pivots: P (r, n).
        coefficients: C (m - r, r).
        order: (m,) the row of W at which each row of [P; C P] stands.
        bias: b (m,) or None.

    Shape:
        (..., n) -> (..., m).

    Reference:
        Zhao et al. 2025 (PIFA); Businger & Golub 1965 for the pivoted QR.

    Example:
        >>> layer = PivotedLinear.from_linear(nn.Linear(64, 64), rank=48)
        >>> sum(p.numel() for p in layer.parameters()) - 64  # without the bias
        3840
    """

    __jit_unused_properties__ = ["weight", "bias"]  # a script needs forward alone

    def __init__(self, pivots: Tensor, coefficients: Tensor, order: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.rank, self.in_features = r, _ = pivots.shape
        self.out_features = len(order)
        self.pivots = nn.Parameter(pivots.detach().clone())
        self.coefficients = nn.Parameter(coefficients.detach().clone(memory_format=torch.contiguous_format))
        self.register_parameter("start", None)
        self.register_parameter("shift", None)
        if bias is not None:  # C(z + start) + shift = C z + b_rest: one addition fused into each product
            first, rest = bias.detach()[order].split((r, len(order) - r))  # type: ignore[no-untyped-call]
            self.start = nn.Parameter(first.clone())  # (r,)
            self.shift = nn.Parameter(rest - coefficients.detach() @ first)  # (m - r,)
        # (m,) where in [P; C P] each row of W stands; None after ``fold_permutations``: where it stands in W.
        # Its type is said here, since torch.jit.script cannot read an annotation of the class.
        self.position: Tensor | None
        self.register_buffer("position", order.argsort().int())

    def forward(self, input: Tensor) -> Tensor:
        """(..., n) -> (..., m): the pivots' outputs, the others from them, and all in W's order."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return _applied(input, self.pivots, self.start, self.coefficients, self.shift, self.position)
        return _applied(input, *self._held())

    def _held(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
        """What ``_applied`` takes, past the search of nn.Module, which is about a microsecond for each."""
        try:
            of, place = self._parameters, self._buffers["position"]
            return of["pivots"], of["start"], of["coefficients"], of["shift"], place  # type: ignore[return-value]
        except KeyError:  # pruned, or parametrized
            return self.pivots, self.start, self.coefficients, self.shift, self.position

    def _in_order(self, rows: Tensor) -> Tensor:
        """(m, ...) in the order of [P; C P] -> the same in W's."""
        return rows if self.position is None else rows[self.position]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("start", "shift"):  # columns (r, 1) and (m - r, 1) in files of before 0.2
            if (column := state_dict.get(prefix + name)) is not None and column.ndim == 2:
                state_dict[prefix + name] = column[:, 0]
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def weight(self) -> Tensor:
        """The dense W, (m, n)."""
        W = self._in_order(torch.cat([self.pivots, self.coefficients @ self.pivots]))
        return W.as_subclass(Product)

    @property
    def bias(self) -> Tensor | None:
        """The dense b, (m,)."""
        if self.start is None or self.shift is None:
            return None
        rest = self.shift + self.coefficients @ self.start  # (m - r,)
        return self._in_order(torch.cat([self.start, rest]))

    @classmethod
    @torch.no_grad()
    def from_factors(cls, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Self:
        r"""The layer of W = left right: the pivots are rows of W, chosen by a pivoted QR of left^T.

        Args:
            left: (m, r).
            right: (r, n).
            bias: (m,) or None.

        Raises:
            TypeError: If a factor is no floating tensor.
            ValueError: If a factor is not finite or the shapes do not fit.
        """
        left = _checks.matrix(left, "left")
        right = _checks.matrix(right, "right").to(left)
        (m, r), n = left.shape, right.shape[1]
        if len(right) != r or r > min(m, n) or (bias is not None and bias.shape != (m,)):
            shapes = [None if t is None else tuple(t.shape) for t in (left, right, bias)]
            limit = "(m, r), (r, n), (m,), r <= min(m, n)"
            raise ValueError(f"(left, right, bias) of shapes {shapes} must be {limit}")
        wide = left.double().cpu().numpy().T  # (r, m)
        R, order = pivoted_qr(wide, mode="r", pivoting=True)  # left^T[:, order] = Q R
        # left[order[r:]] = C left[order[:r]], so C^T = R11^-1 R12; least squares, should its rank be below r
        C = torch.from_numpy(np.linalg.lstsq(R[:, :r], R[:, r:], rcond=None)[0].T)  # (m - r, r)
        rows = torch.from_numpy(order.astype("int64")).to(left.device)
        return cls(left[rows[:r]] @ right, C.to(left), rows, None if bias is None else bias.to(left))

    @classmethod
    def from_linear(cls, linear: nn.Linear, rank: int) -> Self:
        r"""The layer whose weight is the truncated SVD of ``linear.weight``; the bias is copied.

        What is frozen stays frozen.

        Args:
            linear: Layer with weight (m, n); it is not changed.
            rank: r, from 1 to min(m, n).

        Raises:
            TypeError: If ``linear`` is no ``nn.Linear`` or ``rank`` no integer.
            ValueError: If ``rank`` is out of range or the weight is not finite.
        """
        if not isinstance(linear, nn.Linear):
            _checks.type_error("linear", linear, "an nn.Linear")
        W = _checks.matrix(linear.weight)
        A, B = balanced_factors(W, _checks.rank(rank, *W.shape))
        return frozen_as(linear, cls.from_factors(A, B, linear.bias)).train(linear.training)

    def drop_order(self) -> Tensor:
        """Sort the outputs no longer; the old index of each, (m,). What reads them must follow suit."""
        place = self._in_order(torch.arange(self.out_features, device=self.pivots.device))
        self.position = None
        return place.argsort()

    @torch.no_grad()
    def to_sequential(self) -> nn.Sequential:
        """Two plain ``nn.Linear``, n to r and r to m, for tools that know no other layer, as a copy.

        They hold r(m + n) numbers again: pivoting is what a plain pair cannot say. So they are the balanced
        factors U S^1/2 and S^1/2 Vh of W: where a tool rounds to 8 bits, pivots of unlike sizes would share
        one step.
        """
        one = torch.eye(self.rank).to(self.coefficients)
        mixed = self._in_order(torch.cat([one, self.coefficients]))  # (m, r)
        Q, R = torch.linalg.qr(mixed.double())  # (m, r), (r, r)
        A, B = balanced_factors(R @ self.pivots.double(), self.rank)  # (r, r), (r, n)
        layer = LowRankLinear.from_factors((Q @ A).to(mixed), B.to(mixed), self.bias)
        plain = layer.to_sequential().train(self.training)
        return frozen_as(self, plain)  # each new number depends on all old ones

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """The dense ``nn.Linear`` with the same weight and bias, as a copy; frozen if all factors are."""
        return frozen_as(self, linear_of(self.weight, self.bias)).train(self.training)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
        return f"{sizes}, bias={self.start is not None}" + ", folded=True" * (self.position is None)
