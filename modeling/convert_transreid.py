"""Whole models of TransReID: names of heads, jigsaw branches and camera embeddings."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor


def is_transreid(names: Collection[str]) -> bool:
    """Whether names are those of TransReID, with or without its jigsaw patch module."""
    return "base.patch_embed.proj.weight" in names and "base.cls_token" in names


def transreid_rules(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, str], ...]:
    """Patterns and replacements.

    With the jigsaw patch module, the branch b1 is the last block and norm of the global feature,
    and b2 those of the local features; the last block in `base` is not used.
    """
    if "b1.1.weight" not in tensors:
        return (
            (r"^base\.sie_embed$", "backbone.side.embedding"),
            (r"^base\.", "backbone.network."),
            (r"^bottleneck\.", "head.neck."),
            (r"^classifier\.", "head.classifier."),
        )
    last = max(int(m[1]) for name in tensors if (m := re.match(r"base\.blocks\.(\d+)\.", name)))
    return (
        (r"^base\.sie_embed$", "backbone.vit.side.embedding"),
        (r"^base\.", "backbone.vit.network."),
        (r"^b1\.0\.", f"backbone.vit.network.blocks.{last}."),
        (r"^b1\.1\.", "backbone.vit.network.norm."),
        (r"^b2\.([01])\.", r"backbone.local.\1."),
        (r"^bottleneck\.", "head.heads.0.neck."),
        (r"^bottleneck_(\d)\.", r"head.heads.\1.neck."),
        (r"^classifier\.", "head.heads.0.classifier."),
        (r"^classifier_(\d)\.", r"head.heads.\1.classifier."),
    )


def transreid_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configuration values with which our model computes the same."""
    half = (0.5, 0.5, 0.5)
    return {
        "TEST.NECK_FEAT": "before",
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.PIXEL_MEAN": half,
        "INPUT.PIXEL_STD": half,
    }
