"""Torch's fused encoder layer: it reads its parts' weights, runs none of the parts, and so must be left.

In eval without gradients, nn.TransformerEncoderLayer hands ``linear1.weight``, ``self_attn.in_proj_weight``
and so on to one operator. A low-rank part is then not called: its dense product is built and multiplied.
And nn.TransformerEncoder drops the padded positions before its layers, which only that operator needs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

FLAGS = threading.RLock()  # torch's flags are everybody's: one watcher at a time
READ = ("linear1", "linear2", "self_attn")  # the parts whose weights the operator reads
PLAIN = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.MultiheadAttention)


class PaddedEncoder(nn.TransformerEncoder):
    """nn.TransformerEncoder whose layers see padded positions too; they are blanked after, as torch does."""

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As nn.TransformerEncoder: where that drops padded positions, they end as zeros, then normed."""
        output: Tensor = super().forward(src, mask, src_key_padding_mask, is_causal)
        if src_key_padding_mask is None or mask is not None or not self._drops_padding(src):
            return output
        padded = src_key_padding_mask
        if padded.is_floating_point():
            padded = padded != 0
        if self.mask_check and not torch._nested_tensor_from_mask_left_aligned(src, ~padded):
            return output
        blank = torch.zeros_like(output[:1, :1])
        if self.norm is not None:
            blank = self.norm(blank)
        return torch.where(padded[..., None], blank, output)

    def _drops_padding(self, src: Tensor) -> bool:
        """Torch's own conditions, but for those of the mask."""
        first = self.layers[0]
        watched = torch.is_grad_enabled() and any(t.requires_grad for t in (src, *first.parameters()))
        fused = torch.backends.mha.get_fastpath_enabled() and not torch.is_autocast_enabled()
        return fused and src.dim() == 3 and not first.training and not watched


def leave_fused_path(model: nn.Module) -> None:
    """Keep torch from fusing the encoder layers of ``model`` that have a part of ours; changed in place.

    An nn.TransformerEncoderLayer is fused only if its activation is known to be relu or gelu; the flag that
    says so is read for nothing else, and is unset. Outputs stay what they were, also at padded positions.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.TransformerEncoderLayer) and _has_other_parts(module):
            module.activation_relu_or_gelu = 0
    for module in list(model.modules()):
        if type(module) is nn.TransformerEncoder and module.use_nested_tensor:
            if any(_has_other_parts(layer) for layer in module.layers):
                module.use_nested_tensor = False
                module.__class__ = PaddedEncoder


def _has_other_parts(layer: nn.Module) -> bool:
    """Whether a part that the operator would read, and not call, is none of torch's."""
    parts = [getattr(layer, name, None) for name in READ]
    parts.append(getattr(getattr(layer, "self_attn", None), "out_proj", None))
    return any(part is not None and type(part) not in PLAIN for part in parts)


@contextmanager
def plainly() -> Iterator[None]:
    """Every layer is called, and computes in its own dtype, whatever the caller has turned on around."""
    card = torch.accelerator.current_accelerator(check_available=True)
    with ExitStack() as stack:
        for kind in sorted({"cpu", "cpu" if card is None else card.type}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(fused_paths_off())
        yield


@contextmanager
def fused_paths_off() -> Iterator[None]:
    """Every layer is called for a while; torch's flag is put back whatever happens."""
    with FLAGS:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
