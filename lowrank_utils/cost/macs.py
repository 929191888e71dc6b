r"""The exact number of multiply-adds of a forward or a backward pass, read off its operators.

A counter that knows layers misses what is no layer; one that knows fused kernels must know them all.
Here the model runs with fused paths off, so that everything falls apart into a dozen products.
"""

from __future__ import annotations

import collections
import contextlib
import random
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lowrank_utils import _checks
from lowrank_utils.cost.operators import LEFT, macs_of, may_hide_products, reckons
from lowrank_utils.cost.owners import Owners
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import fused_paths_off


class Tally(TorchDispatchMode):
    """Adds up the products by owner; an operator that is made of others is taken apart first."""

    supports_higher_order_operators = True  # flex_attention is one

    def __init__(self, owners: Owners) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owners = owners
        self.macs = collections.Counter[str]()  # {layer: multiply-adds}
        self.unknown = collections.Counter[str]()  # {operator: calls}: it may hide products
        self.free = collections.Counter[str]()  # {operator: calls}: it computes, and counts 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        space, _, name = func.name().rpartition("::")  # aten, addmm_.out; flex_attention has no space
        name = name.split(".")[0].rstrip("_")  # addmm_ is addmm in place
        if name not in LEFT and hasattr(func, "decompose"):
            with self:  # under inference_mode composites arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        node = torch._C._current_autograd_node()
        macs = None
        if space in ("aten", ""):
            macs = macs_of(name, args, out, "" if node is None else node.name())
        if macs is not None:
            self.macs[self.owners.current(node)] += macs
        elif may_hide_products(space, name):
            self.unknown[func.name()] += 1
        elif _is_float(out) and reckons(name) and not getattr(func, "is_view", False):
            self.free[name] += 1
        return out


def _is_float(out: Any) -> bool:
    return any(isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex()) for t in tree_leaves(out))


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Every random generator put back whatever happens."""
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count() if used else 0)))
        yield


@contextlib.contextmanager
def compiled_paths_off() -> Iterator[None]:
    """What torch.compile made runs as it was before."""
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextlib.contextmanager
def _undisturbed(backward: bool) -> Iterator[None]:
    """Fused and compiled paths off, and every flag and generator put back whatever happens."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(fused_paths_off())
        stack.enter_context(generators_kept())
        stack.enter_context(compiled_paths_off())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if backward:  # a fused recurrent layer has a fused backward
            stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@contextlib.contextmanager
def gradients() -> Iterator[None]:
    """Gradients on, also within no_grad and inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def differentiable(outputs: Any) -> list[Tensor]:
    """The tensors of an output, or of tuples, lists and dicts of them, that have a gradient."""
    tensors = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    if not tensors:
        limit = "False, or the model must return a tensor (or tuples, lists, dicts of them) with a gradient"
        _checks.value_error("backward", True, limit)
    return tensors


def tally(model: nn.Module, inputs: tuple[Any, ...], *, backward: bool, by_layer: bool) -> Tally:
    """Count one forward, or the backward of its outputs, on a deep copy of everything."""
    with gradients() if backward else torch.no_grad():
        model, inputs = copied((_checks.module(model), inputs))
        owners = Owners(model if by_layer or backward else nn.Module())
        counter = Tally(owners)
        with _undisturbed(backward):
            if backward:
                outputs = differentiable(model(*inputs))
                seeds = [torch.ones_like(y) for y in outputs]
                with counter:
                    torch.autograd.backward(outputs, seeds)
            else:
                with counter:
                    model(*inputs)
    for part in model.modules():  # optimize_for_inference hides convolutions from the dispatcher
        hidden = re.findall(r"prim::(?:mkldnn|MKLDNN)\w+", str(getattr(part, "inlined_graph", "")))
        counter.unknown.update(hidden)
    return counter


def count_macs(model: nn.Module, *inputs: Any, backward: bool = False) -> int:
    r"""Multiply-adds of one forward of ``model`` on ``inputs``, the whole batch: FLOPs = 2 x MACs.

    What counts is every product that sums: y_ij = sum_k a_ik b_kj of (n, k) and (k, p) is nkp,
    whichever layer, function or operator asks for it, and as often as it is run. Conventions:

    - A convolution is (numbers out) x kernel x c_in / groups, padding included; a transposed one is
      (numbers in) x kernel x c_out / groups.
    - Attention is the full dense product: masks, causality and padding save nothing.
    - Bias, activations, softmax, norms, elementwise products, lookups and FFTs count 0. So does a
      product that is written elementwise, as in ``(W * x).sum(-1)``: ``cost_by_layer`` lists what was free.

    With ``backward=True`` it is the backward pass alone, as autograd runs it: a product Y = X W^T costs one
    product for dL/dX = dL/dY W and one for dL/dW = (dL/dY)^T X, each where something before it requires a
    gradient. So a first layer costs its forward once, a layer further in twice, and a frozen one once. A
    training step is the sum of both passes; what the optimizer does is not in it.

    It runs the forward as the model stands (train or eval), on a deep copy of model and inputs: buffers,
    weights, gradients, hooks, inputs, flags and generators are as before, also when the forward raises. A
    hook that writes outside of the model still does. A model on the meta device counts without computing.

    A ``torch.compile``d model is counted as the eager one. A scripted or traced one counts like any other,
    but an encoder scripted in eval mode and given a padding mask raises torch's error (nested tensors). An
    operator that may hide products (quantized, sparse, custom, a matrix inverse or decomposition) counts 0,
    with a warning that names it.

    Args:
        model: Any module that can be copied; it is not changed.
        *inputs: What to call it with: tensors, or nested tuples, lists and dicts of them.
        backward: Count the backward pass of the sum of all outputs, and not the forward.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``, or holds what cannot be copied (a lock, a file).
        ValueError: If ``backward`` is asked of a model whose output has no gradient.

    Example:
        >>> count_macs(nn.Linear(4, 10), torch.zeros(120, 4))
        4800
        >>> count_macs(nn.MultiheadAttention(8, 2), *3 * (torch.zeros(5, 1, 8),))  # 4 L e^2 + 2 L^2 e
        1680
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
        >>> count_macs(net, torch.zeros(1, 4), backward=True)  # 4 x 10 + 2 x (10 x 3)
        100
    """
    counter = tally(model, inputs, backward=backward, by_layer=False)
    if counter.unknown:
        names = ", ".join(sorted(counter.unknown))
        warnings.warn(f"count_macs has no formula for {names}: counted as 0", stacklevel=2)
    return counter.macs.total()
