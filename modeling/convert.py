"""Converts checkpoints of other re-identification programs to our names and shapes.

A layout is a table of patterns for names. `_reshape` does the rest: linear layers stored as 1x1
convolutions, and biases that batch norm absorbs. The tables contain facts about the programs, not
their code.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from ember_reid.modeling.convert_transformers import WHOLE_MODELS, WholeModel
from ember_reid.modeling.namings import Rules, rename
from torch import Tensor

_IMAGENET = {"INPUT.PIXEL_MEAN": (0.485, 0.456, 0.406), "INPUT.PIXEL_STD": (0.229, 0.224, 0.225)}
_HALF = {"INPUT.PIXEL_MEAN": (0.5, 0.5, 0.5), "INPUT.PIXEL_STD": (0.5, 0.5, 0.5)}

# Squeeze and excitation in the files of SENet and IBN-Net.
_SE: Rules = (
    (r"^backbone\.layer0\.", "backbone."),
    (r"\.se_module\.", ".se."),
    (r"\.se\.fc\.0\.", ".se.fc1."),
    (r"\.se\.fc\.2\.", ".se.fc2."),
)
_OSNET: Rules = (
    (r"^backbone\.conv([23])\.2\.0\.", r"backbone.pool\1.0."),
    (r"\.conv2a\.", ".conv2.0.0."),
    (r"\.conv2b\.", ".conv2.1."),
    (r"\.conv2c\.", ".conv2.2."),
    (r"\.conv2d\.", ".conv2.3."),
    (r"\.conv2\.(\d)\.layers\.", r".conv2.\1."),
    (r"^(backbone\.conv[234]\.\d)\.IN\.", r"\1.conv3.bn."),
)
_DENSENET: Rules = ((r"\.(denselayer\d+)\.(norm|conv)\.(\d)\.", r".\1.\2\3."),)
_BAM: Rules = (
    (r"\.channel_att\.gate_c\.gate_c_fc_0\.", ".channel.0."),
    (r"\.channel_att\.gate_c\.gate_c_bn_1\.", ".channel.1."),
    (r"\.channel_att\.gate_c\.gate_c_fc_final\.", ".channel.3."),
    (r"\.spatial_att\.gate_s\.gate_s_conv_reduce0\.", ".spatial.0."),
    (r"\.spatial_att\.gate_s\.gate_s_bn_reduce0\.", ".spatial.1."),
    (r"\.spatial_att\.gate_s\.gate_s_conv_di_0\.", ".spatial.3."),
    (r"\.spatial_att\.gate_s\.gate_s_bn_di_0\.", ".spatial.4."),
    (r"\.spatial_att\.gate_s\.gate_s_conv_di_1\.", ".spatial.6."),
    (r"\.spatial_att\.gate_s\.gate_s_bn_di_1\.", ".spatial.7."),
    (r"\.spatial_att\.gate_s\.gate_s_conv_final\.", ".spatial.9."),
)
# FastReID: `heads` is the global head, `b1_head` ... `b33_head` are the heads of MGN; `bnneck`,
# `classifier` and `b1_pool` are names of 2020.
_FASTREID: Rules = (
    (r"^backbone\.0\.", "backbone.conv1."),
    (r"^backbone\.1\.", "backbone.bn1."),
    (r"^backbone\.4\.", "backbone.layer1."),
    (r"^backbone\.5\.", "backbone.layer2."),
    (r"^backbone\.6\.", "backbone.layer3.0."),
    (r"^b1\.", "backbone.branches.0."),
    (r"^b2\.", "backbone.branches.1."),
    (r"^b3\.", "backbone.branches.2."),
    (r"^(backbone\.branches\.\d)\.0\.0\.", r"\1.layer3.1."),
    (r"^(backbone\.branches\.\d)\.0\.1\.", r"\1.layer3.2."),
    (r"^(backbone\.branches\.\d)\.0\.2\.", r"\1.layer3.3."),
    (r"^(backbone\.branches\.\d)\.0\.3\.", r"\1.layer3.4."),
    (r"^(backbone\.branches\.\d)\.0\.4\.", r"\1.layer3.5."),
    (r"^(backbone\.branches\.\d)\.1\.", r"\1.layer4."),
    (r"^heads\.", "head."),
    (r"^(b\d+)_head\.", r"head.parts.\1."),
    (r"^(b\d+)_pool\.0\.", r"head.parts.\1.pool."),
    (r"^(b\d+)_pool\.1\.", r"head.parts.\1.reduction.0."),
    (r"^(b\d+)_pool\.2\.", r"head.parts.\1.reduction.1."),
    (r"^(head.*)\.pool_layer\.", r"\1.pool."),
    (r"^(head.*)\.bnneck\.", r"\1.neck."),
    (r"^(head(?:\.parts\.b\d+)?)\.weight$", r"\1.classifier.weight"),
)
_BASELINE: Rules = (
    (r"^base\.", "backbone."),
    (r"^bottleneck\.", "head.neck."),
    (r"^classifier\.", "head.classifier."),
)
_VKD: Rules = (
    (r"^classifier\.bottleneck\.", "head.neck."),
    (r"^classifier\.classifier\.", "head.classifier."),
)
_VKD_RESNET: Rules = (
    (r"^backbone\.features_layers\.0\.0\.", "backbone.conv1."),
    (r"^backbone\.features_layers\.0\.1\.", "backbone.bn1."),
    (r"^backbone\.features_layers\.([1-4])\.0\.", r"backbone.layer\1."),
)
_VKD_DENSENET: Rules = tuple(
    (rf"^backbone\.features_layers\.{i}\.", f"backbone.features.{name}.")
    for i, name in {
        0: "conv0",
        1: "norm0",
        4: "denseblock1",
        5: "transition1",
        6: "denseblock2",
        7: "transition2",
        8: "denseblock3",
        9: "transition3",
        10: "denseblock4",
        11: "norm5",
    }.items()
)
_VKD_MOBILENET: Rules = ((r"^backbone\.features_layers\.", "backbone.features."),)
_TORCHREID: Rules = (
    (r"^classifier\.", "head.classifier."),
    (r"^fc\.0\.", "head.reduction.0."),
    (r"^fc\.1\.", "head.reduction.1."),
    (r"^(?!head\.)", "backbone."),
)


@dataclass(frozen=True)
class Layout:
    """How a program saves a model.

    Attributes:
        matches: (names) -> whether they are of this layout.
        rules: (tensors) -> patterns and replacements, applied in this order to every name.
        settings: (tensors) -> configuration values with which our model computes the same as
            theirs.
    """

    matches: Callable[[Collection[str]], bool]
    rules: Callable[[Mapping[str, Tensor]], Rules]
    settings: Callable[[Mapping[str, Tensor]], dict[str, Any]]


class Converted(NamedTuple):
    """A converted state dict.

    Attributes:
        tensors: by our names.
        layout: a key of LAYOUTS, or "" if the state dict already has our names.
        settings: configuration values that the layout needs.
    """

    tensors: dict[str, Tensor]
    layout: str
    settings: dict[str, Any]


def _any(names: Iterable[str], pattern: str) -> bool:
    return any(re.search(pattern, name) for name in names)


def _fastreid_rules(tensors: Mapping[str, Tensor]) -> Rules:
    """FastReID's table, preceded by rules for non-local blocks and the reduction."""
    rules = []
    for stage in "1234":
        blocks = {
            int(m[1]) for k in tensors if (m := re.match(rf"backbone\.layer{stage}\.(\d+)\.", k))
        }
        non_local = {
            int(m[1]) for k in tensors if (m := re.match(rf"backbone\.NL_{stage}\.(\d+)\.", k))
        }
        for i in non_local:
            block = len(blocks) - len(non_local) + i
            rules.append((rf"^backbone\.NL_{stage}\.{i}\.", f"backbone.layer{stage}.nl{block}."))
    reduced = any(k.endswith("bottleneck.0.weight") and v.dim() == 4 for k, v in tensors.items())
    first = "reduction.0" if reduced else "neck"
    bottleneck = ((r"\.bottleneck\.0\.", f".{first}."), (r"\.bottleneck\.1\.", ".neck."))
    return (*rules, *bottleneck, *_SE, *_FASTREID)


