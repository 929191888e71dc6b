"""Chapter 5: FLOPs of a batch, a rank that saves bytes, and counters with one slip each."""

import contextlib
import copy
import math

import numpy as np
import torch
from torch import nn

from answers import right, wrong
from lowrank_utils import LowRankLinear, break_even_rank, count_macs

MACS = 4 * 2 + 2 * 2 + 2 * 10 + 10 * 3
LAYERS = (nn.Linear, LowRankLinear)


def by_input(inputs, output, layer):
    return inputs[0].numel() // layer.in_features


def size(layer):
    """Numbers in the matrices of a layer."""
    factored = isinstance(layer, LowRankLinear)
    matrices = [layer.left, layer.core, layer.right] if factored else [layer.weight]
    return sum(W.numel() for W in matrices if W is not None)


def trained(layer):
    """Of these, the ones that a step would move."""
    return size(layer) * all(p.requires_grad for p in layer.parameters())


def by_type(layer):
    """A class made from one of the two is none of them."""
    return size(layer) * (type(layer) in LAYERS)


def counter(
    *,
    keep=False,
    guard=True,
    rows=by_input,
    kinds=LAYERS,
    numbers=size,
    names="unique",
    back=int,
    before=None,
):
    """A reader's counter; each argument builds one slip in."""

    def my_macs(model, x):
        counts = []

        def hook(layer, inputs, output):
            counts.append(rows(inputs, output, layer) * numbers(layer))

        found = (
            model.modules()
            if names == "unique"
            else [m for _, m in model.named_modules(remove_duplicate=False)]
        )
        handles = [m.register_forward_hook(hook) for m in found if isinstance(m, kinds)]
        if before:
            before(model)
        try:
            model(x)
        except RuntimeError:
            if not guard:
                handles = []
            raise
        finally:
            for handle in () if keep else handles:
                handle.remove()
        return back(sum(counts))

    return my_macs


def by_pre_hooks(keep):
    """Counts before the layer runs."""

    def my_macs(model, x):
        counts = []

        def hook(layer, inputs):
            counts.append(by_input(inputs, None, layer) * size(layer))

        handles = [m.register_forward_pre_hook(hook) for m in model.modules() if isinstance(m, LAYERS)]
        try:
            model(x)
        finally:
            for handle in () if keep else handles:
                handle.remove()
        return sum(counts)

    return my_macs


def by_global_hook(keep, pre=False):
    """One hook for all modules of the process."""

    def my_macs(model, x):
        counts = []

        def hook(layer, inputs, output=None):
            if isinstance(layer, LAYERS):
                counts.append(by_input(inputs, output, layer) * size(layer))

        torch_module = nn.modules.module
        register = (
            torch_module.register_module_forward_pre_hook
            if pre
            else torch_module.register_module_forward_hook
        )
        handle = register(hook)
        try:
            model(x)
        finally:
            if not keep:
                handle.remove()
        return sum(counts)

    return my_macs


def on_a_copy(model, x):
    """Leaves its hooks, but on a copy that is thrown away."""
    return counter(keep=True)(copy.deepcopy(model), x)


def replaced_forward(model, x):
    """What flopth does: nn.Linear is changed for the whole process."""
    counts, forward = [], nn.Linear.forward

    def counting(layer, rows):
        counts.append(rows.numel() // layer.in_features * size(layer))
        return forward(layer, rows)

    nn.Linear.forward = counting
    factored = counter(kinds=LowRankLinear)(model, x)
    return sum(counts) + factored


def replaced_call(kind):
    """What flopth does, through the call."""

    def my_macs(model, x):
        total, call = counter()(model, x), kind.__call__
        kind.__call__ = lambda layer, *args: call(layer, *args)
        return total

    return my_macs


def once_a_layer(model, x):
    """A dictionary holds one count for each layer."""
    counts = {}

    def hook(layer, inputs, output):
        counts[layer] = by_input(inputs, output, layer) * size(layer)

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, LAYERS)]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts.values())


def children_only(model, x):
    """The layers of the first level, or the model itself."""
    counts = []

    def hook(layer, inputs, output):
        counts.append(by_input(inputs, output, layer) * size(layer))

    handles = [m.register_forward_hook(hook) for m in [model, *model.children()] if isinstance(m, LAYERS)]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)


def from_bias(layer):
    """The number of outputs, read from a bias that may be missing."""
    return size(layer) if isinstance(layer, LowRankLinear) else layer.in_features * len(layer.bias)


def own_forward(model, x):
    """Leaves a forward of its own on each layer."""
    total = counter()(model, x)
    for m in model.modules():
        m.forward = m.forward
    return total


