"""Modules that exist only during distillation. They belong to the criterion, not to the student.

N: images, C: channels of a stage, D: dimension of an embedding.
"""

from collections import OrderedDict

import torch.nn.functional as F
from ember_reid.modeling.backbones.resnet import initialize_convolutions
from torch import Tensor, nn


def create_connector(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution and batch norm that map student channels to teacher channels.

    Heo et al. 2019: [N, C_s, H, W] -> [N, C_t, H, W].
    """
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    # N(0, 2 / C_t)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def create_projection(in_dim: int, out_dim: int) -> nn.Module:
    """Maps a student's embedding to the teacher's dimension; the identity if they are equal."""
    return nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim, bias=False)


def create_separable_halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two depthwise-separable 3x3 convolutions, the first with stride 2.

    [N, C, H, W] -> [N, C', H/2, W/2].
    """

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
    """Converts the feature map of a stage to one vector per image.

    SCAN, Zhang et al., NeurIPS 2019.

    The map is multiplied by an attention gate: the sigmoid of a separable convolution at half
    resolution. For each following stage it is then downsampled once and given the channels of that
    stage, and finally pooled to `POOLED`. The backbone itself does not use the gate, so removing
    the adapters leaves the plain network.

    Args:
        channels: channels of all stages of the backbone.
        stage: 0-based index; the last stage has neither gate nor downsampling.

    Attributes:
        dim: dimension of the vector.
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
