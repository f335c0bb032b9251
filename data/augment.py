"""Augmentation of whole batches on their device, with random parameters per image.

N is the number of images (all frames of a batch), H x W their size in pixels. All parameters are
drawn on the CPU from the generator that is passed in. CPU and GPU therefore augment in the same
way, and nothing waits for the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from ember_reid.data.augment_settings import AugmentationSettings
from ember_reid.data.dataset import Normalization, upload
from ember_reid.data.strong_augmentations import (
    aug_mix,
    auto_augment,
    decayed_probs,
    random_affine,
    random_patch,
)
from torch import Tensor
from torch.nn import functional as F

# The strong baseline tries 100 times; at 256 x 128 all 20 fail for 1 image in 10^12.
_ERASE_TRIES = 20

Policies = tuple[
    tuple[Callable[[Tensor, "float | Tensor", torch.Generator], Tensor], "float | Tensor"], ...
]


class Augmentation:
    """AutoAugment, flip, crop, affine, AugMix, patch, jitter, normalization, erasing."""

    def __init__(self, normalization: Normalization, settings: AugmentationSettings) -> None:
        self.normalization = normalization
        self.settings = settings

    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        *,
        step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> Tensor:
        """Augment a batch; the input is not changed.

        Every image, and every frame of a clip, has its own random parameters. With several
        processes `images` are the rows of `rank` in the global batch. Parameters are drawn for the
        global batch, so they do not depend on the number of processes (except for AutoAugment,
        affine, AugMix and patch, which each process draws for itself).

        Args:
            images: uint8 [..., 3, H, W].
            generator: a CPU generator.
            step: training iterations before this one, for `autoaug_decay`.
            rank: this process.
            world_size: the number of processes.

        Returns:
            float32 [..., 3, H, W], normalized.
        """
        shape = images.shape
        # [B, (T,) 3, H, W] -> [N, 3, H, W]
        flat = images.reshape(-1, *shape[-3:])
        share = Share(len(flat), rank, world_size)
        flat = self._crop_and_recolor(flat, generator, share, step=step)
        boxes = self._draw_boxes(share, (shape[-2], shape[-1]), generator)
        out = self.normalization(flat)
        if boxes is not None:
            erase_(out, boxes, self.settings.erase_fill)
        return out.reshape(shape)

    def _crop_and_recolor(
        self, images: Tensor, generator: torch.Generator, share: "Share", *, step: int
    ) -> Tensor:
        """Everything in front of the normalization, of images [N, 3, H, W]."""
        s = self.settings
        own_generator = generator
        if share.world_size > 1:
            seed = generator.initial_seed() + 1 + share.rank
            own_generator = torch.Generator().manual_seed(seed)
        autoaug_prob: float | Tensor = s.autoaug_prob
        if s.autoaug_prob > 0 and s.autoaug_decay:
            first = step * share.total
            probs = decayed_probs(s.autoaug_prob, s.autoaug_decay, first, share.total)
            autoaug_prob = probs[share.own]
        images = _apply(images, ((auto_augment, autoaug_prob),), own_generator)
        flips, offsets = self._draw_crops(share, generator)
        images = flip_and_crop(images, flips, offsets, padding=s.padding)
        policies: Policies = (
            (random_affine, s.affine_prob),
            (aug_mix, s.augmix_prob),
            (random_patch, s.patch_prob),
        )
        images = _apply(images, policies, own_generator)
        if s.jitter_prob > 0:
            chosen = torch.rand(share.total, generator=generator)[share.own] < s.jitter_prob
            factors = draw_jitter(share.total, s.jitter, generator)[share.own]
            images = _jitter_chosen(images, chosen, factors)
        return images

    def _draw_crops(self, share: "Share", generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which images are flipped, bool [N], and their offsets, int64 [N, 2]."""
        s = self.settings
        flips = torch.rand(share.total, generator=generator)[share.own] < s.flip_prob
        offsets = torch.randint(2 * s.padding + 1, (share.total, 2), generator=generator)
        return flips, offsets[share.own]

    def _draw_boxes(
        self, share: "Share", size: tuple[int, int], generator: torch.Generator
    ) -> "Boxes | None":
        """The boxes to erase in the images of this process; None if erasing is off."""
        s = self.settings
        if s.erase_prob == 0:
            return None
        boxes = draw_boxes(share.total, size, s.erase_prob, generator, aspect=s.erase_aspect)
        return boxes.select(share.own)


@dataclass(frozen=True)
class Share:
    """The images of a process within the global batch.

    Attributes:
        num: images of each process.
    """

    num: int
    rank: int
    world_size: int

    @property
    def total(self) -> int:
        return self.num * self.world_size

    @property
    def own(self) -> slice:
        return slice(self.rank * self.num, (self.rank + 1) * self.num)


