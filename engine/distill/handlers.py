"""Handlers of distillation, which act on the batch at ITERATION_STARTED, in this order."""

import copy
from collections.abc import Mapping, Sequence

import ignite.distributed as idist
import torch
from ember_reid.data.batch import Batch
from ember_reid.data.dataset import upload
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.handlers.batch import BatchTransform, iteration_seed
from ember_reid.engine.handlers.ema import RunningAverage
from ember_reid.modeling.model import side_inputs
from torch import Tensor, nn


class EmaTeacher(BatchTransform):
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
        self._average: RunningAverage | None = None

    def draw(self, iteration: int) -> Tensor:
        """The weight of the student, float32 [1]."""
        ramp = (1 + iteration) / (10 + iteration)
        decay = min(self.decay, ramp) if self.ramp else self.decay
        return torch.tensor([1 - decay], dtype=torch.float32)

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        if self._average is None:
            # Not earlier: batch norms may have been replaced by synchronized ones.
            current = self.student.state_dict()
            pairs = [(value, current[name]) for name, value in self.state_dict().items()]
            self._average = RunningAverage(
                [pair for pair in pairs if pair[0].is_floating_point()],
                [pair for pair in pairs if not pair[0].is_floating_point()],
            )
        self._average.update(drawn.item() if drawn.device.type == "cpu" else drawn)
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        return self.teacher.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.teacher.model.load_state_dict(state)


class TeacherForward(BatchTransform):
    """Trainer, ITERATION_STARTED, after Augment: appends each teacher's output to `batch.teachers`.

    Gradient accumulation splits these outputs together with the images.
    """

    def __init__(
        self, teachers: Sequence[Teacher], *, device_type: str, amp_dtype: torch.dtype | None = None
    ) -> None:
        self.teachers, self.device_type, self.amp_dtype = list(teachers), device_type, amp_dtype

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        with torch.autocast(
            self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        ):
            outputs = tuple(
                teacher(batch.images, *side_inputs(teacher.model, batch))
                for teacher in self.teachers
            )
        return batch._replace(teachers=(*batch.teachers, *outputs))


class ViewSubsample(BatchTransform):
    """Trainer, ITERATION_STARTED, after TeacherForward: the student sees `num_views` random views.

    All samples of a batch use the same views; they are a function of (seed, iteration, rank).
    """

    def __init__(self, num_views: int, *, num_frames: int, seed: int) -> None:
        self.num_views, self.num_frames, self.seed = num_views, num_frames, seed

    def draw(self, iteration: int) -> Tensor:
        """The chosen views, int64 [num_views]."""
        seed = iteration_seed(self.seed + 2, iteration, idist.get_rank())
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(self.num_frames, generator=generator)[: self.num_views]

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """`batch.images` are [B, N, 3, H, W]."""
        if drawn.device != batch.images.device:
            drawn = upload(drawn, batch.images.device)
        return batch._replace(images=batch.images.index_select(1, drawn))
