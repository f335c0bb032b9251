"""The interface of backbones."""

from torch import nn


class Backbone(nn.Module):
    """Image [N, 3, H, W] -> a tuple of stage maps [N, C_i, H_i, W_i].

    Attributes:
        channels: the C_i.
        tokens: what the last maps contain. "patches": a map. "class": the class token of a
            transformer, as a map [N, C, 1, 1]. "class+patches": a map, then the class token.
            "class+parts": the class token, then the part tokens of PASS.
        uses_cameras: whether side information is a second input; see model.side_inputs.
        mixes_cameras: whether training mixes the styles of cameras or datasets, for which the
            cameras are a second input; see modeling.mixstyle.
        num_views: number of viewpoints per camera; 0 if they are not used.
    """

    channels: tuple[int, ...]
    tokens: str = "patches"
    uses_cameras: bool = False
    mixes_cameras: bool = False
    num_views: int = 0

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The modules whose outputs are feature maps of a convolutional network, in order."""
        return ()
