"""Error wording in one place: every message names the argument, its value and the limit."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn


def type_error(name: str, value: object, limit: str) -> NoReturn:
    """Raise the project's ``TypeError``."""
    raise TypeError(f"{name}={_short(value)} must be {limit}")


def value_error(name: str, value: object, limit: str) -> NoReturn:
    """Raise the project's ``ValueError``."""
    raise ValueError(f"{name}={_short(value)} must be {limit}")


def no_samples() -> NoReturn:
    """Raise the ``ValueError`` of data that are empty."""
    raise ValueError("X has no samples; it must have at least one")


def finite_in(name: str, what: str, values: Tensor) -> None:
    """Check what has been summed over a layer's inputs, outputs or gradients."""
    if not bool(values.isfinite().all()):
        raise ValueError(f"{what} of layer {name!r} have nan or inf in them; all must be finite")


def one_a_sample(shape: torch.Size, samples: int, size: int) -> None:
    """Check a tensor of the data that is to be cut into batches."""
    if shape[0] != samples:
        raise ValueError(
            f"X has a tensor of shape {tuple(shape)}, but must have one entry for each of the {samples} "
            f"samples to be cut into batches of {size}; give batches instead, or batch_size={samples}"
        )


def packed(value: object) -> NoReturn:
    """Raise the ``TypeError`` of a sequence that cannot be cut into samples."""
    limit = "padded tensors and lengths, (N, T, ...) and (N,), packed in the model's forward"
    raise TypeError(f"inputs of type {type(value).__name__} must be {limit}")


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return f"Tensor(shape={tuple(value.shape)}, dtype={value.dtype})"
    if isinstance(value, nn.Module):
        return type(value).__name__
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def integer(value: object, name: str, *, low: int, high: int | None = None, why: str = "") -> int:
    """Return ``value`` as an int with ``low <= value <= high``; a bool is no integer here."""
    limit = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    limit += f" ({why})" if why else ""
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        type_error(name, value, limit)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        type_error(name, value, limit)
    if number < low or (high is not None and number > high):
        value_error(name, number, limit)
    return number


def number(value: object, name: str, limit: str = "a number") -> float:
    """Return ``value`` as a float; a numpy scalar or one-element tensor is one, a bool or text is not."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        type_error(name, value, limit)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        type_error(name, value, limit)


def real(value: object, name: str, *, low: float, high: float = math.inf, open_low: bool = False) -> float:
    """Return ``value`` as a finite float with ``low <= value <= high`` (``low <`` if ``open_low``)."""
    limit = f"a finite number {'>' if open_low else '>='} {low:g}"
    limit += "" if high == math.inf else f" and <= {high:g}"
    x = number(value, name, limit)
    if not math.isfinite(x) or x < low or x > high or (open_low and x == low):
        value_error(name, x, limit)
    return x


def choice(value: object, name: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    options = sorted(allowed)
    if not isinstance(value, str) or value not in options:
        value_error(name, value, "one of " + ", ".join(map(repr, options)))
    return value


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


def rank(value: object, m: int, n: int, name: str = "rank") -> int:
    """Return ``value`` as a rank of an (m, n) matrix."""
    return integer(value, name, low=1, high=min(m, n), why=f"min(m, n) of a {m} x {n} matrix")


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
    shapes_of = [(type(net), [(k, v.shape) for k, v in net.named_parameters()]) for net in nets]
    odd = [i for i, shapes in enumerate(shapes_of) if shapes != shapes_of[0]]
    if odd:
        raise ValueError(f"nets[{odd[0]}] must have the class and the shapes of nets[0]")
    if any(True for _ in nets[0].buffers()):
        raise ValueError("nets must have no buffers, such as those of a batch norm")


def module(value: object, name: str = "model") -> nn.Module:
    """Return ``value`` if it is an ``nn.Module``; of one from torch.compile the module that it runs."""
    if not isinstance(value, nn.Module):
        type_error(name, value, "a torch.nn.Module")
    inner = getattr(value, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else value


def kernel(W: object, groups: object = 1, name: str = "W") -> Tensor:
    """Return ``W`` detached, if it is a finite floating kernel (m, n, *k) with m divisible by ``groups``."""
    if not isinstance(W, Tensor):
        raise TypeError(f"{name} of type {type(W).__name__} must be a torch.Tensor")
    if W.ndim not in (3, 4, 5) or W.numel() == 0:
        value_error(name, W, "a non-empty kernel of shape (m, n, *k) with one to three axes k")
    matrix(W.flatten(1), name)
    g = integer(groups, "groups", low=1)
    if len(W) % g:
        value_error("groups", g, f"a divisor of the {len(W)} outputs")
    return W.detach()


def kernel_form(value: object, allowed: Iterable[str], d: int) -> str:
    """Return ``value`` if it is a form for kernels with ``d`` axes."""
    form = choice(value, "form", allowed)
    if form == "spatial" and d != 2:
        value_error("form", form, f"a form for {d}-D kernels; spatial is for 2-D ones")
    return form


def kernel_rank(value: object, form: str, limit: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return ``value`` as a rank of a kernel's form: an integer, or a pair if the limit is one."""
    if isinstance(limit, int):
        return integer(value, "rank", low=1, high=limit, why=f"the full rank of form {form!r}")
    if not isinstance(value, tuple | list) or len(value) != 2:
        type_error("rank", value, f"a pair (r_out, r_in) for form {form!r}")
    out, inner = (
        integer(part, f"rank[{i}]", low=1, high=high, why=f"the full rank of form {form!r}")
        for i, (part, high) in enumerate(zip(value, limit, strict=True))
    )
    return out, inner


def needs(name: str, value: object, package: str) -> str:
    """Words for an optional package that is missing."""
    return f"{name}={_short(value)} needs the package {package}: pip install {package}"


def convolution(value: object, name: str = "conv") -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """Return ``value`` if it is a convolution that computes what nn.Conv1d, nn.Conv2d or nn.Conv3d does."""
    for plain in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if isinstance(value, plain):
            own = type(value)
            if own.forward is not plain.forward or own._conv_forward is not plain._conv_forward:
                type_error(name, value, f"an nn.{plain.__name__} with its own forward, not {own.__name__}'s")
            if isinstance(value.weight, nn.parameter.UninitializedParameter):
                type_error(name, value, "a convolution with a weight; run the lazy one on an input first")
            return value
    type_error(name, value, "an nn.Conv1d, nn.Conv2d or nn.Conv3d")


def sizes(value: object, name: str, d: int, *, low: int = 1) -> tuple[int, ...]:
    """Return ``value`` as ``d`` integers of at least ``low``; one stands for all."""
    if not isinstance(value, tuple | list | torch.Size):
        return (integer(value, name, low=low),) * d
    if len(value) != d:
        value_error(name, value, f"{d} integers, one for each axis")
    return tuple(integer(part, f"{name}[{i}]", low=low) for i, part in enumerate(value))


def long_run_settings(settings: list[Any], again: set[Any]) -> None:
    """Check that the settings have names of their own, and that some of them are computed."""
    if len({str(setting) for setting in settings}) < len(settings):
        value_error("settings", settings, "settings with a text of its own each")
    if not again or not again <= set(settings):
        value_error("again", sorted(map(str, again)), f"one or more of the settings {_short(settings)}")


def long_run_other(name: str, setting: object, found: str) -> NoReturn:
    """Raise the ``ValueError`` of a slice that does not fit to the stored run."""
    what = f"long run {name!r}, setting {setting!r}: {found}"
    raise ValueError(f"{what}; must be the same, or give again=settings to compute all of them here")
