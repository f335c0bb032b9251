"""Backbones: image [N, 3, H, W] -> a tuple of stage maps [N, C_i, H_i, W_i]; their `channels` are the C_i."""

from collections.abc import Callable
from functools import partial

from torch import nn

from modeling.backbones.mobilenet import create_mobilenet_v2
from modeling.backbones.options import BackboneOptions, check_options
from modeling.backbones.resnet import create_resnet

BACKBONES: dict[str, Callable[[BackboneOptions], nn.Module]] = {
    "resnet18": partial(create_resnet, depth=18),
    "resnet34": partial(create_resnet, depth=34),
    "resnet50": partial(create_resnet, depth=50),
    "resnet101": partial(create_resnet, depth=101),
    "resnet152": partial(create_resnet, depth=152),
    "resnet18_ibn_a": partial(create_resnet, depth=18, ibn="a"),
    "resnet34_ibn_a": partial(create_resnet, depth=34, ibn="a"),
    "resnet50_ibn_a": partial(create_resnet, depth=50, ibn="a"),
    "resnet101_ibn_a": partial(create_resnet, depth=101, ibn="a"),
    "resnet152_ibn_a": partial(create_resnet, depth=152, ibn="a"),
    "mobilenet_v2": create_mobilenet_v2,
}


def create_backbone(name: str, options: BackboneOptions) -> nn.Module:
    """The backbone called `name`, randomly initialised.

    Raises:
        ValueError: an unknown name, or an option that this backbone does not have.
    """
    if name not in BACKBONES:
        raise ValueError(f"MODEL.BACKBONE.NAME is {name!r}; choose one of {', '.join(BACKBONES)}")
    check_options(options)
    return BACKBONES[name](options)


__all__ = ["BACKBONES", "BackboneOptions", "create_backbone"]
