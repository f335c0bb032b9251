"""From the configuration to a model."""

from yacs.config import CfgNode

from modeling.backbones import BackboneOptions, create_backbone
from modeling.heads import GlobalHead
from modeling.model import ReidModel
from modeling.pretrained import load_pretrained

HEADS = ("global",)


def build_model(cfg: CfgNode, *, num_classes: int, pretrained: bool = True) -> ReidModel:
    """The model of the configuration, on the CPU, in training mode.

    Args:
        cfg: MODEL, INPUT.SIZE_TRAIN and TEST.NECK_FEAT are read.
        num_classes: identities of the training set.
        pretrained: False leaves out MODEL.BACKBONE.WEIGHTS, for a model that gets a checkpoint's weights.

    Raises:
        ValueError: an unknown part or an impossible combination; no ImageNet weights, or of another network.
        FileNotFoundError: MODEL.BACKBONE.WEIGHTS is no file.
    """
    b, h = cfg.MODEL.BACKBONE, cfg.MODEL.HEAD
    if h.NAME not in HEADS:
        raise ValueError(f"MODEL.HEAD.NAME is {h.NAME!r}; choose one of {', '.join(HEADS)}")
    options = BackboneOptions(
        last_stride=b.LAST_STRIDE,
        stem_relu=b.STEM_RELU,
        stem_pool=b.STEM_POOL,
        last_relu=b.LAST_RELU,
        non_local=tuple(b.NON_LOCAL),
        non_local_width=b.NON_LOCAL_WIDTH,
        image_size=tuple(cfg.INPUT.SIZE_TRAIN),
    )
    backbone = create_backbone(b.NAME, options)
    if pretrained:
        load_pretrained(backbone, b.NAME, b.WEIGHTS)
    head = GlobalHead(
        backbone.channels[-1],
        num_classes,
        pool=cfg.MODEL.POOL.NAME,
        gem_p=cfg.MODEL.POOL.GEM_P,
        gem_learnable=cfg.MODEL.POOL.GEM_LEARNABLE,
        embedding_dim=h.EMBEDDING_DIM,
        neck=h.NECK,
        classifier=h.CLASSIFIER,
        scale=h.SCALE,
        metric_feature=h.METRIC_FEATURE,
        embedding=cfg.TEST.NECK_FEAT,
    )
    return ReidModel(backbone, head)
