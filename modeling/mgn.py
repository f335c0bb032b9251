"""Multiple granularities (Wang et al. 2018): three branches of one ResNet, eight embeddings. B: images."""

import copy
from collections import OrderedDict

import torch
from ember_reid.modeling.backbones.resnet import Bottleneck, ResNet
from ember_reid.modeling.heads import GlobalHead, HeadOptions
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn

# name: (branch, part, number of parts along the height); the order is that of the embedding's parts.
PARTS = {
    "b1": (0, 0, 1),
    "b2": (1, 0, 1),
    "b3": (2, 0, 1),
    "b21": (1, 0, 2),
    "b22": (1, 1, 2),
    "b31": (2, 0, 3),
    "b32": (2, 1, 3),
    "b33": (2, 2, 3),
}
# The metric losses see these concatenations.
METRIC_FEATURES = (("b1",), ("b2",), ("b3",), ("b21", "b22"), ("b31", "b32", "b33"))


class MGNBackbone(nn.Module):
    """A ResNet that divides after the first block of stage 3.

    Image [N, 3, H, W] -> the maps of stages 1 and 2 and of the three branches, which start alike. The
    first branch keeps the last stride, the others have none, as they are cut into parts.

    Args:
        resnet: with bottlenecks; its modules are taken over.

    Raises:
        ValueError: another kind of backbone, or one with non-local blocks.
    """

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        if not isinstance(resnet, ResNet) or not isinstance(resnet.layer4[0], Bottleneck):
            raise ValueError(
                "MODEL.HEAD.NAME is 'mgn', which divides a ResNet with bottlenecks (resnet50, resnet101, "
                "resnet50_ibn_a, ...); choose such a MODEL.BACKBONE.NAME or MODEL.HEAD.NAME global"
            )
        if any(name.startswith("nl") for name, _ in resnet.layer3.named_children()):
            raise ValueError(
                "MODEL.HEAD.NAME is 'mgn', which has no non-local blocks; set MODEL.BACKBONE.NON_LOCAL to ()"
            )
        self.channels = (*resnet.channels[:2], *[resnet.channels[3]] * 3)
        self.conv1, self.bn1, self.relu, self.maxpool = (
            resnet.conv1,
            resnet.bn1,
            resnet.relu,
            resnet.maxpool,
        )
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3[:1]
        rest = nn.Sequential(OrderedDict(layer3=resnet.layer3[1:], layer4=resnet.layer4))
        self.branches = nn.ModuleList([rest, copy.deepcopy(rest), copy.deepcopy(rest)])
        for branch in self.branches[1:]:
            for conv in (
                branch.layer4[0].conv1,
                branch.layer4[0].conv2,
                branch.layer4[0].downsample[0],
            ):
                conv.stride = (1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        second = self.layer2(first)
        shared = self.layer3(second)
        return (first, second, *(branch(shared) for branch in self.branches))


class MGNHead(nn.Module):
    """Eight global heads: the three branches, two halves of the second, three thirds of the third.

    The embedding [B, 8 * D] is the concatenation in the order of PARTS; there are eight logits, and five
    metric features (METRIC_FEATURES). FastReID's weights of the losses, 1/8 and 1/5, are means over them.
    """

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {name: GlobalHead(in_channels, num_classes, options) for name in PARTS}
        )
        self.dim = sum(part.dim for part in self.parts.values())

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """maps[-3:]: the branches, [B, in_channels, H, W] each."""
        branches = maps[-3:]
        if branches[2].shape[2] < 3:
            raise ValueError(
                f"the MGN head cuts maps into 3 parts, but they are {branches[2].shape[2]} high"
            )
        outputs = {
            name: self.parts[name]((branches[branch].tensor_split(num_parts, dim=2)[part],))
            for name, (branch, part, num_parts) in PARTS.items()
        }
        return ReidOutput(
            embedding=torch.cat([output.embedding for output in outputs.values()], dim=1),
            logits=tuple(output.logits[0] for output in outputs.values()),
            features=tuple(
                torch.cat([outputs[name].features[0] for name in names], dim=1)
                for names in METRIC_FEATURES
            ),
        )
