"""Pretrained weights of backbones, downloaded from their publisher or from a local file."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from ember_reid.modeling.backbones.timm import PREFIX, TimmBackbone, create_timm_network
from ember_reid.modeling.convert import convert_backbone
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
# Classifiers of the 1000 ImageNet classes, which are not loaded.
_CLASSIFIERS = ("fc", "classifier", "last_linear", "head")

_HINT = "set MODEL.BACKBONE.WEIGHTS to none (random weights) or to a local file"


def load_pretrained(backbone: nn.Module, name: str, weights: str) -> LoadReport | None:
    """Loads pretrained weights into the backbone `name`.

    Args:
        backbone: is changed in place.
        name: a key of BACKBONES, or timm:<name>.
        weights: "none", "imagenet" (downloaded once into torch's cache, with a check of its hash),
            or a local file with the publisher's names, such as a state dict of torchvision.

    Returns:
        What was loaded; None for "none".

    Raises:
        FileNotFoundError: the local file does not exist.
        ValueError: there are no such weights, the download failed, or the file is of another
            architecture.
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
    """Loads with timm's own loader, which resamples position embeddings."""
    if weights != "imagenet" and not weights.endswith(".safetensors"):
        # For its error messages.
        read_checkpoint(weights)
    file = "" if weights == "imagenet" else weights
    try:
        network = create_timm_network(name, backbone.image_size, pretrained=True, file=file)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"cannot load weights {weights} of timm:{name} ({reason}); {_HINT}"
        ) from error
    backbone.network.load_state_dict(network.state_dict())
    report = LoadReport(tuple(network.state_dict()), (), (), ())
    logger.info("backbone weights %s: %s", weights, report)
    return report
