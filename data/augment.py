"""Augmentation of whole batches on their device, with random parameters per image.

N is the number of images (all frames of a batch), H x W their size in pixels. All parameters are
drawn on the CPU from the generator that is passed in. CPU and GPU therefore augment in the same
way, and nothing waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from ember_reid.data.augment_fixed import create_table
from ember_reid.data.color_jitter import draw_jitter, jitter_colors
from ember_reid.data.dataset import Normalization, upload
from ember_reid.data.erasing import Boxes, draw_boxes, erase_
from ember_reid.data.strong_augmentations import (
    aug_mix,
    auto_augment,
    random_affine,
    random_patch,
)
from torch import Tensor
from torch.nn import functional as F

Policies = tuple[
    tuple[Callable[[Tensor, "float | Tensor", torch.Generator], Tensor], "float | Tensor"], ...
]


@dataclass(frozen=True)
class AugmentationSettings:
    """What the augmentation does; 0 switches a probability off.

    Attributes:
        flip_prob: of a horizontal flip.
        padding: black pixels around the image before the random crop.
        erase_prob: of erasing a rectangle.
        erase_aspect: smallest and largest height / width of the rectangle.
        erase_fill: RGB value of erased pixels after normalization. 0 is the pixel mean; the strong
            baseline uses the values of the mean itself, (0.485, 0.456, 0.406).
        jitter_prob: of the color jitter.
        jitter: strengths of brightness, contrast, saturation and hue.
        autoaug_prob: of AutoAugment.
        autoaug_decay: images after which AutoAugment's probability has fallen to 1/e, see
            `decayed_probs`; 0 keeps it constant.
        affine_prob, augmix_prob, patch_prob: of the others in
            `strong_augmentations`.
    """

    flip_prob: float = 0.5
    padding: int = 10
    erase_prob: float = 0.5
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    erase_fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    jitter_prob: float = 0.0
    jitter: tuple[float, float, float, float] = (0.15, 0.15, 0.1, 0.1)
    autoaug_prob: float = 0.0
    autoaug_decay: int = 0
    affine_prob: float = 0.0
    augmix_prob: float = 0.0
    patch_prob: float = 0.0


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
        share = _Share(len(flat), rank, world_size)
        flat = self._crop_and_recolor(flat, generator, share, step=step)
        boxes = self._draw_boxes(share, (shape[-2], shape[-1]), generator)
        out = self.normalization(flat)
        if boxes is not None:
            erase_(out, boxes, self.settings.erase_fill)
        return out.reshape(shape)

    @property
    def has_policies(self) -> bool:
        """Whether operations are on that process the chosen images one by one."""
        s = self.settings
        probs = (s.autoaug_prob, s.affine_prob, s.augmix_prob, s.patch_prob, s.jitter_prob)
        return any(prob > 0 for prob in probs)

    @property
    def cropped_dtype(self) -> torch.dtype:
        """Of the images in front of the normalization: color jitter returns fractions."""
        return torch.float32 if self.settings.jitter_prob > 0 else torch.uint8

    def draw(
        self,
        num: int,
        size: tuple[int, int],
        generator: torch.Generator,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> Tensor:
        """The random parameters of `num` images of size (H, W), for `augment_fixed`.

        They are those that `__call__` draws from the same generator, without policies.

        Returns:
            int64 [num, 7], see `augment_fixed.create_table`.
        """
        share = _Share(num, rank, world_size)
        flips, offsets = self._draw_crops(share, generator)
        boxes = self._draw_boxes(share, size, generator)
        return create_table(flips, offsets, boxes)

    def apply_policies(
        self,
        images: Tensor,
        generator: torch.Generator,
        *,
        step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """The part of `__call__` in front of the normalization, for images [N, 3, H, W].

        Returns:
            The cropped images [N, 3, H, W], uint8 or (after color jitter) float32 in 0..255, and
            the parameters [N, 7] with which `augment_fixed` completes the augmentation.
        """
        num, padding = len(images), self.settings.padding
        share = _Share(num, rank, world_size)
        images = self._crop_and_recolor(images, generator, share, step=step)
        height, width = images.shape[-2:]
        boxes = self._draw_boxes(share, (height, width), generator)
        no_flips, no_shifts = torch.zeros(num, dtype=torch.bool), torch.full((num, 2), padding)
        return images, create_table(no_flips, no_shifts, boxes)

    def _crop_and_recolor(
        self, images: Tensor, generator: torch.Generator, share: "_Share", *, step: int
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

    def _draw_crops(self, share: "_Share", generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which images are flipped, bool [N], and their offsets, int64 [N, 2]."""
        s = self.settings
        flips = torch.rand(share.total, generator=generator)[share.own] < s.flip_prob
        offsets = torch.randint(2 * s.padding + 1, (share.total, 2), generator=generator)
        return flips, offsets[share.own]

    def _draw_boxes(
        self, share: "_Share", size: tuple[int, int], generator: torch.Generator
    ) -> Boxes | None:
        """The boxes to erase in the images of this process; None if erasing is off."""
        s = self.settings
        if s.erase_prob == 0:
            return None
        boxes = draw_boxes(share.total, size, s.erase_prob, generator, aspect=s.erase_aspect)
        return boxes.select(share.own)


@dataclass(frozen=True)
class _Share:
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


def decayed_probs(prob: float, decay: int, first: int, num: int) -> Tensor:
    """The probabilities prob * (1 - 1 / decay)^n of the images n = first .. first + num - 1.

    FastReID 2020 (commit 64861ea, autoaugment.py:499-505) augments with probability 1 - g and adds
    1 / T to g each time it does. The expectation of 1 - g after n images is (1 - 1 / T)^n. Every
    loader process counts on its own there, so `decay` is T x the number of its processes.

    Returns:
        float64 [num], on the CPU.
    """
    numbers = torch.arange(first, first + num, dtype=torch.float64)
    return prob * (1 - 1 / decay) ** numbers


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
