"""From the configuration to teachers, terms and handlers of a distillation."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.config import parse_config
from ember_reid.engine.build import build_benchmarks
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.distill.class_mapping import CommonClasses, Identity, match_classes
from ember_reid.engine.distill.comparison import Contestant, measure_row, report
from ember_reid.engine.distill.stages import StageTaps, last_blocks
from ember_reid.engine.distill.student import start_student
from ember_reid.engine.distill.teachers import (
    EmaTeacher,
    InputAdapter,
    Teacher,
    TeacherForward,
    ViewSubsample,
)
from ember_reid.engine.distill.terms import (
    EmbeddingTerm,
    FeatureTerm,
    SelfTerm,
    embedding_pair_term,
    feature_pair_term,
    logit_term,
)
from ember_reid.engine.distributed import gather_rows
from ember_reid.engine.handlers.evaluation import score
from ember_reid.engine.losses.criterion import WeightedLoss
from ember_reid.layers import (
    distance_matching,
    kd_divergence,
    logit_matching,
    relational_angles,
    relational_distances,
    similarity_matching,
)
from ember_reid.modeling import build_model
from ember_reid.modeling.backbones.resnet import ResNet
from ignite.engine import Engine
from torch import nn

logger = logging.getLogger("ember.distill")


class Distillation:
    """What distillation adds to a run; nothing at all when the KD section is empty.

    Attributes:
        terms: for the criterion, by name.
        parts: objects with a state, for the checkpoint.
        contestants: the teachers with their configurations, for the comparison at the end.
    """

    def __init__(
        self,
        terms: Mapping[str, WeightedLoss],
        handlers: Sequence[object],
        *,
        parts: Mapping[str, object],
        contestants: Sequence[Contestant],
    ):
        self.terms, self.handlers = dict(terms), tuple(handlers)
        self.parts, self.contestants = dict(parts), tuple(contestants)

    def attach(self, engine: Engine) -> None:
        """Attach the handlers in their order: EMA, teachers, views. Call after Augment was attached."""
        for handler in self.handlers:
            handler.attach(engine)


def build_distillation(
    cfg,
    student: nn.Module,
    *,
    classes: Sequence[Identity],
    records: Sequence = (),
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
) -> Distillation:
    """Load the teachers, start the student, and make the terms of the KD section; everything is checked here.

    Args:
        student: on its device; changed where KD.STUDENT_WEIGHTS or KD.SELF ask for it.
        classes: the identity of each of the student's classes.
        records: the training records, to count the identities with fewer views than INPUT.NUM_FRAMES.

    Raises:
        FileNotFoundError, ValueError: a teacher that is not there, is no checkpoint of ours, knows none of the
            identities, or lacks the feature maps that a term needs.
    """
    kd = cfg.KD
    teachers, contestants = [], []
    for path in kd.TEACHERS:
        teacher, contestant = _load_teacher(
            cfg, path, classes=classes, device=device, amp_dtype=amp_dtype
        )
        teachers.append(teacher)
        contestants.append(contestant)
    if kd.STUDENT_WEIGHTS:
        path = kd.TEACHERS[0] if kd.STUDENT_WEIGHTS == "teacher" else kd.STUDENT_WEIGHTS
        start_student(student, path, reinit=kd.REINIT)
    handlers, parts = [], {}
    with_maps = kd.FEATURE.WEIGHT > 0
    if with_maps:
        _check_student_maps(cfg, student)
    if kd.EMA.ENABLED:
        average = EmaTeacher(
            student,
            momentum=kd.EMA.DECAY,
            ramp=kd.EMA.RAMP,
            statistics=kd.TEACHER_STATISTICS,
            with_maps=with_maps,
        )
        teachers.insert(0, average.teacher)
        handlers.append(average)
        parts["ema"] = average
    if teachers:
        handlers.append(TeacherForward(teachers, device_type=device.type, amp_dtype=amp_dtype))
    if 0 < kd.STUDENT_VIEWS < cfg.INPUT.NUM_FRAMES:
        handlers.append(ViewSubsample(kd.STUDENT_VIEWS, seed=cfg.SEED))
        _count_views(records, cfg)
    terms = _build_terms(cfg, student, teachers, num_classes=len(classes))
    if idist.get_world_size() > 1 and device.type == "cuda":
        terms = {name: _synchronize_norms(term) for name, term in terms.items()}
    return Distillation(terms, handlers, parts=parts, contestants=contestants)


def _load_teacher(
    cfg,
    path: str,
    *,
    classes: Sequence[Identity],
    device: torch.device,
    amp_dtype: torch.dtype | None,
) -> tuple[Teacher, Contestant]:
    """A teacher from its checkpoint alone: it carries its configuration and its identities."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"KD.TEACHERS: there is no file {path}; train the teacher first")
    content = load_checkpoint(path)
    own = parse_config(content["config"])
    model = build_model(own, num_classes=content["num_classes"], pretrained=False)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(
            f"KD.TEACHERS: {path} does not fit its own configuration: {' '.join(str(error).split())[:300]}"
        ) from error
    model = model.to(device, memory_format=torch.channels_last)
    common = CommonClasses()
    if cfg.KD.LOGITS.WEIGHT > 0:
        common = match_classes(
            classes, _teacher_classes(content, own, cfg, path, classes), name=path
        )
    if cfg.KD.FEATURE.WEIGHT > 0:
        last_blocks(model.backbone)
    teacher = Teacher(
        model,
        name=path,
        statistics=cfg.KD.TEACHER_STATISTICS,
        folded=True,
        amp_dtype=amp_dtype,
        adapt=_build_input_adapter(cfg, own, path, device),
        common=common,
        with_maps=cfg.KD.FEATURE.WEIGHT > 0,
    )
    return teacher, Contestant(f"teacher {path}", own, model)


