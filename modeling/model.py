"""A backbone and a head. B: images or clips, T: frames of a clip, D: dimension."""

from typing import Any

from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn


def _frame_mean(values: tuple[Tensor, ...], num_frames: int) -> tuple[Tensor, ...]:
    # [B * T, D] -> [B, T, D] -> [B, D]
    return tuple(v.unflatten(0, (-1, num_frames)).mean(dim=1) for v in values)


class ReidModel(nn.Module):
    """Maps images or clips to a ReidOutput, in training as well as in evaluation.

    The frames of a clip pass through backbone and head as separate images, so batch norm sees B * T
    images. Their embeddings, features and logits are then averaged, as in VKD (Porrello et al.
    2020).

    Attributes:
        backbone: image [N, 3, H, W] -> stage maps, a tuple of [N, C_i, H_i, W_i].
        head: stage maps -> ReidOutput.
        return_maps: if True, the output contains the stage maps.
        architecture: values of the configuration keys ARCHITECTURE_KEYS, which do not show in names
            or shapes of the weights. load_weights compares them with those of the weight file.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.return_maps = False
        self.architecture: dict[str, Any] = {}

    def forward(self, images: Tensor) -> ReidOutput:
        """The output for normalized float images [B, 3, H, W] or clips [B, T, 3, H, W].

        Raises:
            ValueError: `images` has another number of dimensions.
        """
        if images.dim() not in (4, 5):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected [B, 3, H, W] or [B, T, 3, H, W]"
            )
        is_clip = images.dim() == 5
        maps = self.backbone(images.flatten(0, 1) if is_clip else images)
        output = self.head(maps)
        if is_clip:
            num_frames = images.shape[1]
            output = ReidOutput(
                embedding=_frame_mean((output.embedding,), num_frames)[0],
                logits=_frame_mean(output.logits, num_frames),
                features=_frame_mean(output.features, num_frames),
            )
        return output._replace(maps=tuple(maps)) if self.return_maps else output
