"""Train a classifier and score it: SGD on the cross-entropy; accuracy and area under the ROC curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks

Metric = Callable[[nn.Module, Tensor, Tensor], float]


def train_nn(
    net: nn.Module,
    X: Tensor,
    y: Tensor,
    *,
    epochs: int = 1000,
    lr: float = 0.1,
    batch_size: int | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> list[float]:
    r"""Train ``net`` in place by SGD on the cross-entropy and return the loss of each epoch.

    The default is full-batch gradient descent, w <- w - lr * grad. With ``batch_size`` the samples
    are shuffled anew each epoch by torch's global generator (see ``set_seed``).

    Args:
        net: Classifier, (N, ...) -> (N, C) logits; its train or eval mode is left as it was.
        X: Samples (N, ...).
        y: Labels (N,), int64 from 0 to C - 1.
        epochs: Passes over the samples.
        lr: Learning rate.
        batch_size: Samples a step; None takes all of them.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty of SGD.

    Returns:
        Mean loss of each epoch, before its steps' updates.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If X is empty, y does not match it, or a number is out of range.

    Example:
        >>> net = nn.Linear(1, 2)
        >>> losses = train_nn(net, torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), epochs=50)
        >>> losses[-1] < losses[0]
        True
    """
    _checks.module(net, "net")
    _checks.labelled(X, y)
    epochs = _checks.integer(epochs, "epochs", low=1)
    size = len(X) if batch_size is None else _checks.integer(batch_size, "batch_size", low=1)
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=_checks.real(lr, "lr", low=0.0, open_low=True),
        momentum=_checks.real(momentum, "momentum", low=0.0),
        weight_decay=_checks.real(weight_decay, "weight_decay", low=0.0),
    )
    losses = []
    with _mode(net, training=True):
        for _ in tqdm(range(epochs), desc="train", unit="epoch", leave=False, delay=1.0):
            order = torch.arange(len(X)) if size >= len(X) else torch.randperm(len(X))
            total = 0.0
            for batch in order.split(size):  # type: ignore[no-untyped-call]
                whole = len(batch) == len(X)
                loss = nn.functional.cross_entropy(net(X if whole else X[batch]), y if whole else y[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.item() * len(batch)
            losses.append(total / len(X))
    return losses


@contextmanager
def _mode(net: nn.Module, *, training: bool) -> Iterator[None]:
    before = {module: module.training for module in net.modules()}
    try:
        net.train(training)
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@torch.no_grad()
def logits(net: nn.Module, X: Tensor) -> Tensor:
    """``net(X)`` in eval mode, without gradients; every module's mode is put back."""
    with _mode(_checks.module(net, "net"), training=False):
        return net(X)  # type: ignore[no-any-return]


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
