"""Check a configuration: the range of every key, and the consistency of keys."""

from collections.abc import Iterable, Iterator
from typing import Any

from ember_reid.config.checks import Range
from ember_reid.config.node import Config
from ember_reid.config.schema import CHECKS, describe_error


def find_errors(cfg: Config) -> list[str]:
    """Return one sentence per error of the configuration; empty if there is none.

    Keys are compared with each other only if all numbers are within their ranges.
    """
    errors = {key: describe_error(key, _get(cfg, key)) for key in CHECKS}
    found = [error for error in errors.values() if error]
    if any(error and isinstance(CHECKS[key], Range) for key, error in errors.items()):
        return found
    rules = (
        *(_batch_rules, _loss_rules, _memory_rules, _teacher_rules, _map_rules, _side_rules),
        *(_adaptation_rules, _combination_rules),
    )
    return found + [error for rule in rules for wrong, error in rule(cfg) if wrong]


def _get(cfg: Config, key: str) -> Any:
    node = cfg
    for part in key.split("."):
        node = node[part]
    return node


# Each function below yields (whether a rule is violated, the error message).
Rules = Iterator[tuple[bool, str]]


def _batch_rules(cfg: Config) -> Rules:
    solver, loader = cfg.SOLVER, cfg.DATALOADER
    batch, steps = solver.IMS_PER_BATCH, tuple(solver.STEPS)
    yield (
        loader.SAMPLER != "random" and batch % loader.NUM_INSTANCES != 0,
        f"SOLVER.IMS_PER_BATCH {batch} is not divisible by DATALOADER.NUM_INSTANCES "
        f"{loader.NUM_INSTANCES}: a batch is P identities times K images",
    )
    yield (
        batch % solver.ACCUMULATION_STEPS != 0,
        f"SOLVER.IMS_PER_BATCH {batch} is not divisible by SOLVER.ACCUMULATION_STEPS "
        f"{solver.ACCUMULATION_STEPS}",
    )
    yield (
        list(steps) != sorted(set(steps)),
        f"SOLVER.STEPS {steps[:10]} must be in increasing order",
    )
    yield (
        not (cfg.DATASETS.NAMES or cfg.DATASETS.UNLABELED),
        "DATASETS.NAMES is empty: name a dataset to train on",
    )
    scales, scale_steps = tuple(cfg.INPUT.SCALES), tuple(cfg.INPUT.SCALE_STEPS)
    yield (
        len(scales) != len(scale_steps) + 1,
        f"INPUT.SCALES has {len(scales)} numbers and INPUT.SCALE_STEPS {len(scale_steps)}, but "
        "each step separates two scales: give one step fewer than scales",
    )
    yield (
        list(scale_steps) != sorted(set(scale_steps)),
        f"INPUT.SCALE_STEPS {scale_steps[:10]} must be in increasing order",
    )
    hue = cfg.INPUT.JITTER[3]
    aspect = tuple(cfg.INPUT.RE_ASPECT)
    yield (
        aspect[0] > aspect[1],
        f"INPUT.RE_ASPECT is {aspect}: the first number must not be larger than the second",
    )
    yield hue > 0.5, f"INPUT.JITTER has a hue of {hue}, allowed: 0 to 0.5"


def _pairwise_losses(cfg: Config) -> list[str]:
    """The pairwise losses in use."""
    names = ("LOSS.TRIPLET.WEIGHT", "LOSS.CIRCLE.WEIGHT", "LOSS.COSFACE.WEIGHT")
    return [name for name in names if _get(cfg, name) > 0]


def _loss_rules(cfg: Config) -> Rules:
    loader, loss, head = cfg.DATALOADER, cfg.LOSS, cfg.MODEL.HEAD
    pairwise = _pairwise_losses(cfg)
    external = any(part.NAME and part.WEIGHT for part in (loss.PLUGIN, loss.PML))
    yield (
        loss.CE.MARGIN_TYPE != "none" and head.CLASSIFIER != "cosine",
        f"LOSS.CE.MARGIN_TYPE {loss.CE.MARGIN_TYPE} needs MODEL.HEAD.CLASSIFIER cosine, "
        f"found {head.CLASSIFIER}",
    )
    yield (
        loss.CENTER.WEIGHT > 0 and head.NAME in SEVERAL_FEATURES,
        f"LOSS.CENTER.WEIGHT needs one feature per image, MODEL.HEAD.NAME {head.NAME} has five: "
        "set it to 0",
    )
    yield (
        loader.SAMPLER == "random" and bool(pairwise),
        f"{', '.join(pairwise)} need pairs of an identity: use DATALOADER.SAMPLER identity "
        "or set them to 0",
    )
    yield (
        loader.SAMPLER != "random" and loader.NUM_INSTANCES == 1 and bool(pairwise),
        "DATALOADER.NUM_INSTANCES 1 leaves pairwise losses without positives: use 2 or more",
    )
    yield (
        not (pairwise or loss.CE.WEIGHT or loss.CENTER.WEIGHT or external)
        and not cfg.DATASETS.UNLABELED,
        "all LOSS.*.WEIGHT are 0: nothing would be trained",
    )


