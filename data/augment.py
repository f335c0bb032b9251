"""Augmentation of whole batches on their device, with one draw per image.

N images (all frames of a batch), 3 channels, H x W pixels. All parameters are drawn on the CPU from the
generator that is passed in, so a CPU and a GPU augment alike, and nothing waits for the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from ember_reid.data.batch import upload
from ember_reid.data.strong_augmentations import (
    aug_mix,
    auto_augment,
    cutout,
    random_affine,
    random_patch,
)
from torch import Tensor
from torch.nn import functional as F

Policies = tuple[tuple[Callable[[Tensor, float, torch.Generator], Tensor], float], ...]

_ERASE_TRIES = (
    20  # the strong baseline tries 100 times; all 20 fail for 1 image in 10^12 at 256 x 128
)


class Normalization:
    """uint8 [..., 3, H, W] to float32 (x / 255 - mean) / std; `mean` and `std` are of RGB values in 0..1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"mean and std need three values and std must be positive, not {mean} and {std}"
            )
        self.shift = 255.0 * torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        if self.shift.device != images.device:
            self.shift, self.scale = (
                upload(value, images.device) for value in (self.shift, self.scale)
            )
        return images.to(torch.float32).sub_(self.shift).mul_(self.scale)


@dataclass(frozen=True)
class AugmentationSettings:
    """Probabilities in 0..1; `padding` in pixels; `jitter` = brightness, contrast, saturation, hue strengths.

    `erase_fill` is the value of erased pixels *after* normalization: 0 is the gray of the pixel mean. The
    strong baseline erased after normalizing with the mean itself, (0.485, 0.456, 0.406).
    """

    flip_prob: float = 0.5
    padding: int = 10
    erase_prob: float = 0.5
    erase_fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    jitter_prob: float = 0.0
    jitter: tuple[float, float, float, float] = (0.15, 0.15, 0.1, 0.1)
    autoaug_prob: float = 0.0
    affine_prob: float = 0.0
    augmix_prob: float = 0.0
    patch_prob: float = 0.0
    cutout_prob: float = 0.0


class Augmentation:
    """AutoAugment, flip, pad and crop, affine, AugMix, patches, cutout, color jitter, normalization, erasing."""

    def __init__(self, normalization: Normalization, settings: AugmentationSettings) -> None:
        self.normalization = normalization
        self.settings = settings

    def __call__(
        self, images: Tensor, generator: torch.Generator, *, rank: int = 0, world_size: int = 1
    ) -> Tensor:
        """uint8 [..., 3, H, W] to float32 of the same shape, normalized; the input is left as it is.

        Every image, and every frame of a clip, has its own draw. `generator` is one of the CPU. With several
        processes `images` are the rows of `rank` in the global batch; draws are made for all of it, so that the
        number of processes does not change them (AutoAugment, affine, AugMix, patches and cutout draw apart).
        """
        shape = images.shape
        flat = images.reshape(-1, *shape[-3:])  # [B, (T,) 3, H, W] -> [N, 3, H, W]
        s = self.settings
        num = flat.shape[0]
        total, own = num * world_size, slice(rank * num, (rank + 1) * num)
        apart = generator
        if world_size > 1:
            apart = torch.Generator().manual_seed(generator.initial_seed() + 1 + rank)
        flat = _apply(flat, ((auto_augment, s.autoaug_prob),), apart)
        flips = torch.rand(total, generator=generator)[own] < s.flip_prob
        offsets = torch.randint(2 * s.padding + 1, (total, 2), generator=generator)[own]
        flat = flip_and_crop(flat, flips, offsets, padding=s.padding)
        policies = (
            (random_affine, s.affine_prob),
            (aug_mix, s.augmix_prob),
            (random_patch, s.patch_prob),
            (cutout, s.cutout_prob),
        )
        flat = _apply(flat, policies, apart)
        if s.jitter_prob > 0:
            chosen = torch.rand(total, generator=generator)[own] < s.jitter_prob
            factors = draw_jitter(total, s.jitter, generator)[own]
            pixels = flat.to(torch.float32)
            index = chosen.nonzero().flatten()
            if len(index):
                where = upload(index, flat.device)
                pixels[where] = 255.0 * jitter_colors(pixels[where] / 255.0, factors[index])
            flat = pixels
        out = self.normalization(flat)
        if s.erase_prob > 0:
            boxes = draw_boxes(total, tuple(shape[-2:]), s.erase_prob, generator)
            mine = boxes.index.div(num, rounding_mode="floor") == rank
            boxes = Boxes(*(values[mine] for values in boxes))
            erase_(out, boxes._replace(index=boxes.index - rank * num), s.erase_fill)
        return out.reshape(shape)


def _apply(images: Tensor, policies: Policies, generator: torch.Generator) -> Tensor:
    """The policies whose probability is above 0, in their order; the others draw nothing."""
    for policy, prob in policies:
        if prob > 0:
            images = policy(images, prob, generator)
    return images


