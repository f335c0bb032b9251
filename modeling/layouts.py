"""Layouts of pretrained weight files: how each program names the tensors of its backbone.

A layout is recognized by the names in the file. Its conversion is a pure function from tensors to
tensors that removes heads and renames the rest to the names of timm or torchvision. Position
embeddings and the names of DINOv2, DINOv3, MAE and CLIP are converted by timm's own filters
afterwards.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class PretrainedLayout:
    """How a program names the tensors of a backbone.

    Attributes:
        name: the programs that use it.
        matches: (names) -> whether they are of this layout.
        convert: (tensors) -> the tensors of the backbone, by the names of timm or torchvision.
    """

    name: str
    matches: Callable[[Collection[str]], bool]
    convert: Callable[[Mapping[str, Tensor]], Tensors]


def has_prefix(names: Collection[str], prefix: str) -> bool:
    """Whether one of `names` starts with `prefix`."""
    return any(name.startswith(prefix) for name in names)


def keep_prefix(tensors: Mapping[str, Tensor], prefix: str, replacement: str = "") -> Tensors:
    """The tensors whose names start with `prefix`, which is replaced."""
    return {
        replacement + name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def drop(tensors: Mapping[str, Tensor], pattern: str) -> Tensors:
    """The tensors whose names do not match `pattern` from their start."""
    return {name: tensor for name, tensor in tensors.items() if not re.match(pattern, name)}


def _convert_transreid(tensors: Mapping[str, Tensor]) -> Tensors:
    """TransReID: with JPM, the branch `b1` is the last block and norm of the global feature."""
    base = drop(keep_prefix(tensors, "base."), r"fc\.")
    blocks = {int(m[1]) for name in base if (m := re.match(r"blocks\.(\d+)\.", name))}
    if has_prefix(tensors, "b1.0.") and blocks:
        base |= keep_prefix(tensors, "b1.0.", f"blocks.{max(blocks)}.")
        base |= keep_prefix(tensors, "b1.1.", "norm.")
    return base


# In the order in which they are tried.
PRETRAINED_LAYOUTS = (
    PretrainedLayout(
        "iBOT and PersonViT",
        lambda names: has_prefix(names, "teacher.backbone."),
        lambda tensors: drop(keep_prefix(tensors, "teacher.backbone."), r"(head\.|masked_embed$)"),
    ),
    PretrainedLayout(
        "MoCo and LUPerson",
        lambda names: has_prefix(names, "encoder_q."),
        lambda tensors: drop(keep_prefix(tensors, "encoder_q."), r"fc\."),
    ),
    PretrainedLayout(
        "CLIP-ReID",
        lambda names: has_prefix(names, "image_encoder."),
        lambda tensors: keep_prefix(tensors, "image_encoder.", "visual."),
    ),
    PretrainedLayout(
        "OpenAI CLIP and open_clip",
        lambda names: has_prefix(names, "visual."),
        lambda tensors: keep_prefix(tensors, "visual.", "visual."),
    ),
    PretrainedLayout(
        "TransReID",
        lambda names: has_prefix(names, "base.patch_embed."),
        _convert_transreid,
    ),
    PretrainedLayout(
        "reid-strong-baseline",
        lambda names: has_prefix(names, "base."),
        lambda tensors: keep_prefix(tensors, "base."),
    ),
    PretrainedLayout(
        "DINO, iBOT and TransReID-SSL",
        lambda names: has_prefix(names, "backbone."),
        lambda tensors: drop(keep_prefix(tensors, "backbone."), r"(head\.|fc\.|masked_embed$)"),
    ),
    PretrainedLayout(
        "MAE with decoder",
        lambda names: has_prefix(names, "decoder_"),
        lambda tensors: drop(tensors, r"(decoder_|mask_token$)"),
    ),
)


def convert_pretrained(tensors: Mapping[str, Tensor]) -> tuple[Tensors, str]:
    """Converts the tensors of a file to the names of timm or torchvision.

    Returns:
        The tensors of the backbone, and the name of the layout ("" if none was recognized, in which
        case the tensors are unchanged).
    """
    for layout in PRETRAINED_LAYOUTS:
        if layout.matches(tensors):
            return layout.convert(tensors), layout.name
    return dict(tensors), ""
