"""How programs name the tensors of a backbone, and how these become timm's names.

C: channels, O: output channels.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from ember_reid.modeling.positions import (
    BICUBIC,
    BICUBIC_ANTIALIASED,
    BICUBIC_OFFSET,
    BILINEAR,
    Resampling,
)
from torch import Tensor

Tensors = dict[str, Tensor]
# Patterns and replacements.
Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Naming:
    """How a program names the tensors of a backbone.

    Attributes:
        name: the programs that use it.
        matches: (names without the prefix of the backbone) -> whether they are of this naming.
        convert: (tensors) -> the tensors by timm's names.
        resampling: of position embeddings; None: that of timm.
    """

    name: str
    matches: Callable[[Collection[str]], bool]
    convert: Callable[[Mapping[str, Tensor]], Tensors]
    resampling: Resampling | None = None


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


def rename(tensors: Mapping[str, Tensor], rules: Rules) -> Tensors:
    """Apply all patterns, in this order, to every name."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def _order_merged_patches(tensor: Tensor) -> Tensor:
    """The last dimension, 4C values of 2 x 2 patches, in timm's order.

    SOLIDER (mmdetection) has the order (channel, row, column), timm (column, row, channel).
    """
    # [..., 4C] -> [..., C, 2, 2] -> [..., 2, 2, C] -> [..., 4C]
    split = tensor.unflatten(-1, (-1, 2, 2))
    return split.movedim((-3, -2, -1), (-1, -2, -3)).flatten(-3)


def _convert_solider(tensors: Mapping[str, Tensor]) -> Tensors:
    """SOLIDER's Swin: patches are merged at the end of a stage, in timm at the start of the next.

    The norms of the first three stages and the semantic embedding of the last one have no influence
    on the output.
    """
    last = max(int(m[1]) for name in tensors if (m := re.match(r"stages\.(\d+)\.", name)))
    unused = rf"(norm[0-{last - 1}]\.|semantic_embed_[wb]\.{last}\.|head\.|fc\.)"
    kept = {
        name: tensor
        for name, tensor in drop(tensors, unused).items()
        if not name.endswith("relative_position_index")
    }
    named = rename(
        kept,
        (
            (rf"^norm{last}\.", "norm."),
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"\.attn\.w_msa\.", ".attn."),
            (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
            (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
            (r"^semantic_embed_([wb])\.(\d+)\.", r"stages.\2.downsample.semantic_\1."),
        ),
    )
    converted = {}
    for name, tensor in named.items():
        if re.search(r"\.downsample\.(norm|reduction)\.", name):
            tensor = _order_merged_patches(tensor)
        match = re.match(r"stages\.(\d+)\.(.*)", name)
        if match:
            is_merging = match[2].startswith("downsample.")
            name = f"layers.{int(match[1]) + is_merging}.{match[2]}"
        converted[name] = tensor
    return converted


def _convert_pass(tensors: Mapping[str, Tensor]) -> Tensors:
    """PASS: three part tokens, with position embeddings of their own, become register tokens."""
    parts = [f"part_token{i}" for i in (1, 2, 3)]
    places = ["cls_pos", *(f"part{i}_pos" for i in (1, 2, 3)), "pos_embed"]
    if not {*parts, *places} <= tensors.keys():
        return dict(tensors)
    converted = drop(tensors, rf"({'|'.join(parts + places)})$")
    converted["reg_token"] = torch.cat([tensors[name] for name in parts], dim=1)
    converted["pos_embed"] = torch.cat([tensors[name] for name in places], dim=1)
    return converted


def _convert_dinov2(tensors: Mapping[str, Tensor]) -> Tensors:
    """DINOv2: its registers have no position, so timm adds that of the class token to it."""
    converted = drop(tensors, r"(mask_token|register_tokens)$")
    if "register_tokens" in tensors and {"cls_token", "pos_embed"} <= tensors.keys():
        positions = tensors["pos_embed"]
        converted["reg_token"] = tensors["register_tokens"]
        converted["cls_token"] = tensors["cls_token"] + positions[:, :1]
        converted["pos_embed"] = positions[:, 1:]
    return rename(converted, ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2.")))


def _convert_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """The image encoder of CLIP without its projection to the space of texts."""
    converted = rename(
        drop(tensors, r"proj$"),
        (
            (r"^conv1\.", "patch_embed.proj."),
            (r"^positional_embedding$", "pos_embed"),
            (r"^class_embedding$", "cls_token"),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
    )
    # [C] -> [1, 1, C] and [P + 1, C] -> [1, P + 1, C]
    for name in ("cls_token", "pos_embed"):
        if name in converted:
            converted[name] = converted[name].reshape(1, -1, converted[name].shape[-1])
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in converted.items()
    }


# In the order in which they are tried.
NAMINGS = (
    Naming(
        "SOLIDER",
        lambda names: has_prefix(names, "stages.0.blocks.0.attn.w_msa."),
        _convert_solider,
    ),
    Naming("PASS", lambda names: "part_token1" in names, _convert_pass, BILINEAR),
    Naming(
        "TransReID-SSL with ICS",
        lambda names: has_prefix(names, "patch_embed.conv.0."),
        lambda tensors: rename(
            tensors, ((r"^patch_embed\.(conv|proj)\.", r"patch_embed.proj.\1."),)
        ),
        BILINEAR,
    ),
    Naming("CLIP", lambda names: has_prefix(names, "transformer.resblocks."), _convert_clip),
    Naming(
        "DINOv2 with registers",
        lambda names: "register_tokens" in names,
        _convert_dinov2,
        BICUBIC_ANTIALIASED,
    ),
    # timm converts DINOv3, which has no position embeddings.
    Naming("DINOv3", lambda names: "storage_tokens" in names, dict),
    Naming(
        "DINOv2",
        lambda names: "mask_token" in names and "blocks.0.ls1.gamma" in names,
        _convert_dinov2,
        BICUBIC_OFFSET,
    ),
    Naming(
        "MAE with decoder",
        lambda names: has_prefix(names, "decoder_"),
        lambda tensors: drop(tensors, r"(decoder_|mask_token$)"),
        BICUBIC,
    ),
)
