"""Build a model from the configuration."""

from typing import Any

import torch
from ember_reid.config.yaml_reader import read_yaml
from ember_reid.modeling.backbones import Backbone, BackboneOptions, create_backbone
from ember_reid.modeling.backbones.options import SideOptions
from ember_reid.modeling.backbones.timm import TimmBackbone
from ember_reid.modeling.jpm import JigsawBackbone, JigsawHead, JigsawOptions
from ember_reid.modeling.lora import LoraOptions, add_adapters, keep_adapters_only
from ember_reid.modeling.mgn import MGNBackbone, MGNHead
from ember_reid.modeling.mixstyle import MixStyleOptions, add_style_mixing
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel
from ember_reid.modeling.pretrained import check_source, load_pretrained
from ember_reid.modeling.token_heads import ClipHead, PassHead
from ember_reid.modeling.weights import ARCHITECTURE_KEYS
from yacs.config import CfgNode

HEADS = {
    "global": GlobalHead,
    "mgn": MGNHead,
    "jpm": JigsawHead,
    "clip": ClipHead,
    "pass": PassHead,
}


def build_model(cfg: CfgNode, *, num_classes: int, pretrained: bool = True) -> ReidModel:
    """Build the model of the configuration, in training mode.

    Args:
        cfg: MODEL, INPUT.SIZE_TRAIN, INPUT.SIZE_TEST and TEST.NECK_FEAT are used.
        num_classes: identities of the training set.
        pretrained: if False, MODEL.BACKBONE.WEIGHTS is not loaded, because the model gets the
            weights of a checkpoint.

    Raises:
        ValueError: an unknown name or an impossible combination; pretrained weights that are not
            available or belong to another network.
        FileNotFoundError: MODEL.BACKBONE.WEIGHTS is not a file.
    """
    name, head_name = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.HEAD.NAME
    if head_name not in HEADS:
        raise ValueError(f"MODEL.HEAD.NAME is {head_name!r}; choose one of {', '.join(HEADS)}")
    backbone = create_backbone(name, _backbone_options(cfg))
    if isinstance(backbone, TimmBackbone) and backbone.num_tokens:
        _check_sizes(cfg, name)
    report = None
    lora = _lora_options(cfg)
    # A checkpoint with adapters does not contain the weights that they adapt.
    if pretrained or (lora.rank and torch.get_default_device().type != "meta"):
        report = load_pretrained(
            backbone,
            name,
            cfg.MODEL.BACKBONE.WEIGHTS,
            partial=cfg.MODEL.BACKBONE.PARTIAL,
            positions=cfg.MODEL.BACKBONE.POSITIONS,
        )
    if lora.rank:
        if cfg.MODEL.BACKBONE.WEIGHTS == "none":
            raise ValueError(
                "MODEL.LORA adapts pretrained weights, but MODEL.BACKBONE.WEIGHTS is none; set it "
                "to imagenet or a file, or MODEL.LORA.RANK to 0"
            )
        if report and (report.missing or report.mismatched):
            raise ValueError(
                f"MODEL.LORA freezes the weights of the backbone, but {cfg.MODEL.BACKBONE.WEIGHTS} "
                f"lacks some ({report}); use a complete file or set MODEL.LORA.RANK to 0"
            )
        add_adapters(backbone, lora, name)
    backbone = _add_branches(cfg, backbone)
    if cfg.MODEL.MIXSTYLE.STAGES:
        add_style_mixing(backbone, _mixstyle_options(cfg), name)
    head_options = _head_options(cfg, getattr(backbone, "tokens", "patches"))
    head = HEADS[head_name](backbone.channels[-1], num_classes, head_options)
    model = ReidModel(backbone, head)
    if lora.rank:
        keep_adapters_only(model)
    if report:
        model.missing_weights = report.missing + report.mismatched
    model.architecture = {key: _plain(cfg, key) for key in ARCHITECTURE_KEYS}
    return model


