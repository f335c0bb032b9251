"""Modules that exist during distillation only; they belong to the criterion, never to the student. N: images.

C: channels of a stage, D: width of an embedding.
"""

from collections import OrderedDict

import torch.nn.functional as F
from ember_reid.modeling.backbones.resnet import initialize_convolutions
from torch import Tensor, nn


def create_connector(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution and batch norm: a student's map [N, C_s, H, W] in the teacher's channels (Heo et al. 2019)."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")  # N(0, 2 / C_t)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def create_projection(in_dim: int, out_dim: int) -> nn.Module:
    """A student's embedding [B, D_s] in the teacher's width; nothing to learn where the widths agree."""
    return nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim, bias=False)


def create_separable_halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two depthwise-separable 3x3 convolutions, the first of stride 2: [N, C, H, W] -> [N, C', H/2, W/2]."""

    def separable(c_in: int, c_out: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(c_in, c_in, 3, stride, padding=1, groups=c_in, bias=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *separable(in_channels, in_channels, 2), *separable(in_channels, out_channels, 1)
    )


class AttentionAdapter(nn.Module):
    """A stage's map, gated by attention and brought to the last stage's shape, as one vector per image.

    The gate is a sigmoid of a separable convolution at half resolution; then the map is halved and widened
    once for each stage that follows, and pooled to `POOLED` (Zhang et al., SCAN, NeurIPS 2019). The trunk
    does not see the gate, so the network without its adapters is the plain network.

    Args:
        channels: of all stages of the backbone.
        stage: 0-based; the last stage has neither gate nor halvings.

    Attributes:
        dim: width of the vector.
    """

    POOLED = (2, 1)

    def __init__(self, channels: tuple[int, ...], stage: int) -> None:
        super().__init__()
        self.dim = channels[-1] * self.POOLED[0] * self.POOLED[1]
        width = channels[stage]
        self.is_last = stage == len(channels) - 1
        gate = [
            ("halving", create_separable_halving(width, width)),
            ("norm", nn.BatchNorm2d(width)),
            ("relu", nn.ReLU()),
        ]
        self.gate = nn.Sequential() if self.is_last else nn.Sequential(OrderedDict(gate))
        steps = zip(channels[stage:], channels[stage + 1 :], strict=False)
        self.halvings = nn.Sequential(*[create_separable_halving(a, b) for a, b in steps])
        initialize_convolutions(self)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, C_stage, H, W] -> [N, dim]."""
        if not self.is_last:
            gate = F.interpolate(
                self.gate(maps), size=maps.shape[2:], mode="bilinear", align_corners=False
            ).sigmoid()
            maps = self.halvings(maps * gate)
        return F.adaptive_avg_pool2d(maps, self.POOLED).flatten(1)
