"""Flip, crop, normalization and erasing with operations of fixed shape.

`augment.Augmentation` processes the chosen images only, which is fast on a CPU. On a GPU, this
module needs a constant number of kernels, whose shapes do not depend on the random numbers, so a
CUDA graph can contain them. Both give the same bits.
"""

import torch
from ember_reid.data.augment import Augmentation, Boxes, Share
from ember_reid.data.dataset import Normalization
from torch import Tensor

# Columns of a table of random parameters, see `create_table`.
FLIP, DOWN, RIGHT, BOX_TOP, BOX_BOTTOM, BOX_LEFT, BOX_RIGHT = range(7)
NUM_COLUMNS = 7


class FixedShapeAugmentation(Augmentation):
    """An augmentation whose random parameters can be drawn without augmenting the images."""

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
        """The random parameters of `num` images of size (H, W), as a table.

        They are those that `__call__` draws from the same generator, without policies.

        Returns:
            int64 [num, 7], see `create_table`.
        """
        share = Share(num, rank, world_size)
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
            the parameters [N, 7] with which `normalize_and_erase` completes the augmentation.
        """
        num, padding = len(images), self.settings.padding
        share = Share(num, rank, world_size)
        images = self._crop_and_recolor(images, generator, share, step=step)
        height, width = images.shape[-2:]
        boxes = self._draw_boxes(share, (height, width), generator)
        no_flips, no_shifts = torch.zeros(num, dtype=torch.bool), torch.full((num, 2), padding)
        return images, create_table(no_flips, no_shifts, boxes)


def create_table(flips: Tensor, offsets: Tensor, boxes: Boxes | None) -> Tensor:
    """The random parameters of N images in one table.

    Args:
        flips: bool [N].
        offsets: int64 [N, 2] (down, right) of the crop.
        boxes: at most one per image; None if nothing is erased.

    Returns:
        int64 [N, 7]: flip, down, right, and the box [top, bottom) x [left, right), which is empty
        for an image without one.
    """
    table = torch.zeros(len(flips), NUM_COLUMNS, dtype=torch.int64)
    table[:, FLIP] = flips
    table[:, DOWN : RIGHT + 1] = offsets
    if boxes is not None:
        corners = torch.stack((boxes.top, boxes.bottom, boxes.left, boxes.right), dim=1)
        table[boxes.image, BOX_TOP:] = corners
    return table


def flip_and_crop_rows(images: Tensor, rows: Tensor, table: Tensor, *, padding: int) -> Tensor:
    """Gather rows, mirror, add a black border and crop: one gather from the source.

    Args:
        images: uint8 [M, 3, H, W], the source.
        rows: int64 [N], the rows of the source.
        table: int64 [N, 7], see `create_table`.
        padding: pixels.

    Returns:
        uint8 [N, 3, H, W].
    """
    _, channels, height, width = images.shape
    device = images.device
    # [N, H] and [N, W], the pixels of the source; those outside of it are black.
    ys = torch.arange(height, device=device) + (table[:, DOWN, None] - padding)
    xs = torch.arange(width, device=device) + (table[:, RIGHT, None] - padding)
    xs = torch.where(table[:, FLIP, None] == 1, width - 1 - xs, xs)
    is_row_inside = (ys >= 0) & (ys < height)
    is_column_inside = (xs >= 0) & (xs < width)
    cropped = images[
        rows[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        ys.clamp(0, height - 1)[:, None, :, None],
        xs.clamp(0, width - 1)[:, None, None, :],
    ]
    # [N, 1, H, W]
    is_inside = is_row_inside[:, None, :, None] & is_column_inside[:, None, None, :]
    return cropped.mul_(is_inside)


def normalize_and_erase(
    images: Tensor, table: Tensor, *, normalization: Normalization, fill: Tensor
) -> Tensor:
    """Normalize images and fill their boxes.

    Args:
        images: [N, 3, H, W], uint8 or float32 in 0..255; not changed.
        table: int64 [N, 7], see `create_table`.
        normalization: of uint8 images.
        fill: float32 [3], the value of erased pixels after normalization.

    Returns:
        float32 [N, 3, H, W].
    """
    height, width = images.shape[-2:]
    ys = torch.arange(height, device=images.device)
    xs = torch.arange(width, device=images.device)
    in_rows = (ys >= table[:, BOX_TOP, None]) & (ys < table[:, BOX_BOTTOM, None])
    in_columns = (xs >= table[:, BOX_LEFT, None]) & (xs < table[:, BOX_RIGHT, None])
    # [N, 1, H, W]
    is_erased = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    # The normalization changes float images in place.
    copied = images.clone() if images.dtype == torch.float32 else images
    return torch.where(is_erased, fill[:, None, None], normalization(copied))
