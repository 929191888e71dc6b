"""Models whose attention is made of layers: packed projections taken apart."""

from __future__ import annotations

import warnings
from collections import Counter

import torch
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied, take_over
from lowrank_utils.layers.fused import leave_fused_path
from lowrank_utils.layers.unpacked import UnpackedAttention, why_not


def unpack_attention(model: nn.Module) -> nn.Module:
    r"""A copy of ``model`` in which every nn.MultiheadAttention has plain linear layers for its projections.

    A packed weight holds three matrices in one tensor, and torch multiplies by it without calling a layer:
    nothing there can be replaced. The copy's outputs are the model's, with masks, in training and in eval.
    Torch's fused encoder layers, which read their parts' weights in eval, call the parts of the copy.
    A module that appears twice is unpacked once. An attention whose weights are pruned, parametrised or
    shared with another layer, or whose class is another, is left as it is, with a warning that names it.

    Args:
        model: Any module; it is not changed.

    Returns:
        A new model that shares no storage with the old one.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.

    Reference:
        Vaswani et al. 2017.

    Example:
        >>> encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
        >>> unpack_attention(encoder).self_attn
        UnpackedAttention(
          embed_dim=8, num_heads=2, batch_first=True
          (q_proj): Linear(in_features=8, out_features=8, bias=True)
          (k_proj): Linear(in_features=8, out_features=8, bias=True)
          (v_proj): Linear(in_features=8, out_features=8, bias=True)
          (out_proj): Linear(in_features=8, out_features=8, bias=True)
        )
    """
    made = copied(_checks.module(model))
    owners = Counter(id(p) for module in made.modules() for p in module.parameters(recurse=False))
    new: dict[nn.Module, nn.Module] = {}
    left: list[str] = []
    for name, module in made.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            reason = why_not(module)
            if not reason and any(owners[id(p)] > 1 for p in module.parameters()):
                reason = "it shares a weight with another layer"
            if reason:
                left.append(f"{name or 'the model'} ({reason})")
            else:
                with torch.inference_mode(False):  # parameters that are made in it can never be trained
                    new[module] = UnpackedAttention(module)
                take_over(module, new[module])
    if left:
        warnings.warn(f"attention left as it is: {', '.join(left)}", stacklevel=2)
    for parent in list(made.modules()):
        for name, child in parent._modules.items():
            if child in new:
                parent._modules[name] = new[child]
    made = new.get(made, made)
    leave_fused_path(made)
    return made