def with_buffers(model, x):
    for m in model.modules():
        m.register_buffer("flops", torch.zeros(1))
    return counter()(model, x)


def with_attributes(model, x):
    for m in model.modules():
        m.macs = 0
    return counter()(model, x)


def in_eval_mode(model, x):
    return counter()(model.eval(), x)


def without_forward(model, x):
    """Reads the layers, and never runs them."""
    return sum(size(m) for m in model.modules() if isinstance(m, LAYERS)) * x[..., 0].numel()


def fills_input(model, x):
    x += 1
    return counter()(model, x)


def swallows(model, x):
    """Answers 0 where the model raises, and leaves nothing."""
    try:
        return counter()(model, x)
    except RuntimeError:
        return 0


def core_forgotten(layer):
    return size(layer) - (layer.core.numel() if getattr(layer, "core", None) is not None else 0)


def bias_counted(layer):
    return size(layer) + layer.out_features


def dense_size(layer):
    return layer.in_features * layer.out_features


def backward_pre_hooks_left(model, x):
    for m in model.modules():
        m.register_full_backward_pre_hook(lambda *a: None)
    return counter()(model, x)


def backward_hooks_left(model, x):
    for m in model.modules():
        m.register_full_backward_hook(lambda *a: None)
    return counter()(model, x)


