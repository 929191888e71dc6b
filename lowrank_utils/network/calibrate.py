"""Second moments of what flows through each linear layer: of its inputs, and of the loss's gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.views import view
from lowrank_utils.layers.which import hooked_input, layers_of

Batches = Iterable[tuple[Tensor, Tensor]]


@torch.inference_mode(False)
def calibrate(
    model: nn.Module,
    X: Tensor | Batches,
    y: Tensor | None = None,
    *,
    batch_size: int = 256,
    temperature: float = 3.0,
) -> dict[str, Moments]:
    r"""Second moments of every ``nn.Linear`` in one pass, in memory that does not grow with the data.

    With labels, g is the gradient of cross_entropy(logits / temperature, y) by the layer's output:
    a temperature above 1 keeps samples in the sum that a trained model is already sure of. The model
    is copied and run in eval mode; the one given is not touched.

    Args:
        model: Any module, (N, ...) -> logits (N, C).
        X: Samples (N, ...), or an iterable of batches ``(X, y)``.
        y: Labels (N,); without them only inputs are recorded.
        batch_size: Samples a batch, if X is a tensor.
        temperature: Divisor of the logits, > 0.

    Returns:
        ``{dotted name: Moments}`` of each layer that was called.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there are no samples or no ``nn.Linear``, or a number is out of range.

    Reference:
        Martens & Grosse 2015 (the two factors of K-FAC).

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2))
        >>> moments = calibrate(net, torch.eye(3))
        >>> moments["0"].covariance.diagonal().round(decimals=4).tolist()
        [0.2222, 0.2222, 0.2222]
    """
    temperature = _checks.real(temperature, "temperature", low=0.0, open_low=True)
    names = layers_of(_checks.module(model))
    if not names:
        _checks.value_error("model", model, "a module with an nn.Linear in it")
    small = copied(model).eval().requires_grad_(False)
    found: dict[str, Moments] = {}
    for name in names:
        small.get_submodule(name).register_forward_hook(
            _recorder(name, found), with_kwargs=True, prepend=True
        )
    samples, fast = 0, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused path calls no layer
    try:
        for inputs, labels in tqdm(_batches(X, y, batch_size), desc="calibrate", leave=False, delay=1.0):
            samples += len(inputs)
            with torch.set_grad_enabled(labels is not None):
                scores = small(inputs.detach().clone())  # it may work in place
                if labels is not None and scores.requires_grad:  # it does not if no layer was called
                    loss = nn.functional.cross_entropy(scores / temperature, labels, reduction="sum")
                    loss.backward()  # type: ignore[no-untyped-call]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if samples == 0:
        raise ValueError("X has no samples; it must have at least one")
    for moments in found.values():
        moments.samples = samples
        if moments.gradient is not None:
            moments.gradient /= moments.rows
    return found


def _batches(X: Tensor | Batches, y: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    if not isinstance(X, Tensor):
        if y is not None:
            _checks.value_error("y", y, "None if X is an iterable, whose batches hold the labels")
        yield from X
        return
    if y is not None:
        _checks.labelled(X, y)
    size = _checks.integer(size, "batch_size", low=1)
    for start in range(0, len(X), size):
        yield X[start : start + size], None if y is None else y[start : start + size]


def _recorder(name: str, found: dict[str, Moments]) -> Callable[..., Tensor | None]:
    def record(
        layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
    ) -> Tensor | None:
        seen = view(layer)
        m, n = seen.weight.shape
        if name not in found:
            found[name] = Moments.empty(n, output.device)
        moments = found[name]
        moments.add(seen.rows(hooked_input(args, kwargs).detach()).double())
        if not torch.is_grad_enabled():
            return None
        if moments.gradient is None:
            moments.gradient = torch.zeros(m, m, dtype=torch.float64, device=output.device)
        total = moments.gradient

        def add(gradient: Tensor) -> None:
            g = seen.output_rows(gradient).double()
            total.addmm_(g.T, g)

        if not output.requires_grad:  # the first layer: the graph begins at its output
            output = output.detach().requires_grad_()
        output.register_hook(add)  # type: ignore[no-untyped-call]
        return output.clone()  # a later op may work in place, which a leaf forbids

    return record
