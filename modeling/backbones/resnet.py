"""ResNets (He et al. 2016) with the changes that re-identification makes to them.

The names of parameters are torchvision's, so its weight files load as they are; IBN-a adds IN and BN below
bn1, as the IBN-Net files have it. N: images.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from layers import IBNa
from modeling.backbones.options import BackboneOptions

WIDTHS = (64, 128, 256, 512)
NUM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the stride is on the first."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: int, norm1: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = norm1(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = create_shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the stride is on the 3x3."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, *, stride: int, norm1: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = norm1(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = create_shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


def create_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A strided 1x1 convolution with batch norm where the shape changes, else the identity."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class ResNet(nn.Module):
    """Stem and four stages: image [N, 3, H, W] -> the four stage maps, at strides 4, 8, 16 and 16 or 32.

    Attributes:
        channels: of the four maps.
    """

    def __init__(
        self,
        conv1: nn.Module,
        stages: list[nn.Sequential],
        *,
        channels: tuple[int, ...],
        options: BackboneOptions,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.conv1 = conv1
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True) if options.stem_relu else nn.Identity()
        padded = options.stem_pool == "padded"
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=int(padded), ceil_mode=not padded)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        if not options.last_relu:
            self.layer4[-1].relu = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def create_resnet(options: BackboneOptions, *, depth: int, ibn: str = "") -> ResNet:
    """A ResNet of 18, 34, 50, 101 or 152 layers.

    Args:
        options: last stride, stem and non-local switches.
        depth: a key of NUM_BLOCKS.
        ibn: "a" puts instance norm on half of the first normalisation of every block of stages 1 to 3.
    """
    block = BasicBlock if depth < 50 else Bottleneck
    strides = (1, 2, 2, options.last_stride)
    in_channels = 64
    stages = []
    for i, (width, num_blocks, stride) in enumerate(zip(WIDTHS, NUM_BLOCKS[depth], strides, strict=True)):
        norm1 = IBNa if ibn == "a" and i < 3 else nn.BatchNorm2d
        children: OrderedDict[str, nn.Module] = OrderedDict()
        for j in range(num_blocks):
            children[str(j)] = block(in_channels, width, stride=stride if j == 0 else 1, norm1=norm1)
            in_channels = width * block.expansion
        stages.append(nn.Sequential(children))
    conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    model = ResNet(conv1, stages, channels=tuple(w * block.expansion for w in WIDTHS), options=options)
    initialize_convolutions(model)
    return model


def initialize_convolutions(model: nn.Module) -> None:
    """Kaiming's normal initialisation by fan-out for every convolution (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
