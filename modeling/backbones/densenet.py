"""DenseNet-121 (Huang et al. 2017) of torchvision."""

import torch.nn.functional as F
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from torch import Tensor
from torchvision.models import densenet121


class DenseNet(Backbone):
    """Image [N, 3, H, W] -> the maps after the dense blocks, at strides 4, 8, 16 and 32.

    The last map is normalized.
    """

    channels = (256, 512, 1024, 1024)
    _ends = ("denseblock1", "denseblock2", "denseblock3", "norm5")

    def __init__(self, *, last_relu: bool) -> None:
        super().__init__()
        self.features = densenet121().features
        self.last_relu = last_relu

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(f"features.{name}" for name in self._ends)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = []
        x = images
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self._ends:
                maps.append(x)
        if self.last_relu:
            maps[-1] = F.relu(maps[-1])
        return tuple(maps)


def create_densenet121(options: BackboneOptions) -> DenseNet:
    """DenseNet-121; its only setting is the last ReLU."""
    options = keep_supported("densenet121", options, "last_relu")
    return DenseNet(last_relu=options.last_relu)
