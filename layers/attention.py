"""Attention modules of backbones: [N, C, H, W] -> [N, C, H, W]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in 0..1 computed from all channels' means (Hu et al. 2018, eq. 2-4)."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = maps.mean(dim=(2, 3), keepdim=True)
        return maps * self.fc2(F.relu(self.fc1(squeezed))).sigmoid()


class BAM(nn.Module):
    """Bottleneck attention, x * (1 + gate in 0..1) from channels and positions (Park et al. 2018).

    The gate is the sigmoid of the product of a channel and a position logit, as in VKD's program, where the
    paper's eq. 2 has their sum.

    Args:
        channels: C.
        reduction: C is divided by it inside.
        dilation: of the two 3x3 convolutions over positions.
    """

    def __init__(self, channels: int, *, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        width = channels // reduction
        self.channel = nn.Sequential(
            nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, channels)
        )
        dilated = {"kernel_size": 3, "padding": dilation, "dilation": dilation}
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, **dilated),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, **dilated),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        channel = self.channel(maps.mean(dim=(2, 3)))[:, :, None, None]  # [N, C, 1, 1]
        spatial = self.spatial(maps)  # [N, 1, H, W]
        return maps * (1 + (channel * spatial).sigmoid())


class NonLocal(nn.Module):
    """x + W(attention of every position to every other), dot-product form (Wang et al. 2018, eq. 4 and 6).

    The batch norm of W starts at 0, so that a fresh block is the identity. Without a softmax the product
    can be taken from the right, so cost and memory grow with the positions, not with their square.

    Args:
        channels: C.
        width: inner channels; 0 means C / 2, as in AGW's paper. FastReID's program has 1.
    """

    def __init__(self, channels: int, *, width: int = 0) -> None:
        super().__init__()
        width = width or channels // 2
        self.theta = nn.Conv2d(channels, width, 1)
        self.phi = nn.Conv2d(channels, width, 1)
        self.g = nn.Conv2d(channels, width, 1)
        self.W = nn.Sequential(nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.W[1].weight)

    def forward(self, maps: Tensor) -> Tensor:
        positions = maps.shape[2] * maps.shape[3]
        theta, phi, g = (
            conv(maps).flatten(2) for conv in (self.theta, self.phi, self.g)
        )  # [N, width, HW]
        context = torch.bmm(g, phi.transpose(1, 2)) / positions  # [N, width, width]
        attended = torch.bmm(context, theta).unflatten(2, maps.shape[2:])  # [N, width, H, W]
        return maps + self.W(attended)
