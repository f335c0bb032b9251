"""What a configuration may say: choices, ranges, and keys that must agree with each other."""

from ember_reid.config.node import Config

CHOICES = {
    "DEVICE": ("auto", "cpu", "cuda"),
    "MODEL.BACKBONE.LAST_STRIDE": (1, 2),
    "MODEL.BACKBONE.LAST_DILATION": (1, 2),
    "MODEL.BACKBONE.STEM_POOL": ("padded", "ceil"),
    "MODEL.POOL.NAME": ("avg", "max", "avgmax", "gem"),
    "MODEL.HEAD.NAME": ("global", "mgn"),
    "MODEL.HEAD.NECK": ("bnneck", "none"),
    "MODEL.HEAD.REDUCTION": ("linear", "bn_relu"),
    "MODEL.HEAD.METRIC_FEATURE": ("before", "after"),
    "MODEL.HEAD.CLASSIFIER": ("linear", "cosine"),
    "LOSS.CE.SMOOTH_OVER": ("all", "others"),
    "LOSS.CE.MARGIN_TYPE": ("none", "arcface", "cosface", "circle"),
    "LOSS.TRIPLET.MINING": ("hard", "weighted"),
    "KD.TEACHER_STATISTICS": ("running", "batch"),
    "KD.REINIT": ("none", "head", "last-stage"),
    "KD.LOGITS.KIND": ("symmetric", "kl", "mse"),
    "KD.FEATURE.FORM": ("intended", "published"),
    "KD.SELF.FORM": ("described", "published"),
    "INPUT.INTERPOLATION": ("bilinear", "bicubic"),
    "INPUT.RE_FILL": ("mean", "published"),
    "INPUT.FRAME_SAMPLING": ("even", "chunk", "multiview", "multiview-cameras"),
    "DATALOADER.SAMPLER": (
        *("identity", "identity-once", "identity-fastreid", "identity-cameras", "random"),
    ),
    "DATALOADER.CACHE": ("auto", "device", "ram", "none"),
    "SOLVER.OPTIMIZER": ("adam", "adamw", "sgd"),
    "SOLVER.FUSED": ("auto", "torch", "apex", "none"),
    "SOLVER.SCHEDULE": ("multistep", "cosine"),
    "SOLVER.SCHEDULE_BY": ("epoch", "iteration"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant", "exp"),
    "SOLVER.MINING": ("global", "local"),
    "SOLVER.COMPILE": ("auto", "none", "default", "reduce-overhead"),
    "SOLVER.AMP_DTYPE": ("float16", "bfloat16"),
    "TEST.NECK_FEAT": ("before", "after"),
    "TEST.METRIC": ("cosine", "euclidean"),
    "TEST.AVERAGE_PRECISION": ("mean", "trapezoid"),
    "TEST.PROTOCOL": (
        *("auto", "cross-camera", "all", "single-shot", "one-per-identity"),
        *("video-to-video", "image-to-video", "video-to-image", "image-to-image"),
    ),
}

AT_LEAST_ONE = (
    "INPUT.NUM_FRAMES DATALOADER.NUM_INSTANCES SOLVER.MAX_EPOCHS SOLVER.IMS_PER_BATCH "
    "SOLVER.ACCUMULATION_STEPS SOLVER.LOG_PERIOD SOLVER.EVAL_PERIOD SOLVER.CHECKPOINT_PERIOD "
    "TEST.IMS_PER_BATCH TEST.MAX_RANK TEST.RE_RANK.K1 TEST.RE_RANK.K2"
).split()
NOT_NEGATIVE = (
    "SEED NUM_PROCESSES NUM_THREADS LOSS.CE.WEIGHT LOSS.TRIPLET.WEIGHT LOSS.TRIPLET.MARGIN LOSS.CENTER.WEIGHT "
    "LOSS.CIRCLE.WEIGHT LOSS.COSFACE.WEIGHT LOSS.FOCAL.WEIGHT LOSS.XBM.SIZE LOSS.XBM.WEIGHT "
    "LOSS.XBM.START INPUT.PADDING INPUT.NUM_FRAMES_TEST "
    "DATALOADER.NUM_WORKERS SOLVER.BASE_LR SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_BIAS "
    "SOLVER.WEIGHT_DECAY_NORM SOLVER.WARMUP_EPOCHS SOLVER.DELAY_EPOCHS SOLVER.CLIP_NORM SOLVER.FREEZE_ITERS SOLVER.BASE_BATCH "
    "SOLVER.PRECISE_BN_ITERS "
    "MODEL.HEAD.EMBEDDING_DIM"
).split()
PROBABILITIES = (
    "LOSS.CE.EPSILON INPUT.FLIP_PROB INPUT.RE_PROB INPUT.JITTER_PROB INPUT.AUTOAUG_PROB INPUT.AFFINE_PROB "
    "INPUT.AUGMIX_PROB INPUT.PATCH_PROB INPUT.CUTOUT_PROB SOLVER.WARMUP_FACTOR SOLVER.EMA_DECAY TEST.RE_RANK.LAMBDA "
    "TEST.VALIDATION DATALOADER.CACHE_SHARE"
).split()
LENGTHS = {
    "INPUT.SIZE_TRAIN": 2,
    "INPUT.SIZE_TEST": 2,
    "INPUT.PIXEL_MEAN": 3,
    "INPUT.PIXEL_STD": 3,
    "INPUT.JITTER": 4,
}


def _get(cfg: Config, key: str):
    node = cfg
    for part in key.split("."):
        node = node[part]
    return node


def find_errors(cfg: Config) -> list[str]:
    """Every sentence that is wrong with the configuration; empty when nothing is."""
    mistakes = []
    for key, choices in CHOICES.items():
        if _get(cfg, key) not in choices:
            mistakes.append(f"{key} is {_get(cfg, key)!r}, allowed: {', '.join(map(str, choices))}")
    mistakes += [
        f"{key} is {_get(cfg, key)}, must be at least 1"
        for key in AT_LEAST_ONE
        if _get(cfg, key) < 1
    ]
    mistakes += [
        f"{key} is {_get(cfg, key)}, must not be negative"
        for key in NOT_NEGATIVE
        if _get(cfg, key) < 0
    ]
    mistakes += [
        f"{key} is {_get(cfg, key)}, must lie in 0..1"
        for key in PROBABILITIES
        if not 0 <= _get(cfg, key) <= 1
    ]
    mistakes += [
        f"{key} is {_get(cfg, key)}, wants {length} numbers"
        for key, length in LENGTHS.items()
        if len(_get(cfg, key)) != length
    ]
    return mistakes + _contradictions(cfg) + _distillation_mistakes(cfg)


def _contradictions(cfg: Config) -> list[str]:
    """Keys that are fine alone and wrong together."""
    solver, loader, loss, head = cfg.SOLVER, cfg.DATALOADER, cfg.LOSS, cfg.MODEL.HEAD
    mistakes = []
    if (
        loader.SAMPLER != "random"
        and loader.NUM_INSTANCES > 0
        and solver.IMS_PER_BATCH % loader.NUM_INSTANCES
    ):
        mistakes.append(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} is not divisible by DATALOADER.NUM_INSTANCES "
            f"{loader.NUM_INSTANCES}: a batch is P identities times K images"
        )
    if solver.ACCUMULATION_STEPS > 0 and solver.IMS_PER_BATCH % solver.ACCUMULATION_STEPS:
        mistakes.append(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} is not divisible by SOLVER.ACCUMULATION_STEPS "
            f"{solver.ACCUMULATION_STEPS}"
        )
    if list(solver.STEPS) != sorted(solver.STEPS):
        mistakes.append(f"SOLVER.STEPS {tuple(solver.STEPS)} must rise")
    if not cfg.DATASETS.NAMES:
        mistakes.append("DATASETS.NAMES is empty, name a data set to train on")
    if loss.CE.MARGIN_TYPE != "none" and head.CLASSIFIER != "cosine":
        mistakes.append(
            f"LOSS.CE.MARGIN_TYPE {loss.CE.MARGIN_TYPE} needs MODEL.HEAD.CLASSIFIER cosine, found {head.CLASSIFIER}"
        )
    if loss.CENTER.WEIGHT > 0 and head.NAME == "mgn":
        mistakes.append(
            "LOSS.CENTER.WEIGHT needs one feature per image, MODEL.HEAD.NAME mgn has five: set it to 0"
        )
    pairwise = {
        "TRIPLET": loss.TRIPLET.WEIGHT,
        "CIRCLE": loss.CIRCLE.WEIGHT,
        "COSFACE": loss.COSFACE.WEIGHT,
    }
    if loader.SAMPLER == "random" and any(pairwise.values()):
        names = ", ".join(f"LOSS.{name}.WEIGHT" for name, weight in pairwise.items() if weight)
        mistakes.append(
            f"{names} need pairs of an identity: use DATALOADER.SAMPLER identity or set them to 0"
        )
    if loader.SAMPLER != "random" and loader.NUM_INSTANCES == 1 and any(pairwise.values()):
        mistakes.append(
            "DATALOADER.NUM_INSTANCES 1 leaves pairwise losses without positives: use 2 or more"
        )
    mistakes += _memory_mistakes(cfg, any(pairwise.values()))
    if not any([loss.CE.WEIGHT, loss.CENTER.WEIGHT, loss.FOCAL.WEIGHT, *pairwise.values()]):
        mistakes.append("all LOSS.*.WEIGHT are 0: nothing would be trained")
    return mistakes


