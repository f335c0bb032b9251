"""ImageNet weights of backbones, from the publisher or from a local file."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from ember_reid.modeling.backbones.timm import PREFIX, TimmBackbone, create_timm_network
from ember_reid.modeling.convert import convert_backbone
from ember_reid.modeling.weights import (
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

# The first ImageNet weights of each network, which the published results started from.
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
# A plain ResNet's weights also start one with modules added to it, which keep their initialization.
IMAGENET_URLS |= {f"{name}_bam": IMAGENET_URLS[name] for name in ("resnet50", "resnet101")}
_ADDED = re.compile(r"\.(bam|nl\d+)\.")
_CLASSIFIERS = ("fc", "classifier", "last_linear", "head")  # of the 1000 ImageNet classes: left out

_WAYS_OUT = "set MODEL.BACKBONE.WEIGHTS to none (random weights) or to a local file"


def load_pretrained(backbone: nn.Module, name: str, weights: str) -> LoadReport | None:
    """Loads ImageNet weights into the backbone called `name`.

    Args:
        backbone: changed in place.
        name: a key of BACKBONES.
        weights: "none" (nothing happens), "imagenet" (downloaded once into torch's cache, its hash checked),
            or a local file with the publisher's names, such as torchvision's state dicts.

    Returns:
        What was loaded, None for "none".

    Raises:
        FileNotFoundError: the local file does not exist.
        ValueError: no such weights, no network, or a file of another architecture.
    """
    if weights == "none":
        return None
    check_source(name, weights)
    if isinstance(backbone, TimmBackbone):
        return _load_timm(backbone, name.removeprefix(PREFIX), weights)
    is_local = weights != "imagenet"
    tensors = find_state_dict(read_checkpoint(weights), weights) if is_local else _download(name)
    return _load_backbone(backbone, tensors, weights)


def check_source(name: str, weights: str) -> None:
    """Raises FileNotFoundError or ValueError when `weights` of the backbone `name` cannot be there."""
    if weights == "imagenet":
        if name not in IMAGENET_URLS and not name.startswith(PREFIX):
            raise ValueError(f"there are no ImageNet weights for {name} to download; {_WAYS_OUT}")
    elif weights != "none" and not Path(weights).is_file():
        raise FileNotFoundError(
            f"MODEL.BACKBONE.WEIGHTS is {weights!r}, which is no file; "
            "give imagenet (downloaded), none or a weight file"
        )


def _download(name: str) -> dict[str, Tensor]:
    url = IMAGENET_URLS[name]
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (
        OSError,
        RuntimeError,
    ) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise ValueError(f"cannot get the ImageNet weights {url} ({error}); {_WAYS_OUT}") from error


def _load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> LoadReport:
    kept = convert_backbone(
        {k: v for k, v in tensors.items() if k.split(".")[0] not in _CLASSIFIERS}
    )
    report = match_state_dict(backbone, kept)
    missing = [name for name in report.missing if not _ADDED.search(name)]
    if missing or report.unexpected or report.mismatched:
        raise ValueError(f"MODEL.BACKBONE.WEIGHTS {source} is of another architecture: {report}")
    backbone.load_state_dict({k: kept[k] for k in report.loaded}, strict=False)
    logger.info("backbone weights %s: %s", source, report)
    return report


def _load_timm(backbone: TimmBackbone, name: str, weights: str) -> LoadReport:
    """timm's own loader reads the file, as it resamples tables of positions."""
    if weights != "imagenet" and not weights.endswith(".safetensors"):
        read_checkpoint(weights)  # its errors are clearer
    file = "" if weights == "imagenet" else weights
    try:
        network = create_timm_network(name, backbone.image_size, pretrained=True, file=file)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"cannot load weights {weights} of timm:{name} ({reason}); {_WAYS_OUT}"
        ) from error
    backbone.network.load_state_dict(network.state_dict())
    report = LoadReport(tuple(network.state_dict()), (), (), ())
    logger.info("backbone weights %s: %s", weights, report)
    return report
