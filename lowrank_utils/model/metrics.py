"""Score a classifier: accuracy, and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.model.batches import IGNORED, batches, call

Metric = Callable[..., float]  # (model, X, y), or (model) where there are no X and y


@contextmanager
def mode(net: nn.Module, *, training: bool) -> Iterator[None]:
    """Train or eval mode for a while; then every module has its own again."""
    before = {module: module.training for module in net.modules()}
    try:
        net.train(training)
        yield
    finally:
        for module, was in before.items():
            module.training = was


@torch.no_grad()
def scored(net: nn.Module, X: Any, y: Any = None) -> tuple[Tensor, Tensor]:
    """The logits of all samples, and their labels, in eval mode; every module's mode is put back."""
    parts = []
    with mode(_checks.module(net, "net"), training=False):
        for batch in batches(X, y):
            on = batch.on(net)
            parts.append((call(net, on.inputs), on.labels))
    return joined(parts)


def joined(parts: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
    """The logits and the labels of several batches as one; each batch must have both."""
    for outputs, labels in parts:
        if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor):
            kinds = f"{type(outputs).__name__} and {type(labels).__name__}"
            raise TypeError(f"net(X) and y must be tensors for a metric of logits, not {kinds}")
    if not parts or not sum(labels.numel() for _, labels in parts):
        _checks.no_samples()
    outputs, y = torch.cat([outputs for outputs, _ in parts]), torch.cat([labels for _, labels in parts])
    return outputs, y if y.is_floating_point() else y.long()  # else a label 156 of uint8 equals -100


def logits(net: nn.Module, X: Tensor) -> Tensor:
    """``net(X)`` in eval mode, without gradients; every module's mode is put back."""
    with torch.no_grad(), mode(_checks.module(net, "net"), training=False):
        return net(X.clone())  # type: ignore[no-any-return]  # it may work in place


def accuracy_of(scores: Tensor, y: Tensor) -> float:
    """Share of positions whose largest logit is the label's; scores (..., C), y (...), -100 left out.

    Of one logit, C = 1, whether it is above 0 where the label is 1.
    """
    if scores.ndim == y.ndim == 1:
        scores = scores[:, None]
    if scores.shape[:-1] != y.shape and scores.shape == y.shape and y.shape[-1] == 1:
        y = y[..., 0]
    if scores.shape[:-1] != y.shape:
        raise ValueError(f"y of shape {tuple(y.shape)} must match the logits' {tuple(scores.shape[:-1])}")
    _checks.classes_last(scores.shape, y.shape)
    if bool(scores.isnan().any()):
        raise ValueError(f"net(X) of shape {tuple(scores.shape)} has nan in it; an accuracy needs numbers")
    if scores.shape[-1] == 1 and not bool(((y == 0) | (y == 1) | (y == IGNORED)).all()):
        seen = sorted(set(y.flatten().tolist()))[:4]
        raise ValueError(f"labels y={seen} must be 0 and 1 for an accuracy of one logit")
    answers = scores.argmax(-1) if scores.shape[-1] > 1 else scores[..., 0] > 0
    counted = y != IGNORED
    if not bool(counted.any()):
        raise ValueError(f"y of shape {tuple(y.shape)} must have a label other than {IGNORED}")
    return int(((answers == y) & counted).sum()) / int(counted.sum())


def log_odds(scores: Tensor) -> Tensor:
    """Log p_c / (1 - p_c) of logits (N, C), in float64: z_c - log sum exp of the other logits.

    It is in the order of p = softmax(z), and goes on where p is rounded to 1. The sums are of sorted logits:
    what has the same others in another order has the same odds, to the last digit.
    """
    z = scores.double()
    ordered = z.sort(-1).values  # (N, C)
    top, second = ordered[:, -1:], ordered[:, -2:-1]  # (N, 1)
    rest = second.clamp_min(torch.finfo(z.dtype).min)  # where all others are -inf, their sum is 0
    of_top = (top - rest) - (ordered[:, :-1] - rest).exp().sum(-1, keepdim=True).log()
    total = (ordered - top).exp().sum(-1, keepdim=True)
    e = (z - top).exp()  # at most 1, and the others' at least that
    return torch.where(z == top, of_top, (z - top) - (total - e).clamp_min(1.0).log())