def _memory_mistakes(cfg: Config, has_pairs: bool) -> list[str]:
    """What is wrong with LOSS.XBM."""
    size, batch = cfg.LOSS.XBM.SIZE, cfg.SOLVER.IMS_PER_BATCH
    mistakes = []
    if size > 0 and not has_pairs:
        mistakes.append(
            "LOSS.XBM.SIZE gives pairwise losses more pairs, and there are none: set LOSS.TRIPLET.WEIGHT, "
            "LOSS.CIRCLE.WEIGHT or LOSS.COSFACE.WEIGHT, or LOSS.XBM.SIZE 0"
        )
    if size > 0 and cfg.MODEL.HEAD.NAME == "mgn":
        mistakes.append(
            "LOSS.XBM.SIZE needs one feature per image, MODEL.HEAD.NAME mgn has five: set it to 0"
        )
    if 0 < size < batch:
        mistakes.append(
            f"LOSS.XBM.SIZE is {size}, less than one batch (SOLVER.IMS_PER_BATCH {batch})"
        )
    return mistakes


def _distillation_mistakes(cfg: Config) -> list[str]:
    """What is wrong with the KD section."""
    kd, mistakes = cfg.KD, []
    relation = kd.RELATION
    weights = {
        "LOGITS.WEIGHT": kd.LOGITS.WEIGHT,
        "FEATURE.WEIGHT": kd.FEATURE.WEIGHT,
        "DISTANCES.WEIGHT": kd.DISTANCES.WEIGHT,
        "RELATION.SIMILARITY_WEIGHT": relation.SIMILARITY_WEIGHT,
        "RELATION.DISTANCE_WEIGHT": relation.DISTANCE_WEIGHT,
        "RELATION.ANGLE_WEIGHT": relation.ANGLE_WEIGHT,
        "EMBEDDING.WEIGHT": kd.EMBEDDING.WEIGHT,
    }
    used = ", ".join(f"KD.{name}" for name, weight in weights.items() if weight > 0)
    has_teacher = bool(kd.TEACHERS) or kd.EMA.ENABLED
    if has_teacher and not used:
        mistakes.append(
            "there is a teacher (KD.TEACHERS or KD.EMA), but all weights are 0: set one of "
            + ", ".join(f"KD.{name}" for name in weights)
        )
    if used and not has_teacher:
        mistakes.append(
            f"{used} needs a teacher: KD.TEACHERS ('runs/x/checkpoints/best.pt',) or KD.EMA.ENABLED True"
        )
    if kd.LOGITS.TEMPERATURE <= 0:
        mistakes.append(f"KD.LOGITS.TEMPERATURE is {kd.LOGITS.TEMPERATURE}, must be above 0")
    if kd.STUDENT_WEIGHTS == "teacher" and not kd.TEACHERS:
        mistakes.append("KD.STUDENT_WEIGHTS teacher needs KD.TEACHERS")
    if len(kd.FEATURE.STAGE_WEIGHTS) != 4 or min(kd.FEATURE.STAGE_WEIGHTS, default=-1) < 0:
        mistakes.append(
            f"KD.FEATURE.STAGE_WEIGHTS is {tuple(kd.FEATURE.STAGE_WEIGHTS)}, wants 4 numbers of at least 0"
        )
    if kd.FEATURE.EVERY < 1:
        mistakes.append(f"KD.FEATURE.EVERY is {kd.FEATURE.EVERY}, must be at least 1 (all images)")
    uses_maps = kd.FEATURE.WEIGHT > 0 or kd.SELF.WEIGHT > 0 or kd.SELF.CLASSIFY_WEIGHT > 0
    if uses_maps and cfg.SOLVER.ACCUMULATION_STEPS > 1 and cfg.SOLVER.MINING == "global":
        mistakes.append(
            "KD.FEATURE and KD.SELF read the maps of one part of a batch: with SOLVER.ACCUMULATION_STEPS above 1 they need "
            "SOLVER.MINING local"
        )
    return mistakes + _view_mistakes(cfg) + _self_mistakes(cfg)


def _view_mistakes(cfg: Config) -> list[str]:
    views, frames = cfg.KD.STUDENT_VIEWS, cfg.INPUT.NUM_FRAMES
    mistakes = []
    if views > frames:
        mistakes.append(
            f"KD.STUDENT_VIEWS is {views}, more than the {frames} views of a sample (INPUT.NUM_FRAMES) that the teacher sees"
        )
    if 0 < views < frames and cfg.KD.FEATURE.WEIGHT > 0:
        mistakes.append(
            "KD.FEATURE.WEIGHT compares the maps of the same pictures, so it needs KD.STUDENT_VIEWS 0 (all)"
        )
    return mistakes


def _self_mistakes(cfg: Config) -> list[str]:
    own, mistakes = cfg.KD.SELF, []
    if own.WEIGHT == 0 and own.CLASSIFY_WEIGHT == 0:
        return []
    learners = tuple(own.LEARNERS)
    if not learners or min(learners) < 1 or max(learners) >= own.TEACHER or own.TEACHER > 4:
        mistakes.append(
            f"KD.SELF.LEARNERS {learners} must name stages from 1 on, before KD.SELF.TEACHER {own.TEACHER} (at most 4)"
        )
    return mistakes