def _memory_rules(cfg: Config) -> Rules:
    size, batch = cfg.LOSS.XBM.SIZE, cfg.SOLVER.IMS_PER_BATCH
    yield (
        size > 0 and not _pairwise_losses(cfg),
        "LOSS.XBM.SIZE needs a pairwise loss: set LOSS.TRIPLET.WEIGHT, LOSS.CIRCLE.WEIGHT or "
        "LOSS.COSFACE.WEIGHT above 0, or LOSS.XBM.SIZE 0",
    )
    yield (
        size > 0 and cfg.MODEL.HEAD.NAME in SEVERAL_FEATURES,
        f"LOSS.XBM.SIZE needs one feature per image, MODEL.HEAD.NAME {cfg.MODEL.HEAD.NAME} has "
        "five: set it to 0",
    )
    yield (
        0 < size < batch,
        f"LOSS.XBM.SIZE is {size}, less than one batch (SOLVER.IMS_PER_BATCH {batch})",
    )


# Heads with several metric features.
SEVERAL_FEATURES = ("mgn", "jpm", "clip")
TEACHER_WEIGHTS = (
    "KD.LOGITS.WEIGHT",
    "KD.FEATURE.WEIGHT",
    "KD.DISTANCES.WEIGHT",
    "KD.RELATION.SIMILARITY_WEIGHT",
    "KD.RELATION.DISTANCE_WEIGHT",
    "KD.RELATION.ANGLE_WEIGHT",
    "KD.EMBEDDING.WEIGHT",
)


def _teacher_rules(cfg: Config) -> Rules:
    kd, frames = cfg.KD, cfg.INPUT.NUM_FRAMES
    used = [name for name in TEACHER_WEIGHTS if _get(cfg, name) > 0]
    has_teacher = bool(kd.TEACHERS) or kd.EMA.ENABLED
    yield (
        has_teacher and not used,
        "there is a teacher (KD.TEACHERS or KD.EMA), but all weights are 0: set one of "
        + ", ".join(TEACHER_WEIGHTS),
    )
    yield (
        bool(used) and not has_teacher,
        f"{', '.join(used)} needs a teacher: KD.TEACHERS ('runs/x/checkpoints/best.pt',) or "
        "KD.EMA.ENABLED True",
    )
    yield (
        kd.STUDENT_WEIGHTS == "teacher" and not kd.TEACHERS,
        "KD.STUDENT_WEIGHTS teacher needs KD.TEACHERS",
    )
    yield (
        kd.STUDENT_VIEWS > frames,
        f"KD.STUDENT_VIEWS is {kd.STUDENT_VIEWS}, more than the {frames} views of a sample "
        "(INPUT.NUM_FRAMES) that the teacher sees",
    )
    yield (
        0 < kd.STUDENT_VIEWS < frames and kd.FEATURE.WEIGHT > 0,
        "KD.FEATURE.WEIGHT compares maps of the same images, so it needs KD.STUDENT_VIEWS 0 (all)",
    )


def _map_rules(cfg: Config) -> Rules:
    kd, own = cfg.KD, cfg.KD.SELF
    uses_self = own.WEIGHT > 0 or own.CLASSIFY_WEIGHT > 0
    yield (
        kd.FEATURE.WEIGHT > 0 and _is_zero(kd.FEATURE.STAGE_WEIGHTS),
        "KD.FEATURE.STAGE_WEIGHTS are all 0: set one of them above 0, or KD.FEATURE.WEIGHT 0",
    )
    yield (
        (kd.FEATURE.WEIGHT > 0 or uses_self)
        and cfg.SOLVER.ACCUMULATION_STEPS > 1
        and cfg.SOLVER.MINING == "global",
        "KD.FEATURE and KD.SELF read the maps of one part of a batch: with "
        "SOLVER.ACCUMULATION_STEPS above 1 they need SOLVER.MINING local",
    )
    yield (
        uses_self and max(own.LEARNERS) >= own.TEACHER,
        f"KD.SELF.LEARNERS {tuple(own.LEARNERS)} must be before KD.SELF.TEACHER {own.TEACHER}",
    )


