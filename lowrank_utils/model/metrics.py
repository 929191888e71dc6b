"""Score a classifier: accuracy, and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from lowrank_utils import _checks

Metric = Callable[[nn.Module, Tensor, Tensor], float]


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
def logits(net: nn.Module, X: Tensor) -> Tensor:
    """``net(X)`` in eval mode, without gradients; every module's mode is put back."""
    with mode(_checks.module(net, "net"), training=False):
        return net(X.clone())  # type: ignore[no-any-return]  # it may work in place


def accuracy_of(scores: Tensor, y: Tensor) -> float:
    """Share of positions whose largest logit is the label's; scores (..., C), y (...)."""
    if scores.shape[:-1] != y.shape:
        raise ValueError(f"y of shape {tuple(y.shape)} must match the logits' {tuple(scores.shape[:-1])}")
    if bool(scores.isnan().any()):
        raise ValueError(f"net(X) of shape {tuple(scores.shape)} has nan in it; an accuracy needs numbers")
    return int((scores.argmax(-1) == y).sum()) / y.numel()


def auc_of(scores: Tensor, y: Tensor) -> float:
    """One-vs-rest macro AUC of logits (N, C)."""
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.shape[:1] != y.shape:
        shapes = f"{tuple(scores.shape)} and {tuple(y.shape)}"
        raise ValueError(f"logits and y of shapes {shapes} must be (N, C) with C >= 2 and (N,) for an AUC")
    if bool(scores.isnan().any()):
        raise ValueError(f"net(X) of shape {tuple(scores.shape)} has nan in it; an AUC needs numbers")
    P = scores.double().softmax(-1).cpu().numpy()  # (N, C)
    classes, labels = P.shape[-1], y.cpu().numpy()
    missing = sorted(set(range(classes)) - set(labels.tolist()))
    if missing:
        raise ValueError(f"y must hold every one of the {classes} classes for an AUC; it lacks {missing}")
    other = sorted(set(labels.tolist()) - set(range(classes)))
    if other:
        raise ValueError(f"y holds the label {other[-1]}, but the logits only have {classes} classes, from 0")
    # Mann and Whitney: the pairs in the right order are the ranks of a class, less those within it. All
    # columns are ranked at once; roc_auc_score, a column at a time, takes 10 times as long
    ours = labels[:, None] == np.arange(classes)  # (N, C)
    size = ours.sum(0)
    pairs = (rankdata(P, axis=0) * ours).sum(0) - size * (size + 1) / 2
    areas = pairs / (size * (len(labels) - size))
    return float(areas[1] if classes == 2 else areas.mean())


def accuracy(net: nn.Module, X: Tensor, y: Tensor) -> float:
    r"""Share of samples whose largest logit is the label's, as a fraction: mean(argmax net(X) == y).

    Evaluated in eval mode, without gradients; the mode of every module is put back.

    Args:
        net: Classifier, (N, ...) -> (N, C).
        X: Samples (N, ...).
        y: Labels (N,).

    Raises:
        TypeError: If X or y is no tensor.
        ValueError: If X is empty or y does not match.

    Example:
        >>> accuracy(nn.Identity(), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        0.5
    """
    _checks.labelled(X, y)
    return accuracy_of(logits(net, X), y)


def auc(net: nn.Module, X: Tensor, y: Tensor) -> float:
    r"""Area under the ROC curve, one class against the rest, mean over the classes.

    The chance that a random sample of the class gets a higher probability for it than a random
    sample of another class; ties count one half. The softmax is taken in float64.

    Args:
        net: Classifier, (N, ...) -> (N, C).
        X: Samples (N, ...).
        y: Labels (N,), every class present.

    Raises:
        TypeError: If X or y is no tensor.
        ValueError: If X is empty, y does not match or a class is missing.

    Reference:
        Fawcett, "An introduction to ROC analysis", 2006.

    Example:
        >>> auc(nn.Identity(), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        1.0
    """
    _checks.labelled(X, y)
    return auc_of(logits(net, X), y)
