"""Train many small nets side by side: one matrix product serves them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from lowrank_utils import _checks


def train_nets(
    nets: Sequence[nn.Module], X: Tensor, y: Tensor, *, epochs: int = 1000, lr: float = 0.1
) -> Tensor:
    r"""Train K nets of one architecture in place, each on samples of its own, as ``train_nn`` trains one.

    Each parameter is stacked along a new first axis, and one matrix product serves all nets: many small
    nets take little longer than one. Full-batch gradient descent, w <- w - lr grad. For nets without
    buffers or dropout.

    Args:
        nets: K classifiers of one architecture, (N, ...) -> (N, C) logits; what is frozen stays as it is.
        X: Samples (K, N, ...); net i sees X[i]. They are not changed.
        y: Labels (K, N), int64 from 0 to C - 1.
        epochs: Passes over the samples.
        lr: Learning rate.

    Returns:
        Loss of each net before each step, (epochs, K), rounded to torch's default dtype.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If ``nets``, X and y do not match, a net has buffers or computes something else than the
            first, two share a parameter, or a number is out of range.

    Example:
        >>> nets = [nn.Linear(1, 2) for _ in range(3)]
        >>> X, y = torch.tensor([[-1.0], [1.0]]).expand(3, 2, 1), torch.tensor([0, 1]).expand(3, 2)
        >>> train_nets(nets, X, y, epochs=50).shape
        torch.Size([50, 3])
    """
    _checks.stacked(nets, X, y)
    epochs = _checks.integer(epochs, "epochs", low=1)
    lr = _checks.real(lr, "lr", low=0.0, open_low=True)
    params, _ = stack_module_state(list(nets))  # {name: (K, ...)}
    trained = [values for values in params.values() if values.requires_grad]

    scores_of = vmap(lambda params, samples: functional_call(nets[0], params, (samples,)))
    with torch.no_grad():
        for i, scores in enumerate(scores_of(params, X.clone())):
            if bool(scores.isfinite().all()):
                _checks.computes_alike(i, nets[i](X[i].clone()), scores)
    history = torch.empty(epochs, len(nets))
    for epoch in tqdm(range(epochs), desc="train", unit="epoch", leave=False, delay=1.0):
        scores = scores_of(params, X.clone()).movedim(-1, 1)  # (K, C, N); a net may work in place
        losses = nn.functional.cross_entropy(scores, y, reduction="none").mean(1)  # (K,)
        slopes = torch.autograd.grad(losses.sum(), trained)
        history[epoch] = losses.detach()
        with torch.no_grad():
            for values, slope in zip(trained, slopes, strict=True):
                values.sub_(slope, alpha=lr)
    with torch.no_grad():
        for i, net in enumerate(nets):
            for name, values in net.named_parameters():
                values.copy_(params[name][i])
    return history
