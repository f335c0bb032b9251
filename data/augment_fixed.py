"""Flip, crop, normalization and erasing with operations of fixed shape.

`augment.Augmentation` processes the chosen images only, which is fast on a CPU. On a GPU, this
module needs a constant number of kernels, whose shapes do not depend on the random numbers, so a
CUDA graph can contain them. Both give the same bits.
"""

import torch
from ember_reid.data.dataset import Normalization
from ember_reid.data.erasing import Boxes
from torch import Tensor

# Columns of a table of random parameters, see `create_table`.
FLIP, DOWN, RIGHT, BOX_TOP, BOX_BOTTOM, BOX_LEFT, BOX_RIGHT = range(7)
NUM_COLUMNS = 7


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
