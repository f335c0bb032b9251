"""MobileNet-V2 (Sandler et al. 2018) of torchvision."""

from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from torch import Tensor, nn
from torchvision.models import mobilenet_v2


class MobileNetV2(Backbone):
    """Image [N, 3, H, W] -> four maps at strides 4, 8, 16 and 16 or 32."""

    channels = (24, 32, 96, 1280)
    # The last layer of each stage.
    _ends = (3, 6, 13, 18)

    def __init__(self, options: BackboneOptions) -> None:
        super().__init__()
        self.features = mobilenet_v2().features
        if options.last_stride == 1:
            conv = self.features.get_submodule("14.conv.1.0")
            assert isinstance(conv, nn.Conv2d)
            conv.stride = (1, 1)
        if not options.last_relu:
            self.features.set_submodule("18.2", nn.Identity())

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(f"features.{number}" for number in self._ends)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = []
        x = images
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self._ends:
                maps.append(x)
        return tuple(maps)


def create_mobilenet_v2(options: BackboneOptions) -> MobileNetV2:
    """MobileNet-V2 of width 1; its settings are the last stride and the last ReLU."""
    options = keep_supported("mobilenet_v2", options, "last_stride", "last_relu")
    return MobileNetV2(options)
