"""Data as people have them, and how a model is called on a batch of them.

The inputs of a batch are a tensor, a tuple (arguments by place), a mapping (arguments by name), or an object
with ``.to``, which is given as it is. Data are a tensor, a tuple or a mapping that hold all samples, with the
labels beside them, or a ``DataLoader`` or any other iterable of batches: of inputs, or of pairs
``(inputs, labels)``; of a mapping the entry ``"labels"`` is the labels. numpy arrays stand for tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lowrank_utils import _checks

IGNORED = -100  # a label that does not count, as in nn.functional.cross_entropy
Loss = Callable[[Any, "Batch"], Tensor]


@dataclass(frozen=True)
class Batch:
    """Inputs of a model, and labels or none.

    Attributes:
        inputs: What the model is called with.
        labels: Of the samples, or None.
    """

    inputs: Any
    labels: Any

    def __len__(self) -> int:
        """Samples: the length of the first tensor."""
        return next((len(tensor) for tensor in _tensors(self.inputs) if tensor.ndim > 0), 0)

    def on(self, model: nn.Module) -> Batch:
        """The same on the model's device, as copies; floating numpy arrays in the model's dtype.

        Args:
            model: Any module.
        """
        place = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))

        def copy(t: Tensor) -> Tensor:  # outside inference mode: one that is made in it knows no gradient
            return t.detach().to(place.device).clone()

        labels = None if self.labels is None else _mapped(self.labels, copy, place)
        return Batch(_mapped(self.inputs, copy, place), labels)


def _mapped(thing: Any, change: Callable[[Tensor], Tensor], place: Tensor) -> Any:
    if isinstance(thing, np.ndarray):
        thing = torch.from_numpy(thing)
        thing = thing.to(place.dtype) if thing.is_floating_point() else thing
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, Mapping):
        return {key: _mapped(value, change, place) for key, value in thing.items()}
    if isinstance(thing, PackedSequence):
        _checks.packed(thing)
    if isinstance(thing, tuple | list):
        make = getattr(thing, "_make", type(thing))  # a named tuple takes its parts one by one
        return make(_mapped(value, change, place) for value in thing)
    return thing.to(place.device) if hasattr(thing, "to") else thing


def fresh(inputs: Any) -> Any:
    """A copy of a batch's inputs, since a model may write into them."""
    return _mapped(inputs, lambda t: t.clone(), torch.empty(0))


def _tensors(thing: Any) -> Iterator[Tensor | np.ndarray[Any, Any]]:
    if isinstance(thing, Tensor | np.ndarray):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from _tensors(value)
    elif isinstance(thing, tuple | list):
        for value in thing:
            yield from _tensors(value)
    elif hasattr(thing, "to") and hasattr(thing, "__dict__"):  # an object that holds tensors
        for value in vars(thing).values():
            yield from _tensors(value) if isinstance(value, Tensor | np.ndarray | Mapping) else ()


def is_samples(X: Any) -> bool:
    """Whether X holds all samples, and is no iterable of batches."""
    return isinstance(X, Tensor | np.ndarray | Mapping | tuple)


def batches(X: Any, y: Any = None, *, size: int | None = None) -> Iterator[Batch]:
    """The batches of the data, of ``size`` samples where X holds all of them (None: in one).

    Raises:
        TypeError: If X is neither samples nor iterable.
        ValueError: If y does not match X, or is given where the batches hold the labels, or a tensor in X is
            to be cut into batches that has not one entry a sample.
    """
    if is_samples(X):
        yield from _sliced(X, y, size)
        return
    if y is not None:
        _checks.value_error("y", y, "None if X is an iterable, whose batches hold the labels")
    if not isinstance(X, Iterable):
        _checks.type_error("X", X, "a tensor, a tuple, a mapping or an iterable of batches")
    for item in X:
        yield _paired(item)


def first_batch(X: Any, size: int) -> Batch:
    """The first batch with samples, of ``size`` of them at most where X holds all.

    Raises:
        ValueError: If X has no samples.
    """
    for batch in batches(X, size=size):
        if len(batch):
            return batch
    _checks.no_samples()


def _sliced(X: Any, y: Any, size: int | None) -> Iterator[Batch]:
    whole = Batch(X, y)
    if y is not None and len(y) != len(whole):
        raise ValueError(
            f"y has {len(y)} labels, but must have one for each of the {len(whole)} samples of X"
        )
    if isinstance(X, Mapping) and y is None and "labels" in X:
        whole = _paired(X)
    step = len(whole) if size is None else _checks.integer(size, "batch_size", low=1)
    if step >= len(whole):
        yield whole
        return
    for start in range(0, len(whole), step):
        inputs, labels = (_part(thing, start, step, len(whole)) for thing in (whole.inputs, whole.labels))
        yield Batch(inputs, labels)


def _part(thing: Any, start: int, step: int, samples: int) -> Any:
    """The samples of one batch; a number, and an object that is given as it is, go to each batch."""
    if isinstance(thing, Tensor | np.ndarray) and thing.ndim > 0:
        _checks.one_a_sample(thing.shape, samples, step)
        return thing[start : start + step]
    if isinstance(thing, Mapping):
        return {key: _part(value, start, step, samples) for key, value in thing.items()}
    if isinstance(thing, PackedSequence):
        _checks.packed(thing)
    if isinstance(thing, tuple | list):
        make = getattr(thing, "_make", type(thing))
        return make(_part(value, start, step, samples) for value in thing)
    return thing


def _paired(item: Any) -> Batch:
    if isinstance(item, tuple | list) and len(item) == 2:
        return Batch(*item)
    if isinstance(item, tuple | list) and len(item) == 1:
        return Batch(item[0], None)
    if isinstance(item, Mapping) and "labels" in item:
        return Batch({key: value for key, value in item.items() if key != "labels"}, item["labels"])
    return Batch(item, None)


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output on the inputs of a batch: the logits of one that returns several things."""
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    elif isinstance(inputs, tuple | list):
        output = model(*inputs)
    else:
        output = model(inputs)
    if isinstance(output, Mapping):
        return output["logits"] if "logits" in output else next(iter(output.values()))
    if hasattr(output, "logits"):
        return output.logits
    return output[0] if isinstance(output, tuple | list) else output


def cross_entropy(outputs: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
    """The default loss, a sum over the positions whose label is not -100: for classes, and nothing else.

    Raises:
        ValueError: If the outputs are not (..., C) with C >= 2, or the labels no integers (...).
    """
    y, shape = batch.labels, tuple(getattr(outputs, "shape", ()))
    classes = isinstance(outputs, Tensor) and outputs.ndim > 1 and shape[-1] > 1 and shape[:-1] == y.shape
    if not classes or y.is_floating_point():
        told = f"outputs of shape {shape} and labels of shape {tuple(y.shape)} and dtype {y.dtype}"
        raise ValueError(f"{told} must be logits (..., C), C >= 2, and integers (...), or loss must be given")
    _checks.classes_last(outputs.shape, y.shape)
    scores = outputs.reshape(-1, shape[-1]) / temperature
    return nn.functional.cross_entropy(scores, y.reshape(-1).long(), reduction="sum", ignore_index=IGNORED)
