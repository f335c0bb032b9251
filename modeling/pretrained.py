"""Pretrained weights of backbones, downloaded from their publisher or from a local file."""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ember_reid.modeling.backbones.timm import PREFIX, TimmBackbone, create_timm_network
from ember_reid.modeling.convert import convert_backbone
from ember_reid.modeling.layouts import ConvertedBackbone, convert_pretrained
from ember_reid.modeling.positions import BILINEAR, Resampling, resample_positions
from ember_reid.modeling.weight_files import (
    LoadReport,
    find_state_dict,
    match_state_dict,
    read_checkpoint,
)
from torch import Tensor, nn
from torchvision.models import get_model_weights

logger = logging.getLogger("ember.weights")

_IBN_NET = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
_CADENE = "http://data.lip6.fr/cadene/pretrainedmodels/"
_RESNEST = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"

# The first ImageNet weights of each network; published results started from these.
_TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "densenet121",
    "mobilenet_v2",
)
IMAGENET_URLS = {
    **{name: get_model_weights(name)["IMAGENET1K_V1"].url for name in _TORCHVISION},
    "resnet18_ibn_a": _IBN_NET + "resnet18_ibn_a-2f571257.pth",
    "resnet34_ibn_a": _IBN_NET + "resnet34_ibn_a-94bc1577.pth",
    "resnet50_ibn_a": _IBN_NET + "resnet50_ibn_a-d9d0bb7b.pth",
    "resnet101_ibn_a": _IBN_NET + "resnet101_ibn_a-59ea0ac6.pth",
    "resnet50_ibn_b": _IBN_NET + "resnet50_ibn_b-9ca61e85.pth",
    "resnet101_ibn_b": _IBN_NET + "resnet101_ibn_b-c55f6dba.pth",
    "se_resnet101_ibn_a": _IBN_NET + "se_resnet101_ibn_a-fabed4e2.pth",
    "se_resnet50": _CADENE + "se_resnet50-ce0d4300.pth",
    "se_resnet101": _CADENE + "se_resnet101-7e38fcc6.pth",
    "se_resnet152": _CADENE + "se_resnet152-d17c99b7.pth",
    "se_resnext50": _CADENE + "se_resnext50_32x4d-a260b3a4.pth",
    "se_resnext101": _CADENE + "se_resnext101_32x4d-3b2fe3d8.pth",
    "resnest50": _RESNEST + "resnest50-528c19ca.pth",
}
# ResNets with additional modules start from the weights of the plain ResNet. The additional modules
# keep their initialization.
IMAGENET_URLS |= {f"{name}_bam": IMAGENET_URLS[name] for name in ("resnet50", "resnet101")}
_ADDED = re.compile(r"\.(bam|nl\d+)\.")
# Names of Hugging Face transformers.
_TRANSFORMERS = re.compile(r"(\w+\.)?(embeddings\.|encoder\.layers?\.\d|layer\.\d+\.attention)")
# Classifiers of the 1000 ImageNet classes, which are not loaded.
_CLASSIFIERS = ("fc", "classifier", "last_linear", "head")

_HINT = "set MODEL.BACKBONE.WEIGHTS to none (random weights) or to a local file"


def load_pretrained(
    backbone: nn.Module,
    name: str,
    weights: str,
    *,
    partial: bool = False,
    positions: str = "auto",
) -> LoadReport | None:
    """Load pretrained weights into the backbone `name`.

    Args:
        backbone: is changed in place.
        name: a key of BACKBONES, or timm:<name>.
        weights: "none", "imagenet" (downloaded once into torch's cache, with a check of its hash),
            or a local file in the layout of its publisher; see modeling/layouts.py.
        partial: accept a file that does not match completely, with a warning.
        positions: resampling of position embeddings, "auto" (that of the program that wrote the
            file) or "bilinear" (TransReID's).

    Returns:
        What was loaded; None for "none".

    Raises:
        FileNotFoundError: the local file does not exist.
        ValueError: there are no such weights, the download failed, or the file does not match the
            backbone completely and `partial` is False. The backbone is unchanged then.
    """
    if weights == "none":
        return None
    check_source(name, weights)
    if weights != "imagenet":
        found = convert_pretrained(find_state_dict(read_checkpoint(weights), weights))
    elif isinstance(backbone, TimmBackbone):
        downloaded = _download_timm(backbone, name.removeprefix(PREFIX))
        found = ConvertedBackbone(downloaded, "", None)
    else:
        found = ConvertedBackbone(_download(name), "", None)
    network = backbone.network if isinstance(backbone, TimmBackbone) else backbone
    own = network.state_dict()
    kept = {k: v for k, v in found.tensors.items() if k in own or not _is_classifier(k)}
    if network is backbone:
        fitted = convert_backbone(kept)
    else:
        resampling = BILINEAR if positions == "bilinear" else found.resampling
        fitted = _fit_to_timm(network, kept, resampling)
    source = f"{weights} (layout: {found.layout})" if found.layout else weights
    return _load_strictly(network, fitted, original=kept, source=source, partial=partial)