def _fastreid_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    of_2020 = _any(tensors, r"\.bnneck\.")
    settings: dict[str, Any] = {"INPUT.INTERPOLATION": "bicubic", **_IMAGENET}
    # Only ResNeSt has a stem of several convolutions.
    if _any(tensors, r"^backbone\.conv1\.6\."):
        settings["MODEL.BACKBONE.STEM_POOL"] = "padded"
        settings["MODEL.BACKBONE.LAST_DILATION"] = 1 if of_2020 else 2
    else:
        settings["MODEL.BACKBONE.STEM_POOL"] = "padded" if of_2020 else "ceil"
    if _any(tensors, r"^b\d+_pool\.2\."):
        settings["MODEL.HEAD.REDUCTION"] = "bn_relu"
    for key, name in (("INPUT.PIXEL_MEAN", "pixel_mean"), ("INPUT.PIXEL_STD", "pixel_std")):
        if name in tensors:
            settings[key] = tuple(round(float(v) / 255, 4) for v in tensors[name].flatten())
    return settings


def _baseline_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    is_se = _any(tensors, r"\.se_module\.")
    is_ibn = _any(tensors, r"\.IN\.")
    pool = {"MODEL.BACKBONE.STEM_POOL": "ceil" if is_se else "padded"}
    return {
        "MODEL.BACKBONE.STEM_RELU": is_se or is_ibn,
        **pool,
        "INPUT.INTERPOLATION": "bilinear",
        **_IMAGENET,
    }


def _vkd_rules(tensors: Mapping[str, Tensor]) -> Rules:
    if _any(tensors, r"\.denselayer"):
        return _VKD_DENSENET + _VKD
    if _any(tensors, r"^backbone\.features_layers\.18\."):
        return _VKD_MOBILENET + _VKD
    return _VKD_RESNET + _BAM + _VKD