def flip_and_crop(images: Tensor, flips: Tensor, offsets: Tensor, *, padding: int) -> Tensor:
    """Mirror the chosen images, add a black border, cut the input size out again. uint8 [N, 3, H, W] in and
    out.

    flips: bool [N], offsets: int64 [N, 2] (down, right) in 0..2 * padding, both on the CPU. Rows are gathered
    from a view in which every position of the padded images starts a row, so a crop is one `index_select`.
    """
    num, channels, height, width = images.shape
    out = F.pad(images, (padding,) * 4) if padding else images.clone()  # [N, 3, H + 2p, W + 2p]
    mirrored = flips.nonzero().flatten()
    if len(mirrored):
        where = upload(mirrored, images.device)
        out[where] = out[where].flip(-1)
    if not padding:
        return out
    padded_height, padded_width = out.shape[-2:]
    rows = torch.arange(height) + offsets[:, :1]  # [N, H], in the padded image
    planes = torch.arange(num * channels).view(num, channels, 1) * padded_height  # [N, 3, 1]
    starts = (planes + rows[:, None]) * padded_width + offsets[:, 1].view(num, 1, 1)  # [N, 3, H]
    windows = out.view(-1).unfold(
        0, width, 1
    )  # [positions, W], overlapping views of the same memory
    cropped = windows.index_select(0, upload(starts.flatten(), images.device))
    return cropped.view(num, channels, height, width)


class Boxes(NamedTuple):
    """Rectangles [top, bottom) x [left, right), int64 [M] each, of the images `index`, int64 [M]."""

    index: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


def draw_boxes(num: int, size: tuple[int, int], prob: float, generator: torch.Generator) -> Boxes:
    """Rectangles to erase (Zhong et al. 2020, arXiv 1708.04896): with `prob`, 2 to 40 % of the area.

    As in the strong baseline the aspect height / width is uniform in 0.3..1/0.3 (torchvision: log-uniform).
    """
    height, width = size
    chosen = torch.rand(num, generator=generator) < prob
    area = torch.empty(num, _ERASE_TRIES).uniform_(0.02, 0.4, generator=generator) * height * width
    aspect = torch.empty(num, _ERASE_TRIES).uniform_(0.3, 1 / 0.3, generator=generator)
    heights = (area * aspect).sqrt().round().long()  # [N, tries]
    widths = (area / aspect).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first try that fits
    box_height = heights.gather(1, first).squeeze(1)
    box_width = widths.gather(1, first).squeeze(1)
    place = torch.rand(num, 2, generator=generator)
    index = (chosen & fits.any(dim=1)).nonzero().flatten()
    top = (place[:, 0] * (height - box_height + 1)).long()
    left = (place[:, 1] * (width - box_width + 1)).long()
    return Boxes(
        index, top[index], (top + box_height)[index], left[index], (left + box_width)[index]
    )


def erase_(images: Tensor, boxes: Boxes, fill: Sequence[float]) -> None:
    """Fill the boxes of float [N, 3, H, W] in place: one slice per box, no pass over the whole batch."""
    value = upload(torch.tensor(fill, dtype=images.dtype), images.device).view(3, 1, 1)
    for i, top, bottom, left, right in torch.stack(boxes, dim=1).tolist():
        images[i, :, top:bottom, left:right] = value


def draw_jitter(num: int, strengths: Sequence[float], generator: torch.Generator) -> Tensor:
    """Factors [N, 4]: brightness, contrast and saturation uniform in 1 +- strength, hue in 0 +- strength (of
    a turn).
    """
    strength = torch.tensor(strengths, dtype=torch.float32)
    center = torch.tensor([1.0, 1.0, 1.0, 0.0])
    factors = center + strength * (2 * torch.rand(num, 4, generator=generator) - 1)
    factors[:, :3].clamp_(min=0)
    return factors


def jitter_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order, as torchvision defines them on float images.

    images: float [N, 3, H, W] in 0..1; factors: [N, 4], see `draw_jitter`. torchvision shuffles the order of
    the four.
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
    """Turn the hue of [N, 3, H, W] in 0..1 by `hue` [N, 1, 1] turns; HSV saturation and value stay."""
    red, green, blue = images.unbind(1)  # [N, H, W] each
    value = images.amax(dim=1)
    spread = value - images.amin(dim=1)
    # masks as numbers: torch.where is many times slower than arithmetic on a CPU
    is_red = (value == red).to(value.dtype)
    is_green = (value == green).to(value.dtype) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    sector = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    sector = sector / (spread + (spread == 0)) + 2 * is_green + 4 * is_blue
    turned = sector + 6 * hue
    # channel n of the HSV -> RGB formula value - spread * max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6
    channels = []
    for n in (5, 3, 1):
        k = (n + turned) % 6
        channels.append(value - spread * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)
