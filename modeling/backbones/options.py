"""Settings shared by the backbones."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

logger = logging.getLogger("ember.train")


@dataclass(frozen=True)
class SideOptions:
    """Side information embedding: the section MODEL.SIE.

    Attributes:
        num_cameras: number of cameras; 0: no embedding.
        num_views: number of viewpoints of each camera; 0: cameras only.
        weight: factor on the embedding.
        tokens: "all", or "class": only the class token receives it.
    """

    num_cameras: int = 0
    num_views: int = 0
    weight: float = 3.0
    tokens: str = "all"


@dataclass(frozen=True)
class BackboneOptions:
    """Settings of MODEL.BACKBONE besides name and weights. A backbone ignores unsupported ones.

    Attributes:
        last_stride: stride of the last stage; 2 as published, 1 doubles height and width of the
            map.
        stem_relu: False removes the ReLU between the stem's batch norm and its pooling.
        stem_pool: "padded": 3x3 with stride 2 and padding 1; "ceil": without padding, sizes rounded
            up.
        last_dilation: of the 3x3 convolutions of the last stage, except those of its first block.
        last_relu: False removes every ReLU of the last block (VKD).
        non_local: number of non-local blocks per stage; empty for none.
        non_local_width: inner channels of non-local blocks; 0 means half of the outer ones.
        width: factor on the number of channels of every layer.
        image_size: (height, width) of the training images.
        semantic_weight: of SOLIDER's networks, 0 to 1.
        arguments: more arguments for the constructor of a timm network.
        tokens: what a head receives from a transformer: "class", "patches", "class+patches", or
            "auto": the class token if there is one, else the patches.
        patch_stride: distance of the patches in pixels; 0: their size, so they do not overlap.
        drop_path: probability of dropping the last residual branch (stochastic depth); it grows
            linearly from 0 in the first one.
        grad_checkpoint: recompute activations in the backward pass, which saves memory.
        freeze_patch_embed: do not train the patch embedding (MoCo v3, Chen et al. 2021).
        side: side information embedding (TransReID).
    """

    last_stride: int = 2
    stem_relu: bool = True
    stem_pool: str = "padded"
    last_dilation: int = 1
    last_relu: bool = True
    non_local: tuple[int, ...] = ()
    non_local_width: int = 0
    width: float = 1.0
    image_size: tuple[int, int] = (256, 128)
    semantic_weight: float = 0.2
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tokens: str = "auto"
    patch_stride: int = 0
    drop_path: float = 0.0
    grad_checkpoint: bool = False
    freeze_patch_embed: bool = False
    side: SideOptions = SideOptions()


# Fields that only some backbones have: configuration key, and the value without effect.
_OPTIONAL: dict[str, tuple[str, object]] = {
    "last_stride": ("LAST_STRIDE", 2),
    "stem_relu": ("STEM_RELU", True),
    "stem_pool": ("STEM_POOL", "padded"),
    "last_dilation": ("LAST_DILATION", 1),
    "last_relu": ("LAST_RELU", True),
    "non_local": ("NON_LOCAL", ()),
    "width": ("WIDTH", 1.0),
    "semantic_weight": ("SEMANTIC_WEIGHT", 0.2),
    "arguments": ("ARGS", {}),
    "patch_stride": ("PATCH_STRIDE", 0),
    "drop_path": ("DROP_PATH", 0.0),
    "freeze_patch_embed": ("FREEZE_PATCH_EMBED", False),
}


def keep_supported(name: str, options: BackboneOptions, *supported: str) -> BackboneOptions:
    """Resets the fields of `options` that the backbone `name` lacks, and logs them in one line.

    Nothing is logged on the meta device, on which check_model builds the model before data is read.
    """
    neutral: dict[str, Any] = {}
    notes = []
    for option, (key, value) in _OPTIONAL.items():
        found = getattr(options, option)
        if option in supported or found == value or (option == "non_local" and not any(found)):
            continue
        neutral[option] = value
        notes.append(f"{key} {found} (now {value})")
    if notes and torch.get_default_device().type != "meta":
        logger.info("%s has no MODEL.BACKBONE setting %s", name, ", ".join(notes))
    return replace(options, **neutral)


def limit_non_local(
    name: str, options: BackboneOptions, num_blocks: Sequence[int]
) -> BackboneOptions:
    """Keep at most one non-local block per residual block, and log a change in one line.

    Recipes of deeper networks have more of them.

    Args:
        num_blocks: residual blocks per stage.
    """
    counts = tuple(map(min, options.non_local, num_blocks))
    if counts == tuple(options.non_local):
        return options
    if torch.get_default_device().type != "meta":
        found = options.non_local
        logger.info("%s has no MODEL.BACKBONE setting NON_LOCAL %s (now %s)", name, found, counts)
    return replace(options, non_local=counts)


def check_options(options: BackboneOptions) -> None:
    """Raises ValueError for a width that gives odd numbers of channels."""
    if not 0.125 <= options.width <= 2 or options.width * 64 % 2:
        raise ValueError(
            f"MODEL.BACKBONE.WIDTH is {options.width}; choose a multiple of 1/32 between 0.125 "
            "and 2, such as 0.5"
        )
