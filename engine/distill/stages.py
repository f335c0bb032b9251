"""What enters the ReLU at the end of each stage of a ResNet."""

from ember_reid.modeling.backbones.resnet import ResNet
from torch import Tensor, nn


class StageTaps:
    """Forward hooks that keep the maps in front of the last ReLU of the four stages.

    Attributes:
        maps: [N, C_i, H_i, W_i] per stage, of the last forward pass.

    Those ReLUs no longer work in place, so that the maps stay as they are; a block calls its ReLU several times and
    ends with it, so the last call of a forward pass is the one that stays.
    """

    def __init__(self, backbone: nn.Module):
        self._maps: list[Tensor] = [None] * 4
        for index, stage in enumerate(last_blocks(backbone)):
            stage.relu.inplace = False
            stage.relu.register_forward_pre_hook(self._keep(index))

    @property
    def maps(self) -> tuple[Tensor, ...]:
        return tuple(self._maps)

    def clear(self) -> None:
        """Let go of the maps and of the graph behind them."""
        self._maps = [None] * 4

    def _keep(self, index: int):
        def hook(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            self._maps[index] = inputs[0]

        return hook


def last_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The last block of each of the four stages.

    Raises:
        ValueError: not a ResNet, or one whose stages do not end with a block (non-local, attention modules).
    """
    if not isinstance(backbone, ResNet):
        raise ValueError(
            "KD.FEATURE.WEIGHT compares stage maps in front of their ReLU, which ResNets have and "
            f"{type(backbone).__name__} has not; set it to 0 or choose a ResNet for teacher and student"
        )
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    blocks = [stage[-1] for stage in stages]
    if not all(hasattr(block, "relu") for block in blocks):
        raise ValueError(
            "KD.FEATURE.WEIGHT needs stages that end with a residual block; non-local or attention modules follow it here "
            "(MODEL.BACKBONE.NON_LOCAL, resnet50_bam)"
        )
    return blocks


def last_norms(backbone: nn.Module) -> list[nn.Module]:
    """The batch norm at the end of each stage's last residual branch; its weight and bias give the margins."""
    norms = []
    for block in last_blocks(backbone):
        norm = getattr(block, "IN", None)
        if not isinstance(norm, nn.InstanceNorm2d):
            norm = block.bn3 if hasattr(block, "bn3") else block.bn2
        norms.append(norm)
    return norms
