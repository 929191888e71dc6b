"""Second moments of what flows through each linear layer: of its inputs, and of the loss's gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.views import layer_view
from lowrank_utils.layers.which import hooked_input, some_layers_of
from lowrank_utils.model.batches import Batch, Loss, batches, call, cross_entropy
from lowrank_utils.model.padding import Mask, counted, mask_of
from lowrank_utils.network.inputs import Inputs
from lowrank_utils.network.squares import Squares


def calibrate(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    batch_size: int = 256,
    temperature: float = 3.0,
    loss: Loss | None = None,
    target: str | None = None,
    directions: int = 1,
    mask: Mask | None = None,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> dict[str, Moments]:
    r"""Second moments of every layer that can have a rank, in memory that does not grow with the data.

    With labels, g is the gradient of the loss by the layer's output; by default of
    cross_entropy(logits / temperature, y): a temperature above 1 keeps samples in the sum that a trained
    model is already sure of. Without labels, g is the gradient of <v, f(x)>, v standard normal, and
    E[g g^T] = E[J^T J], J the Jacobian of the model's output by the layer's: a change of the layer is weighed
    by the squared change of the model. The model is copied and run in eval mode; the one that is given is not
    touched. It takes 8 (n^2 + m^2) bytes a layer (m^2 only with gradients), 24 n^2 more for the widest, a
    copy of the model, and one batch with its activations and its rows in float64.

    Args:
        model: Any module; with labels and no ``loss`` it returns logits (N, C) or (N, T, C), classes last.
        X: Samples (N, ...): a tensor, a tuple of arguments, a mapping of named ones; or an iterable of
            batches, of inputs or of pairs ``(inputs, labels)``.
        y: Labels (N,), or (N, T) for tokens, -100 where there is none.
        batch_size: Samples a batch, if X holds all samples.
        temperature: Divisor of the logits, > 0.
        loss: A callable(outputs, batch) -> scalar, summed over samples; ``batch.labels`` are its labels.
        target: ``"labels"``, ``"outputs"`` for random directions of a floating output of any shape, or
            ``"inputs"`` for no gradients, which is quicker; by default labels where there are any or a loss,
            else outputs if they are a floating tensor, else inputs.
        directions: Random directions a sample, each one more backward pass. Of a layer right before a mean
            over rows, all rows of a sample have one g, and E[g g^T] has at most samples x directions ranks:
            if that is fewer than the layer has outputs, a cut hides its error where the estimate is blind.
        mask: A callable(inputs) -> (N, T), True where a position counts and False where it fills up a batch;
            by default what a batch with named arguments says by ``attention_mask``, or by torch's
            ``src_key_padding_mask`` or ``key_padding_mask``, else every position. A padded
            nn.TransformerEncoder needs one: torch drops such positions in eval mode, here they are run.
        layers: Names of the layers that take part; by default all that can.
        skip: Names of those that do not.

    Returns:
        ``{dotted name: Moments}`` of each layer that was called, with one row at least.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there are no samples or no layer, a number is out of range, an input or a gradient
            is not finite, or the labels are no classes and there is no ``loss``.

    Reference:
        Martens & Grosse 2015 (the two factors of K-FAC); Martens 2020 (the Gauss-Newton matrix of an output).

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2))
        >>> moments = calibrate(net, torch.eye(3))
        >>> moments["0"].covariance.diagonal().round(decimals=4).tolist()
        [0.2222, 0.2222, 0.2222]
        >>> moments["0"].gradient.shape, calibrate(net, torch.eye(3), target="inputs")["0"].gradient
        (torch.Size([2, 2]), None)
    """
    temperature = _checks.real(temperature, "temperature", low=0.0, open_low=True)
    if target is not None:
        _checks.choice(target, "target", ("labels", "outputs", "inputs"))
    if loss is not None and not callable(loss):
        _checks.type_error("loss", loss, "a callable(outputs, batch) that returns a scalar")
    if loss is not None and target in ("outputs", "inputs"):
        _checks.value_error("target", target, "'labels' or None where there is a loss")
    directions = _checks.integer(directions, "directions", low=1)
    entropy = functools.partial(cross_entropy, temperature=temperature)
    random = _random_directions(asked=target == "outputs")
    model = _checks.module(model)
    names = some_layers_of(model, layers=layers, skip=skip)
    small = copied(model).eval().requires_grad_(False)
    found: dict[str, Moments] = {}
    inputs, squares = Inputs(found), dict[str, Squares]()
    for name in names:
        small.get_submodule(name).register_forward_hook(
            _recorder(name, inputs, squares.setdefault(name, Squares())), with_kwargs=True, prepend=True
        )
    samples = 0
    with plainly():
        for batch in tqdm(batches(X, y, size=batch_size), desc="calibrate", leave=False, delay=1.0):
            samples += len(batch)
            if target == "labels" and batch.labels is None:
                _checks.value_error("y", None, "given for target='labels'")
            known = batch.labels is not None and target != "outputs"
            measure = None if target == "inputs" else loss or (entropy if known else random)
            if directions > 1 and measure is not random:
                _checks.value_error(
                    "directions", directions, "1 where labels, a loss or no gradient are asked for"
                )
            batch = batch.on(small)
            inputs.mask = mask_of(batch.inputs, mask)
            try:
                _run(small, batch, measure, directions)
            except RuntimeError as error:
                if measure is random and target is None:
                    error.add_note("calibrate differentiates the outputs; target='inputs' needs no gradients")
                raise
            inputs.forget()
    if samples == 0:
        _checks.no_samples()
    for name in [name for name, moments in found.items() if moments.rows == 0]:
        del found[name]  # an expert that was never chosen
    for name, moments in found.items():
        _checks.finite_in(name, "inputs", moments.mean)
        moments.samples = samples
        if moments.gradient is not None:
            squares[name].finish(moments.gradient)
            _checks.finite_in(name, "gradients", moments.gradient)
            moments.gradient /= moments.rows * directions
            if target is None and not bool(moments.gradient.any()):
                moments.gradient = None  # nothing to differentiate
    return found


def _random_directions(asked: bool) -> Loss:
    """<v, f(x)>, summed over the samples; each v is standard normal, from a generator of its own.

    Outputs that are no floating tensor are an error if ``asked``, else they have no gradient.
    """
    generators: dict[torch.device, torch.Generator] = {}

    def product(outputs: Any, batch: Batch) -> Tensor:
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            if asked:
                _checks.type_error("model(X)", outputs, "a floating tensor for target='outputs'")
            return torch.zeros(())
        new = torch.Generator(outputs.device).manual_seed(0)
        generator = generators.setdefault(outputs.device, new)
        v = torch.randn(outputs.shape, generator=generator, device=outputs.device)
        return (v.to(outputs.dtype) * outputs).sum()

    return product


def _run(model: nn.Module, batch: Batch, loss: Loss | None, times: int = 1) -> None:
    """One forward, and so many backwards where there is something to differentiate."""
    with torch.set_grad_enabled(loss is not None):
        outputs = call(model, batch.inputs)
        if loss is None or len(batch) == 0:
            return
        for left in reversed(range(times)):
            value = loss(outputs, batch)
            if value.requires_grad:  # it does not if no layer was called
                value.backward(retain_graph=left > 0)  # type: ignore[no-untyped-call]


def _recorder(name: str, inputs: Inputs, squares: Squares) -> Callable[..., Tensor | None]:
    def record(
        layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
    ) -> Tensor | None:
        seen = layer_view(layer)
        backward = torch._C._current_graph_task_id() != -1
        if backward and name in inputs.met:  # activation checkpointing runs a block once more
            moments = inputs.found[name]
        else:
            moments = inputs.add(name, seen, hooked_input(args, kwargs))
        if not backward:
            inputs.met.add(name)
        if not torch.is_grad_enabled():
            return None
        if moments.gradient is None:
            m = len(seen.weight)
            moments.gradient = torch.zeros(m, m, dtype=torch.float64, device=output.device)
        total = moments.gradient

        def add(gradient: Tensor) -> None:
            g = counted(seen.output_rows(gradient), gradient.shape, inputs.mask)
            squares.add(total, g)

        if not output.requires_grad:  # the first layer: the graph begins at its output
            output = output.detach().requires_grad_()
        output.register_hook(add)  # type: ignore[no-untyped-call]
        return output.clone()  # a later op may work in place, which a leaf forbids

    return record
