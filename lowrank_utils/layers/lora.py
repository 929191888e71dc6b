"""A frozen linear layer and a low-rank update of it: W + (alpha / r) B A."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.svd import leading_svd
from lowrank_utils.layers.holding import linear_of, parameter
from lowrank_utils.layers.linear import Product

STARTS = ("zeros", "pissa")


class LoRALinear(nn.Module):
    r"""y = x (W + (alpha / r) B A)^T + b: W (m, n) and b are frozen, A (r, n) and B (m, r) are trained.

    r(m + n) numbers have a gradient and an optimizer's state, where fine-tuning W has mn. The update is of
    rank r at most; the weight that it is added to is of any rank.

    Args:
        weight: W (m, n).
        A: (r, n).
        B: (m, r).
        bias: b (m,) or None.
        alpha: The update is scaled by alpha / r; by default alpha is r. It is in the layer's ``state_dict``,
            and a file's takes the place of the layer's own.

    Shape:
        (..., n) -> (..., m).

    Raises:
        TypeError: If a matrix is no floating tensor or ``alpha`` no number.
        ValueError: If a matrix is not finite, the shapes do not fit, or ``alpha`` is not positive.

    Reference:
        Hu et al. 2022.

    Example:
        >>> layer = LoRALinear.from_linear(nn.Linear(1024, 512), rank=4)
        >>> sum(p.numel() for p in layer.parameters() if p.requires_grad)  # of 524288 in the weight
        6144
    """

    __jit_unused_properties__ = ["weight"]  # a script needs forward alone

    def __init__(
        self, weight: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None, *, alpha: float | None = None
    ) -> None:
        super().__init__()
        W, A, B = _checks.matrix(weight, "weight"), _checks.matrix(A, "A"), _checks.matrix(B, "B")
        (self.out_features, self.in_features), self.rank = (m, n), r = W.shape, len(A)
        if A.shape != (r, n) or B.shape != (m, r) or (bias is not None and bias.shape != (m,)):
            shapes = [None if t is None else tuple(t.shape) for t in (W, A, B, bias)]
            raise ValueError(f"(weight, A, B, bias) of shapes {shapes} must be (m, n), (r, n), (m, r), (m,)")
        self.alpha = float(r) if alpha is None else _checks.real(alpha, "alpha", low=0.0, open_low=True)
        self.W = parameter(W).requires_grad_(False)
        self.A, self.B = parameter(A.to(W)), parameter(B.to(W))
        self.bias = None if bias is None else parameter(bias.to(W)).requires_grad_(False)

    def get_extra_state(self) -> Tensor:
        """Alpha, for a ``state_dict``: A and B alone do not say what they add."""
        return torch.tensor(self.alpha, dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Alpha of a ``state_dict``.

        Args:
            state: What ``get_extra_state`` returned.

        Raises:
            TypeError: If it is no number.
            ValueError: If it is not positive.
        """
        self.alpha = _checks.real(state, "alpha", low=0.0, open_low=True)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing: list[str] = args[2]
        if prefix + "_extra_state" in missing:  # a file that was written without it
            missing.remove(prefix + "_extra_state")

    @property
    def scaling(self) -> float:
        """Alpha / r."""
        return self.alpha / self.rank

    @property
    def weight(self) -> Tensor:
        """The composed weight W + (alpha / r) B A, (m, n)."""
        return (self.W + self.scaling * (self.B @ self.A)).as_subclass(Product)

    def forward(self, input: Tensor) -> Tensor:
        """(..., n) -> (..., m), without forming the update."""
        z = nn.functional.linear(input, self.A)  # (..., r)
        update = nn.functional.linear(z, self.B)  # (..., m)
        return nn.functional.linear(input, self.W, self.bias) + self.scaling * update

    @classmethod
    @torch.no_grad()
    def from_linear(
        cls, linear: nn.Linear, rank: int, *, alpha: float | None = None, start: str = "zeros"
    ) -> Self:
        r"""An adapter on this layer, which computes what the layer computes until it is trained.

        With ``start="zeros"`` B = 0, and A is drawn uniformly from (-1/sqrt(n), 1/sqrt(n)) by torch's global
        generator; W is the layer's weight. With ``start="pissa"`` (alpha / r) B A is the truncated SVD of the
        layer's weight, half of its singular values in each factor, and W is what is left: training then moves
        the largest singular directions, and B A is no update that could be added to another weight.

        Args:
            linear: Layer with weight (m, n); it is not changed.
            rank: r, from 1 to min(m, n).
            alpha: The update is scaled by alpha / r; by default alpha is r.
            start: ``"zeros"`` or ``"pissa"``.

        Raises:
            TypeError: If ``linear`` is no ``nn.Linear``, ``rank`` no integer or ``alpha`` no number.
            ValueError: If ``rank`` or ``alpha`` is out of range, there is no such start, or the weight is not
                finite.

        Reference:
            Hu et al. 2022; Meng et al. 2024 (PiSSA).
        """
        if not isinstance(linear, nn.Linear):
            _checks.type_error("linear", linear, "an nn.Linear")
        W = _checks.matrix(linear.weight)
        (m, n), r = W.shape, _checks.rank(rank, *W.shape)
        if _checks.choice(start, "start", STARTS) == "pissa":
            scale = 1.0 if alpha is None else _checks.real(alpha, "alpha", low=0.0, open_low=True) / r
            U, S, Vh = leading_svd(W, r)  # not yet rounded
            root = (S / scale).sqrt()
            B, A = (U * root).to(W.dtype), (root[:, None] * Vh).to(W.dtype)
            W = (W.to(S) - scale * (B.to(S) @ A.to(S))).to(W.dtype)
        else:
            A, B = W.new_empty(r, n), W.new_zeros(m, r)
            nn.init.uniform_(A, -1 / math.sqrt(n), 1 / math.sqrt(n))
        return cls(W, A, B, linear.bias, alpha=alpha).train(linear.training)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """The dense ``nn.Linear`` with the same weight and bias, as a copy: nothing is left to pay for."""
        return linear_of(self.weight, self.bias).train(self.training)

    @torch.no_grad()
    def shrink(self, rank: int) -> Self:
        r"""A copy whose B A is the nearest one of this rank, with the same alpha / r; what is frozen stays.

        B = Q_B R_B and A^T = Q_A R_A by QR, and an SVD of the small R_B R_A^T (r, r): the (m, n) product is
        never formed. Of a PiSSA start B A is a part of the weight, and shrinking it cuts the weight.

        Args:
            rank: From 1 to r.

        Raises:
            TypeError: If ``rank`` is no integer.
            ValueError: If ``rank`` is out of range or a factor is not finite.

        Example:
            >>> layer = LoRALinear(torch.eye(3), torch.ones(2, 3), torch.ones(3, 2))  # B A is of rank 1
            >>> torch.allclose(layer.shrink(1).weight, layer.weight, atol=1e-6)
            True
        """
        k = _checks.integer(rank, "rank", low=1, high=self.rank, why="the rank of the adapter")
        B, A = _checks.matrix(self.B, "B"), _checks.matrix(self.A, "A")
        Qb, Rb = torch.linalg.qr(B.double())  # (m, q), (q, r), q = min(m, r)
        Qa, Ra = torch.linalg.qr(A.double().T)  # (n, p), (p, r)
        U, S, Vh = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)
        root = S[:k].sqrt()
        left, right = Qb @ (U[:, :k] * root), (root[:, None] * Vh[:k]) @ Qa.T
        made = type(self)(self.W, right, left, self.bias, alpha=self.alpha * len(root) / self.rank)
        for name, p in made.named_parameters():
            p.requires_grad_(getattr(self, name).requires_grad)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
        return f"{sizes}, alpha={self.alpha:g}, bias={self.bias is not None}"
