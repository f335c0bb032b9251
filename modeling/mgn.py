"""MGN (Wang et al. 2018): a ResNet with three branches, and eight embeddings. B: images."""

import copy
from collections import OrderedDict

import torch
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.resnet import Bottleneck, ResNet
from ember_reid.modeling.model import GlobalHead, HeadOptions
from ember_reid.modeling.output import ReidOutput
from torch import Tensor, nn

# name: (branch, part, number of parts along the height), in the order of the embedding.
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
# The metric features are these concatenations.
METRIC_FEATURES = (("b1",), ("b2",), ("b3",), ("b21", "b22"), ("b31", "b32", "b33"))


class MGNBackbone(Backbone):
    """A ResNet that splits into three branches after the first block of stage 3.

    Image [N, 3, H, W] -> the maps of stages 1 and 2 and of the three branches. The branches start
    with equal weights. The first one keeps the last stride; the other two have stride 1 there,
    because their maps are divided into parts.

    Args:
        resnet: a ResNet with bottlenecks; its modules become part of this one.

    Raises:
        ValueError: the backbone is no ResNet with bottlenecks, or has non-local blocks.
    """

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        if not isinstance(resnet, ResNet) or not isinstance(resnet.layer4[0], Bottleneck):
            raise ValueError(
                "MODEL.HEAD.NAME is 'mgn', which needs a ResNet with bottlenecks (resnet50, "
                "resnet101, resnet50_ibn_a, ...); choose such a MODEL.BACKBONE.NAME, or "
                "MODEL.HEAD.NAME global"
            )
        if any(name.startswith("nl") for name, _ in resnet.layer3.named_children()):
            raise ValueError(
                "MODEL.HEAD.NAME is 'mgn', which does not support non-local blocks; set "
                "MODEL.BACKBONE.NON_LOCAL to ()"
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
        copies = [copy.deepcopy(rest), copy.deepcopy(rest)]
        for branch in copies:
            block = branch.get_submodule("layer4.0")
            for name in ("conv1", "conv2", "downsample.0"):
                conv = block.get_submodule(name)
                assert isinstance(conv, nn.Conv2d)
                conv.stride = (1, 1)
        self.branches = nn.ModuleList([rest, *copies])

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages before the branches."""
        return "layer1", "layer2"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        second = self.layer2(first)
        shared = self.layer3(second)
        return (first, second, *(branch(shared) for branch in self.branches))


class MGNHead(nn.Module):
    """Eight global heads: on three branches, two halves of the second and thirds of the third.

    The embedding [B, 8 * D] is the concatenation in the order of PARTS. There are eight logits and
    five metric features (METRIC_FEATURES). FastReID's loss weights, 1/8 and 1/5, give means over
    them.
    """

    def __init__(self, in_channels: int, num_classes: int, options: HeadOptions) -> None:
        super().__init__()
        heads = {name: GlobalHead(in_channels, num_classes, options) for name in PARTS}
        self.parts = nn.ModuleDict(heads)
        self.dim = sum(head.dim for head in heads.values())

    def forward(self, maps: tuple[Tensor, ...]) -> ReidOutput:
        """The output for maps[-3:], the branches, each [B, in_channels, H, W].

        Raises:
            ValueError: the maps are less than 3 high.
        """
        branches = maps[-3:]
        if branches[2].shape[2] < 3:
            raise ValueError(
                f"the MGN head divides maps into 3 parts, but they are {branches[2].shape[2]} high"
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
