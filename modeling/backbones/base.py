"""The interface of backbones."""

from torch import nn


class Backbone(nn.Module):
    """Image [N, 3, H, W] -> a tuple of stage maps [N, C_i, H_i, W_i].

    Attributes:
        channels: the C_i.
    """

    channels: tuple[int, ...]