def all_matrices(model, x):
    """Every matrix of every module, at each row that comes out: an embedding's table, too."""
    counts = []

    def hook(module, inputs, output):
        numbers = sum(p.numel() for p in module.parameters(recurse=False) if p.ndim == 2)
        counts.append(output.numel() // output.shape[-1] * numbers)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)


def by_exit_stack(model, x):
    """The handles close themselves."""
    counts = []
    with contextlib.ExitStack() as stack:
        for m in model.modules():
            if isinstance(m, LAYERS):
                hook = m.register_forward_hook(lambda m, i, o: counts.append(by_input(i, o, m) * size(m)))
                stack.enter_context(hook)
        model(x)
    return sum(counts)


def gradients_off(model, x):
    torch.set_grad_enabled(False)
    return counter()(model, x)


ANSWERS = [
    right("5.1", "integer", 2 * 32 * MACS),
    right("5.1", "float", 3968.0),
    right("5.1", "numpy", np.int64(3968)),
    right("5.1", "tensor", torch.tensor(3968.0)),
    wrong("5.1", "MACs", 32 * MACS, "MACs"),
    wrong("5.1", "one sample", 2 * MACS, "one sample"),
    wrong("5.1", "MACs of one sample", MACS, "MACs of one sample"),
    wrong("5.1", "core forgotten", 2 * 32 * (MACS - 4), "2 x 2 core"),
    wrong("5.1", "biases added", 2 * 32 * MACS + 32 * 17, "bias is already in"),
    wrong("5.1", "n - 1 additions", 2 * 32 * MACS - 32 * 17, "the n-th"),
    wrong("5.1", "ReLU counted", 2 * 32 * MACS + 320, "activation"),
    wrong("5.1", "dense net", 2 * 32 * 70, "dense Net"),
    wrong("5.1", "parameters", 2 * 32 * (MACS + 17), "parameters"),
    wrong("5.1", "guess", 1, "1 is not it"),
    wrong("5.1", "half", 3968.5, "integer"),
    wrong("5.1", "text", "3968", "the text"),
    wrong("5.1", "nan", math.nan, "not nan"),
    right("5.2", "integer", 20),
    right("5.2", "float", 20.0),
    right("5.2", "numpy", np.uint8(20)),
    right("5.2", "tensor", torch.tensor([20])),
    wrong("5.2", "break-even", break_even_rank(32, 64), "one more tensor"),
    wrong("5.2", "break-even, not rounded", 2048 / 96, "not 21.3333"),
    wrong("5.2", "with a core", break_even_rank(32, 64, core=True), "core"),
    wrong("5.2", "one too few", 19, "larger rank"),
    wrong("5.2", "small", 3, "larger rank"),
    wrong("5.2", "too large", 22, "larger there"),
    wrong("5.2", "full rank", 32, "larger there"),
    wrong("5.2", "zero", 0, "from 1 to 32"),
    wrong("5.2", "beyond full rank", 33, "from 1 to 32"),
    wrong("5.2", "numbers to save", 324, "from 1 to 32, not 324"),
    wrong("5.2", "text", "abc", "integer"),
    wrong("5.2", "nan", math.nan, "not nan"),
    right("5.3", "forward hooks", counter()),
    right("5.3", "rows of the output", counter(rows=lambda i, o, layer: o.numel() // layer.out_features)),
    right("5.3", "pre-hooks, removed", by_pre_hooks(keep=False)),
    right("5.3", "a global hook, removed", by_global_hook(keep=False)),
    right("5.3", "on a copy", on_a_copy),
    right("5.3", "handles that close themselves", by_exit_stack),
    wrong("5.3", "every matrix", all_matrices, "an embedding before a layer: it gives 504, not 180"),
    wrong("5.3", "only what is trained", counter(numbers=trained), "a frozen layer: it gives 0, not 210"),
    wrong("5.3", "two classes alone", counter(numbers=by_type), "a class made from nn.Linear: it gives 0"),
    wrong("5.3", "gradients left off", gradients_off, "leaves gradients switched off"),
    right("5.3", "tensor", counter(back=torch.tensor)),
    right("5.3", "float", counter(back=float)),
    right("5.3", "swallows the error", swallows),
    wrong("5.3", "value for function", 42, "the function my_macs itself"),
    wrong("5.3", "model for function", nn.Linear(6, 5), "the function my_macs itself"),
    wrong("5.3", "hooks kept", counter(keep=True), "1 hooks are left behind"),
    wrong("5.3", "pre-hooks kept", by_pre_hooks(keep=True), "1 hooks are left behind"),
    wrong("5.3", "global hook kept", by_global_hook(keep=True), "1 hooks on all modules"),
    wrong("5.3", "global pre-hook kept", by_global_hook(keep=True, pre=True), "1 hooks on all modules"),
    wrong("5.3", "backward hooks kept", backward_hooks_left, "1 hooks are left behind"),
    wrong("5.3", "backward pre-hooks kept", backward_pre_hooks_left, "1 hooks are left behind"),
    wrong("5.3", "call of all linears replaced", replaced_call(nn.Linear), "Linear.__call__ was replaced"),
    wrong("5.3", "call of all modules replaced", replaced_call(nn.Module), "Module.__call__ was replaced"),
    wrong(
        "5.3",
        "call of all LowRankLinear replaced",
        replaced_call(LowRankLinear),
        "LowRankLinear.__call__ was replaced",
    ),
    wrong("5.3", "one count a layer", once_a_layer, "a layer used twice: it gives 252"),
    wrong("5.3", "first level only", children_only, "a model in a model: it gives 70"),
    wrong("5.3", "bias needed", counter(numbers=from_bias), "without bias: your function raised TypeError"),
    wrong("5.3", "no finally", counter(guard=False), "a model that raises: 1 hooks are left behind"),
    wrong("5.3", "forward of all linears replaced", replaced_forward, "Linear.forward was replaced"),
    wrong("5.3", "forward of the layers replaced", own_forward, "(forward)"),
    wrong("5.3", "attributes", with_attributes, "leaves attributes on the layers (macs)"),
    wrong("5.3", "buffers", with_buffers, "changes its argument model"),
    wrong("5.3", "eval mode", in_eval_mode, "train and eval"),
    wrong("5.3", "input changed", fills_input, "changes its argument x"),
    wrong("5.3", "one row", counter(rows=lambda i, o, layer: 1), "the batch does not count"),
    wrong("5.3", "first axis", counter(rows=lambda i, o, layer: len(i[0])), "an input with three axes"),
    wrong(
        "5.3",
        "first two axes",
        counter(rows=lambda i, o, layer: i[0].shape[:2].numel() if i[0].ndim > 2 else len(i[0])),
        "an input with four axes",
    ),
    wrong(
        "5.3",
        "dense layers only",
        counter(kinds=nn.Linear),
        "a LowRankLinear: it gives 0, not 154; nothing was counted",
    ),
    wrong(
        "5.3",
        "weight of the product",
        counter(numbers=dense_size),
        "on a LowRankLinear: it gives 210, not 154",
    ),
    wrong("5.3", "core forgotten", counter(numbers=core_forgotten), "with a core: it gives 154, not 182"),
    wrong("5.3", "biases counted", counter(numbers=bias_counted), "leave biases out"),
    wrong("5.3", "FLOPs", counter(back=lambda macs: 2 * macs), "a MAC is one multiplication"),
    wrong("5.3", "hooks by name", counter(names="all"), "a layer used twice: it gives 1008"),
    wrong("5.3", "never run", without_forward, "a layer that is never called"),
    wrong("5.3", "the package's counter", count_macs, "the layers that the exercise names"),
    wrong("5.3", "half", counter(back=lambda macs: macs + 0.5), "integer"),
    wrong("5.3", "nan", counter(back=lambda macs: math.nan), "not nan"),
    wrong("5.3", "nothing", lambda model, x: None, "returns None"),
    wrong("5.3", "raises", lambda model, x: model.weight @ x, "raised RuntimeError"),
]
