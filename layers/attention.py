"""Attention modules of backbones: [N, C, H, W] -> [N, C, H, W]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1], computed from the means of all channels.

    Hu et al. 2018, eq. 2-4.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = maps.mean(dim=(2, 3), keepdim=True)
        return maps * self.fc2(F.relu(self.fc1(squeezed))).sigmoid()


class BAM(nn.Module):
    """Bottleneck attention: x * (1 + gate), the gate in [0, 1] (Park et al. 2018).

    The gate is the sigmoid of the product of a channel logit and a position logit, as in VKD's
    program. Eq. 2 of the paper adds the two logits instead.

    Args:
        channels: number of channels C.
        reduction: the inner layers have C / reduction channels.
        dilation: dilation of the two 3x3 convolutions over positions.
    """

    def __init__(self, channels: int, *, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        width = channels // reduction
        self.channel = nn.Sequential(
            nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, channels)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        # [N, C, 1, 1]
        channel = self.channel(maps.mean(dim=(2, 3)))[:, :, None, None]
        # [N, 1, H, W]
        spatial = self.spatial(maps)
        return maps * (1 + (channel * spatial).sigmoid())


class NonLocal(nn.Module):
    """Non-local block in dot-product form: x + W(attention) (Wang et al. 2018, eq. 4 and 6).

    The batch norm of W starts with weight 0, so a new block is the identity. There is no softmax,
    so the matrix products are reordered: time and memory grow linearly with the number of
        positions.

    Args:
        channels: number of channels C.
        width: inner channels; 0 means C / 2, as in the AGW paper. FastReID's program uses 1.
    """

    def __init__(self, channels: int, *, width: int = 0) -> None:
        super().__init__()
        width = width or channels // 2
        self.theta = nn.Conv2d(channels, width, 1)
        self.phi = nn.Conv2d(channels, width, 1)
        self.g = nn.Conv2d(channels, width, 1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.W = nn.Sequential(nn.Conv2d(width, channels, 1), norm)

    def forward(self, maps: Tensor) -> Tensor:
        positions = maps.shape[2] * maps.shape[3]
        # Each is [N, width, H * W].
        theta, phi, g = (conv(maps).flatten(2) for conv in (self.theta, self.phi, self.g))
        # [N, width, width]
        context = torch.bmm(g, phi.transpose(1, 2)) / positions
        # [N, width, H, W]
        attended = torch.bmm(context, theta).unflatten(2, maps.shape[2:])
        return maps + self.W(attended)
