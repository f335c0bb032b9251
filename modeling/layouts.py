"""Layouts of pretrained weight files: how each program names the tensors of its backbone.

A file is recognized by its names, in two steps: a `Container` says under which prefix the backbone
is, and a `Naming` how its tensors are called. Their conversions are pure functions from tensors to
tensors that remove heads and rename the rest to the names of timm or torchvision.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ember_reid.modeling.namings import NAMINGS, Tensors, drop, has_prefix, keep_prefix
from ember_reid.modeling.positions import (
    BICUBIC_ANTIALIASED,
    BICUBIC_OFFSET,
    BILINEAR,
    Resampling,
)
from torch import Tensor


@dataclass(frozen=True)
class Container:
    """Where a program puts the backbone in its files.

    Attributes:
        name: the programs that use it.
        matches: (names) -> whether they are of this container.
        extract: (tensors) -> the tensors of the backbone.
        resampling: of position embeddings; None: that of the naming.
    """

    name: str
    matches: Callable[[Collection[str]], bool]
    extract: Callable[[Mapping[str, Tensor]], Tensors]
    resampling: Resampling | None = None


class ConvertedBackbone(NamedTuple):
    """The tensors of a backbone.

    Attributes:
        tensors: by the names of timm or torchvision.
        layout: container and naming, "" if neither was recognized; the tensors are unchanged then.
        resampling: of position embeddings; None: that of timm.
    """

    tensors: Tensors
    layout: str
    resampling: Resampling | None


# Heads of self-supervised training beside the backbone.
_HEADS = r"(head\.|fc\d*\.|classifier\.|embed_fc\.|masked_embed$)"


def _extract_transreid(tensors: Mapping[str, Tensor]) -> Tensors:
    """TransReID: with JPM, the branch `b1` is the last block and norm of the global feature.

    Camera embeddings are left out, because they belong to the cameras of the dataset.
    """
    base = drop(keep_prefix(tensors, "base."), r"(fc\.|sie_embed$)")
    blocks = {int(m[1]) for name in base if (m := re.match(r"blocks\.(\d+)\.", name))}
    if has_prefix(tensors, "b1.0.") and blocks:
        base |= keep_prefix(tensors, "b1.0.", f"blocks.{max(blocks)}.")
        base |= keep_prefix(tensors, "b1.1.", "norm.")
    return base


def _extract(prefix: str) -> Callable[[Mapping[str, Tensor]], Tensors]:
    return lambda tensors: drop(keep_prefix(tensors, prefix), _HEADS)


def _extract_ours(tensors: Mapping[str, Tensor]) -> Tensors:
    """Our own checkpoints; the parts of JPM start as copies again."""
    for prefix in ("backbone.vit.network.", "backbone.network."):
        if has_prefix(tensors, prefix):
            return keep_prefix(tensors, prefix)
    return {}


# In the order in which they are tried.
CONTAINERS = (
    Container(
        "ember-reid",
        lambda names: any(re.match(r"backbone\.(vit\.)?network\.", name) for name in names),
        _extract_ours,
        BICUBIC_ANTIALIASED,
    ),
    Container(
        "iBOT and PersonViT",
        lambda names: has_prefix(names, "teacher.backbone."),
        _extract("teacher.backbone."),
        BICUBIC_OFFSET,
    ),
    Container(
        "MoCo, LUPerson and LUPerson-NL",
        lambda names: has_prefix(names, "encoder_q."),
        _extract("encoder_q."),
    ),
    Container(
        "CLIP-ReID",
        lambda names: has_prefix(names, "image_encoder."),
        lambda tensors: keep_prefix(tensors, "image_encoder."),
        BILINEAR,
    ),
    Container(
        "open_clip with a network of timm",
        lambda names: has_prefix(names, "visual.trunk."),
        lambda tensors: keep_prefix(tensors, "visual.trunk."),
        BICUBIC_ANTIALIASED,
    ),
    Container(
        "OpenAI CLIP and open_clip",
        lambda names: has_prefix(names, "visual."),
        lambda tensors: keep_prefix(tensors, "visual."),
        BICUBIC_ANTIALIASED,
    ),
    Container(
        "TransReID, TransReID-SSL, PASS and SOLIDER-REID",
        lambda names: has_prefix(names, "base.patch_embed."),
        _extract_transreid,
        BILINEAR,
    ),
    Container(
        "reid-strong-baseline",
        lambda names: has_prefix(names, "base."),
        lambda tensors: keep_prefix(tensors, "base."),
    ),
    Container(
        "DINO, iBOT, TransReID-SSL, PASS, SOLIDER and CION",
        lambda names: has_prefix(names, "backbone."),
        _extract("backbone."),
        BICUBIC_OFFSET,
    ),
)


def convert_pretrained(tensors: Mapping[str, Tensor]) -> ConvertedBackbone:
    """Convert the tensors of a file to the names of timm or torchvision."""
    container = next((c for c in CONTAINERS if c.matches(tensors)), None)
    inner = container.extract(tensors) if container else dict(tensors)
    naming = next((n for n in NAMINGS if n.matches(inner)), None)
    found = naming.convert(inner) if naming else inner
    parts = [part.name for part in (container, naming) if part]
    rules = [part.resampling for part in (container, naming) if part and part.resampling]
    return ConvertedBackbone(found, ", ".join(parts), rules[0] if rules else None)
