"""Backbones: image [N, 3, H, W] -> a tuple of stage maps [N, C_i, H_i, W_i].

The attribute `channels` of a backbone contains the C_i.
"""

import difflib
from collections.abc import Callable
from functools import partial

from ember_reid.modeling.backbones.base import Backbone
from ember_reid.modeling.backbones.densenet import create_densenet121
from ember_reid.modeling.backbones.mobilenet import create_mobilenet_v2
from ember_reid.modeling.backbones.options import BackboneOptions, check_options
from ember_reid.modeling.backbones.osnet import create_osnet
from ember_reid.modeling.backbones.resnest import create_resnest
from ember_reid.modeling.backbones.resnet import BlockStyle, create_resnet
from ember_reid.modeling.backbones.timm import PREFIX, create_timm

_SE_RESNET = BlockStyle(se=True, stride_first=True)
_SE_RESNEXT = BlockStyle(se=True, groups=32, width_factor=2)

BACKBONES: dict[str, Callable[[BackboneOptions], Backbone]] = {
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
    "resnet50_ibn_b": partial(create_resnet, depth=50, ibn="b"),
    "resnet101_ibn_b": partial(create_resnet, depth=101, ibn="b"),
    "resnet50_bam": partial(create_resnet, depth=50, bam=True),
    "resnet101_bam": partial(create_resnet, depth=101, bam=True),
    "se_resnet50": partial(create_resnet, depth=50, style=_SE_RESNET),
    "se_resnet101": partial(create_resnet, depth=101, style=_SE_RESNET),
    "se_resnet152": partial(create_resnet, depth=152, style=_SE_RESNET),
    "se_resnext50": partial(create_resnet, depth=50, style=_SE_RESNEXT),
    "se_resnext101": partial(create_resnet, depth=101, style=_SE_RESNEXT),
    "se_resnet101_ibn_a": partial(create_resnet, depth=101, ibn="a", style=BlockStyle(se=True)),
    "resnest50": partial(create_resnest, depth=50),
    "osnet_x1_0": partial(create_osnet, width=1.0),
    "osnet_x0_75": partial(create_osnet, width=0.75),
    "osnet_x0_5": partial(create_osnet, width=0.5),
    "osnet_x0_25": partial(create_osnet, width=0.25),
    "osnet_ain_x1_0": partial(create_osnet, width=1.0, ain=True),
    "densenet121": create_densenet121,
    "mobilenet_v2": create_mobilenet_v2,
}


def create_backbone(name: str, options: BackboneOptions) -> Backbone:
    """Creates the backbone `name`, a key of BACKBONES or timm:<name>, with random weights.

    Raises:
        ValueError: an unknown name.
    """
    check_options(options)
    if name.startswith(PREFIX):
        return create_timm(name, options)
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"MODEL.BACKBONE.NAME is {name!r}; {hint}choose one of {', '.join(BACKBONES)}, "
            "or timm:<name of a timm model>"
        )
    return BACKBONES[name](options)


__all__ = ["BACKBONES", "Backbone", "BackboneOptions", "create_backbone"]
