"""The training step, and the Engine that repeats it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.compilation import Compilation
from ember_reid.engine.events import TrainingEvents
from ember_reid.engine.grad_cache import Measured, grad_cache, per_microbatch
from ember_reid.modeling.output import ReidOutput
from ignite.engine import Engine, Events
from torch import Tensor, nn


class StepOutput(NamedTuple):
    """`engine.state.output` after a step: detached tensors that stay on the device.

    Attributes:
        losses: weighted losses by name; scalars, means over the batch.
        accuracy: fraction of images that the first classifier assigns correctly; a scalar.
        num_images: of this process.
    """

    losses: dict[str, Tensor]
    accuracy: Tensor
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
    joint_loss: bool = False,
    compile_mode: str = "none",
) -> Engine:
    """An Engine whose step trains `model` on one `Batch` of normalized images.

    Args:
        model: images [B, (T,) 3, H, W] -> ReidOutput.
        criterion: (ReidOutput, Batch) -> {name: weighted scalar loss}.
        optimizers: all of them step after each batch.
        scaler: loss scaling; `enabled=False` if it is not needed.
        device_type: "cpu" or "cuda", for autocast.
        amp_dtype: the dtype of mixed precision; None for float32. Losses are float32 in any case.
        accumulation_steps: the batch is processed in this many equal microbatches.
        joint_loss: with several microbatches, compute one loss over the whole batch (`grad_cache`).
        compile_mode: see `Compilation`; the network and the losses are compiled separately.
    """
    compilation = Compilation(compile_mode, state=[*model.buffers(), *criterion.buffers()])

    def embed(images: Tensor) -> ReidOutput:
        with torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None):
            return model(images)

    forward, compute_losses = compilation.wrap(embed), compilation.wrap(criterion)
    accumulate = grad_cache if joint_loss and accumulation_steps > 1 else per_microbatch

    def backward(batch: Batch) -> list[Measured]:
        return accumulate(
            batch,
            model=model,
            forward=forward,
            compute_losses=compute_losses,
            scaler=scaler,
            num_parts=accumulation_steps,
        )

    def rollback() -> None:
        """Undo a step that failed: drop its gradients and reset the random generator."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.manual_seed(torch.initial_seed())

    def train_step(engine: Engine, batch: Batch) -> StepOutput:
        for optimizer in optimizers:
            optimizer.zero_grad()
        measured = compilation.run(lambda: backward(batch), undo=rollback)
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        return _mean(measured, num_images=len(batch.pids))

    trainer = Engine(train_step)
    trainer.register_events(*TrainingEvents)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
    return trainer


def _mean(measured: Sequence[Measured], *, num_images: int) -> StepOutput:
    """The means over equal microbatches."""
    names = measured[0][0]
    losses = {name: torch.stack([losses[name] for losses, _ in measured]).mean() for name in names}
    accuracy = torch.stack([accuracy for _, accuracy in measured]).mean()
    return StepOutput(losses, accuracy, num_images)
