"""Words for what is wrong: the argument, its value and the limit."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn


def type_error(name: str, value: object, limit: str) -> NoReturn:
    """Raise the project's ``TypeError``."""
    raise TypeError(f"{name}={_short(value)} must be {limit}")


def value_error(name: str, value: object, limit: str) -> NoReturn:
    """Raise the project's ``ValueError``."""
    raise ValueError(f"{name}={_short(value)} must be {limit}")


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return f"Tensor(shape={tuple(value.shape)}, dtype={value.dtype})"
    if isinstance(value, nn.Module):
        return type(value).__name__
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


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


def needs(name: str, value: object, package: str) -> str:
    """Words for an optional package that is missing."""
    return f"{name}={_short(value)} needs the package {package}: pip install {package}"


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
