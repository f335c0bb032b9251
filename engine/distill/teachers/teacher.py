"""A teacher: a frozen network and the preprocessing of its input."""

from collections.abc import Iterator

import torch
from ember_reid.engine.distill.teachers.class_mapping import ClassMapping
from ember_reid.engine.distill.teachers.stage_features import StageFeatureHooks, last_norms
from ember_reid.engine.fuse_conv_bn import fused_copy
from ember_reid.layers import negative_means
from ember_reid.modeling import ReidOutput
from torch import Tensor, nn
from torch.nn import functional as F


class InputAdapter:
    """Converts the normalized images of the student to the input format of the teacher.

    Args:
        size: (height, width) of the teacher; None if it equals the student's.
        scale, shift: [3] each; x * scale + shift converts the student's normalization to the
            teacher's. None if they are equal.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        self.size, self.scale, self.shift = size, scale, shift

    def __call__(self, images: Tensor) -> Tensor:
        """float [B, (T,) 3, H, W] -> float [B, (T,) 3, H', W']."""
        if self.size is not None:
            resized = F.interpolate(
                # [B*T, 3, H, W]
                images.flatten(0, -4),
                size=self.size,
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
            images = resized.unflatten(0, images.shape[:-3])
        if self.scale is not None and self.shift is not None:
            scale, shift = (
                value.to(images.device, images.dtype)[:, None, None]
                for value in (self.scale, self.shift)
            )
            images = images * scale + shift
        return images


class Teacher:
    """A frozen network and its input preprocessing.

    Args:
        model: will be frozen and set to evaluation mode.
        statistics: the statistics of its batch norms, "running" or "batch". Running statistics
            never change.
        fuse: fuse the batch norms of a copy of the model into its convolutions, if `statistics`
            is "running". Only for a model whose weights never change.
        amp_dtype: the dtype of autocast during training. Fused convolutions are stored in it,
            because autocast would convert frozen weights again in each iteration.
        adapt: converts the student's images.
        classes: the mapping to the logits of the student.
        keep_maps: return the maps before the last ReLU of each stage.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        statistics: str = "running",
        fuse: bool = False,
        amp_dtype: torch.dtype | None = None,
        adapt: InputAdapter | None = None,
        classes: ClassMapping | None = None,
        keep_maps: bool = False,
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.statistics = statistics
        self.adapt, self.classes = adapt or InputAdapter(), classes or ClassMapping()
        self._margins: list[Tensor] = []
        if fuse and statistics == "running":
            # The margins depend on the batch norms, which fusing removes.
            self._margins = self.margins() if keep_maps else []
            self.model = fused_copy(self.model, amp_dtype=amp_dtype)
        self.feature_hooks = (
            StageFeatureHooks(self.model.get_submodule("backbone")) if keep_maps else None
        )
        set_statistics(self.model, statistics)

    @torch.no_grad()
    def __call__(self, images: Tensor, *side: Tensor) -> ReidOutput:
        """The output for the student's images [B, (T,) 3, H, W], and perhaps their cameras [B].

        Returns:
            ReidOutput; with `keep_maps`, `maps` contains [B, (T,) C, H, W] per stage.
        """
        output = self.model(self.adapt(images), *side)
        if self.feature_hooks is None:
            return output._replace(maps=())
        maps = self.feature_hooks.pop()
        # Gradient accumulation splits outputs along B, so frames need a dimension of their own.
        if images.dim() == 5:
            maps = tuple(value.unflatten(0, images.shape[:2]) for value in maps)
        return output._replace(maps=maps)

    def margins(self) -> list[Tensor]:
        """[C_i] per stage: the mean of the values that the stage's last ReLU sets to 0."""
        if self._margins:
            return self._margins
        return [
            negative_means(norm.get_parameter("weight"), norm.get_parameter("bias"))
            for norm in last_norms(self.model.get_submodule("backbone"))
        ]


def set_statistics(model: nn.Module, statistics: str) -> None:
    """Normalize with "batch" or "running" statistics; the running ones are not updated."""
    for module in _batch_norms(model):
        module.train(statistics == "batch")
        module.track_running_stats = statistics != "batch"


def _batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module