def check_source(name: str, weights: str) -> None:
    """Raises FileNotFoundError or ValueError if there are no `weights` for the backbone `name`."""
    if weights == "imagenet":
        if name not in IMAGENET_URLS and not name.startswith(PREFIX):
            raise ValueError(f"there are no ImageNet weights for {name} to download; {_HINT}")
    elif weights != "none" and not Path(weights).is_file():
        raise FileNotFoundError(
            f"MODEL.BACKBONE.WEIGHTS is {weights!r}, which is not a file; "
            "give imagenet (downloaded), none or a weight file"
        )


def _download(name: str) -> dict[str, Tensor]:
    url = IMAGENET_URLS[name]
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    # URLError is an OSError; a wrong hash raises RuntimeError.
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"cannot download the ImageNet weights {url} ({error}); {_HINT}"
        ) from error


def _is_quantized(tensor: Tensor, own: Tensor) -> bool:
    return own.is_floating_point() and (tensor.is_quantized or not tensor.is_floating_point())


def _is_classifier(name: str) -> bool:
    return name.split(".")[0] in _CLASSIFIERS


def _fit_to_timm(
    network: nn.Module, tensors: Mapping[str, Tensor], resampling: Resampling | None
) -> dict[str, Tensor]:
    """Resamples position embeddings, and applies the filter of a timm model to the other tensors.

    The filter converts the names of timm's former versions and of timm's publishers. It also
    resamples position embeddings if `resampling` is None.
    """
    filter_tensors = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if filter_tensors is None:
        return dict(tensors)
    own = network.state_dict()
    positions: dict[str, Tensor] = {}
    if resampling and "pos_embed" in tensors and "pos_embed" in own:
        positions = {"pos_embed": _resample(network, tensors["pos_embed"], resampling)}
    try:
        rest = {k: v for k, v in tensors.items() if k not in positions}
        fitted = filter_tensors(rest, network) | positions
    # The filters assume a file of their own model. A foreign file fails in various ways; it is then
    # matched as it is, which reports what is wrong with it.
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, ValueError):
        return dict(tensors)
    # timm drops the biases of DINOv3 if its variant has none; that is right only if they are 0.
    dropped = {k: v for k, v in tensors.items() if k.endswith(".qkv.bias") and v.any()}
    has_bias = any(k.endswith((".qkv.bias", ".q_bias")) for k in own)
    fitted |= {} if has_bias else dropped
    return {k: v for k, v in fitted.items() if k in own or not _is_classifier(k)}


def _resample(network: Any, positions: Tensor, resampling: Resampling) -> Tensor:
    grid = tuple(network.patch_embed.grid_size)
    num_prefix = network.pos_embed.shape[1] - grid[0] * grid[1]
    try:
        return resample_positions(positions, grid, num_prefix=num_prefix, resampling=resampling)
    # Another number of dimensions, or no known grid: the shapes do not match, which is reported.
    except (IndexError, RuntimeError, ValueError):
        return positions


def _load_strictly(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    original: Mapping[str, Tensor],
    source: str,
    partial: bool,
) -> LoadReport:
    """Load `tensors` if all of them match the network; `original` are those before resampling."""
    own = network.state_dict()
    quantized = [k for k, v in tensors.items() if k in own and _is_quantized(v, own[k])]
    if quantized:
        raise ValueError(
            f"MODEL.BACKBONE.WEIGHTS {source} is quantized: {quantized[0]} has the type "
            f"{tensors[quantized[0]].dtype}; use the file with floating-point weights"
        )
    report = match_state_dict(network, tensors)
    changed = tuple(k for k in report.loaded if k in original and original[k].shape != own[k].shape)
    report = replace(
        report,
        missing=tuple(k for k in report.missing if not _ADDED.search(k)),
        reshaped=changed,
    )
    is_complete = not (report.missing or report.unexpected or report.mismatched)
    if not report.loaded or not (is_complete or partial):
        raise ValueError(
            f"MODEL.BACKBONE.WEIGHTS {source} is of another architecture or incomplete: {report}; "
            f"{_advise(tensors)}"
        )
    network.load_state_dict({k: tensors[k] for k in report.loaded}, strict=False)
    if is_complete:
        logger.info("backbone weights %s: %s", source, report)
    else:
        logger.warning("backbone weights %s, loaded partially: %s", source, report)
    return report


def _advise(names: Iterable[str]) -> str:
    """What to do with a file that does not match."""
    if any(_TRANSFORMERS.match(name) for name in names):
        return (
            "its names are those of Hugging Face transformers: use the file of the network's "
            "authors, or timm's"
        )
    return (
        "choose the matching MODEL.BACKBONE.NAME, or set MODEL.BACKBONE.PARTIAL True to load what "
        "fits"
    )


def _download_timm(backbone: TimmBackbone, name: str) -> dict[str, Tensor]:
    try:
        # Of the published image size: position embeddings are resampled only once.
        network = create_timm_network(name, None, pretrained=True, arguments=backbone.arguments)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot download weights of timm:{name} ({reason}); {_HINT}") from error
    return network.state_dict()
