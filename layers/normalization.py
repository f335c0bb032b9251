"""Instance-batch normalization (IBN-Net, Pan et al. 2018, figure 3)."""

import torch
from torch import Tensor, nn


class IBNa(nn.Module):
    """IBN-a: instance norm (affine) on the first half of the channels, batch norm on the others.

    The children are called IN and BN, as in the published weight files.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, maps: Tensor) -> Tensor:
        first, second = maps.split([self.half, maps.shape[1] - self.half], dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)