def _teacher_classes(
    content: dict, own, cfg, path: str, classes: Sequence[Identity]
) -> Sequence[Identity]:
    """The identities in a checkpoint; one that does not list them may have been trained on the student's data."""
    if content.get("classes"):
        return content["classes"]
    if tuple(own.DATASETS.NAMES) == tuple(cfg.DATASETS.NAMES) and content["num_classes"] == len(
        classes
    ):
        logger.warning(
            "%s lists no identities: they are taken to be the student's, in the same order", path
        )
        return classes
    raise ValueError(
        f"KD.LOGITS.WEIGHT compares identities, but {path} does not list its {content['num_classes']} (trained on "
        f"{', '.join(own.DATASETS.NAMES)}); set KD.LOGITS.WEIGHT 0 or train the teacher again"
    )


def _build_input_adapter(cfg, own, path: str, device: torch.device) -> InputAdapter:
    """What the student's images need to become the teacher's; said aloud where they differ."""
    size = tuple(own.INPUT.SIZE_TEST)
    if size != tuple(cfg.INPUT.SIZE_TRAIN):
        logger.warning(
            "teacher %s was made for %d x %d: the student's images of %d x %d are resized for it",
            path,
            *size,
            *cfg.INPUT.SIZE_TRAIN,
        )
    else:
        size = None
    mean, std = torch.tensor(cfg.INPUT.PIXEL_MEAN), torch.tensor(cfg.INPUT.PIXEL_STD)
    their_mean, their_std = torch.tensor(own.INPUT.PIXEL_MEAN), torch.tensor(own.INPUT.PIXEL_STD)
    if torch.equal(mean, their_mean) and torch.equal(std, their_std):
        return InputAdapter(size)
    logger.warning(
        "teacher %s has another PIXEL_MEAN or PIXEL_STD: images are normalized anew for it", path
    )
    return InputAdapter(
        size, (std / their_std).to(device), ((mean - their_mean) / their_std).to(device)
    )


def _count_views(records: Sequence, cfg) -> None:
    """Say how many identities have fewer records than a sample has views, so that views come from the same record."""
    if not cfg.INPUT.FRAME_SAMPLING.startswith("multiview"):
        logger.warning(
            "KD.STUDENT_VIEWS with INPUT.FRAME_SAMPLING %s: views are frames of one tracklet; multiview takes them from all "
            "records of an identity",
            cfg.INPUT.FRAME_SAMPLING,
        )
        return
    counts = Counter(record.pid for record in records)
    short = sum(count < cfg.INPUT.NUM_FRAMES for count in counts.values())
    if short:
        logger.warning(
            "%d of %d identities have fewer than %d images or tracklets (INPUT.NUM_FRAMES): theirs are repeated",
            short,
            len(counts),
            cfg.INPUT.NUM_FRAMES,
        )


def _build_terms(
    cfg, student: nn.Module, teachers: Sequence[Teacher], *, num_classes: int
) -> dict[str, WeightedLoss]:
    kd, relation = cfg.KD, cfg.KD.RELATION
    terms: dict[str, WeightedLoss] = {}
    share = gather_rows if cfg.SOLVER.MINING == "global" else nn.Identity()

    def add(name: str, weight: float, create: Callable[[], Callable]) -> None:
        if weight > 0:
            terms[name] = WeightedLoss(weight, create())

    add("kd", kd.LOGITS.WEIGHT, lambda: logit_term(_divergence(cfg), [t.common for t in teachers]))
    add("feature", kd.FEATURE.WEIGHT, lambda: _build_feature_term(cfg, student, teachers))
    add("distances", kd.DISTANCES.WEIGHT, lambda: feature_pair_term(distance_matching, share=share))
    add(
        "similarity",
        relation.SIMILARITY_WEIGHT,
        lambda: embedding_pair_term(similarity_matching, share=share),
    )
    add(
        "rkd_distance",
        relation.DISTANCE_WEIGHT,
        lambda: embedding_pair_term(relational_distances, share=share),
    )
    add(
        "rkd_angle",
        relation.ANGLE_WEIGHT,
        lambda: embedding_pair_term(relational_angles, share=share),
    )
    dims = [teacher.model.head.dim for teacher in teachers]
    add("embedding", kd.EMBEDDING.WEIGHT, lambda: EmbeddingTerm(student.head.dim, dims))
    if kd.SELF.WEIGHT > 0 or kd.SELF.CLASSIFY_WEIGHT > 0:
        terms["self"] = WeightedLoss(1.0, _build_self_term(cfg, student, num_classes=num_classes))
    return terms


