"""Build the losses of the KD section of the configuration."""

from collections.abc import Callable, Sequence
from functools import partial

from ember_reid.config import Config
from ember_reid.engine.distill.losses.feature import FeatureLoss
from ember_reid.engine.distill.losses.outputs import (
    EmbeddingLoss,
    PairLoss,
    create_embedding_pair_loss,
    create_feature_pair_loss,
    create_logit_loss,
    embedding_dim,
)
from ember_reid.engine.distill.losses.self_distillation import SelfDistillationLoss
from ember_reid.engine.distill.teachers.stage_features import (
    StageFeatureHooks,
    last_blocks,
    stage_channels,
)
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.distributed import gather_rows
from ember_reid.engine.losses.criterion import WeightedLoss
from ember_reid.layers import (
    distance_matching,
    kd_divergence,
    logit_matching,
    relational_angles,
    relational_distances,
    similarity_matching,
)
from ember_reid.modeling.backbones.resnet import ResNet
from ember_reid.modeling.model import ReidModel
from torch import nn


def check_student(cfg: Config, student: ReidModel) -> None:
    """Raise ValueError if the student does not have the feature maps that the losses need."""
    name, head = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.HEAD.NAME
    num_stages = _count_stages(student) if head == "global" else 0
    if cfg.KD.FEATURE.WEIGHT > 0:
        if isinstance(student.backbone, ResNet):
            last_blocks(student.backbone)
        elif not 2 <= num_stages <= 4:
            raise ValueError(
                f"KD.FEATURE.WEIGHT needs the maps of several stages, which {name} with "
                f"MODEL.HEAD.NAME {head} does not have; set it to 0 or choose another backbone"
            )
    stage = cfg.KD.SELF.TEACHER
    if uses_self_distillation(cfg) and num_stages < stage:
        raise ValueError(
            f"KD.SELF.TEACHER is stage {stage}, but {name} with MODEL.HEAD.NAME {head} returns the "
            f"maps of {num_stages} stage(s); choose a ResNet with the global head, or set "
            "KD.SELF.WEIGHT 0"
        )


def _count_stages(student: ReidModel) -> int:
    """The number of stages whose maps the student returns; class tokens are no maps."""
    is_map = getattr(student.backbone, "tokens", "patches") == "patches"
    return len(stage_channels(student)) if is_map else 1


def uses_self_distillation(cfg: Config) -> bool:
    return cfg.KD.SELF.WEIGHT > 0 or cfg.KD.SELF.CLASSIFY_WEIGHT > 0


def needs_student_maps(cfg: Config, student: ReidModel) -> bool:
    """Whether a loss reads `ReidOutput.maps` of the student.

    The maps of a ResNet are read before the last ReLU of a stage, by hooks.
    """
    has_hooks = isinstance(student.backbone, ResNet)
    return uses_self_distillation(cfg) or (cfg.KD.FEATURE.WEIGHT > 0 and not has_hooks)


def build_losses(
    cfg: Config, student: ReidModel, teachers: Sequence[Teacher], *, num_classes: int
) -> dict[str, WeightedLoss]:
    """The losses of the KD section whose weight is above 0, by name."""
    kd, relation = cfg.KD, cfg.KD.RELATION
    gather = gather_rows if cfg.SOLVER.MINING == "global" else nn.Identity()
    dims = [embedding_dim(teacher.model) for teacher in teachers]
    # A factory is called only if its weight is above 0. The order determines the initial random
    # parameters of the losses.
    factories: dict[str, tuple[float, Callable[[], Callable]]] = {
        "kd": (
            kd.LOGITS.WEIGHT,
            lambda: create_logit_loss(_build_divergence(cfg), [t.classes for t in teachers]),
        ),
        "feature": (kd.FEATURE.WEIGHT, lambda: _build_feature_loss(cfg, student, teachers)),
        "distances": (
            kd.DISTANCES.WEIGHT,
            lambda: create_feature_pair_loss(distance_matching, gather=gather),
        ),
        "similarity": (
            relation.SIMILARITY_WEIGHT,
            lambda: create_embedding_pair_loss(similarity_matching, gather=gather),
        ),
        "rkd_distance": (
            relation.DISTANCE_WEIGHT,
            lambda: create_embedding_pair_loss(relational_distances, gather=gather),
        ),
        "rkd_angle": (
            relation.ANGLE_WEIGHT,
            lambda: create_embedding_pair_loss(relational_angles, gather=gather),
        ),
        "embedding": (kd.EMBEDDING.WEIGHT, lambda: EmbeddingLoss(embedding_dim(student), dims)),
        "self": (
            float(uses_self_distillation(cfg)),
            lambda: _build_self_distillation(cfg, student, num_classes=num_classes),
        ),
    }
    return {
        name: WeightedLoss(weight, create())
        for name, (weight, create) in factories.items()
        if weight > 0
    }


def _build_divergence(cfg: Config) -> PairLoss:
    logits = cfg.KD.LOGITS
    if logits.KIND == "mse":
        return logit_matching
    return partial(
        kd_divergence, temperature=logits.TEMPERATURE, symmetric=logits.KIND == "symmetric"
    )


def _build_feature_loss(
    cfg: Config, student: ReidModel, teachers: Sequence[Teacher]
) -> FeatureLoss:
    is_resnet = isinstance(student.backbone, ResNet)
    return FeatureLoss(
        StageFeatureHooks(student.backbone) if is_resnet else None,
        stage_channels(student),
        teachers,
        stage_weights=cfg.KD.FEATURE.STAGE_WEIGHTS,
        rectified_stages=(0, 1, 2) if cfg.KD.FEATURE.FORM == "published" else (),
        every=cfg.KD.FEATURE.EVERY,
    )


def _build_self_distillation(
    cfg: Config, student: ReidModel, *, num_classes: int
) -> SelfDistillationLoss:
    section = cfg.KD.SELF
    return SelfDistillationLoss(
        stage_channels(student),
        teacher_stage=section.TEACHER - 1,
        student_stages=[stage - 1 for stage in section.LEARNERS],
        published=section.FORM == "published",
        num_classes=num_classes,
        weight=section.WEIGHT,
        classify_weight=section.CLASSIFY_WEIGHT,
    )
