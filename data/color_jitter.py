"""Random changes of brightness, contrast, saturation and hue. N is the number of images."""

from collections.abc import Sequence

import torch
from ember_reid.data.dataset import upload
from torch import Tensor


def draw_jitter(num: int, strengths: Sequence[float], generator: torch.Generator) -> Tensor:
    """Random factors [N, 4] of brightness, contrast, saturation and hue.

    The first three are uniform in 1 +- strength, the hue in 0 +- strength, as a fraction of 360
    degrees.
    """
    strength = torch.tensor(strengths, dtype=torch.float32)
    center = torch.tensor([1.0, 1.0, 1.0, 0.0])
    factors = center + strength * (2 * torch.rand(num, 4, generator=generator) - 1)
    factors[:, :3].clamp_(min=0)
    return factors


def jitter_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order, as torchvision defines them.

    torchvision applies the four in random order.

    Args:
        images: float [N, 3, H, W] in 0..1.
        factors: [N, 4], see `draw_jitter`.
    """
    brightness, contrast, saturation, hue = (
        upload(factors, images.device).view(-1, 4, 1, 1, 1).unbind(1)
    )
    images = (images * brightness).clamp(0, 1)
    images = _blend(images, _gray(images).mean(dim=(-2, -1), keepdim=True), contrast)
    images = _blend(images, _gray(images), saturation)
    return shift_hue(images, hue.squeeze(1))


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    """ITU-R 601 luma: [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def shift_hue(images: Tensor, hue: Tensor) -> Tensor:
    """Rotate the hue of images [N, 3, H, W] in 0..1 by `hue` [N, 1, 1], a fraction of 360 degrees.

    The saturation and the value of HSV do not change.
    """
    # [N, H, W] each
    red, green, blue = images.unbind(1)
    value = images.amax(dim=1)
    spread = value - images.amin(dim=1)
    # Masks are numbers: torch.where is many times slower than arithmetic on a CPU.
    is_red = (value == red).to(value.dtype)
    is_green = (value == green).to(value.dtype) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    sector = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    sector = sector / (spread + (spread == 0)) + 2 * is_green + 4 * is_blue
    turned = sector + 6 * hue
    # HSV to RGB: channel n is value - spread * max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6.
    channels = []
    for n in (5, 3, 1):
        k = (n + turned) % 6
        channels.append(value - spread * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)
