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
from ember_reid.modeling.backbones.timm import PREFIX, create_timm, import_timm

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


def _create_solider(options: BackboneOptions, *, size: str) -> Backbone:
    # Imports timm, an optional package.
    import_timm()
    from ember_reid.modeling.backbones.solider import create_solider

    return create_solider(options, size=size)


def _create_person_vit(
    options: BackboneOptions, *, size: str, ics: bool = False, part_tokens: int = 0
) -> Backbone:
    import_timm()
    from ember_reid.modeling.backbones.person_vit import create_person_vit

    return create_person_vit(options, size=size, ics=ics, part_tokens=part_tokens)


# Networks of person pretraining, built with timm.
PERSON_BACKBONES: dict[str, Callable[[BackboneOptions], Backbone]] = {
    "solider_swin_tiny": partial(_create_solider, size="tiny"),
    "solider_swin_small": partial(_create_solider, size="small"),
    "solider_swin_base": partial(_create_solider, size="base"),
    "vit_small_ics": partial(_create_person_vit, size="small", ics=True),
    "vit_base_ics": partial(_create_person_vit, size="base", ics=True),
    "vit_small_pass": partial(_create_person_vit, size="small", part_tokens=3),
    "vit_base_pass": partial(_create_person_vit, size="base", part_tokens=3),
}


def create_backbone(name: str, options: BackboneOptions) -> Backbone:
    """Create a backbone with random weights.

    Args:
        name: a key of BACKBONES or PERSON_BACKBONES, or timm:<name>.
        options: settings.

    Raises:
        ValueError: an unknown name.
    """
    check_options(options)
    if name.startswith(PREFIX):
        return create_timm(name, options)
    if name in BACKBONES:
        _refuse_transformer_options(name, options)
    known = BACKBONES | PERSON_BACKBONES
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"MODEL.BACKBONE.NAME is {name!r}; {hint}choose one of {', '.join(known)}, "
            "or timm:<name of a timm model>"
        )
    return known[name](options)


def _refuse_transformer_options(name: str, options: BackboneOptions) -> None:
    """Raises ValueError for settings without which a recipe would be a different method."""
    if options.side.num_cameras:
        raise ValueError(
            f"MODEL.SIE adds camera embeddings to the tokens of a vision transformer; {name} has "
            "none: set MODEL.SIE.CAMERAS to 0"
        )
    if options.grad_checkpoint:
        raise ValueError(
            "MODEL.BACKBONE.GRAD_CHECKPOINT is available for networks of timm (timm:<name>), not "
            f"for {name}; set it to False"
        )


__all__ = ["BACKBONES", "Backbone", "BackboneOptions", "create_backbone"]
