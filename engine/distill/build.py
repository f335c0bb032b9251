"""Build teachers, handlers and losses from the KD section of the configuration."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ember_reid.config import Config
from ember_reid.data.records import Record, Splits
from ember_reid.engine.build import build_benchmarks
from ember_reid.engine.distill.comparison import measure_row, write_comparison
from ember_reid.engine.distill.handlers import EmaTeacher, TeacherForward, ViewSubsample
from ember_reid.engine.distill.losses.build import (
    build_losses,
    check_student,
    needs_student_maps,
)
from ember_reid.engine.distill.student import init_student
from ember_reid.engine.distill.teachers.build import ModelEntry, build_teacher
from ember_reid.engine.distill.teachers.class_mapping import Identity
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.evaluator import score
from ember_reid.engine.handlers.batch import BatchTransform
from ember_reid.engine.losses.criterion import WeightedLoss
from ember_reid.modeling.model import ReidModel
from torch import nn

logger = logging.getLogger("ember.distill")


@dataclass(frozen=True)
class Distillation:
    """The objects that distillation adds to a training; all empty without distillation.

    One iteration: the handlers update the averaged teacher, append the teachers' outputs to
    `batch.teachers`, and select the student's views. The losses compare the student's output with
    `batch.teachers`.

    Attributes:
        handlers: in firing order, to be attached after Augment.
        losses: for the criterion, by name.
        state: objects for the checkpoint, by name.
        teachers: those of KD.TEACHERS, for the comparison at the end.
    """

    handlers: tuple[BatchTransform, ...]
    losses: dict[str, WeightedLoss]
    state: dict[str, EmaTeacher]
    teachers: tuple[ModelEntry, ...]


def build_distillation(
    cfg: Config,
    student: ReidModel,
    *,
    classes: Sequence[Identity],
    records: Sequence[Record] = (),
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
) -> Distillation:
    """Load the teachers and create the handlers and losses of the KD section.

    Args:
        student: on its device. It receives the weights of KD.STUDENT_WEIGHTS. If a loss needs
            feature maps, it is set to return them.
        classes: the identity of each of the student's classes.
        records: the training records, to warn of identities with few images.

    Raises:
        FileNotFoundError, ValueError: a teacher does not exist, is not a checkpoint of this
            program, has too few identities in common with the student, or does not have the
            feature maps that a loss needs.
    """
    kd = cfg.KD
    teachers: list[Teacher] = []
    entries: list[ModelEntry] = []
    for path in kd.TEACHERS:
        teacher, entry = build_teacher(
            cfg, path, classes=classes, device=device, amp_dtype=amp_dtype
        )
        teachers.append(teacher)
        entries.append(entry)
    if kd.STUDENT_WEIGHTS:
        path = kd.TEACHERS[0] if kd.STUDENT_WEIGHTS == "teacher" else kd.STUDENT_WEIGHTS
        init_student(student, path, reinit=kd.REINIT)
    check_student(cfg, student)
    handlers: list[BatchTransform] = []
    state: dict[str, EmaTeacher] = {}
    if kd.EMA.ENABLED:
        average = EmaTeacher(
            student,
            decay=kd.EMA.DECAY,
            ramp=kd.EMA.RAMP,
            statistics=kd.TEACHER_STATISTICS,
            keep_maps=kd.FEATURE.WEIGHT > 0,
        )
        teachers.insert(0, average.teacher)
        handlers.append(average)
        state["ema"] = average
    if teachers:
        handlers.append(TeacherForward(teachers, device_type=device.type, amp_dtype=amp_dtype))
    if 0 < kd.STUDENT_VIEWS < cfg.INPUT.NUM_FRAMES:
        handlers.append(
            ViewSubsample(kd.STUDENT_VIEWS, num_frames=cfg.INPUT.NUM_FRAMES, seed=cfg.SEED)
        )
        _check_views(cfg, records)
    losses = build_losses(cfg, student, teachers, num_classes=len(classes))
    if idist.get_world_size() > 1 and device.type == "cuda":
        losses = {name: _synchronize_norms(loss) for name, loss in losses.items()}
    student.return_maps = needs_student_maps(cfg, student)
    return Distillation(tuple(handlers), losses, state, tuple(entries))


def _check_views(cfg: Config, records: Sequence[Record]) -> None:
    """Warn if the views of a sample come from a single record, or if records are repeated."""
    if not cfg.INPUT.FRAME_SAMPLING.startswith("multiview"):
        logger.warning(
            "KD.STUDENT_VIEWS with INPUT.FRAME_SAMPLING %s: views are frames of one tracklet; "
            "multiview selects them from all records of an identity",
            cfg.INPUT.FRAME_SAMPLING,
        )
        return
    counts = Counter(record.pid for record in records)
    num_short = sum(count < cfg.INPUT.NUM_FRAMES for count in counts.values())
    if num_short:
        logger.warning(
            "%d of %d identities have fewer than %d images or tracklets (INPUT.NUM_FRAMES), "
            "which are repeated",
            num_short,
            len(counts),
            cfg.INPUT.NUM_FRAMES,
        )


def _synchronize_norms(loss: WeightedLoss) -> WeightedLoss:
    if not isinstance(loss.function, nn.Module):
        return loss
    return replace(loss, function=nn.SyncBatchNorm.convert_sync_batchnorm(loss.function))


def compare_with_teachers(
    cfg: Config,
    distillation: Distillation,
    student: nn.Module,
    *,
    tests: Mapping[str, Splits],
    results: Mapping[str, Mapping[str, Any]],
    device: torch.device,
) -> None:
    """Score the teachers on the first test set, and log and write a table with the student.

    The table is in OUTPUT_DIR/distillation.json. Each network is tested with the input size and
    the protocol of its own configuration. Without teachers, nothing happens.
    """
    if not distillation.teachers:
        return
    dataset = next(iter(results))
    rows = []
    for entry in (*distillation.teachers, ModelEntry("student", cfg, student)):
        if entry.model is student:
            scores = results[dataset]
        else:
            logger.info("scores of the %s", entry.name)
            splits = {dataset: tests[dataset]}
            benchmarks = build_benchmarks(entry.config, splits, entry.model, device)
            scores = score(benchmarks, rerank=False)[dataset]
        height, width = entry.config.INPUT.SIZE_TEST
        rows.append(measure_row(entry.name, entry.model, scores, (height, width), device=device))
    write_comparison(rows, dataset=dataset, folder=Path(cfg.OUTPUT_DIR))
