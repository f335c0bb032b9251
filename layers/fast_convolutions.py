"""Convolutions that train faster in float32 on a CPU than those of torch.

In evaluation mode, they are torch's convolutions. Large 1x1 convolutions become matrix products.
Wide 3x3 convolutions use Winograd's minimal filtering F(2x2, 3x3) of Lavin and Gray 2016 (arXiv
1509.09308), section 4.1. Each 2x2 block of outputs is computed from a 4x4 block of inputs: after a
linear transform of both, the convolution is one matrix product over the channels for each of the 16
positions, and needs 16 multiplications per block and pair of channels instead of 36. The gradients
are the adjoint maps, with as few multiplications.

N: images, C: input channels, K: output channels, (R, S): blocks of an image, rows and columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

# Elements of the transformed inputs that are processed at a time; 8 MiB stay in the cache.
_CHUNK = 1 << 21
# G of the paper: a row of three weights -> four.
_FILTER = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
# [16, 9], for the weights of both dimensions.
_FILTERS = torch.kron(_FILTER, _FILTER)

# The fewest channels for which Winograd's algorithm is faster than a direct convolution.
MIN_CHANNELS = 128
# The fewest weights for which a matrix product is faster than a 1x1 convolution.
MIN_WEIGHTS = 1 << 19


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution with stride 1, padding 1 and without bias."""

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W]."""
        return winograd_conv2d(images, self.weight) if self.training else super().forward(images)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution with stride 1."""

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W], fastest in channels_last."""
        if not self.training:
            return super().forward(images)
        output = F.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return output.permute(0, 3, 1, 2)


def use_fast_convolutions(model: nn.Module) -> int:
    """Change the class of the convolutions that train faster in another way, in place.

    Parameters, their names and hooks stay as they are.

    Args:
        model: a network that trains in float32 on a CPU.

    Returns:
        The number of changed convolutions.
    """
    num_changed = 0
    for module in model.modules():
        if type(module) is nn.Conv2d and (fast := _find_class(module)) is not None:
            module.__class__ = fast
            num_changed += 1
    return num_changed


def _find_class(conv: nn.Conv2d) -> type[nn.Conv2d] | None:
    """The faster class of a convolution, or None."""
    is_plain = conv.groups == 1 and conv.stride == (1, 1) and conv.dilation == (1, 1)
    if not is_plain or conv.padding_mode != "zeros":
        return None
    if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        return PointwiseConv2d if conv.weight.numel() >= MIN_WEIGHTS else None
    if conv.kernel_size != (3, 3) or conv.padding != (1, 1) or conv.bias is not None:
        return None
    narrow = min(conv.in_channels, conv.out_channels) < MIN_CHANNELS
    return None if narrow else WinogradConv2d


def winograd_conv2d(images: Tensor, weight: Tensor) -> Tensor:
    """The 3x3 convolution with stride 1 and padding 1, without bias.

    It is `torch.conv2d(images, weight, padding=1)` with other rounding errors of the same size.
    Second derivatives are not available.

    Args:
        images: float32 [N, C, H, W] on the CPU, fastest in channels_last.
        weight: float32 [K, C, 3, 3].

    Returns:
        float32 [N, K, H, W] in channels_last.
    """
    return _WinogradConv2d.apply(images, weight)


class _WinogradConv2d(torch.autograd.Function):
    """The transformed inputs are computed again in the backward pass, which saves memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        filters = _transform_filters(weight).permute(1, 2, 0)
        output = images.new_empty(_channels_last(images.shape, len(weight)))
        chunk = _count_images(images)
        for part, out in zip(images.split(chunk), output.split(chunk), strict=True):
            tiles = _transform_input(part)
            products = torch.bmm(tiles.flatten(0, 1).flatten(1, 3), filters)
            _transform_output(products.view(*tiles.shape[:-1], -1), out)
        return output.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, weight = ctx.saved_tensors
        needs_images, needs_weight = ctx.needs_input_grad
        # [16, K, C]
        filters = _transform_filters(weight).permute(1, 0, 2)
        image_gradient = images.new_empty(_channels_last(images.shape, images.shape[1]))
        filter_gradient = torch.zeros_like(filters, memory_format=torch.contiguous_format)
        chunk = _count_images(images)
        parts = (images.split(chunk), gradient.split(chunk), image_gradient.split(chunk))
        for part, above, below in zip(*parts, strict=True):
            tiles = _transform_gradient(above)
            # [16, N * R * S, K]
            products = tiles.flatten(0, 1).flatten(1, 3)
            if needs_images:
                inputs = torch.bmm(products, filters)
                _adjoin_input(inputs.view(*tiles.shape[:-1], -1), below)
            if needs_weight:
                inputs = _transform_input(part).flatten(0, 1).flatten(1, 3)
                filter_gradient.baddbmm_(products.transpose(1, 2), inputs)
        return (
            image_gradient.permute(0, 3, 1, 2) if needs_images else None,
            _adjoin_filters(filter_gradient) if needs_weight else None,
        )


def _channels_last(shape: torch.Size, channels: int) -> tuple[int, int, int, int]:
    return shape[0], shape[2], shape[3], channels


def _count_blocks(height: int, width: int) -> tuple[int, int]:
    """The blocks (R, S) of an image; those at the edge may reach beyond it."""
    return (height + 1) // 2, (width + 1) // 2


