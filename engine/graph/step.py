"""A training step in two parts: the host fills a ring buffer, the device computes from tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from ember_reid.data.augment_fixed import (
    NUM_COLUMNS,
    flip_and_crop_rows,
    normalize_and_erase,
)
from ember_reid.data.batch import Batch, Selection
from ember_reid.data.dataset import gather_images
from ember_reid.engine.events import StepOutput
from ember_reid.engine.graph.buffers import Field, StepBuffers
from ember_reid.engine.graph.rates import DeviceRates
from ember_reid.engine.handlers.batch import (
    Augment,
    BatchTransform,
    LearningRate,
    Seeder,
)
from ember_reid.engine.losses.criterion import Criterion
from ember_reid.engine.trainer import (
    Backward,
    Step,
    apply_gradients,
    create_forward,
    mean_of,
)
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


@dataclass(frozen=True)
class BatchShape:
    """The images of one process: `num_items` items of `num_frames` frames of `size` (H, W)."""

    num_items: int
    num_frames: int
    size: tuple[int, int]

    @property
    def num_images(self) -> int:
        return self.num_items * self.num_frames


@dataclass(frozen=True)
class StepParts:
    """What a training step consists of; the same objects as in the eager step.

    Attributes:
        transforms: of distillation, applied in this order after the augmentation.
        average: called after the optimizers.
    """

    model: nn.Module
    criterion: Criterion
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    amp_dtype: torch.dtype | None
    seeder: Seeder
    augment: Augment
    transforms: tuple[BatchTransform, ...]
    learning_rate: LearningRate
    average: Callable[[], None]
    device: torch.device


class StaticStep:
    """A training step whose device part uses static tensors only.

    Call `fill` and `seed` on the host, then `compute` and `update`, which a graph may contain. The
    losses of the last iterations are in a ring, so nothing has to be read in between.

    Args:
        backward: computes the gradients; see `engine.grad_cache.create_backward`.
        cache: the decoded images of the dataset, uint8 [M, 3, H, W] on the device; None if
            batches contain images.
        num_outputs: iterations after which the losses are overwritten.
    """

    def __init__(
        self,
        parts: StepParts,
        backward: Backward,
        shape: BatchShape,
        *,
        cache: Tensor | None,
        num_outputs: int,
    ) -> None:
        self.parts, self.shape, self.cache = parts, shape, cache
        self._backward = backward
        device = parts.device
        num_groups = sum(len(optimizer.param_groups) for optimizer in parts.optimizers)
        rate_dtype = torch.float32 if device.type == "cuda" else torch.float64
        integers = {
            "rows": (shape.num_images,),
            "table": (shape.num_images, NUM_COLUMNS),
            "pids": (shape.num_items,),
            "camids": (shape.num_items,),
            "viewids": (shape.num_items,),
            "indices": (shape.num_items,),
            "position": (1,),
        }
        fields = {name: Field(dims, torch.int64) for name, dims in integers.items()}
        fields["rates"] = Field((num_groups,), rate_dtype)
        self._drawn = [f"transform{number}" for number in range(len(parts.transforms))]
        for name, transform in zip(self._drawn, parts.transforms, strict=True):
            example = transform.draw(1)
            fields[name] = Field(tuple(example.shape), example.dtype)
        self.buffers = StepBuffers(fields, device)
        self.rates = DeviceRates(
            parts.optimizers, self.buffers.device["rates"], capturable=device.type == "cuda"
        )
        self._source, self._own_rows = self._create_source()
        self._fill_value = torch.tensor(parts.augment.augmentation.settings.erase_fill).to(device)
        device_type = "cuda" if device.type == "cuda" else "cpu"
        self._step = Step(
            parts.model,
            _count_batches_together(
                parts.model, create_forward(parts.model, device_type, parts.amp_dtype)
            ),
            parts.criterion,
            parts.scaler,
        )
        names = [*parts.criterion.terms, "accuracy"]
        self._losses = torch.zeros(num_outputs, len(names), device=device)
        self._outputs = [
            StepOutput(dict(zip(names[:-1], row, strict=False)), row[-1], shape.num_items)
            for row in self._losses
        ]

    def _create_source(self) -> tuple[Tensor, Tensor | None]:
        """The images that the device part gathers, and their rows unless batches select them."""
        parts, cache = self.parts, self.cache
        if cache is not None and not parts.augment.augmentation.has_policies:
            return cache, None
        images = torch.zeros(
            (self.shape.num_images, 3, *self.shape.size),
            dtype=parts.augment.augmentation.cropped_dtype,
            device=parts.device,
        )
        return images, torch.arange(self.shape.num_images)

    def fill(self, iteration: int, batch: Batch | Selection) -> None:
        """The host part: everything that changes from one iteration to the next.

        Args:
            batch: a `Selection` of the cache, or images.
        """
        slot, parts = self.buffers.acquire(), self.parts
        slot["pids"].copy_(batch.pids)
        slot["camids"].copy_(batch.camids)
        slot["viewids"].copy_(cast(Tensor, batch.viewids))
        slot["indices"].copy_(batch.indices)
        slot["position"].fill_(iteration % len(self._losses))
        rates = parts.learning_rate.rates(iteration)
        slot["rates"].copy_(torch.tensor(rates, dtype=torch.float64))
        self.rates.record(rates)
        for name, transform in zip(self._drawn, parts.transforms, strict=True):
            slot[name].copy_(transform.draw(iteration))
        if parts.augment.augmentation.has_policies:
            images = self._load(batch).flatten(0, -4)
            images, table = parts.augment.apply_policies(images, iteration)
            self._source.copy_(images)
        else:
            table = parts.augment.draw(iteration, self.shape.num_images, self.shape.size)
            if isinstance(batch, Batch):
                self._source.copy_(batch.images.flatten(0, -4), non_blocking=True)
        slot["table"].copy_(table)
        if self._own_rows is not None:
            slot["rows"].copy_(self._own_rows)
        elif isinstance(batch, Selection):
            slot["rows"].copy_(batch.rows.flatten())
        self.buffers.send()

    def _load(self, batch: Batch | Selection) -> Tensor:
        """The images of a batch on the device, for policies that run in front of the graph."""
        if isinstance(batch, Batch):
            return batch.images.to(self.parts.device, non_blocking=True)
        return gather_images(cast(Tensor, self.cache), batch.rows)

    def seed(self, iteration: int) -> None:
        """Seed the generators that the device part uses."""
        self.parts.seeder.seed_iteration(iteration, self.parts.device)

    def output(self, iteration: int) -> StepOutput:
        """The losses of an iteration, until they are overwritten; nothing waits for them."""
        return self._outputs[iteration % len(self._outputs)]

    def compute(self) -> None:
        """The first half of the device part: the batch and its gradients."""
        parts, inputs = self.parts, self.buffers.device
        batch = self._assemble()
        for name, transform in zip(self._drawn, parts.transforms, strict=True):
            batch = transform.apply(batch, inputs[name])
        for optimizer in parts.optimizers:
            optimizer.zero_grad()
        measured = self._backward(batch, self._step)
        output = mean_of(measured, num_images=self.shape.num_items)
        row = torch.stack([*output.losses.values(), output.accuracy]).float()
        self._losses.index_copy_(0, inputs["position"], row[None])

    def update(self, before_step: Callable[[], object]) -> None:
        """The second half of the device part: optimizers and running averages."""
        apply_gradients(self.parts.optimizers, self.parts.scaler, before_step)
        self.parts.average()

    def undo_capture(self) -> None:
        """Drop what a failed capture left behind; it has not executed anything."""
        for optimizer in self.parts.optimizers:
            optimizer.zero_grad()
        # Between unscaling and `update`, the scaler would refuse to unscale again.
        if self.parts.scaler.is_enabled():
            self.parts.scaler._per_optimizer_states.clear()

    def _assemble(self) -> Batch:
        """Gather and augment the images of the batch."""
        augmentation = self.parts.augment.augmentation
        shape, inputs = self.shape, self.buffers.device
        images = flip_and_crop_rows(
            self._source, inputs["rows"], inputs["table"], padding=augmentation.settings.padding
        )
        images = normalize_and_erase(
            images,
            inputs["table"],
            normalization=augmentation.normalization,
            fill=self._fill_value,
        )
        if shape.num_frames > 1:
            # [B * T, 3, H, W] -> [B, T, 3, H, W]
            images = images.unflatten(0, (shape.num_items, shape.num_frames))
        labels = inputs["pids"], inputs["camids"], inputs["indices"]
        return Batch(images, *labels, viewids=inputs["viewids"])


def _count_batches_together(
    model: nn.Module, forward: Callable[..., ReidOutput]
) -> Callable[..., ReidOutput]:
    """A forward pass that increments `num_batches_tracked` of all batch norms with one kernel."""
    norms = [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]

    def counted(images: Tensor, *side: Tensor) -> ReidOutput:
        with _counters_hidden(norms):
            return forward(images, *side)

    return counted


@contextmanager
def _counters_hidden(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Hide the counters of batch norms inside the block, and increment them afterwards.

    Each batch norm must be used once. A batch norm with a momentum does not read its counter.
    """
    counting = [
        norm
        for norm in norms
        if norm.training
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.num_batches_tracked is not None
    ]
    counters = [cast(Tensor, norm.num_batches_tracked) for norm in counting]
    for norm in counting:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in zip(counting, counters, strict=True):
            norm.num_batches_tracked = counter
    if counters:
        torch._foreach_add_(counters, 1)
