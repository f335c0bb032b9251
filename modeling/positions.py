"""Position embeddings of transformers, resampled from one grid of patches to another.

P: patches of the old grid, h x w: patches of the new one, D: channels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Resampling:
    """How a program resamples the position embeddings of its weight files.

    Attributes:
        mode: "bilinear" or "bicubic".
        antialias: whether a low-pass filter precedes downsampling.
        offset: added to the new height and width before the scale is computed (DINO: 0.1), which
            shifts the sampling points.
    """

    mode: str
    antialias: bool = False
    offset: float = 0.0


# TransReID, TransReID-SSL, PersonViT, PASS and CLIP-ReID.
BILINEAR = Resampling("bilinear")
# MAE.
BICUBIC = Resampling("bicubic")
# open_clip, and DINOv2 with registers.
BICUBIC_ANTIALIASED = Resampling("bicubic", antialias=True)
# DINO, iBOT, and DINOv2 without registers.
BICUBIC_OFFSET = Resampling("bicubic", offset=0.1)


def find_grid(num_patches: int) -> tuple[int, int]:
    """(height, width) of a grid that is square, or about two or three times as high as wide.

    128 patches are 16 x 8 (256 x 128 images, stride 16), 210 are 21 x 10 (stride 12).

    Raises:
        ValueError: there is no such grid.
    """
    side = math.isqrt(num_patches)
    if side * side == num_patches:
        return side, side
    for ratio in (2, 3):
        width = round(math.sqrt(num_patches / ratio))
        if num_patches % width == 0 and abs(num_patches / width**2 - ratio) < 0.11 * ratio:
            return num_patches // width, width
    raise ValueError(f"{num_patches} patches form no grid that is square, 2:1 or 3:1")


def resample_positions(
    positions: Tensor, grid: tuple[int, int], *, num_prefix: int, resampling: Resampling
) -> Tensor:
    """Resamples the embeddings of the patches; those of the first `num_prefix` tokens are kept.

    Person pretraining on images of 2:1 is recognized by its grid, which is not square. Its programs
    interpolate bilinearly, whatever `resampling` is.

    Args:
        positions: [1, num_prefix + P, D].
        grid: (h, w).

    Returns:
        [1, num_prefix + h * w, D]; `positions` itself if the grid is unchanged.

    Raises:
        ValueError: the old grid is unknown; see find_grid.
    """
    prefix, patches = positions[:, :num_prefix], positions[:, num_prefix:]
    num_patches = patches.shape[1]
    height, width = grid
    is_square = math.isqrt(num_patches) ** 2 == num_patches
    if num_patches == height * width and (height == width or not is_square):
        return positions
    old = find_grid(num_patches)
    rule = resampling if old[0] == old[1] else BILINEAR
    # [1, P, D] -> [1, D, old height, old width]
    maps = patches.float().unflatten(1, old).permute(0, 3, 1, 2)
    if rule.offset:
        scales = ((height + rule.offset) / old[0], (width + rule.offset) / old[1])
        maps = F.interpolate(maps, scale_factor=scales, mode=rule.mode, antialias=rule.antialias)
    else:
        maps = F.interpolate(maps, size=grid, mode=rule.mode, antialias=rule.antialias)
    # [1, D, h, w] -> [1, h * w, D]
    patches = maps.flatten(2).transpose(1, 2).to(positions.dtype)
    return torch.cat([prefix, patches], dim=1)
