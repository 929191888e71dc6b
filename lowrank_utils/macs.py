r"""The exact number of multiply-adds of a forward pass, read off the operators that it dispatches.

A counter that knows layers misses what is no layer; one that knows fused kernels must know them all.
Here the forward runs with fused paths off, so that everything falls apart into a dozen products.
"""

from __future__ import annotations

import contextlib
import copy
import random
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lowrank_utils import _checks

# position of the left factor (..., k) of a product: each number that comes out took k multiply-adds
_LEFT = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "_int_mm": 0, "linear": 0, "mkldnn_linear": 0}
_LEFT |= {"addmm": 1, "baddbmm": 1, "addmv": 1, "_addmm_activation": 1}
_ATTENTION = re.compile(r"flex_attention|_scaled_dot_product_\w*attention(_\w+)?(?<!_backward)")
_RNN = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"}
# what looks like a product but has no formula here, such as int4 and sparse kernels, or a backward
_PRODUCT = re.compile(
    r"(^|_)(\w*mm|conv(\dd)?|convolution|attention|matmul|cdist|quantized_gru|quantized_lstm|lstm_mps)(_|$)"
    r"|(rnn|linear)\w*_backward"
)
_PLAIN = {"aten", "prim", "prims", "profiler"}  # name spaces without products but those
_FLAGS = threading.RLock()  # two counts at a time would put back each other's flags


def _macs(name: str, args: tuple[Any, ...], out: Any) -> int | None:
    """Multiply-adds of the operator aten::``name``, or None where it is none of the products."""
    if name in _LEFT:
        return int(out.numel() * args[_LEFT[name]].shape[-1])
    if name in ("convolution", "_convolution"):  # (x, weight, bias, stride, pad, dilation, transposed)
        x, weight, transposed = args[0], args[1], args[6]
        return int((x if transposed else out).numel() * weight[0].numel())
    if name == "addbmm":  # out (n, p) += sum_b x[b] (n, k) y[b] (k, p)
        return int(out.numel() * args[1].shape[-1] * args[1].shape[0])
    if name == "addr":  # out (n, p) += x (n,) y (p,)
        return int(out.numel())
    if name == "conv_tbc":  # weight (width, c_in, c_out)
        return int(out.numel() * args[1].shape[:2].numel())
    if name == "_trilinear":  # nn.Bilinear: x W_o for each o of weight (o, k, l), then that times y
        return int(out.numel() * (args[1].shape[1] + 1) * args[1].shape[2])
    if name in _RNN:  # every weight meets every token once
        weights = args[1] if isinstance(args[1], list | tuple) else args[1:5]
        tokens = args[0].numel() // args[0].shape[-1]
        return int(tokens * sum(w.numel() for w in weights if w.ndim == 2))
    # fused attention, where the model itself insists on it, or is scripted
    if _ATTENTION.fullmatch(name):
        q, k, v = args[:3]  # (..., L, e), (..., S, e), (..., S, f)
        return int(q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    if name == "_native_multi_head_attention":  # (B, L, e), (B, S, e), (B, S, e), e
        q, k, v, width = args[:4]
        return int((2 * q.numel() + k.numel() + v.numel()) * width + 2 * q.numel() * k.shape[1])
    if name == "_transformer_encoder_layer_fwd":  # (B, L, e), e, ..., the weights of the two linears
        x, width, feed = args[0], args[1], args[14].numel() + args[16].numel()
        return int(x.numel() * (4 * width + 2 * x.shape[1]) + x.numel() // width * feed)
    return None


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the products; an operator that is made of others is taken apart first."""

    supports_higher_order_operators = True  # flex_attention is one

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        space, _, name = func.name().rpartition("::")  # aten, addmm_.out; flex_attention has no space
        name = name.split(".")[0].rstrip("_")  # addmm_ is addmm in place
        if name not in _LEFT and hasattr(func, "decompose"):
            with self:  # under inference_mode composites arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        macs = _macs(name, args, out) if space in ("aten", "") else None
        self.macs += macs or 0
        if macs is None and (space not in _PLAIN or _PRODUCT.search(name)):
            self.unknown.add(func.name())
        return out


class _Detached(TorchFunctionMode):
    """Lets deepcopy copy a tensor with a history too, such as the one weight_norm leaves behind."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[1].setdefault(id(args[0]), args[0].detach().clone())
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Fused and compiled paths off, and every flag and generator put back whatever happens."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_FLAGS)
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count() if used else 0)))
        mha = torch.backends.mha
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def count_macs(model: nn.Module, *inputs: Any) -> int:
    r"""Multiply-adds of one forward of ``model`` on ``inputs``, the whole batch: FLOPs = 2 x MACs.

    What counts is every product that sums: y_ij = sum_k a_ik b_kj of (n, k) and (k, p) is nkp,
    whichever layer, function or operator asks for it, and as often as it is run. Conventions:

    - A convolution is (numbers out) x kernel x c_in / groups, padding included; a transposed one is
      (numbers in) x kernel x c_out / groups.
    - Attention is the full dense product: masks, causality and padding save nothing.
    - Bias, activations, softmax, norms, elementwise products, lookups and FFTs count 0.

    It runs the forward as the model stands (train or eval), on a deep copy of model and inputs and
    without gradients: buffers, weights, hooks, inputs, flags and generators are as before, also when
    the forward raises. A hook that writes outside of the model still does. A model on the meta device
    counts without computing anything.

    A ``torch.compile``d model is counted as the eager one. A scripted or traced one counts like any other,
    but an encoder scripted in eval mode and given a padding mask raises torch's error (nested tensors). An
    operator that may hide products (quantized, sparse, custom) counts 0, with a warning that names it.

    Args:
        model: Any module that can be copied; it is not changed.
        *inputs: What to call it with: tensors, or nested tuples, lists and dicts of them.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``, or holds what cannot be copied (a lock, a file).

    Example:
        >>> count_macs(nn.Linear(4, 10), torch.zeros(120, 4))
        4800
        >>> count_macs(nn.MultiheadAttention(8, 2), *3 * (torch.zeros(5, 1, 8),))  # 4 L e^2 + 2 L^2 e
        1680
    """
    with _Detached():
        model, inputs = copy.deepcopy((_checks.module(model), inputs))
    with _undisturbed(), torch.no_grad(), (counter := _Counter()):
        model(*inputs)
    for part in model.modules():  # optimize_for_inference hides convolutions from the dispatcher
        hidden = re.findall(r"prim::(?:mkldnn|MKLDNN)\w+", str(getattr(part, "inlined_graph", "")))
        counter.unknown.update(hidden)
    if counter.unknown:
        names = ", ".join(sorted(counter.unknown))
        warnings.warn(f"count_macs has no formula for {names}: counted as 0", stacklevel=2)
    return counter.macs
