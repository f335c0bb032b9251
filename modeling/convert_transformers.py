"""Whole models of TransReID, TransReID-SSL, PASS, SOLIDER-REID and CLIP-ReID.

`base` or `image_encoder` is the backbone, `bottleneck` the neck. The tables contain facts about the
programs, not their code.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ember_reid.modeling.namings import NAMINGS, Rules, Tensors, drop, has_prefix, keep_prefix
from torch import Tensor

_HALF = (0.5, 0.5, 0.5)
_GLOBAL: Rules = (
    (r"^base\.sie_embed$", "backbone.side.embedding"),
    (r"^base\.", "backbone.network."),
    (r"^fcneck\.", "head.reduction.0."),
    (r"^bottleneck\.", "head.neck."),
    (r"^classifier\.", "head.classifier."),
)
_PASS: Rules = (
    (r"^base\.", "backbone.network."),
    (r"^bottleneck\.", "head.necks.0."),
    (r"^bottleneck_(\d)\.", r"head.necks.\1."),
    (r"^classifier\.", "head.classifier."),
)
_CLIP: Rules = (
    (r"^cv_embed$", "backbone.side.embedding"),
    (r"^image_encoder\.", "backbone.network."),
    (r"^projection\.", "head.heads.1.reduction.0."),
    (r"^bottleneck\.", "head.heads.0.neck."),
    (r"^bottleneck_proj\.", "head.heads.1.neck."),
    (r"^classifier\.", "head.heads.0.classifier."),
    (r"^classifier_proj\.", "head.heads.1.classifier."),
)


@dataclass(frozen=True)
class WholeModel:
    """How a program of transformers saves a model.

    Attributes:
        matches: (names) -> whether they are of this program.
        prepare: (tensors) -> tensors with the backbone in timm's names, below the same prefix.
        rules: (tensors) -> patterns and replacements for all names.
        settings: (tensors) -> configuration values with which our model computes the same.
    """

    matches: Callable[[Collection[str]], bool]
    prepare: Callable[[Mapping[str, Tensor]], Tensors]
    rules: Callable[[Mapping[str, Tensor]], Rules]
    settings: Callable[[Mapping[str, Tensor]], dict[str, Any]]


def _rename_backbone(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """The tensors below `prefix` by timm's names, then the others as they are.

    The classifier of the 1000 classes of ImageNet is left out.
    """
    inner = drop(keep_prefix(tensors, prefix), r"fc\.")
    naming = next((n for n in NAMINGS if n.matches(inner)), None)
    named = naming.convert(inner) if naming else inner
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return {prefix + name: tensor for name, tensor in named.items()} | others


def _prepare_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """Text encoder and prompts are left out; the projection [C, D] becomes a linear layer."""
    images = drop(tensors, r"(prompt_learner|text_encoder)\.")
    named = _rename_backbone(images, "image_encoder.")
    if "image_encoder.proj" in images:
        named["projection.weight"] = images["image_encoder.proj"].float().T.contiguous()
    return named


def _transreid_rules(tensors: Mapping[str, Tensor]) -> Rules:
    """With the jigsaw patch module, b1 is the last block and norm of the global feature.

    b2 is those of the local features; the last block in `base` is not used.
    """
    if "b1.1.weight" not in tensors:
        return _GLOBAL
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


def _settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "TEST.NECK_FEAT": "before",
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.PIXEL_MEAN": _HALF,
        "INPUT.PIXEL_STD": _HALF,
    }
    return settings | ({"MODEL.SIE.TOKENS": "class"} if "cv_embed" in tensors else {})


# In the order in which they are tried.
WHOLE_MODELS = {
    "clip-reid": WholeModel(
        lambda names: "bottleneck_proj.weight" in names and has_prefix(names, "image_encoder."),
        _prepare_clip,
        lambda tensors: _CLIP,
        _settings,
    ),
    "solider": WholeModel(
        lambda names: has_prefix(names, "base.stages.0.blocks.0.attn.w_msa."),
        lambda tensors: _rename_backbone(tensors, "base."),
        lambda tensors: _GLOBAL,
        _settings,
    ),
    "pass": WholeModel(
        lambda names: "base.part_token1" in names,
        lambda tensors: _rename_backbone(tensors, "base."),
        lambda tensors: _PASS,
        _settings,
    ),
    # TransReID-SSL has the same names.
    "transreid": WholeModel(
        lambda names: {"base.patch_embed.proj.weight", "base.cls_token"} <= set(names),
        lambda tensors: _rename_backbone(tensors, "base."),
        _transreid_rules,
        _settings,
    ),
}
