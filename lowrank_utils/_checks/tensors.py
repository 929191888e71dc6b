"""Checks of matrices, samples and modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowrank_utils._checks.words import type_error, value_error


def matrix(W: object, name: str = "W") -> Tensor:
    """Return ``W`` detached, if it is a non-empty, finite, floating 2-D tensor."""
    if not isinstance(W, Tensor):
        raise TypeError(f"{name} of type {type(W).__name__} must be a torch.Tensor")
    if not W.is_floating_point():
        type_error(name, W, "of a floating dtype")
    if W.ndim != 2 or W.numel() == 0:
        value_error(name, W, "a non-empty matrix of shape (m, n)")
    W = W.detach()
    if not bool(torch.isfinite(W).all()):
        bad, shape = int((~torch.isfinite(W)).sum()), tuple(W.shape)
        raise ValueError(f"{name} of shape {shape} has {bad} entries that are nan or inf; all must be finite")
    return W


def labelled(X: object, y: object) -> None:
    """Check that X holds samples and y one label for each."""
    if not isinstance(X, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"X and y must be tensors, not {type(X).__name__} and {type(y).__name__}")
    if X.ndim == 0 or y.ndim == 0:
        raise ValueError(f"X of shape {tuple(X.shape)} and y of shape {tuple(y.shape)} need a sample axis")
    if y.numel() == 0 or len(X) == 0:
        raise ValueError(f"X of shape {tuple(X.shape)} and y of shape {tuple(y.shape)} must not be empty")
    if len(X) != len(y):
        raise ValueError(f"y has {len(y)} labels, but must have one for each of the {len(X)} samples of X")


def classes_last(outputs: torch.Size, labels: torch.Size) -> None:
    """Check that the outputs of maps cannot have their classes on the second axis, where torch has them."""
    if len(outputs) > 3 and outputs[:-1] == labels == outputs[:1] + outputs[2:]:
        told = f"outputs of shape {tuple(outputs)} and labels of shape {tuple(labels)}"
        raise ValueError(
            f"{told} must be (..., C), but may be (N, C, ...): give a metric or a loss of your own"
        )


def stacked(nets: object, X: Tensor, y: Tensor) -> None:
    """Check that ``nets`` are K modules of one architecture without buffers, and X and y hold K sets."""
    if not isinstance(nets, list | tuple) or not all(isinstance(net, nn.Module) for net in nets):
        type_error("nets", nets, "a list of torch.nn.Module")
    labelled(X, y)
    if not len(nets) == len(X) or y.ndim != 2 or X.shape[:2] != y.shape:
        shapes = f"{tuple(X.shape)} and {tuple(y.shape)}"
        raise ValueError(
            f"X and y of shapes {shapes} must be (K, N, ...) and (K, N) for K = {len(nets)} nets"
        )
    if len({id(net) for net in nets}) < len(nets):
        raise ValueError(f"nets must be {len(nets)} different nets; one stands there twice")
    forms = [_form(net) for net in nets]
    odd = [i for i, form in enumerate(forms) if form != forms[0]]
    if odd:
        raise ValueError(
            f"nets[{odd[0]}] must have the class, the parts, the shapes and the frozen ones of nets[0]"
        )
    if any(True for _ in nets[0].buffers()):
        raise ValueError("nets must have no buffers, such as those of a batch norm")
    params = [p for net in nets for p in net.parameters()]
    if len({id(p) for p in params}) < len(params):
        raise ValueError("nets must hold parameters of their own; two of them share one")
    if not any(p.requires_grad for p in params):
        raise ValueError("nets must have a parameter that requires a gradient; all are frozen")


def computes_alike(i: int, alone: Tensor, stacked: Tensor) -> None:
    """Check that net i computes by itself what nets[0] does with its parameters, but for rounding."""
    room = torch.finfo(stacked.dtype).eps ** 0.5 * float(stacked.abs().max())
    if alone.shape != stacked.shape or not bool((alone - stacked).abs().max() <= room):
        raise ValueError(
            f"nets[{i}] must compute what nets[0] does with the parameters of nets[{i}]; an attribute differs"
        )


def _form(net: nn.Module) -> object:
    """What two nets of one architecture have in common: of torch's own parts their settings too."""
    parts = [
        (name, type(part), part.extra_repr() if type(part).__module__.startswith("torch.nn.") else "")
        for name, part in net.named_modules()
    ]
    return parts, [(name, p.shape, p.requires_grad) for name, p in net.named_parameters()]


def module(value: object, name: str = "model") -> nn.Module:
    """Return ``value`` if it is an ``nn.Module``; of one from torch.compile the module that it runs."""
    if not isinstance(value, nn.Module):
        type_error(name, value, "a torch.nn.Module")
    inner = getattr(value, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else value
