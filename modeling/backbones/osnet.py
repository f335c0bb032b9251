"""OSNet (Zhou et al. 2019) and OSNet-AIN (Zhou et al. 2021). N: images.

The names of the parameters are those of torchreid's weight files.
"""

import torch.nn.functional as F
from ember_reid.layers import SqueezeExcite
from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.options import BackboneOptions, keep_supported
from ember_reid.modeling.backbones.resnet import initialize_convolutions
from torch import Tensor, nn

CHANNELS = {
    1.0: (64, 256, 384, 512),
    0.75: (48, 192, 288, 384),
    0.5: (32, 128, 192, 256),
    0.25: (16, 64, 96, 128),
}


class ConvNorm(nn.Module):
    """Convolution without bias, normalization, and a ReLU if `relu` is True."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        norm: type[nn.Module] = nn.BatchNorm2d,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False
        )
        self.bn = norm(out_channels, affine=True)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class LightConv(nn.Module):
    """A pointwise and a depthwise 3x3 convolution, batch norm and ReLU (figure 3b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv2(self.conv1(x))))


class OmniScaleBlock(nn.Module):
    """Four streams of one to four light convolutions, added through one shared gate (eq. 3).

    The aggregation gate (eq. 4) is a squeeze-and-excitation module.

    Args:
        in_channels, out_channels: of the block.
        instance_norm: end the residual branch with an instance norm instead of a batch norm
            (OSNet-AIN).
    """

    def __init__(self, in_channels: int, out_channels: int, *, instance_norm: bool) -> None:
        super().__init__()
        width = out_channels // 4
        self.conv1 = ConvNorm(in_channels, width)
        self.conv2 = nn.ModuleList(
            nn.Sequential(*(LightConv(width) for _ in range(depth))) for depth in (1, 2, 3, 4)
        )
        self.gate = SqueezeExcite(width)
        norm = nn.InstanceNorm2d if instance_norm else nn.BatchNorm2d
        self.conv3 = ConvNorm(width, out_channels, norm=norm, relu=False)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.downsample = ConvNorm(in_channels, out_channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        streams = [self.gate(stream(first)) for stream in self.conv2]
        # Added from left to right, because the order changes the last bits of the sum.
        total = streams[0] + streams[1] + streams[2] + streams[3]
        return F.relu(self.conv3(total) + self.downsample(x))


class OSNet(Backbone):
    """Image [N, 3, H, W] -> three maps at strides 8, 16 and 16.

    Args:
        width: a key of CHANNELS.
        instance_norms: for each of the three stages, whether its first and second block have an
            instance norm.
        stem_norm: normalization of the first convolution.
    """

    def __init__(
        self,
        width: float,
        *,
        instance_norms: tuple[tuple[bool, bool], ...],
        stem_norm: type[nn.Module],
    ) -> None:
        super().__init__()
        stem, *channels = CHANNELS[width]
        self.channels = tuple(channels)
        self.conv1 = ConvNorm(3, stem, 7, stride=2, norm=stem_norm)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        ins = (stem, *channels)
        self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(
                OmniScaleBlock(ins[i], channels[i], instance_norm=first),
                OmniScaleBlock(channels[i], channels[i], instance_norm=second),
            )
            for i, (first, second) in enumerate(instance_norms)
        )
        self.pool2 = nn.Sequential(ConvNorm(channels[0], channels[0]), nn.AvgPool2d(2))
        self.pool3 = nn.Sequential(ConvNorm(channels[1], channels[1]), nn.AvgPool2d(2))
        self.conv5 = ConvNorm(channels[2], channels[2])
        initialize_convolutions(self)

    @property
    def stage_names(self) -> tuple[str, ...]:
        return "pool2", "pool3", "conv5"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.conv1(images))
        first = self.pool2(self.conv2(x))
        second = self.pool3(self.conv3(first))
        return first, second, self.conv5(self.conv4(second))


def create_osnet(options: BackboneOptions, *, width: float, ain: bool = False) -> OSNet:
    """Create an OSNet, or an OSNet-AIN with the instance norms that the paper found."""
    options = keep_supported("OSNet", options)
    plain = ((False, False),) * 3
    searched = ((True, True), (False, True), (True, False))
    return OSNet(
        width,
        instance_norms=searched if ain else plain,
        stem_norm=nn.InstanceNorm2d if ain else nn.BatchNorm2d,
    )
