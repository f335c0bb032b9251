"""ResNeSt (Zhang et al. 2022) with radix 2 and cardinality 1. N: images, C: channels of a split."""

import torch.nn.functional as F
from ember_reid.modeling.backbones.options import (
    BackboneOptions,
    keep_supported,
    limit_non_local,
)
from ember_reid.modeling.backbones.resnet import (
    WIDTHS,
    ResNet,
    create_stage,
    initialize_convolutions,
)
from torch import Tensor, nn

NUM_BLOCKS = {50: (3, 4, 6, 3)}
_RADIX = 2


class SplitAttention(nn.Module):
    """A 3x3 convolution into two splits, weighted by a softmax over the splits (eq. 1-3)."""

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        splits, inner = channels * _RADIX, max(channels * _RADIX // 4, 32)
        self.conv = nn.Conv2d(
            channels, splits, 3, padding=dilation, dilation=dilation, groups=_RADIX, bias=False
        )
        self.bn0 = nn.BatchNorm2d(splits)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.fc2 = nn.Conv2d(inner, splits, 1)

    def forward(self, x: Tensor) -> Tensor:
        # [N, 2 * C, H, W] -> [N, 2, C, H, W]
        splits = F.relu(self.bn0(self.conv(x))).unflatten(1, (_RADIX, -1))
        # [N, C, 1, 1]
        pooled = splits.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        gates = self.fc2(F.relu(self.bn1(self.fc1(pooled)))).unflatten(1, (_RADIX, -1))
        return (splits * gates.softmax(dim=1)).sum(dim=1)


class ResNeStBottleneck(nn.Module):
    """1x1 convolution, split attention, average pooling, 1x1 convolution and a shortcut.

    Average pooling replaces strides, also in the shortcut.

    Args:
        in_channels: channels of the input.
        width: inner channels; the output has four times as many.
        stride: of the average pooling.
        dilation: of the split attention.
        pooled: pool over 3x3 even if the stride is 1, as in the first block of stages 2 to 4.
    """

    def __init__(
        self, in_channels: int, width: int, *, stride: int, dilation: int, pooled: bool
    ) -> None:
        super().__init__()
        out_channels = width * 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = SplitAttention(width, dilation=dilation)
        self.avd_layer = (
            nn.AvgPool2d(3, stride, padding=1) if pooled or stride > 1 else nn.Identity()
        )
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.avd_layer(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def create_resnest(options: BackboneOptions, *, depth: int) -> ResNet:
    """Create a ResNeSt-50 with the parameter names of its authors' weight files.

    Its settings are last stride, last dilation, stem and non-local blocks. A last dilation of 2
    starts at the second block of the last stage, as in FastReID's current code with last stride 1.
    """
    options = keep_supported(
        f"resnest{depth}",
        options,
        "last_stride",
        "last_dilation",
        "stem_relu",
        "stem_pool",
        "non_local",
    )
    options = limit_non_local(f"resnest{depth}", options, NUM_BLOCKS[depth])
    strides, dilations = (1, 2, 2, options.last_stride), (1, 1, 1, options.last_dilation)
    in_channels = 64
    stages = []
    for i, (width, num_blocks) in enumerate(zip(WIDTHS, NUM_BLOCKS[depth], strict=True)):
        blocks = []
        for j in range(num_blocks):
            block = ResNeStBottleneck(
                in_channels,
                width,
                stride=strides[i] if j == 0 else 1,
                dilation=dilations[i] if j > 0 else 1,
                pooled=i > 0 and j == 0,
            )
            blocks.append(block)
            in_channels = width * 4
        stages.append(create_stage(blocks, i, channels=in_channels, options=options))
    stem = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
    )
    model = ResNet(stem, stages, options)
    model.channels = tuple(width * 4 for width in WIDTHS)
    initialize_convolutions(model)
    return model