def auc_of(scores: Tensor, y: Tensor) -> float:
    """One-vs-rest macro AUC of logits (N, C)."""
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.shape[:1] != y.shape:
        shapes = f"{tuple(scores.shape)} and {tuple(y.shape)}"
        raise ValueError(f"logits and y of shapes {shapes} must be (N, C) with C >= 2 and (N,) for an AUC")
    best = scores.amax(-1)  # -inf leaves a class out, as a mask does; a row of nothing else has no order
    if not bool(best.isfinite().all()):
        shape = tuple(scores.shape)
        raise ValueError(f"net(X) of shape {shape} has nan, inf or a row of -inf in it; an AUC needs numbers")
    odds = log_odds(scores).cpu().numpy()  # (N, C)
    classes, labels = odds.shape[-1], y.cpu().numpy()
    missing = sorted(set(range(classes)) - set(labels.tolist()))
    if missing:
        raise ValueError(f"y must hold every one of the {classes} classes for an AUC; it lacks {missing}")
    other = sorted(set(labels.tolist()) - set(range(classes)))
    if other:
        raise ValueError(f"y holds the label {other[-1]}, but the logits only have {classes} classes, from 0")
    from scipy.stats import rankdata  # half a second to import

    # Mann and Whitney: the pairs in the right order are the ranks of a class, less those within it. All
    # columns are ranked at once; roc_auc_score, a column at a time, takes 10 times as long
    ours = labels[:, None] == np.arange(classes)  # (N, C)
    size = ours.sum(0)
    pairs = (rankdata(odds, axis=0) * ours).sum(0) - size * (size + 1) / 2
    areas = pairs / (size * (len(labels) - size))
    return float(areas[1] if classes == 2 else areas.mean())


def accuracy(net: nn.Module, X: Any, y: Any = None) -> float:
    r"""Share of samples whose largest logit is the label's, as a fraction: mean(argmax net(X) == y).

    Evaluated in eval mode, without gradients; the mode of every module is put back. Of a classifier with
    one logit, mean((net(X) > 0) == y).

    Args:
        net: Classifier, (N, ...) -> (N, C), or (N, T, C) for tokens: the classes are on the last axis, not on
            the second, as for torch's cross-entropy.
        X: Samples (N, ...): a tensor, a tuple of arguments, a mapping of named ones; or an iterable of
            batches ``(inputs, labels)``.
        y: Labels (N,), or (N, T) with -100 where there is none.

    Raises:
        TypeError: If X or y is of the wrong type.
        ValueError: If X is empty, y does not match, or the logits' two last axes may be either.

    Example:
        >>> accuracy(nn.Identity(), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        0.5
    """
    if isinstance(X, Tensor):
        _checks.labelled(X, y)
    return accuracy_of(*scored(net, X, y))


def auc(net: nn.Module, X: Any, y: Any = None) -> float:
    r"""Area under the ROC curve, one class against the rest, mean over the classes.

    The chance that a random sample of the class gets a higher probability for it than a random
    sample of another class; ties count one half. Samples are ranked by the log-odds of their probability,
    in float64, so that confident ones keep their order.

    Args:
        net: Classifier, (N, ...) -> (N, C).
        X: Samples (N, ...), or batches, as in ``accuracy``.
        y: Labels (N,), every class present.

    Raises:
        TypeError: If X or y is of the wrong type.
        ValueError: If X is empty, y does not match, a class is missing, or a row of logits has nan, inf or
            nothing but -inf.

    Reference:
        Fawcett, "An introduction to ROC analysis", 2006.

    Example:
        >>> auc(nn.Identity(), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        1.0
    """
    if isinstance(X, Tensor):
        _checks.labelled(X, y)
    return auc_of(*scored(net, X, y))
