"""The feature maps before the last ReLU of each stage of a ResNet."""

from collections.abc import Callable
from typing import cast

from ember_reid.modeling.backbones.resnet import ResNet
from torch import Tensor, nn

NUM_STAGES = 4


class StageFeatureHooks:
    """Forward hooks that keep the feature maps before the last ReLU of the four stages.

    These ReLUs are changed to work out of place, so that the maps are not overwritten. A block
    calls its ReLU several times; only the input of the last call is kept.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._maps: dict[int, Tensor] = {}
        for index, block in enumerate(last_blocks(backbone)):
            relu = block.get_submodule("relu")
            if isinstance(relu, nn.ReLU):
                relu.inplace = False
            relu.register_forward_pre_hook(self._keep(index))

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """[N, C_i, H_i, W_i] per stage, of the last forward pass."""
        return tuple(self._maps[index] for index in range(NUM_STAGES))

    def pop(self) -> tuple[Tensor, ...]:
        """Return the maps and release the references to them and their graph."""
        maps = self.maps
        self._maps = {}
        return maps

    def _keep(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._maps[index] = inputs[0]

        return hook


def last_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The last block of each of the four stages.

    Raises:
        ValueError: the backbone is not a ResNet, or its stages do not end with a residual block.
    """
    if not isinstance(backbone, ResNet):
        raise ValueError(
            "KD.FEATURE.WEIGHT compares the maps before the last ReLU of each stage, which "
            f"{type(backbone).__name__} does not have; set it to 0 or use ResNets for teacher and "
            "student"
        )
    blocks = [
        list(stage.children())[-1]
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    ]
    if not all(hasattr(block, "relu") for block in blocks):
        raise ValueError(
            "KD.FEATURE.WEIGHT needs stages that end with a residual block, but non-local or "
            "attention modules follow it here (MODEL.BACKBONE.NON_LOCAL, resnet50_bam)"
        )
    return blocks


def stage_channels(model: nn.Module) -> tuple[int, ...]:
    """The channels of the stage maps of a model's backbone."""
    return cast(tuple[int, ...], model.get_submodule("backbone").channels)


def last_norms(backbone: nn.Module) -> list[nn.Module]:
    """The batch norm at the end of each stage; its weight and bias determine the margins."""
    norms = []
    for block in last_blocks(backbone):
        norm = getattr(block, "IN", None)
        if not isinstance(norm, nn.InstanceNorm2d):
            norm = block.get_submodule("bn3" if hasattr(block, "bn3") else "bn2")
        norms.append(norm)
    return norms
