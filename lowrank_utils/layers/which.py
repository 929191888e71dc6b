"""Which layers of a model can be given a rank, and why not the others."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

from lowrank_utils import _checks
from lowrank_utils.layers.conv_view import ConvView
from lowrank_utils.layers.views import LayerView, layer_view

_WITH_WEIGHT = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_view(layer: nn.Module) -> LayerView | None:
    """The layer's view, or None if it has none."""
    try:
        return layer_view(layer)
    except TypeError:
        return None


def _standard(layer: nn.Module) -> bool:
    """Whether a layer's forward is that of a class which was registered, and not a subclass's own."""
    kinds = (kind for kind in layer_view.registry if kind is not object and isinstance(layer, kind))
    methods = ("forward", "_conv_forward")
    same = (all(getattr(type(layer), m, None) is getattr(kind, m, None) for m in methods) for kind in kinds)
    return type(layer).__name__ == "Conv1D" or any(same)


def _users(model: nn.Module, layer: nn.Module) -> Iterator[str]:
    """Other names of the layer, and names under which others hold a matrix of it."""
    inside, own = set(layer.modules()), {p for p in layer.parameters() if p.ndim > 1}
    for name, module in model.named_modules(remove_duplicate=False):
        if module is layer:
            yield name
        for key, value in module.named_parameters(recurse=False):
            if module not in inside and value in own:
                yield f"{name}.{key}".lstrip(".")


def obstacle(model: nn.Module, name: str) -> str | None:
    """Why a layer that is a matrix applied to rows cannot be replaced; None if it can."""
    layer = model.get_submodule(name)
    owner = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
    if isinstance(layer, nn.MultiheadAttention):
        return "holds q, k and v in one matrix: call unpack_attention first"
    if isinstance(layer, nn.RNNBase):
        return f"is a fused {type(layer).__name__}, whose kernel wants its matrices dense"
    if "quantized" in type(layer).__module__:
        return "is quantized"
    if find_view(layer) is None:
        return f"is {type(layer).__name__}, which is no matrix applied to rows"
    if name and isinstance(owner, nn.MultiheadAttention):
        return "is read by nn.MultiheadAttention, and never called: call unpack_attention first"
    if parametrize.is_parametrized(layer):
        return "has a parametrized weight"
    if (
        isinstance(layer, nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and "weight" not in layer._parameters
    ):
        return "computes its weight (pruned, or weight_norm)"
    if isinstance(layer, _WITH_WEIGHT) and layer.bias is not None and "bias" not in layer._parameters:
        return "computes its bias (pruned, or weight_norm)"
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        return f"shortens the rows that it reads to a norm of {layer.max_norm:g}, which factors do not"
    seen = layer_view(layer)
    if isinstance(seen, ConvView) and seen.layer.groups > 1:
        return f"has {seen.layer.groups} groups, each a matrix of its own"
    if not _standard(layer):
        return f"is {type(layer).__name__}, with a forward of its own"
    if any(isinstance(p, nn.UninitializedParameter) for p in layer.parameters()):
        return "is lazy: call the model once first"
    weight = seen.weight
    if weight.is_meta:
        return "is on the meta device, and has no numbers"
    if not weight.is_floating_point():
        return f"has a weight of dtype {weight.dtype}"
    others = [other for other in _users(model, layer) if other != name]
    return f"shares its weight with {sorted(others)}" if others else None


def _editable(model: nn.Module) -> nn.Module:
    """The module, if its layers can be looked at and replaced."""
    if isinstance(model, torch.jit.ScriptModule):
        _checks.type_error("model", model, "a module as it was before torch.jit.script or torch.jit.trace")
    return _checks.module(model)


def layers_of(
    model: nn.Module, *, layers: Collection[str] | None = None, skip: Collection[str] = ()
) -> dict[str, LayerView]:
    """``{dotted name: view}`` of the layers that take part, in the order of the model.

    A layer with an obstacle is left as it is, and named once in a warning; one that ``layers`` names must
    have none.

    Args:
        model: Any module.
        layers: Names of those that take part; by default all that can.
        skip: Names of those that do not.
    """
    names = dict(_editable(model).named_modules())
    for told, value in (("layers", () if layers is None else layers), ("skip", skip)):
        if isinstance(value, str) or not isinstance(value, Collection):
            _checks.type_error(told, value, "a list of names")
    for name in skip:
        if name not in names:
            _checks.value_error("skip", name, f"a layer of the model, one of {sorted(_candidates(names))}")
    if layers is not None:
        return {name: layer_view(layer_of(model, name)) for name in layers if name not in skip}
    found, left = {}, {}
    for name in _candidates(names):
        if name in skip:
            continue
        why = obstacle(model, name)
        if why is None:
            found[name] = layer_view(names[name])
        else:
            left[name] = why
    if left:
        told = "; ".join(f"{name!r} {why}" for name, why in left.items())
        warnings.warn(f"left as they are: {told}", stacklevel=3)
    return found


def some_layers_of(
    model: nn.Module, *, layers: Collection[str] | None = None, skip: Collection[str] = ()
) -> dict[str, LayerView]:
    """``layers_of``, at least one.

    Raises:
        ValueError: If no layer takes part; it names whatever left none.
    """
    found = layers_of(model, layers=layers, skip=skip)
    if not found:
        if layers is None and not skip:
            _checks.value_error("model", model, "a module with a layer that can have a rank")
        told, value = ("skip", skip) if skip else ("layers", layers)
        _checks.value_error(told, value, "such that a layer takes part")
    return found


def measured_of(
    views: dict[str, LayerView], known: Collection[str] | None, told: str
) -> dict[str, LayerView]:
    """Those of the layers that were measured, at least one; all of them if nothing was."""
    found = {name: view for name, view in views.items() if known is None or name in known}
    if not found:
        _checks.value_error(told, sorted(known or ()), f"of a layer that takes part, one of {list(views)}")
    return found


def _candidates(names: dict[str, nn.Module]) -> list[str]:
    """Those that take part by themselves, or would if there were no obstacle."""
    packed = (nn.MultiheadAttention, nn.RNNBase)
    out = []
    for name, layer in names.items():
        seen = find_view(layer)
        if isinstance(layer, packed) or (seen is not None and seen.by_itself):
            out.append(name)
        elif "quantized" in type(layer).__module__ and hasattr(layer, "in_features"):
            out.append(name)
    return out


def layer_of(model: nn.Module, name: object) -> nn.Module:
    """The layer of this name, which must be one that can be replaced.

    Raises:
        ValueError: If there is none, or why it cannot be.
    """
    names = dict(_editable(model).named_modules(remove_duplicate=False))
    if not isinstance(name, str) or name not in names:
        _checks.value_error("layer", name, f"one of the layers {_free(model, names)}")
    why = obstacle(model, name)
    if why is not None:
        _checks.value_error("layer", name, f"one of the layers {_free(model, names)}, but it {why}")
    found: nn.Module = names[name]
    return found


def _free(model: nn.Module, names: dict[str, nn.Module]) -> list[str]:
    return [name for name in _candidates(names) if obstacle(model, name) is None]


def hooked_input(args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> torch.Tensor:
    """A layer's input, as a forward hook sees it: the first argument, by place or by name."""
    return args[0] if args else next(iter(kwargs.values()))