def _torchreid_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "INPUT.INTERPOLATION": "bilinear",
        "MODEL.HEAD.NECK": "none",
        **_IMAGENET,
    }
    if "fc.0.weight" in tensors:
        settings["MODEL.HEAD.REDUCTION"] = "bn_relu"
        settings["MODEL.HEAD.EMBEDDING_DIM"] = tensors["fc.0.weight"].shape[0]
    return settings


LAYOUTS: dict[str, Layout | WholeModel] = {
    "fastreid": Layout(
        matches=lambda names: _any(names, r"^(heads|b1_head)\."),
        rules=_fastreid_rules,
        settings=_fastreid_settings,
    ),
    **WHOLE_MODELS,
    "strong-baseline": Layout(
        matches=lambda names: _any(names, r"^base\."),
        rules=lambda tensors: _BASELINE + _SE,
        settings=_baseline_settings,
    ),
    "syncbn": Layout(
        # Never recognized, because its names are those of the strong baseline; select it by name.
        matches=lambda names: False,
        rules=lambda tensors: _BASELINE,
        settings=lambda tensors: {
            "MODEL.BACKBONE.STEM_RELU": True,
            "INPUT.INTERPOLATION": "bilinear",
            **_HALF,
        },
    ),
    "vkd": Layout(
        matches=lambda names: _any(names, r"^backbone\.features_layers\."),
        rules=_vkd_rules,
        settings=lambda tensors: {
            "MODEL.BACKBONE.LAST_RELU": False,
            "TEST.NECK_FEAT": "before",
            "INPUT.INTERPOLATION": "bicubic",
            **_IMAGENET,
        },
    ),
    "torchreid": Layout(
        matches=lambda names: (
            _any(names, r"^(conv1\.conv|layer1\.0\.conv1)\.") and "classifier.weight" in names
        ),
        rules=lambda tensors: _TORCHREID + _OSNET,
        settings=_torchreid_settings,
    ),
}


def detect_layout(names: Collection[str]) -> str:
    """The layout of a set of names; "" if they are not those of another program."""
    return next((name for name, layout in LAYOUTS.items() if layout.matches(names)), "")


def convert_state_dict(
    tensors: Mapping[str, Tensor], *, layout: str = "auto", model_names: Collection[str] = ()
) -> Converted:
    """Convert a state dict of another program to our names, unless it already has them.

    Args:
        tensors: without wrappers and the prefix "module.".
        layout: a key of LAYOUTS, or "auto" to recognize it by the names.
        model_names: names of the tensors of our model. FastReID does not save the exponent of a
            pooling with the constant exponent 3; if our model has it, 3 is filled in.

    Raises:
        ValueError: unknown layout.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(
            f"checkpoint layout is {layout!r}; choose one of auto, {', '.join(LAYOUTS)}"
        )
    found = detect_layout(tensors) if layout == "auto" else layout
    if not found:
        return Converted(dict(tensors), "", {})
    layout_of_file = LAYOUTS[found]
    kept = {k: v for k, v in tensors.items() if k not in ("pixel_mean", "pixel_std")}
    if isinstance(layout_of_file, WholeModel):
        kept = layout_of_file.prepare(kept)
    renamed = _reshape(rename(kept, layout_of_file.rules(kept)))
    if found == "fastreid":
        for name in model_names:
            if re.fullmatch(r"head(\.parts\.b\d+)?\.pool\.p", name) and name not in renamed:
                renamed[name] = torch.tensor([3.0])
    return Converted(renamed, found, layout_of_file.settings(tensors))


def convert_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert published ImageNet weights of a backbone to the names of our backbone."""
    rules = _SE + _OSNET + _DENSENET
    named = rename({f"backbone.{k}": v for k, v in tensors.items()}, rules)
    return {k.removeprefix("backbone."): v for k, v in _reshape(named).items()}


def _reshape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert shapes: reductions become linear, squeeze-and-excitation layers convolutions."""
    out = {}
    for name, tensor in tensors.items():
        if name.endswith("reduction.0.weight"):
            # [D, C, 1, 1] -> [D, C]
            out[name] = tensor.flatten(1)
        elif name.endswith("side.embedding"):
            # [cameras, 1, C] -> [cameras, C]
            out[name] = tensor.flatten(1)
        elif re.search(r"\.se\.fc[12]\.weight$", name):
            out[name] = tensor.reshape(*tensor.shape[:2], 1, 1)
            bias_name = name.removesuffix("weight") + "bias"
            out[bias_name] = tensors.get(bias_name, tensor.new_zeros(len(tensor)))
        # The bias of a reduction is absorbed below.
        elif not name.endswith("reduction.0.bias"):
            out[name] = tensor
    bias = tensors.get("head.reduction.0.bias")
    # BN(Wx + b) with mean m equals BN(Wx) with mean m - b.
    if bias is not None:
        out["head.reduction.1.running_mean"] = tensors["head.reduction.1.running_mean"] - bias
    return out