def _check_sizes(cfg: CfgNode, name: str) -> None:
    """Check that all images of a transformer have the same size.

    Raises:
        ValueError: training and test sizes differ, or there is progressive resizing.
    """
    sizes = tuple(cfg.INPUT.SIZE_TRAIN), tuple(cfg.INPUT.SIZE_TEST)
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{name} is a transformer, which supports one image size, but INPUT.SIZE_TRAIN is "
            f"{sizes[0]} and INPUT.SIZE_TEST {sizes[1]}; make them equal"
        )
    if tuple(cfg.INPUT.SCALES) != (1.0,):
        raise ValueError(
            f"{name} is a transformer, which supports one image size, but INPUT.SCALES is "
            f"{tuple(cfg.INPUT.SCALES)[:10]}; set it to (1.0,) and INPUT.SCALE_STEPS to ()"
        )


def check_model(cfg: CfgNode) -> None:
    """Raises the errors of build_model, except those that need the content of a weight file.

    The model is built on the meta device, which takes a fraction of a second, so this can run
    before data is read.
    """
    with torch.device("meta"):
        build_model(cfg, num_classes=1, pretrained=False)
    check_source(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.WEIGHTS)


def _lora_options(cfg: CfgNode) -> LoraOptions:
    o = cfg.MODEL.LORA
    return LoraOptions(rank=o.RANK, alpha=o.ALPHA, dropout=o.DROPOUT, targets=tuple(o.TARGETS))


def _mixstyle_options(cfg: CfgNode) -> MixStyleOptions:
    o = cfg.MODEL.MIXSTYLE
    return MixStyleOptions(stages=tuple(o.STAGES), prob=o.PROB, alpha=o.ALPHA, mix=o.MIX)


def _add_branches(cfg: CfgNode, backbone: Backbone) -> Backbone:
    """The branches that heads of several parts need. They start from the loaded weights."""
    if cfg.MODEL.HEAD.NAME == "mgn":
        return MGNBackbone(backbone)
    if cfg.MODEL.HEAD.NAME == "jpm":
        j = cfg.MODEL.JPM
        options = JigsawOptions(parts=j.PARTS, shift=j.SHIFT, groups=j.GROUPS, shuffle=j.SHUFFLE)
        return JigsawBackbone(backbone, options)
    return backbone


def _plain(cfg: CfgNode, key: str) -> Any:
    node = cfg
    for part in key.split("."):
        node = node[part]
    return tuple(node) if isinstance(node, list | tuple) else node


def _backbone_options(cfg: CfgNode) -> BackboneOptions:
    b = cfg.MODEL.BACKBONE
    return BackboneOptions(
        last_stride=b.LAST_STRIDE,
        last_dilation=b.LAST_DILATION,
        stem_relu=b.STEM_RELU,
        stem_pool=b.STEM_POOL,
        last_relu=b.LAST_RELU,
        non_local=tuple(b.NON_LOCAL),
        non_local_width=b.NON_LOCAL_WIDTH,
        width=b.WIDTH,
        image_size=tuple(cfg.INPUT.SIZE_TRAIN),
        semantic_weight=b.SEMANTIC_WEIGHT,
        arguments=read_yaml(b.ARGS, "MODEL.BACKBONE.ARGS") if b.ARGS.strip() else {},
        tokens="class+parts" if cfg.MODEL.HEAD.NAME == "pass" else cfg.MODEL.HEAD.TOKENS,
        patch_stride=b.PATCH_STRIDE,
        drop_path=b.DROP_PATH,
        grad_checkpoint=b.GRAD_CHECKPOINT,
        freeze_patch_embed=b.FREEZE_PATCH_EMBED,
        side=SideOptions(
            num_cameras=cfg.MODEL.SIE.CAMERAS,
            num_views=cfg.MODEL.SIE.VIEWS,
            weight=cfg.MODEL.SIE.WEIGHT,
            tokens=cfg.MODEL.SIE.TOKENS,
        ),
    )


def _head_options(cfg: CfgNode, tokens: str) -> HeadOptions:
    h, pool = cfg.MODEL.HEAD, cfg.MODEL.POOL
    return HeadOptions(
        pool=pool.NAME,
        gem_p=pool.GEM_P,
        gem_learnable=pool.GEM_LEARNABLE,
        embedding_dim=h.EMBEDDING_DIM,
        reduction=h.REDUCTION,
        neck=h.NECK,
        classifier=h.CLASSIFIER,
        scale=h.SCALE,
        metric_feature=h.METRIC_FEATURE,
        embedding=cfg.TEST.NECK_FEAT,
        tokens=tokens,
        num_parts=cfg.MODEL.JPM.PARTS,
    )
