"""Teachers: networks that look at the batch and are never trained."""

import copy
from collections.abc import Sequence

import ignite.distributed as idist
import torch
from ember_reid.engine.distill.class_mapping import CommonClasses
from ember_reid.engine.distill.fuse_conv_bn import fold_norms
from ember_reid.engine.distill.stages import StageTaps, last_norms
from ember_reid.engine.handlers.batch import iteration_seed
from ember_reid.layers import negative_means
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional as F

_NORMS = (nn.modules.batchnorm._BatchNorm,)


class InputAdapter:
    """Images as the student has them, made into what a teacher was trained on.

    Args:
        size: (height, width) of the teacher; None where it is the student's.
        scale, shift: x * scale + shift undoes the student's normalization and applies the teacher's, [3] each; None
            where they are the same.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ):
        self.size, self.scale, self.shift = size, scale, shift

    def __call__(self, images: Tensor) -> Tensor:
        """float [B, (T,) 3, H, W] -> float [B, (T,) 3, H', W']."""
        if self.size is not None:
            flat = images.flatten(0, -4)
            flat = F.interpolate(
                flat, size=self.size, mode="bilinear", align_corners=False, antialias=True
            )
            images = flat.unflatten(0, images.shape[:-3])
        if self.scale is not None:
            scale, shift = (
                value.to(images.device, images.dtype)[:, None, None]
                for value in (self.scale, self.shift)
            )
            images = images * scale + shift
        return images


class Teacher:
    """A frozen network with what it takes to ask it.

    Args:
        model: its parameters lose their gradients here; it is set to evaluation.
        name: for messages.
        statistics: "running" or "batch", what its batch norms normalize with; running statistics never move.
        folded: ask a copy whose batch norms are folded into its convolutions, as long as `statistics` are "running"; for a
            model whose weights stay as they are.
        amp_dtype: the half precision of autocast that it will be asked in: its folded convolutions are kept in it, as autocast
            casts frozen weights anew each time.
        adapt: see InputAdapter.
        common: the columns of its logits that the student has, too.
        with_maps: keep the maps in front of each stage's last ReLU.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        statistics: str = "running",
        folded: bool = False,
        amp_dtype: torch.dtype | None = None,
        adapt: InputAdapter | None = None,
        common: CommonClasses | None = None,
        with_maps: bool = False,
    ):
        self.model = model.requires_grad_(False).eval()
        self.name, self.statistics = name, statistics
        self.adapt, self.common = adapt or InputAdapter(), common or CommonClasses()
        self._margins: list[Tensor] = []
        if folded and statistics == "running":
            self._margins = self.margins() if with_maps else []
            self.model = copy.deepcopy(self.model)
            fold_norms(self.model.backbone)
            for module in self.model.backbone.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(amp_dtype)
        self.taps = StageTaps(self.model.backbone) if with_maps else None
        set_statistics(self.model, statistics)

    @torch.no_grad()
    def __call__(self, images: Tensor):
        """ReidOutput for the student's images [B, (T,) 3, H, W]; with_maps fills `maps`, [B, (T,) C, H, W] each."""
        output = self.model(self.adapt(images))
        if self.taps is None:
            return output._replace(maps=())
        maps = self.taps.maps
        self.taps.clear()
        if (
            images.dim() == 5
        ):  # rows are cut along the batch, so frames get a dimension of their own
            maps = tuple(value.unflatten(0, images.shape[:2]) for value in maps)
        return output._replace(maps=maps)

    def margins(self) -> list[Tensor]:
        """[C_i] per stage: the mean of what the stage's last ReLU cuts off."""
        if self._margins:
            return self._margins
        return [negative_means(norm.weight, norm.bias) for norm in last_norms(self.model.backbone)]


def set_statistics(model: nn.Module, statistics: str) -> None:
    """Let batch norms use the batch's own statistics ("batch") or the stored ones ("running"); neither moves a buffer."""
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.train(statistics == "batch")
            module.track_running_stats = statistics != "batch"


class TeacherForward:
    """Trainer, ITERATION_STARTED, after Augment: `batch.teachers` gets the output of each teacher for the batch.

    The accumulation of gradients cuts them along with the images.
    """

    def __init__(
        self, teachers: Sequence[Teacher], *, device_type: str, amp_dtype: torch.dtype | None = None
    ):
        self.teachers, self.device_type, self.amp_dtype = list(teachers), device_type, amp_dtype

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        if self.teachers:
            engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = engine.state.batch
        with torch.autocast(
            self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        ):
            outputs = tuple(teacher(batch.images) for teacher in self.teachers)
        engine.state.batch = batch._replace(teachers=(*batch.teachers, *outputs))


class EmaTeacher:
    """A teacher that is the running average of the student.

    Trainer, ITERATION_STARTED, before TeacherForward: average = m * average + (1 - m) * student, for parameters and
    statistics (FastReID leaves the statistics alone, as its teachers use the batch's). With `ramp`,
    m is at most (1 + i) / (10 + i) in iteration i, so that a short run does not keep its random start.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        momentum: float,
        ramp: bool,
        statistics: str,
        with_maps: bool = False,
    ):
        average = copy.deepcopy(student)
        average.return_maps = False
        self.teacher = Teacher(
            average, name="EMA of the student", statistics=statistics, with_maps=with_maps
        )
        self.student, self.momentum, self.ramp = student, momentum, ramp

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        engine.add_event_handler(event, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        i = engine.state.iteration
        momentum = min(self.momentum, (1 + i) / (10 + i)) if self.ramp else self.momentum
        own = self.student.state_dict()
        for name, value in self.teacher.model.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[name], 1 - momentum)
            else:
                value.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor]:
        return self.teacher.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.teacher.model.load_state_dict(state)


class ViewSubsample:
    """Trainer, ITERATION_STARTED, after TeacherForward: the student keeps `num_views` random views of those in the batch.

    The choice is the same for all samples of a batch, and a function of (seed, iteration, rank).
    """

    def __init__(self, num_views: int, *, seed: int):
        self.num_views, self.seed = num_views, seed

    def attach(self, engine: Engine, event=Events.ITERATION_STARTED) -> None:
        if self.num_views > 0:
            engine.add_event_handler(event, self)

    def __call__(self, engine: Engine) -> None:
        batch = engine.state.batch  # images [B, N, 3, H, W]
        seed = iteration_seed(self.seed + 2, engine.state.iteration, idist.get_rank())
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(batch.images.shape[1], generator=generator)[
            : self.num_views
        ].tolist()
        views = torch.stack([batch.images[:, view] for view in chosen], dim=1)
        engine.state.batch = batch._replace(images=views)
