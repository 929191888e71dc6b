"""A linear layer stored as two factors: W = left right, or W = left core right."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.svd import balanced_factors, truncated_svd
from lowrank_utils.layers.holding import frozen_as, holding, linear_of


class Product(Tensor):
    """A product of factors, read as a weight; what is computed with it is a plain tensor.

    nn.TransformerEncoderLayer has a fused path that reads ``linear1.weight`` and calls no layer, unless one
    of the weights is of a class of its own: so the factors run, wherever a layer in factors stands.
    """

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute with the plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class LowRankLinear(nn.Module):
    r"""y = x (left core right)^T + b: left (m, r), core (r, r) or none, right (r, n), b (m,) or none.

    Holds r(m + n) numbers, or r^2 + r(m + n) with a core, where ``nn.Linear`` holds mn.
    From scratch the factors are drawn so that the product's entries have the variance of
    ``nn.Linear``'s, 1/(3n), and both factors have the same expected norm; the core starts orthogonal.

    Args:
        in_features: Number of inputs, n.
        out_features: Number of outputs, m.
        rank: r, from 1 to min(m, n).
        bias: Whether to add b.
        core: Whether a dense r x r core stands between the factors.
        device: Device of the parameters.
        dtype: dtype of the parameters.

    Shape:
        (..., n) -> (..., m).

    Raises:
        TypeError: If a size or the rank is no integer.
        ValueError: If a size or the rank is out of range.

    Reference:
        Sainath et al. 2013; Khodak et al. 2021 on the initialisation.

    Example:
        >>> layer = LowRankLinear(1024, 512, rank=8)
        >>> layer(torch.zeros(2, 1024)).shape, layer.weight.shape
        (torch.Size([2, 512]), torch.Size([512, 1024]))
    """

    __jit_unused_properties__ = ["weight"]  # a script needs forward alone

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        core: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = n = _checks.integer(in_features, "in_features", low=1)
        self.out_features = m = _checks.integer(out_features, "out_features", low=1)
        self.rank = r = _checks.rank(rank, m, n)
        new = {"device": device, "dtype": dtype}
        self.left = nn.Parameter(torch.empty(m, r, **new))  # type: ignore[arg-type]
        self.core = nn.Parameter(torch.empty(r, r, **new)) if core else None  # type: ignore[arg-type]
        self.right = nn.Parameter(torch.empty(r, n, **new))  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.empty(m, **new)) if bias else None  # type: ignore[arg-type]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the factors anew, by torch's global generator."""
        m, n, r = self.out_features, self.in_features, self.rank
        # r var(u) var(v) = 1 / (3 n) and m var(u) = n var(v); uniform(-a, a) has variance a^2 / 3
        product = 1 / (3 * n * r)
        nn.init.uniform_(self.left, -(bound := math.sqrt(3 * math.sqrt(product * n / m))), bound)
        nn.init.uniform_(self.right, -(bound := math.sqrt(3 * math.sqrt(product * m / n))), bound)
        if self.core is not None:
            square = torch.empty(r, r, device=self.core.device)  # half precision has no QR
            self.core.data.copy_(nn.init.orthogonal_(square))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(bound := 1 / math.sqrt(n)), bound)

    def forward(self, input: Tensor) -> Tensor:
        """(..., n) -> (..., m), through the r-dimensional bottleneck."""
        z = nn.functional.linear(input, self.right)  # (..., r)
        if self.core is not None:
            z = nn.functional.linear(z, self.core)  # (..., r)
        return nn.functional.linear(z, self.left, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for old, new in {"U": "left", "Vh": "right"}.items():  # names in files of before 0.2
            if prefix + old in state_dict:
                state_dict[prefix + new] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def weight(self) -> Tensor:
        """The dense product left core right, (m, n)."""
        left = self.left if self.core is None else self.left @ self.core
        return (left @ self.right).as_subclass(Product)

    @classmethod
    @torch.no_grad()
    def from_factors(
        cls, left: Tensor, right: Tensor, bias: Tensor | None = None, *, core: Tensor | None = None
    ) -> Self:
        r"""The layer with these factors, copied: W = left right, or left core right.

        Args:
            left: (m, r).
            right: (r, n).
            bias: (m,) or None.
            core: (r, r) or None.

        Raises:
            TypeError: If a factor is no floating tensor.
            ValueError: If a factor is not finite or the shapes do not fit.
        """
        left, right = _checks.matrix(left, "left"), _checks.matrix(right, "right")
        (m, r), n = left.shape, right.shape[1]
        fits = right.shape[0] == r and (bias is None or bias.shape == (m,))
        if not fits or (core is not None and core.shape != (r, r)):
            shapes = [None if t is None else tuple(t.shape) for t in (left, core, right, bias)]
            limit = "(m, r), (r, r), (r, n), (m,)"
            raise ValueError(f"(left, core, right, bias) of shapes {shapes} must be {limit}")
        given = {"left": left, "core": core, "right": right, "bias": bias}
        given = {name: None if t is None else t.to(left) for name, t in given.items()}
        return holding(cls, n, m, r, bias=bias is not None, core=core is not None, parameters=given)

    @classmethod
    def from_linear(cls, linear: nn.Linear, rank: int, *, core: bool = False) -> Self:
        r"""The layer whose weight is the truncated SVD of ``linear.weight``; the bias is copied.

        left = U_r S_r^1/2 and right = S_r^1/2 Vh_r; with a core U_r, diag(S_r) and Vh_r. What is frozen stays
        frozen.

        Args:
            linear: Layer with weight (m, n); it is not changed.
            rank: r, from 1 to min(m, n).
            core: Whether to keep diag(S_r) as an r x r core.

        Raises:
            TypeError: If ``linear`` is no ``nn.Linear`` or ``rank`` no integer.
            ValueError: If ``rank`` is out of range or the weight is not finite.

        Reference:
            Denton et al. 2014.

        Example:
            >>> dense = nn.Linear(6, 4)
            >>> torch.allclose(LowRankLinear.from_linear(dense, 4).weight, dense.weight, atol=1e-6)
            True
        """
        if not isinstance(linear, nn.Linear):
            _checks.type_error("linear", linear, "an nn.Linear")
        if core:
            U, S, Vh = truncated_svd(linear.weight, rank)
            layer = cls.from_factors(U, Vh, linear.bias, core=S.to(U.dtype).diag())
        else:
            W = _checks.matrix(linear.weight)
            A, B = balanced_factors(W, _checks.rank(rank, *W.shape))
            layer = cls.from_factors(A, B, linear.bias)
        return frozen_as(linear, layer).train(linear.training)

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """The dense ``nn.Linear`` with the same weight and bias, as a copy; frozen if all factors are."""
        return frozen_as(self, linear_of(self.weight, self.bias)).train(self.training)

    @torch.no_grad()
    def to_sequential(self) -> nn.Sequential:
        """The factors as plain ``nn.Linear``, n to r and r to m, for tools that know no other, as a copy.

        A core stands between them, as a layer r to r.
        """
        factors = [self.right, self.left] if self.core is None else [self.right, self.core, self.left]
        layers = []
        for W in factors:
            layers.append(linear_of(W, self.bias if W is self.left else None))
            layers[-1].weight.requires_grad_(W.requires_grad)
        if self.bias is not None:
            layers[-1].bias.requires_grad_(self.bias.requires_grad)
        return nn.Sequential(*layers).train(self.training)

    @torch.enable_grad()  # so that the product says whether one of the two is trained
    def collapse(self) -> Self:
        """A copy without core, folded into left: (left core) right is the same W, r^2 numbers fewer."""
        left = self.left if self.core is None else self.left @ self.core
        layer = frozen_as(self, type(self).from_factors(left, self.right, self.bias))
        layer.left.requires_grad_(left.requires_grad)
        layer.right.requires_grad_(self.right.requires_grad)
        return layer.train(self.training)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"
        return f"{sizes}, bias={self.bias is not None}, core={self.core is not None}"
