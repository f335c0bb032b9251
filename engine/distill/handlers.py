"""Handlers of distillation, which act on the batch at ITERATION_STARTED, in this order."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.handlers.batch import iteration_seed
from ignite.engine import Engine, Events
from torch import Tensor, nn


class EmaTeacher:
    """A teacher whose weights are the running average of the student's.

    Trainer, ITERATION_STARTED, before TeacherForward: average = d * average + (1 - d) * student,
    for parameters and batch-norm statistics. FastReID does not average the statistics, because its
    teachers use those of the batch.

    Args:
        student: the averaged network.
        decay: d. With `ramp`, d is at most (1 + i) / (10 + i) in iteration i, so that the average
            of a short training does not depend on the initial weights.
        statistics, keep_maps: see Teacher.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        decay: float,
        ramp: bool,
        statistics: str,
        keep_maps: bool = False,
    ) -> None:
        self.teacher = Teacher(
            copy.deepcopy(student),
            statistics=statistics,
            keep_maps=keep_maps,
        )
        self.student, self.decay, self.ramp = student, decay, ramp

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        i = engine.state.iteration
        decay = min(self.decay, (1 + i) / (10 + i)) if self.ramp else self.decay
        current = self.student.state_dict()
        for name, value in self.teacher.model.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])

    def state_dict(self) -> dict[str, Tensor]:
        return self.teacher.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.teacher.model.load_state_dict(state)


class TeacherForward:
    """Trainer, ITERATION_STARTED, after Augment: appends each teacher's output to `batch.teachers`.

    Gradient accumulation splits these outputs together with the images.
    """

    def __init__(
        self, teachers: Sequence[Teacher], *, device_type: str, amp_dtype: torch.dtype | None = None
    ) -> None:
        self.teachers, self.device_type, self.amp_dtype = list(teachers), device_type, amp_dtype

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        batch: Batch = state.batch
        with torch.autocast(
            self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        ):
            outputs = tuple(teacher(batch.images) for teacher in self.teachers)
        state.batch = batch._replace(teachers=(*batch.teachers, *outputs))


class ViewSubsample:
    """Trainer, ITERATION_STARTED, after TeacherForward: the student sees `num_views` random views.

    All samples of a batch use the same views; they are a function of (seed, iteration, rank).
    """

    def __init__(self, num_views: int, *, seed: int) -> None:
        self.num_views, self.seed = num_views, seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        state: Any = engine.state
        batch: Batch = state.batch  # images [B, N, 3, H, W]
        seed = iteration_seed(self.seed + 2, engine.state.iteration, idist.get_rank())
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(batch.images.shape[1], generator=generator)[: self.num_views]
        views = torch.stack([batch.images[:, view] for view in chosen.tolist()], dim=1)
        state.batch = batch._replace(images=views)
