"""Train a classifier by SGD on the cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.model.metrics import mode


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
        X: Samples (N, ...); they are not changed.
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
    X = X.detach()  # nobody asked for its gradient
    epochs = _checks.integer(epochs, "epochs", low=1)
    size = len(X) if batch_size is None else _checks.integer(batch_size, "batch_size", low=1)
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=_checks.real(lr, "lr", low=0.0, open_low=True),
        momentum=_checks.real(momentum, "momentum", low=0.0),
        weight_decay=_checks.real(weight_decay, "weight_decay", low=0.0),
    )
    losses = []
    with mode(net, training=True):
        for _ in tqdm(range(epochs), desc="train", unit="epoch", leave=False, delay=1.0):
            order = torch.arange(len(X)) if size >= len(X) else torch.randperm(len(X))
            total = 0.0
            for batch in order.split(size):  # type: ignore[no-untyped-call]
                whole = len(batch) == len(X)
                samples = X.clone() if whole else X[batch]  # a copy: the net may work in place
                loss = nn.functional.cross_entropy(net(samples), y if whole else y[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.item() * len(batch)
            losses.append(total / len(X))
    return losses
