"""The training step, and the Engine that repeats it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from ember_reid.engine.compilation import Compilation
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


Measured = tuple[dict[str, Tensor], Tensor]  # losses and accuracy of one part of a batch


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
        optimizers: all are stepped after each batch.
        scaler: loss scaling; `enabled=False` where it is not needed.
        device_type: "cpu" or "cuda", for autocast.
        amp_dtype: the dtype of mixed precision, None for float32. Losses see float32 in any case.
        accumulation_steps: the batch is run in this many equal parts, one after another, before the step.
        joint_loss: with several parts, the loss compares the images of all of them, at the price of one more forward pass.
        compile_mode: see Compilation; the network and the losses are compiled, each for itself.
    """
    compilation = Compilation(compile_mode, state=[*model.buffers(), *criterion.buffers()])

    def embed(images: Tensor):
        with torch.autocast(device_type, dtype=amp_dtype, enabled=amp_dtype is not None):
            return model(images)

    forward, judge = compilation.wrap(embed), compilation.wrap(criterion)

    def backward_apart(batch) -> list[Measured]:
        """Each part has a loss of its own; the batch's is their mean."""
        measured = []
        for part, synchronize in _parts(batch, accumulation_steps, model):
            with synchronize():
                output = forward(part.images)
                losses = judge(output, part)
                scaler.scale(sum(losses.values()) / accumulation_steps).backward()
            measured.append(_measure(losses, output, part))
        return measured

    def backward_jointly(batch) -> list[Measured]:
        """The gradient of one loss of all parts' outputs (Gao et al. 2021, arXiv 2101.06983, section 3): the outputs without
        a graph; the loss and its gradient with respect to them; each part again, from which that gradient goes on.
        """
        seed = torch.initial_seed()
        torch.manual_seed(seed)  # both passes draw the same dropout masks
        statistics = [buffer.clone() for buffer in model.buffers()]
        with torch.no_grad():
            outputs = [forward(part.images) for part, _ in _parts(batch, accumulation_steps, model)]
            for buffer, value in zip(model.buffers(), statistics, strict=True):
                buffer.copy_(value)
        whole = _join(outputs)
        losses = judge(whole, batch)
        scaler.scale(sum(losses.values())).backward()
        gradients = _map(lambda tensor: tensor.grad, whole)
        torch.manual_seed(seed)
        for index, (part, synchronize) in enumerate(_parts(batch, accumulation_steps, model)):
            with synchronize():
                size = len(part.pids)
                pairs = zip(
                    _leaves(forward(part.images)),
                    _leaves(_cut(gradients, index * size, size)),
                    strict=True,
                )
                pairs = [
                    (tensor, gradient)
                    for tensor, gradient in pairs
                    if gradient is not None and tensor.requires_grad
                ]
                torch.autograd.backward(*zip(*pairs, strict=True))
        return [_measure(losses, whole, batch)]

    backward = backward_jointly if joint_loss and accumulation_steps > 1 else backward_apart

    def forget() -> None:
        """Undo a step that failed half-way: its gradients, and what it drew."""
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.manual_seed(torch.initial_seed())

    def train_step(engine: Engine, batch) -> StepOutput:
        for optimizer in optimizers:
            optimizer.zero_grad()
        measured = compilation.run(lambda: backward(batch), undo=forget)
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


def _map(function: Callable, *values):
    """The function of the tensors at each place of equally nested tuples, nested in the same way."""
    if not isinstance(values[0], tuple):
        return function(*values)
    items = [_map(function, *item) for item in zip(*values, strict=True)]
    return type(values[0])(*items) if hasattr(values[0], "_fields") else tuple(items)


def _leaves(value) -> list:
    """What nested tuples hold, in order."""
    return (
        [leaf for item in value for leaf in _leaves(item)] if isinstance(value, tuple) else [value]
    )


def _cut(value, start: int, size: int):
    """Rows start..start+size of every tensor inside nested tuples; anything else stays."""
    return _map(
        lambda leaf: leaf[start : start + size] if isinstance(leaf, Tensor) else leaf, value
    )


def _join(outputs: Sequence):
    """One output for all rows: tensors of their own that collect gradients."""
    return _map(lambda *parts: torch.cat(parts).requires_grad_(), *outputs)


@torch.no_grad()
def _measure(losses: dict[str, Tensor], output, batch) -> Measured:
    losses = {name: loss.detach() for name, loss in losses.items()}
    if not output.logits:
        return losses, batch.pids.new_zeros((), dtype=torch.float32)
    return losses, (output.logits[0].argmax(dim=1) == batch.pids).float().mean()


def _mean(measured: list[Measured], *, num_images: int) -> StepOutput:
    """One StepOutput for the whole batch from those of its equal parts."""
    names = measured[0][0]
    losses = {name: torch.stack([losses[name] for losses, _ in measured]).mean() for name in names}
    return StepOutput(
        losses, torch.stack([accuracy for _, accuracy in measured]).mean(), num_images
    )
