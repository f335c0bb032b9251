"""Overhaul of feature distillation: losses between the feature maps of the stages."""

from collections.abc import Sequence
from typing import cast

import torch
from ember_reid.data.batch import Batch
from ember_reid.engine.distill.losses.outputs import mean
from ember_reid.engine.distill.teachers.stage_features import StageFeatureHooks, stage_channels
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.layers import margin_relu, partial_distance
from ember_reid.layers.numerics import autocast_like
from ember_reid.modeling import ReidOutput
from ember_reid.modeling.adapters import create_connector
from torch import Tensor, nn
from torch.nn import functional as F


class FeatureLoss(nn.Module):
    """Partial distances of stage maps, summed and divided by the batch size (Heo et al. 2019).

    Connectors (1x1 convolution and batch norm) map the student's channels to the teacher's.

    Args:
        feature_hooks: of the student; None to compare `ReidOutput.maps`, if it is not a ResNet.
        channels: of the student's stages. If there are fewer than the teacher's, they are compared
            with the teacher's deepest stages.
        teachers: with maps, in the order of `batch.teachers`.
        stage_weights: per stage of the teacher; 1/8, 1/4, 1/2, 1 in the paper.
        rectified_stages: stages whose maps pass through a ReLU, for student and teacher. FastReID
            does this for stages 1 to 3, because the in-place ReLU of the next stage overwrites
            them.
        every: compare the maps of every n-th image (or frame of a clip), and scale the loss by n.
    """

    def __init__(
        self,
        feature_hooks: StageFeatureHooks | None,
        channels: Sequence[int],
        teachers: Sequence[Teacher],
        *,
        stage_weights: Sequence[float],
        rectified_stages: Sequence[int] = (),
        every: int = 1,
    ) -> None:
        super().__init__()
        self.feature_hooks, self.teachers, self.every = feature_hooks, list(teachers), every
        # Stage i of the student is compared with stage i + offset of the teacher.
        self.offset = len(stage_weights) - len(channels)
        self.stage_weights = tuple(stage_weights)
        self.rectified_stages = frozenset(rectified_stages)
        self.connectors = nn.ModuleList(
            nn.ModuleList(
                create_connector(own, target)
                for own, target in zip(
                    channels, stage_channels(teacher.model)[self.offset :], strict=True
                )
            )
            for teacher in teachers
        )

    def forward(self, output: ReidOutput, batch: Batch) -> Tensor:
        maps = output.maps if self.feature_hooks is None else self.feature_hooks.pop()
        values = [
            self._compare(maps, target.maps, teacher.margins(), cast(nn.ModuleList, connectors))
            for target, teacher, connectors in zip(
                batch.teachers, self.teachers, self.connectors, strict=True
            )
        ]
        num_images = len(maps[0])
        num_compared = len(range(0, num_images, self.every))
        return mean(values) * (num_images / num_compared) / len(batch.pids)

    def _compare(
        self,
        maps: Sequence[Tensor],
        target_maps: Sequence[Tensor],
        margins: Sequence[Tensor],
        connectors: nn.ModuleList,
    ) -> Tensor:
        """The weighted sum over stages for one teacher.

        Args:
            maps: [N, C_i, H_i, W_i] per stage of the student; N counts the frames of clips.
            target_maps: [B, (T,) C_i, H_i, W_i] per stage of the teacher.
            margins: [C_i] per stage of the teacher.
        """
        total = maps[0].new_zeros((), dtype=torch.float32)
        for stage, weight in enumerate(self.stage_weights):
            if weight == 0 or stage < self.offset:
                continue
            own = _every_nth(maps[stage - self.offset], self.every)
            target = _every_nth(target_maps[stage].flatten(0, -4), self.every)
            if stage in self.rectified_stages:
                own, target = own.relu(), target.relu()
            with autocast_like(own):
                own = connectors[stage - self.offset](own)
            if own.shape[2:] != target.shape[2:]:
                target = F.interpolate(
                    target.float(),
                    size=own.shape[2:],
                    mode="bilinear",
                    align_corners=False,
                    antialias=True,
                )
            total = total + weight * partial_distance(own, margin_relu(target, margins[stage]))
        return total


def _every_nth(maps: Tensor, n: int) -> Tensor:
    """Every n-th of maps [N, C, H, W].

    The slice is taken with channels last, so that the gradient has this memory format as well.
    """
    return maps if n == 1 else maps.permute(0, 2, 3, 1)[::n].permute(0, 3, 1, 2)
