"""Instance-batch normalization (IBN-Net, Pan et al. 2018, figure 3)."""

import torch
from torch import Tensor, nn


class IBNa(nn.Module):
    """IBN-a: instance norm (affine) on the first half of the channels, batch norm on the rest.

    The child modules are called IN and BN, as in the published weight files.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance_channels = channels // 2
        self.IN = nn.InstanceNorm2d(self.num_instance_channels, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.num_instance_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [N, C, H, W]."""
        sizes = [self.num_instance_channels, maps.shape[1] - self.num_instance_channels]
        first, second = maps.split(sizes, dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)
