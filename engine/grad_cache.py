"""Backward passes over a batch that is processed in several microbatches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.trainer import Backward, Measured, Step, measure, total, whole_batch
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn

Value = TypeVar("Value")


def create_backward(num_parts: int, *, joint_loss: bool) -> Backward:
    """The function that computes the gradients of a batch in `num_parts` equal microbatches.

    Args:
        num_parts: 1 processes the whole batch at once.
        joint_loss: compute one loss over the whole batch (`grad_cache`), so that losses which
            compare images see all of them; otherwise average the losses of the microbatches.
    """
    if num_parts == 1:
        return whole_batch
    return partial(grad_cache if joint_loss else per_microbatch, num_parts=num_parts)


def per_microbatch(batch: Batch, step: Step, *, num_parts: int) -> list[Measured]:
    """Accumulate the gradients of the mean loss of `num_parts` microbatches."""
    measured = []
    for part, synchronize in microbatches(batch, num_parts, step.model):
        with synchronize():
            output = step.run(part)
            losses = step.compute_losses(output, part)
            step.scaler.scale(total(losses) / num_parts).backward()
        measured.append(measure(losses, output, part))
    return measured


def grad_cache(batch: Batch, step: Step, *, num_parts: int) -> list[Measured]:
    """Compute the gradient of one loss over the whole batch with the memory of a microbatch.

    Gao et al. 2021 (arXiv 2101.06983), section 3, at the cost of a second forward pass: compute the
    outputs without a graph; the loss and its gradient with respect to the outputs; then repeat the
    forward pass of each microbatch and backpropagate that gradient.
    """
    # Both passes use the same dropout masks and start from the same buffers.
    seed = torch.initial_seed()
    torch.manual_seed(seed)
    buffers = [buffer.clone() for buffer in step.model.buffers()]
    with torch.no_grad():
        parts = microbatches(batch, num_parts, step.model)
        outputs = [step.run(part) for part, _ in parts]
        for buffer, value in zip(step.model.buffers(), buffers, strict=True):
            buffer.copy_(value)
    whole = _join(outputs)
    losses = step.compute_losses(whole, batch)
    step.scaler.scale(total(losses)).backward()
    gradients = _map_tensors(lambda tensor: tensor.grad, whole)
    torch.manual_seed(seed)
    for index, (part, synchronize) in enumerate(microbatches(batch, num_parts, step.model)):
        with synchronize():
            size = len(part.pids)
            tensors = _leaves(step.run(part))
            cached = _leaves(_slice_rows(gradients, index * size, size))
            pairs = [
                (tensor, gradient)
                for tensor, gradient in zip(tensors, cached, strict=True)
                if gradient is not None and tensor.requires_grad
            ]
            torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return [measure(losses, whole, batch)]


def microbatches(
    batch: Batch, num_parts: int, model: nn.Module
) -> Iterator[tuple[Batch, Callable[[], AbstractContextManager]]]:
    """Split the batch into equal parts, each with the context for its backward pass.

    A distributed model exchanges gradients during the last part only. Outputs of teachers are
    split along with the images.

    Raises:
        ValueError: the batch cannot be split into equal parts.
    """
    if len(batch.pids) % num_parts:
        raise ValueError(
            f"a batch of {len(batch.pids)} images cannot be divided into "
            f"SOLVER.ACCUMULATION_STEPS {num_parts} equal parts"
        )
    size = len(batch.pids) // num_parts
    no_sync = getattr(model, "no_sync", nullcontext)
    for index in range(num_parts):
        part = _slice_rows(batch, index * size, size)
        yield part, nullcontext if index == num_parts - 1 else no_sync


def _map_tensors(function: Callable[..., Any], *values: Any) -> Any:
    """Apply a function to the corresponding items of equally nested tuples; keeps the nesting."""
    if not isinstance(values[0], tuple):
        return function(*values)
    items = [_map_tensors(function, *item) for item in zip(*values, strict=True)]
    return type(values[0])(*items) if hasattr(values[0], "_fields") else tuple(items)


def _leaves(value: Any) -> list:
    """The items of nested tuples, in order."""
    if not isinstance(value, tuple):
        return [value]
    return [leaf for item in value for leaf in _leaves(item)]


def _slice_rows(value: Value, start: int, size: int) -> Value:
    """Rows start..start+size of every tensor in nested tuples; other values are kept."""
    return _map_tensors(
        lambda leaf: leaf[start : start + size] if isinstance(leaf, Tensor) else leaf, value
    )


def _join(outputs: Sequence[ReidOutput]) -> ReidOutput:
    """Concatenate outputs into leaf tensors, which collect gradients."""
    return _map_tensors(lambda *parts: torch.cat(parts).requires_grad_(), *outputs)
