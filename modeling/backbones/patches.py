"""The patch embedding of transformers: divisibility, overlap, position embeddings."""

from typing import Any

from torch import nn


def has_class_token(network: nn.Module) -> bool:
    """Whether a timm network has a class token."""
    return getattr(network, "cls_token", None) is not None


def check_patches(
    network: nn.Module, image_size: tuple[int, int], *, stride: int, name: str
) -> None:
    """Raises ValueError if patches without overlap do not cover the images."""
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch_size is None or stride:
        return
    height, width = image_size
    rows, columns = patch_size
    if height % rows or width % columns:
        near = [max(round(s / p), 1) * p for s, p in zip(image_size, patch_size, strict=True)]
        raise ValueError(
            f"INPUT.SIZE_TRAIN {height} x {width} is not divisible by the patches of {name}, "
            f"{rows} x {columns} pixels; set INPUT.SIZE_TRAIN and INPUT.SIZE_TEST to "
            f"({near[0]}, {near[1]})"
        )


def overlap_patches(network: Any, stride: int) -> None:
    """Give the patch embedding of a timm vision transformer another stride, in place.

    There are (H - P) // stride + 1 rows of patches for a patch size P, as in TransReID (He et al.
    2021, section 3.1). The position embeddings are resampled.
    """
    from timm.layers import resample_abs_pos_embed

    embed = network.patch_embed
    sizes = zip(embed.img_size, embed.patch_size, strict=True)
    old_grid, grid = embed.grid_size, tuple((size - patch) // stride + 1 for size, patch in sizes)
    embed.proj.stride = (stride, stride)
    embed.grid_size, embed.num_patches = grid, grid[0] * grid[1]
    if network.pos_embed is not None:
        prefix = 0 if network.no_embed_class else network.num_prefix_tokens
        resampled = resample_abs_pos_embed(
            network.pos_embed.detach(), grid, old_size=old_grid, num_prefix_tokens=prefix
        )
        network.pos_embed = nn.Parameter(resampled)