def _apply(images: Tensor, policies: Policies, generator: torch.Generator) -> Tensor:
    """Apply the policies with a probability above 0 in order; the others draw no numbers."""
    for policy, prob in policies:
        if isinstance(prob, Tensor) or prob > 0:
            images = policy(images, prob, generator)
    return images


def _jitter_chosen(images: Tensor, chosen: Tensor, factors: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float32 in 0..255, with the colors of the `chosen` images changed."""
    pixels = images.to(torch.float32)
    index = chosen.nonzero().flatten()
    if len(index):
        where = upload(index, images.device)
        pixels[where] = 255.0 * jitter_colors(pixels[where] / 255.0, factors[index])
    return pixels


def flip_and_crop(images: Tensor, flips: Tensor, offsets: Tensor, *, padding: int) -> Tensor:
    """Mirror the chosen images, add a black border, and crop to the input size.

    Rows are gathered from a view in which every position of the padded images starts a row, so the
    crop is one `index_select`.

    Args:
        images: uint8 [N, 3, H, W].
        flips: bool [N], on the CPU.
        offsets: int64 [N, 2] (down, right) in 0..2 * padding, on the CPU.
        padding: pixels.

    Returns:
        uint8 [N, 3, H, W].
    """
    num, channels, height, width = images.shape
    # [N, 3, H + 2 * padding, W + 2 * padding]
    out = F.pad(images, (padding,) * 4) if padding else images.clone()
    mirrored = flips.nonzero().flatten()
    if len(mirrored):
        where = upload(mirrored, images.device)
        out[where] = out[where].flip(-1)
    if not padding:
        return out
    padded_height, padded_width = out.shape[-2:]
    # [N, H], rows of the padded image
    rows = torch.arange(height) + offsets[:, :1]
    # [N, 3, 1], first row of each plane
    planes = torch.arange(num * channels).view(num, channels, 1) * padded_height
    # [N, 3, H], positions of the first pixels
    starts = (planes + rows[:, None]) * padded_width + offsets[:, 1].view(num, 1, 1)
    # [positions, W], overlapping views of the same memory
    windows = out.view(-1).unfold(0, width, 1)
    cropped = windows.index_select(0, upload(starts.flatten(), images.device))
    return cropped.view(num, channels, height, width)


@dataclass(frozen=True)
class Boxes:
    """Rectangles [top, bottom) x [left, right) of the images `image`; int64 [M], on the CPU."""

    image: Tensor
    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor

    def select(self, images: slice) -> "Boxes":
        """The boxes of a range of images, which are numbered from 0."""
        kept = (self.image >= images.start) & (self.image < images.stop)
        return Boxes(
            self.image[kept] - images.start,
            self.top[kept],
            self.bottom[kept],
            self.left[kept],
            self.right[kept],
        )


def draw_boxes(
    num: int,
    size: tuple[int, int],
    prob: float,
    generator: torch.Generator,
    *,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Boxes:
    """Rectangles to erase (Zhong et al. 2020, arXiv 1708.04896): 2 to 40 % of the area.

    The aspect height / width is uniform, as in the strong baseline; torchvision's is log-uniform.

    Args:
        num: images.
        size: (H, W).
        prob: of a rectangle in an image.
        generator: a CPU generator.
        aspect: smallest and largest height / width.
    """
    height, width = size
    chosen = torch.rand(num, generator=generator) < prob
    area = torch.empty(num, _ERASE_TRIES).uniform_(0.02, 0.4, generator=generator) * height * width
    aspects = torch.empty(num, _ERASE_TRIES).uniform_(*aspect, generator=generator)
    # [N, tries]
    heights = (area * aspects).sqrt().round().long()
    widths = (area / aspects).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    # The first try that fits.
    first = fits.int().argmax(dim=1, keepdim=True)
    box_height = heights.gather(1, first).squeeze(1)
    box_width = widths.gather(1, first).squeeze(1)
    place = torch.rand(num, 2, generator=generator)
    image = (chosen & fits.any(dim=1)).nonzero().flatten()
    top = (place[:, 0] * (height - box_height + 1)).long()
    left = (place[:, 1] * (width - box_width + 1)).long()
    return Boxes(
        image, top[image], (top + box_height)[image], left[image], (left + box_width)[image]
    )


def erase_(images: Tensor, boxes: Boxes, fill: Sequence[float]) -> None:
    """Fill the boxes of float [N, 3, H, W] in place: one slice per box."""
    value = upload(torch.tensor(fill, dtype=images.dtype), images.device).view(3, 1, 1)
    corners = (boxes.image, boxes.top, boxes.bottom, boxes.left, boxes.right)
    for i, top, bottom, left, right in torch.stack(corners, dim=1).tolist():
        images[i, :, top:bottom, left:right] = value


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
