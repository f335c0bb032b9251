"""The training step, and the Engine that repeats it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from ignite.engine import Engine, EventEnum, Events
from torch import Tensor, nn


class TrainingEvents(EventEnum):
    """Between backward and the optimizers' step: gradients are there, unscaled, and may still be changed."""

    BACKWARD_COMPLETED = "backward_completed"


class StepOutput(NamedTuple):
    """What a step leaves in `engine.state.output`: detached tensors on the device, nothing is read back here."""

    losses: dict[str, Tensor]  # weighted terms, scalars, means over the batch
    accuracy: Tensor  # share of images whose largest logit is their identity's, a scalar
    num_images: int


def create_trainer(
    model: nn.Module,
    criterion: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    scaler: torch.amp.GradScaler,
    device_type: str,
    amp_dtype: torch.dtype | None = None,
    accumulation_steps: int = 1,
) -> Engine:
    """An Engine whose step trains `model` on one `Batch` of normalised images.

    Args:
        model: images [B, (T,) 3, H, W] -> ReidOutput.
        criterion: (ReidOutput, Batch) -> {name: weighted scalar loss}.
        optimizers: all are stepped after each batch.
        scaler: loss scaling; `enabled=False` where it is not needed.
        device_type: "cpu" or "cuda", for autocast.
        amp_dtype: the dtype of mixed precision, None for float32. Losses see float32 in any case.
        accumulation_steps: the batch is run in this many equal parts, one after another, before the step.
    """

    def train_step(engine: Engine, batch) -> StepOutput:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        outputs = []
        for part, synchronise in _parts(batch, accumulation_steps, model):
            with synchronise():
                with torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None):
                    output = model(part.images)
                losses = criterion(output, part)
                scaler.scale(sum(losses.values()) / accumulation_steps).backward()
            outputs.append(_detach(losses, output, part))
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        return _mean(outputs, num_images=len(batch.pids))

    trainer = Engine(train_step)
    trainer.register_events(*TrainingEvents)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
    return trainer


def _parts(batch, num_parts: int, model: nn.Module) -> Iterator[tuple[NamedTuple, Callable]]:
    """Equal slices of the batch, each with the context in which its backward pass runs.

    A distributed model exchanges gradients in the last part only. Teachers' outputs are cut along with the images.
    """
    if len(batch.pids) % num_parts:
        raise ValueError(
            f"a batch of {len(batch.pids)} images cannot be run in SOLVER.ACCUMULATION_STEPS {num_parts} equal parts"
        )
    size = len(batch.pids) // num_parts
    for index in range(num_parts):
        no_sync = getattr(model, "no_sync", nullcontext)
        yield _cut(batch, index * size, size), nullcontext if index == num_parts - 1 else no_sync


def _cut(value, start: int, size: int):
    """Rows start..start+size of every tensor inside nested tuples."""
    if isinstance(value, Tensor):
        return value[start : start + size]
    items = [_cut(item, start, size) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


@torch.no_grad()
def _detach(losses: dict[str, Tensor], output, batch) -> tuple[dict[str, Tensor], Tensor]:
    losses = {name: loss.detach() for name, loss in losses.items()}
    if not output.logits:
        return losses, batch.pids.new_zeros((), dtype=torch.float32)
    return losses, (output.logits[0].argmax(dim=1) == batch.pids).float().mean()


def _mean(outputs: list[tuple[dict[str, Tensor], Tensor]], *, num_images: int) -> StepOutput:
    """One StepOutput for the whole batch from those of its equal parts."""
    names = outputs[0][0]
    losses = {name: torch.stack([losses[name] for losses, _ in outputs]).mean() for name in names}
    return StepOutput(losses, torch.stack([accuracy for _, accuracy in outputs]).mean(), num_images)
