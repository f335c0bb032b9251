"""The interface of backbones."""

from torch import nn


class Backbone(nn.Module):
    """Image [N, 3, H, W] -> a tuple of stage maps [N, C_i, H_i, W_i].

    Attributes:
        channels: the C_i.
        tokens: what the last maps contain. "patches": a map. "class": the class token of a
            transformer, as a map [N, C, 1, 1]. "class+patches": a map, then the class token.
        uses_cameras: whether the camera of each image is a second input (side information).
    """

    channels: tuple[int, ...]
    tokens: str = "patches"
    uses_cameras: bool = False
