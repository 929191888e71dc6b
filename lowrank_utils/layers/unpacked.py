"""Multi-head attention whose four projections are plain linear layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowrank_utils import _checks
from lowrank_utils.layers.fused import PLAIN

PACKED = (
    "in_proj_weight",
    "q_proj_weight",
    "k_proj_weight",
    "v_proj_weight",
    "in_proj_bias",
    "bias_k",
    "bias_v",
)


class UnpackedAttention(nn.Module):
    r"""Attention in h heads, softmax(q k^T / sqrt(E / h)) v, whose four projections are layers.

    The outputs and attention weights of the nn.MultiheadAttention that it is made from, by plain
    nn.Linear layers ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``, each of which can be replaced.
    It has no packed weight, so no fused operator of torch goes past them.

    Args:
        attention: The packed module; it is not changed, and no storage is shared.

    Shape:
        As nn.MultiheadAttention.

    Raises:
        TypeError: If ``attention`` is no nn.MultiheadAttention with weights of its own.

    Reference:
        Vaswani et al. 2017.

    Example:
        >>> attention = nn.MultiheadAttention(8, 2)
        >>> x = torch.randn(5, 1, 8)
        >>> torch.allclose(UnpackedAttention(attention)(x, x, x)[0], attention(x, x, x)[0], atol=1e-6)
        True
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module
    bias_k: Tensor | None
    bias_v: Tensor | None
    # what torch's encoder layer asks its attention for, and then does not fuse it
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        reason = why_not(attention)
        if reason:
            _checks.type_error("attention", attention, f"a plain nn.MultiheadAttention; {reason}")
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        self.head_dim, self.kdim, self.vdim = attention.head_dim, attention.kdim, attention.vdim
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        self.add_zero_attn = attention.add_zero_attn
        E, bias = attention.embed_dim, attention.in_proj_bias
        for i, letter in enumerate("qkv"):
            rows = slice(i * E, (i + 1) * E)  # of what is packed
            if attention.in_proj_weight is not None:
                weight = _part(attention.in_proj_weight, rows)
            else:
                weight = _part(getattr(attention, f"{letter}_proj_weight"))
            self.add_module(f"{letter}_proj", _linear(weight, None if bias is None else _part(bias, rows)))
        out = attention.out_proj
        self.out_proj = _linear(_part(out.weight), None if out.bias is None else _part(out.bias))
        for name in ("bias_k", "bias_v"):
            own = getattr(attention, name)
            self.register_parameter(name, None if own is None else _part(own))
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention."""
        if query.is_nested:
            _checks.value_error("query", "a nested tensor", "padded; unpack the whole nn.TransformerEncoder")
        if is_causal and attn_mask is None:
            _checks.value_error("attn_mask", None, "the causal mask where is_causal=True says that it is one")
        batched, first = query.dim() == 3, self.batch_first
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if not batched:
            q, k, v = q[None], k[None], v[None]
        elif not first:
            q, k, v = (t.transpose(0, 1) for t in (q, k, v))  # (N, L, E), (N, S, E), (N, S, E)
        hinted = is_causal and key_padding_mask is None and not need_weights  # then torch takes the hint
        mask = None if hinted else self._mask(attn_mask, key_padding_mask, q, k)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], 1)
        if self.add_zero_attn:
            k, v = (torch.cat([t, t.new_zeros(len(t), 1, t.shape[2])], 1) for t in (k, v))
        if mask is not None and mask.shape[3] < k.shape[1]:
            mask = F.pad(mask, (0, k.shape[1] - mask.shape[3]))  # the added positions are seen by all
        q, k, v = map(self._heads, (q, k, v))  # (N, h, L, E / h), (N, h, S, E / h), (N, h, S, E / h)
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(2, 3)  # (N, h, L, S)
            if mask is not None:
                scores = scores + mask
            weights = F.dropout(scores.softmax(3), self.dropout, self.training)
            heads = weights @ v  # (N, h, L, E / h)
            if average_attn_weights:
                weights = weights.mean(1)
        else:
            drop = self.dropout if self.training else 0.0
            heads = F.scaled_dot_product_attention(q, k, v, mask, drop, is_causal=hinted)
        if first and batched and not self.training:
            return self.out_proj(heads.transpose(1, 2).flatten(2)), weights  # (N, L, E)
        # in the order of torch's in memory, in which a dropout that follows draws
        y = self.out_proj(heads.permute(2, 0, 1, 3).flatten(2))  # (L, N, E)
        if not batched:
            return y[:, 0], None if weights is None else weights[0]
        return y.transpose(0, 1) if first else y, weights

    def _heads(self, x: Tensor) -> Tensor:
        N, L, _ = x.shape
        return x.reshape(N, L, self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """What is added to the scores (N, h, L, S): as many axes, some of them 1."""
        (N, L, _), S, h = q.shape, k.shape[1], self.num_heads
        total = None
        if attn is not None:
            if attn.shape not in ((L, S), (N * h, L, S)):
                _checks.value_error("attn_mask", attn, f"of shape {(L, S)} or {(N * h, L, S)}")
            total = _added(attn, "attn_mask", q.dtype).view(-1, 1 if attn.dim() == 2 else h, L, S)
        if padding is not None:
            if padding.shape != (N, S) and (N > 1 or padding.shape != (S,)):
                _checks.value_error("key_padding_mask", padding, f"of shape {(N, S)}")
            padding = _added(padding, "key_padding_mask", q.dtype).view(N, 1, 1, S)
            total = padding if total is None else total + padding
        return total

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, batch_first={self.batch_first}"


def why_not(attention: object) -> str:
    """Why an attention cannot be taken apart; nothing if it can."""
    if type(attention) is not nn.MultiheadAttention:
        return f"its class is {type(attention).__name__}"
    out = attention.out_proj
    own = all(getattr(attention, name) is attention._parameters.get(name) for name in PACKED)
    whole = all(getattr(out, name, None) is out._parameters.get(name) for name in ("weight", "bias"))
    if not own or not whole or type(out) not in PLAIN:
        return "its weights are pruned, parametrised or replaced"
    return ""


def _added(mask: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add: -inf where a bool mask is True."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)
    if not mask.is_floating_point():
        _checks.type_error(name, mask, "of dtype bool or a floating one")
    return mask.to(dtype)


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    """nn.Linear with these."""
    m, n = weight.shape
    linear = nn.Linear(n, m, bias is not None, device="meta")
    linear.weight = weight
    linear.register_parameter("bias", bias)
    return linear


def _part(tensor: Tensor, rows: slice = slice(None)) -> nn.Parameter:
    """A copy of some rows, trained if the whole is."""
    return nn.Parameter(tensor.detach()[rows].clone(), tensor.requires_grad)
