"""Convolutions that train faster on a CPU in float32 than those of torch.

In evaluation mode, they are torch's convolutions.
"""

import torch.nn.functional as F
from ember_reid.layers.winograd import winograd_conv2d
from torch import Tensor, nn

# The fewest channels for which Winograd's algorithm is faster than a direct convolution.
MIN_CHANNELS = 128
# The fewest weights for which a matrix product is faster than a 1x1 convolution.
MIN_WEIGHTS = 1 << 19


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution with stride 1, padding 1 and without bias."""

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W]."""
        return winograd_conv2d(images, self.weight) if self.training else super().forward(images)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution with stride 1."""

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W], fastest in channels_last."""
        if not self.training:
            return super().forward(images)
        output = F.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return output.permute(0, 3, 1, 2)


def use_fast_convolutions(model: nn.Module) -> int:
    """Change the class of the convolutions that train faster in another way, in place.

    Parameters, their names and hooks stay as they are.

    Args:
        model: a network that trains in float32 on a CPU.

    Returns:
        The number of changed convolutions.
    """
    num_changed = 0
    for module in model.modules():
        if type(module) is nn.Conv2d and (fast := _find_class(module)) is not None:
            module.__class__ = fast
            num_changed += 1
    return num_changed


def _find_class(conv: nn.Conv2d) -> type[nn.Conv2d] | None:
    """The faster class of a convolution, or None."""
    is_plain = conv.groups == 1 and conv.stride == (1, 1) and conv.dilation == (1, 1)
    if not is_plain or conv.padding_mode != "zeros":
        return None
    if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        return PointwiseConv2d if conv.weight.numel() >= MIN_WEIGHTS else None
    if conv.kernel_size != (3, 3) or conv.padding != (1, 1) or conv.bias is not None:
        return None
    narrow = min(conv.in_channels, conv.out_channels) < MIN_CHANNELS
    return None if narrow else WinogradConv2d