def _divergence(cfg) -> Callable:
    logits = cfg.KD.LOGITS
    if logits.KIND == "mse":
        return logit_matching
    return partial(
        kd_divergence, temperature=logits.TEMPERATURE, symmetric=logits.KIND == "symmetric"
    )


def _check_student_maps(cfg, student: nn.Module) -> None:
    """A ResNet student is compared in front of its ReLUs, another one with the four maps that it hands out."""
    if isinstance(student.backbone, ResNet):
        last_blocks(student.backbone)
    elif cfg.MODEL.HEAD.NAME != "global" or not 2 <= len(student.backbone.channels) <= 4:
        raise ValueError(
            f"KD.FEATURE.WEIGHT needs the maps of several stages; {cfg.MODEL.BACKBONE.NAME} with MODEL.HEAD.NAME "
            f"{cfg.MODEL.HEAD.NAME} has none of that kind; set it to 0 or choose another backbone"
        )


def _build_feature_term(cfg, student: nn.Module, teachers: Sequence[Teacher]) -> FeatureTerm:
    is_resnet = isinstance(student.backbone, ResNet)
    student.return_maps = student.return_maps or not is_resnet
    return FeatureTerm(
        StageTaps(student.backbone) if is_resnet else None,
        student.backbone.channels,
        teachers,
        stage_weights=cfg.KD.FEATURE.STAGE_WEIGHTS,
        rectified=(0, 1, 2) if cfg.KD.FEATURE.FORM == "published" else (),
        every=cfg.KD.FEATURE.EVERY,
    )


def _build_self_term(cfg, student: nn.Module, *, num_classes: int) -> SelfTerm:
    """The term of self-distillation; the student hands out its stage maps from here on.

    Raises:
        ValueError: a backbone without as many stage maps as KD.SELF names.
    """
    own = cfg.KD.SELF
    channels = student.backbone.channels
    if cfg.MODEL.HEAD.NAME != "global" or len(channels) < own.TEACHER:
        raise ValueError(
            f"KD.SELF.TEACHER is stage {own.TEACHER}, but {cfg.MODEL.BACKBONE.NAME} with MODEL.HEAD.NAME "
            f"{cfg.MODEL.HEAD.NAME} hands out the maps of {len(channels) if cfg.MODEL.HEAD.NAME == 'global' else 0} "
            "stage(s); choose a ResNet with the global head, or set KD.SELF.WEIGHT 0"
        )
    student.return_maps = True
    return SelfTerm(
        channels,
        teacher=own.TEACHER - 1,
        learners=[stage - 1 for stage in own.LEARNERS],
        published=own.FORM == "published",
        num_classes=num_classes,
        weight=own.WEIGHT,
        classify_weight=own.CLASSIFY_WEIGHT,
    )


def _synchronize_norms(term: WeightedLoss) -> WeightedLoss:
    if not isinstance(term.function, nn.Module):
        return term
    return replace(term, function=nn.SyncBatchNorm.convert_sync_batchnorm(term.function))


def compare_with_teachers(
    cfg,
    distillation: Distillation,
    student: nn.Module,
    *,
    tests: Mapping,
    results: Mapping[str, dict],
    device: torch.device,
) -> None:
    """Score the teachers on the first test set and put them beside the student: log and OUTPUT_DIR/distillation.json.

    Each network is tested with the input size and the protocol of its own configuration. Does nothing without teachers.
    """
    if not distillation.contestants:
        return
    dataset = next(iter(results))
    rows = []
    for contestant in (*distillation.contestants, Contestant("student", cfg, student)):
        own = contestant.config
        if contestant.model is student:
            scores = results[dataset]
        else:
            logger.info("scores of the %s", contestant.name)
            benchmarks = build_benchmarks(own, {dataset: tests[dataset]}, contestant.model, device)
            scores = score(benchmarks, rerank=False)[dataset]
        rows.append(measure_row(contestant, scores, tuple(own.INPUT.SIZE_TEST), device=device))
    report(rows, dataset=dataset, folder=Path(cfg.OUTPUT_DIR))
