"""The layers of a program of torch.export, found again: it keeps operators and weights, and no nn.Linear."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.holding import holding, linear_of

_CONVOLUTIONS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}


def from_exported(program: Any) -> nn.Module:
    r"""The module of an exported program, with nn.Linear and nn.Conv layers where it multiplies by a weight.

    ``torch.export`` writes down operators: a layer is ``aten.linear`` with two tensors, and no function of
    this package finds it. Here each ``aten.linear`` and ``aten.conv`` becomes a layer again, under its old
    name where that is free, and one layer if it was called twice. What else the program computes stays as it
    is, in the mode in which it was exported: dropout that was off stays off.

    A weight that something else uses too, or that is computed, stays a tensor. So do those of a program that
    was decomposed further (``run_decompositions``), whose products are ``addmm`` and ``convolution``.

    Args:
        program: From ``torch.export.export`` or ``torch.export.load``; it is not changed,
            and shares no tensor with what is returned.

    Raises:
        TypeError: If ``program`` is no exported program.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> program = torch.export.export(net, (torch.zeros(2, 4),))
        >>> [name for name, layer in from_exported(program).named_modules() if isinstance(layer, nn.Linear)]
        ['0', '2']
    """
    if not isinstance(program, torch.export.ExportedProgram):
        _checks.type_error("program", program, "a torch.export.ExportedProgram")
    body = copied(program.module(check_guards=False))  # its tensors are those of the program
    graph = body.graph
    weights = {node: str(node.target) for node in graph.nodes if node.op == "get_attr"}
    paths = list(weights.values())
    for weight in list(weights):
        calls = list(weight.users)
        name = _layer_name(calls[0]) if calls else ""
        if not name or paths.count(weights[weight]) > 1:
            continue
        bias = _argument(calls[0], 2, "bias")
        told = {(_layer_name(call), _argument(call, 1, "weight"), _told(call)) for call in calls}
        if told != {(name, weight, _told(calls[0]))} or (bias is not None and bias not in weights):
            continue
        W = _tensor(body, weights[weight])
        b = None if bias is None else _tensor(body, weights[bias])
        layer = linear_of(W, b) if name == "linear" else _convolution(calls[0], _CONVOLUTIONS[name], W, b)
        layer.weight.requires_grad_(W.requires_grad)
        if b is not None:
            layer.bias.requires_grad_(b.requires_grad)
        where = _free_name(body, weights[weight], bias and weights[bias], name)
        body.set_submodule(where, layer)
        for call in calls:
            with graph.inserting_before(call):
                called = graph.call_module(where, (_argument(call, 0, "input"),))
            call.replace_all_uses_with(called)
            graph.erase_node(call)
    for node in weights:
        if not node.users:
            graph.erase_node(node)
    made = torch.fx.GraphModule(body, graph)  # takes over what the graph still reads
    made.recompile()
    return made


def _layer_name(node: torch.fx.Node) -> str:
    """``linear``, ``conv1d``, ``conv2d`` or ``conv3d`` where the node is one, else nothing."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return ""
    name: str = target._schema.name.removeprefix("aten::")
    return name if name in ("linear", *_CONVOLUTIONS) else ""


def _told(node: torch.fx.Node) -> str:
    """All that an operator is told beside its input."""
    return f"{node.args[1:]} {[item for item in node.kwargs.items() if item[0] != 'input']}"


def _argument(node: torch.fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _tensor(body: nn.Module, path: str) -> Tensor:
    """A parameter or buffer by its dotted name."""
    owner, _, name = path.rpartition(".")
    found: Tensor = getattr(body.get_submodule(owner), name)
    return found


def _convolution(node: torch.fx.Node, kind: Any, W: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer of an aten.convNd: a single number stands for all axes."""
    d = W.ndim - 2

    def told(place: int, name: str, default: Any) -> Any:
        value = _argument(node, place, name, default)
        if isinstance(value, str):
            return value
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        return values * d if len(values) == 1 else values

    groups = _argument(node, 6, "groups", 1)
    layer: nn.Module = holding(
        kind,
        W.shape[1] * groups,
        W.shape[0],
        tuple(W.shape[2:]),
        told(3, "stride", 1),
        told(4, "padding", 0),
        told(5, "dilation", 1),
        groups,
        bias is not None,
        parameters={"weight": W, "bias": bias},
    )
    return layer


def _free_name(body: nn.Module, weight: str, bias: str | None, kind: str) -> str:
    """The name of the module that held weight and bias alone, or a new one beside the weight."""
    owner, _, last = weight.rpartition(".")
    if owner and last == "weight" and bias in (None, f"{owner}.bias"):
        held = body.get_submodule(owner)
        names = {
            name for name, _ in [*held.named_parameters(), *held.named_buffers(), *held.named_children()]
        }
        if names <= {"weight", "bias"}:
            return owner
    place = f"{owner}." if owner else ""
    stem = last.removesuffix("weight").rstrip("_") or kind
    numbers = itertools.chain([""], (f"_{i}" for i in itertools.count(1)))
    return next(name for number in numbers if not _has(body, name := f"{place}{stem}{number}"))


def _has(body: nn.Module, path: str) -> bool:
    """Whether a dotted name leads to anything."""
    owner, _, name = path.rpartition(".")
    return hasattr(body.get_submodule(owner), name)