def _count_images(images: Tensor) -> int:
    """The number of images that are processed at a time."""
    rows, columns = _count_blocks(*images.shape[2:])
    return max(1, _CHUNK // (16 * rows * columns * images.shape[1]))


def _transform_filters(weight: Tensor) -> Tensor:
    """G g G^T: [K, C, 3, 3] -> [K, 16, C]."""
    return _FILTERS @ weight.permute(0, 2, 3, 1).flatten(1, 2)


def _adjoin_filters(gradient: Tensor) -> Tensor:
    """G^T u G: [16, K, C] -> [K, C, 3, 3]."""
    _, num_outputs, channels = gradient.shape
    weights = _FILTERS.t() @ gradient.flatten(1)
    return weights.view(3, 3, num_outputs, channels).permute(2, 3, 0, 1)


def _transform_input(images: Tensor) -> Tensor:
    """B^T d B: [N, C, H, W] -> [4, 4, N, R, S, C]."""
    num, channels, height, width = images.shape
    rows, columns = _count_blocks(height, width)
    # Rows and columns in pairs: a block consists of two neighboring pairs.
    padded = images.new_zeros(num, rows + 1, 2, columns + 1, 2, channels)
    inner = padded.view(num, 2 * rows + 2, 2 * columns + 2, channels)
    inner[:, 1 : height + 1, 1 : width + 1] = images.permute(0, 2, 3, 1)
    half = images.new_empty(4, num, rows, columns + 1, 2, channels)
    _combine_pairs(padded.permute(1, 2, 0, 3, 4, 5), half.transpose(1, 2))
    tiles = images.new_empty(4, 4, num, rows, columns, channels)
    _combine_pairs(half.permute(3, 4, 0, 1, 2, 5), tiles.permute(1, 4, 0, 2, 3, 5))
    return tiles


def _adjoin_input(tiles: Tensor, out: Tensor) -> None:
    """B v B^T, the adjoint of `_transform_input`: [4, 4, N, R, S, C] -> out [N, H, W, C]."""
    _, _, num, rows, columns, channels = tiles.shape
    _, height, width, _ = out.shape
    half = tiles.new_empty(4, num, rows, columns + 1, 2, channels)
    _scatter_pairs(tiles.permute(1, 4, 0, 2, 3, 5), half.permute(3, 4, 0, 1, 2, 5))
    padded = tiles.new_empty(num, rows + 1, 2, columns + 1, 2, channels)
    _scatter_pairs(half.transpose(1, 2), padded.permute(1, 2, 0, 3, 4, 5))
    inner = padded.view(num, 2 * rows + 2, 2 * columns + 2, channels)
    out.copy_(inner[:, 1 : height + 1, 1 : width + 1])


def _combine_pairs(pairs: Tensor, out: Tensor) -> None:
    """B^T along one dimension: pairs [blocks + 1, 2, ...] -> out [4, blocks, ...]."""
    even, odd = pairs.unbind(1)
    torch.sub(even[:-1], even[1:], out=out[0])
    torch.add(odd[:-1], even[1:], out=out[1])
    torch.sub(even[1:], odd[:-1], out=out[2])
    torch.sub(odd[:-1], odd[1:], out=out[3])


def _scatter_pairs(parts: Tensor, out: Tensor) -> None:
    """B along one dimension: parts [4, blocks, ...] -> sums in out [blocks + 1, 2, ...]."""
    even, odd = out.unbind(1)
    even[:-1], even[-1] = parts[0], 0
    even[1:] += torch.add(parts[1], parts[2]).sub_(parts[0])
    odd[:-1], odd[-1] = torch.sub(parts[1], parts[2]).add_(parts[3]), 0
    odd[1:] -= parts[3]


def _transform_output(products: Tensor, out: Tensor) -> None:
    """A^T m A: [4, 4, N, R, S, K] -> out [N, H, W, K]."""
    _, _, num, rows, columns, channels = products.shape
    _, height, width, _ = out.shape
    half = products.new_empty(2, 4, num, rows, columns, channels)
    _reduce_parts(products, half)
    whole = products.new_empty(num, rows, 2, columns, 2, channels)
    _reduce_parts(half.transpose(0, 1), whole.permute(4, 2, 0, 1, 3, 5))
    out.copy_(whole.view(num, 2 * rows, 2 * columns, channels)[:, :height, :width])


def _reduce_parts(parts: Tensor, out: Tensor) -> None:
    """A^T along one dimension: parts [4, ...] -> out [2, ...]."""
    torch.add(parts[0], parts[1], out=out[0]).add_(parts[2])
    torch.sub(parts[1], parts[2], out=out[1]).sub_(parts[3])


def _transform_gradient(gradient: Tensor) -> Tensor:
    """A y A^T, the adjoint of `_transform_output`: [N, K, H, W] -> [4, 4, N, R, S, K]."""
    num, channels, height, width = gradient.shape
    rows, columns = _count_blocks(height, width)
    padding = (0, 0, 0, 2 * columns - width, 0, 2 * rows - height)
    whole = torch.nn.functional.pad(gradient.permute(0, 2, 3, 1), padding)
    blocks = whole.reshape(num, rows, 2, columns, 2, channels).permute(2, 4, 0, 1, 3, 5)
    half = gradient.new_empty(4, 2, num, rows, columns, channels)
    _expand_parts(blocks, half)
    tiles = gradient.new_empty(4, 4, num, rows, columns, channels)
    _expand_parts(half.transpose(0, 1), tiles.transpose(0, 1))
    return tiles


def _expand_parts(parts: Tensor, out: Tensor) -> None:
    """A along one dimension: parts [2, ...] -> out [4, ...]."""
    out[0].copy_(parts[0])
    torch.add(parts[0], parts[1], out=out[1])
    torch.sub(parts[0], parts[1], out=out[2])
    torch.neg(parts[1], out=out[3])
