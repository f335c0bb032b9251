"""The training step, and the Engine that repeats it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.compilation import Compilation
from ember_reid.engine.events import StepOutput, TrainingEvents
from ember_reid.modeling.model import side_inputs
from ember_reid.modeling.output import ReidOutput
from ignite.engine import Engine, Events
from torch import Tensor, nn

# Detached losses and accuracy of a microbatch, or of the whole batch.
Measured = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """What a forward and backward pass uses.

    Attributes:
        model: a distributed model delays its communication through it.
        forward: images [B, (T,) 3, H, W] and perhaps cameras [B] -> ReidOutput, under autocast.
        compute_losses: (ReidOutput, Batch) -> {name: weighted scalar loss}.
        scaler: loss scaling; `enabled=False` if it is not needed.
    """

    model: nn.Module
    forward: Callable[..., ReidOutput]
    compute_losses: Callable[[ReidOutput, Batch], dict[str, Tensor]]
    scaler: torch.amp.GradScaler

    def run(self, batch: Batch) -> ReidOutput:
        """The output of the model for a batch."""
        return self.forward(batch.images, *side_inputs(self.model, batch))


# Computes the gradients of a batch.
Backward = Callable[[Batch, Step], list[Measured]]


def whole_batch(batch: Batch, step: Step) -> list[Measured]:
    """Compute the gradients of the losses of a batch."""
    output = step.run(batch)
    losses = step.compute_losses(output, batch)
    step.scaler.scale(total(losses)).backward()
    return [measure(losses, output, batch)]


def create_trainer(
    model: nn.Module,
    criterion: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    scaler: torch.amp.GradScaler,
    device_type: str,
    amp_dtype: torch.dtype | None = None,
    backward: Backward = whole_batch,
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
        backward: computes the gradients; see `engine.grad_cache.create_backward`.
        compile_mode: see `Compilation`; the network and the losses are compiled separately.
    """
    compilation = Compilation(compile_mode, state=[*model.buffers(), *criterion.buffers()])

    forward = create_forward(model, device_type, amp_dtype)
    step = Step(model, compilation.wrap(forward), compilation.wrap(criterion), scaler)

    def rollback() -> None:
        """Undo a step that failed: drop its gradients and reset the random generator."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.manual_seed(torch.initial_seed())

    def train_step(engine: Engine, batch: Batch) -> StepOutput:
        for optimizer in optimizers:
            optimizer.zero_grad()
        if compilation.enabled:
            measured = compilation.run(lambda: backward(batch, step), undo=rollback)
        else:
            measured = backward(batch, step)
        apply_gradients(
            optimizers, scaler, lambda: engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
        )
        return mean_of(measured, num_images=len(batch.pids))

    trainer = Engine(train_step)
    trainer.register_events(*TrainingEvents)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: model.train())
    return trainer


def create_forward(
    model: nn.Module, device_type: str, amp_dtype: torch.dtype | None
) -> Callable[..., ReidOutput]:
    """The forward pass of a model in mixed precision; `amp_dtype` None means float32."""

    def forward(images: Tensor, *side: Tensor) -> ReidOutput:
        with torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None):
            return model(images, *side)

    return forward


def apply_gradients(
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    before_step: Callable[[], object],
) -> None:
    """Unscale the gradients, call `before_step`, which may change them, and step."""
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    before_step()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum of all losses, in their order."""
    return reduce(torch.add, losses.values())


@torch.no_grad()
def measure(losses: dict[str, Tensor], output: ReidOutput, batch: Batch) -> Measured:
    """Losses, and the accuracy of the first classifier (0 without one)."""
    losses = {name: loss.detach() for name, loss in losses.items()}
    if not output.logits:
        return losses, batch.pids.new_zeros((), dtype=torch.float32)
    return losses, (output.logits[0].argmax(dim=1) == batch.pids).float().mean()


def mean_of(measured: Sequence[Measured], *, num_images: int) -> StepOutput:
    """The means over equal microbatches."""
    names = measured[0][0]
    losses = {name: torch.stack([losses[name] for losses, _ in measured]).mean() for name in names}
    accuracy = torch.stack([accuracy for _, accuracy in measured]).mean()
    return StepOutput(losses, accuracy, num_images)
