"""ResNets (He et al. 2016) with the modifications used in re-identification. N: images.

The names of the parameters are torchvision's, so its weight files can be loaded without renaming.
IBN-a adds IN and BN below bn1, as in the weight files of IBN-Net.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from ember_reid.layers import BAM, NonLocal, SqueezeExcite
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.options import (
    BackboneOptions,
    keep_supported,
    limit_non_local,
)
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class IBNa(nn.Module):
    """IBN-a: instance norm on half of the channels, batch norm on the rest.

    Pan et al. 2018, figure 3.

    The child modules are called IN and BN, as in the published weight files.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance_channels = channels // 2
        self.IN = nn.InstanceNorm2d(self.num_instance_channels, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.num_instance_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """maps: [N, C, H, W]."""
        sizes = [self.num_instance_channels, maps.shape[1] - self.num_instance_channels]
        first, second = maps.split(sizes, dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)


@dataclass(frozen=True)
class BlockStyle:
    """The differences between the blocks of a family of ResNets and plain blocks.

    Attributes:
        groups: groups of the 3x3 convolution of a bottleneck.
        width_factor: channels of the 3x3 convolution, as a multiple of the width of the stage.
        stride_first: the first 1x1 convolution of a bottleneck has the stride, not its 3x3
            convolution.
        se: squeeze and excitation before the shortcut is added.
        ibn_a: the first normalization is IBN-a.
        ibn_b: an instance norm follows the addition of the shortcut.
    """

    groups: int = 1
    width_factor: int = 1
    stride_first: bool = False
    se: bool = False
    ibn_a: bool = False
    ibn_b: bool = False


_PLAIN = BlockStyle()


class _Block(nn.Module):
    """The last layers of both kinds of blocks: excitation, shortcut, instance norm and ReLU."""

    def _add_end(self, in_channels: int, out_channels: int, stride: int, style: BlockStyle) -> None:
        self.relu = nn.ReLU(inplace=True)
        self.se = SqueezeExcite(out_channels) if style.se else nn.Identity()
        self.downsample = create_shortcut(in_channels, out_channels, stride)
        self.IN = nn.InstanceNorm2d(out_channels, affine=True) if style.ibn_b else nn.Identity()

    def _end(self, out: Tensor, x: Tensor) -> Tensor:
        return self.relu(self.IN(self.se(out) + self.downsample(x)))


class BasicBlock(_Block):
    """Two 3x3 convolutions, the first with the stride, and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int, style: BlockStyle) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = IBNa(width) if style.ibn_a else nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self._add_end(in_channels, width, stride, style)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self._end(self.bn2(self.conv2(out)), x)


class Bottleneck(_Block):
    """A 1x1, a 3x3 and a 1x1 convolution, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int, style: BlockStyle) -> None:
        super().__init__()
        inner, out_channels = width * style.width_factor, width * self.expansion
        first, second = (stride, 1) if style.stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, first, bias=False)
        self.bn1 = IBNa(inner) if style.ibn_a else nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, second, padding=1, groups=style.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self._add_end(in_channels, out_channels, stride, style)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self._end(self.bn3(self.conv3(out)), x)


def create_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A strided 1x1 convolution with batch norm if the shape changes, otherwise the identity."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ResNet(Backbone):
    """Stem and four stages: image [N, 3, H, W] -> four maps at strides 4, 8, 16 and 16 or 32.

    Args:
        conv1: convolution(s) of the stem, with stride 2.
        stages: the four stages.
        options: settings of stem, last ReLU and width.

    Attributes:
        channels: channels of the four maps.
    """

    def __init__(
        self, conv1: nn.Module, stages: Sequence[nn.Sequential], options: BackboneOptions
    ) -> None:
        super().__init__()
        self.channels = ()
        self.conv1 = conv1
        self.bn1: nn.Module = nn.BatchNorm2d(round(64 * options.width))
        self.relu = nn.ReLU(inplace=True) if options.stem_relu else nn.Identity()
        padded = options.stem_pool == "padded"
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=int(padded), ceil_mode=not padded)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        if not options.last_relu:
            self.layer4[-1].add_module("relu", nn.Identity())

    @property
    def stage_names(self) -> tuple[str, ...]:
        return "layer1", "layer2", "layer3", "layer4"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def create_stage(
    blocks: Sequence[nn.Module], stage: int, *, channels: int, options: BackboneOptions
) -> nn.Sequential:
    """Create a stage from its blocks, with non-local blocks `nl<i>` after the last of them.

    Args:
        blocks: the residual blocks.
        stage: 0-based index of the stage.
        channels: output channels of the blocks.
        options: `non_local`, at most as many as blocks, and `non_local_width` are used.
    """
    num_non_local = options.non_local[stage] if options.non_local else 0
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for i, block in enumerate(blocks):
        children[str(i)] = block
        if i >= len(blocks) - num_non_local:
            children[f"nl{i}"] = NonLocal(channels, width=options.non_local_width)
    return nn.Sequential(children)


def create_resnet(
    options: BackboneOptions,
    *,
    depth: int,
    ibn: str = "",
    bam: bool = False,
    style: BlockStyle = _PLAIN,
) -> ResNet:
    """Create a ResNet of 18, 34, 50, 101 or 152 layers.

    Args:
        options: last stride, stem, last ReLU, non-local blocks and width.
        depth: a key of NUM_BLOCKS. ResNets of at least 50 layers have bottlenecks.
        ibn: "a": IBN-a in every block of stages 1 to 3. "b": instance norm in the stem and after
            the last block of stages 1 and 2 (Pan et al. 2018, section 3.3).
        bam: add a bottleneck attention module after stages 1, 2 and 3.
        style: style of all blocks.

    Raises:
        ValueError: the width is not divisible by the groups.
    """
    supported = ("last_stride", "stem_relu", "stem_pool", "last_relu", "non_local", "width")
    options = keep_supported(f"a ResNet-{depth}", options, *supported)
    options = limit_non_local(f"a ResNet-{depth}", options, NUM_BLOCKS[depth])
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth < 50 else Bottleneck
    strides = (1, 2, 2, options.last_stride)
    widths = [round(width * options.width) for width in WIDTHS]
    if any(width * style.width_factor % style.groups for width in widths):
        raise ValueError(
            f"MODEL.BACKBONE.WIDTH is {options.width}, which gives convolutions of "
            f"{widths[0] * style.width_factor} channels in {style.groups} groups; choose a "
            "multiple of 0.25"
        )
    in_channels = widths[0]
    stages = []
    for i, (width, num_blocks) in enumerate(zip(widths, NUM_BLOCKS[depth], strict=True)):
        blocks = []
        for j in range(num_blocks):
            block_style = replace(
                style,
                ibn_a=ibn == "a" and i < 3,
                ibn_b=ibn == "b" and i < 2 and j == num_blocks - 1,
            )
            stride = strides[i] if j == 0 else 1
            blocks.append(block(in_channels, width, stride=stride, style=block_style))
            in_channels = width * block.expansion
        stage = create_stage(blocks, i, channels=in_channels, options=options)
        if bam and i < 3:
            stage.add_module("bam", BAM(in_channels))
        stages.append(stage)
    model = ResNet(nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False), stages, options)
    model.channels = tuple(width * block.expansion for width in widths)
    if ibn == "b":
        model.bn1 = nn.InstanceNorm2d(widths[0], affine=True)
    initialize_convolutions(model)
    return model


def initialize_convolutions(model: nn.Module) -> None:
    """Initializes every convolution with Kaiming's normal distribution by fan-out, biases with 0.

    He et al. 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