def _side_rules(cfg: Config) -> Rules:
    side = cfg.MODEL.SIE
    yield (
        side.VIEWS > 0 and side.CAMERAS == 0,
        f"MODEL.SIE.VIEWS {side.VIEWS} are viewpoints of each camera: set MODEL.SIE.CAMERAS to the "
        "number of cameras, or MODEL.SIE.VIEWS to 0",
    )


def _is_zero(weights: Iterable[float]) -> bool:
    return not any(weights)


def _adaptation_rules(cfg: Config) -> Rules:
    adapt, clusters = cfg.ADAPT, cfg.ADAPT.CLUSTER
    used, labeled = bool(cfg.DATASETS.UNLABELED), bool(cfg.DATASETS.NAMES)
    yield (
        not used and cfg.TEST.SELECT != "score",
        f"TEST.SELECT {cfg.TEST.SELECT} needs clusters of unlabeled images: set "
        "DATASETS.UNLABELED, or TEST.SELECT score",
    )
    if not used:
        return
    yield (
        clusters.K2 > clusters.K1,
        f"ADAPT.CLUSTER.K2 {clusters.K2} must be at most ADAPT.CLUSTER.K1 {clusters.K1}",
    )
    yield (
        adapt.METHOD == "spcl" and clusters.RADIUS_GAP >= clusters.RADIUS,
        f"ADAPT.CLUSTER.RADIUS_GAP {clusters.RADIUS_GAP} must be below ADAPT.CLUSTER.RADIUS "
        f"{clusters.RADIUS}",
    )
    yield (
        adapt.DOMAIN_NORM and not labeled,
        "ADAPT.DOMAIN_NORM separates labeled from unlabeled images, but DATASETS.NAMES is empty: "
        "set it to False",
    )
    yield (
        adapt.METHOD == "mmt" and cfg.SOLVER.EMA_DECAY == 0,
        "ADAPT.METHOD mmt needs the average of the network: set SOLVER.EMA_DECAY 0.999",
    )
    yield (
        cfg.DATALOADER.NUM_INSTANCES == 1,
        "DATASETS.UNLABELED needs DATALOADER.NUM_INSTANCES of 2 or more images of a cluster",
    )
    has_tests = (
        labeled
        or cfg.DATASETS.TESTS
        or any(name.startswith("unlabeled:") for name in cfg.DATASETS.UNLABELED)
    )
    yield (
        not has_tests and cfg.TEST.SELECT == "score",
        "there is no labeled test set (DATASETS.TESTS) to select checkpoints with: set TEST.SELECT "
        "silhouette or consistency",
    )
    yield (
        not labeled and cfg.TEST.VALIDATION > 0,
        "TEST.VALIDATION holds out labeled identities, but DATASETS.NAMES is empty: set it to 0",
    )


def _combination_rules(cfg: Config) -> Rules:
    """What cannot be combined with DATASETS.UNLABELED."""
    excluded = {
        "SOLVER.ACCUMULATION_STEPS above 1": cfg.SOLVER.ACCUMULATION_STEPS > 1,
        "SOLVER.STEP compile": cfg.SOLVER.STEP == "compile",
        "KD (teachers and self-distillation)": bool(
            cfg.KD.TEACHERS or cfg.KD.EMA.ENABLED or cfg.KD.SELF.WEIGHT or cfg.KD.STUDENT_WEIGHTS
        ),
        "INPUT.NUM_FRAMES above 1": cfg.INPUT.NUM_FRAMES > 1,
        "MODEL.SIE.CAMERAS": cfg.MODEL.SIE.CAMERAS > 0,
        f"MODEL.HEAD.NAME {cfg.MODEL.HEAD.NAME}": cfg.MODEL.HEAD.NAME in SEVERAL_FEATURES,
    }
    for name, is_set in excluded.items():
        yield (
            bool(cfg.DATASETS.UNLABELED) and is_set,
            f"DATASETS.UNLABELED cannot be combined with {name}",
        )
