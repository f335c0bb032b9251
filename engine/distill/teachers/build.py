"""Load a teacher from a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ember_reid.config import Config, parse_config
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.distill.teachers.class_mapping import ClassMapping, Identity, match_classes
from ember_reid.engine.distill.teachers.stage_features import last_blocks
from ember_reid.engine.distill.teachers.teacher import InputAdapter, Teacher
from ember_reid.engine.plugins import check_plugins
from ember_reid.modeling import build_model
from torch import nn

logger = logging.getLogger("ember.distill")


@dataclass(frozen=True)
class ModelEntry:
    """A network and the configuration with which it was trained."""

    name: str
    config: Config
    model: nn.Module


def build_teacher(
    cfg: Config,
    path: str,
    *,
    classes: Sequence[Identity],
    device: torch.device,
    amp_dtype: torch.dtype | None,
) -> tuple[Teacher, ModelEntry]:
    """Load a teacher from its checkpoint, which contains its configuration and identities.

    Args:
        cfg: of the student.
        classes: the identity of each of the student's classes.

    Returns:
        The teacher, and its unfused network for the comparison with the student.

    Raises:
        FileNotFoundError, ValueError: see build_distillation.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"KD.TEACHERS: there is no file {path}; train the teacher first")
    content = load_checkpoint(path)
    own = parse_config(content.get("config", ""))
    check_plugins(own.IMPORTS, source=path)
    model = build_model(own, num_classes=content.get("num_classes", 1), pretrained=False)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(
            f"KD.TEACHERS: the weights in {path} do not fit its configuration: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    model = model.to(device).to(memory_format=torch.channels_last)
    mapping = ClassMapping()
    if cfg.KD.LOGITS.WEIGHT > 0:
        teacher_classes = _read_classes(content, own, cfg, path, classes)
        mapping = match_classes(classes, teacher_classes, name=path)
    keep_maps = cfg.KD.FEATURE.WEIGHT > 0
    if keep_maps:
        last_blocks(model.backbone)
    teacher = Teacher(
        model,
        statistics=cfg.KD.TEACHER_STATISTICS,
        fuse=True,
        amp_dtype=amp_dtype,
        adapt=_build_input_adapter(cfg, own, path, device),
        classes=mapping,
        keep_maps=keep_maps,
    )
    return teacher, ModelEntry(f"teacher {path}", own, model)


def _read_classes(
    content: Mapping[str, Any],
    own: Config,
    cfg: Config,
    path: str,
    classes: Sequence[Identity],
) -> Sequence[Sequence[str]]:
    """The identities in a checkpoint.

    A checkpoint without identities is accepted if it was trained on the datasets of the
    student and has as many classes.
    """
    if content.get("classes"):
        return content["classes"]
    num_classes = content.get("num_classes", 1)
    if tuple(own.DATASETS.NAMES) == tuple(cfg.DATASETS.NAMES) and num_classes == len(classes):
        logger.warning(
            "%s does not list its identities: "
            "they are assumed to be the student's, in the same order",
            path,
        )
        return classes
    raise ValueError(
        f"KD.LOGITS.WEIGHT compares identities, but {path} does not list its {num_classes} "
        f"(trained on {', '.join(own.DATASETS.NAMES)}); "
        "set KD.LOGITS.WEIGHT 0 or train the teacher again"
    )


def _build_input_adapter(cfg: Config, own: Config, path: str, device: torch.device) -> InputAdapter:
    """Create the conversion from the student's images to the teacher's; warn if they differ."""
    size: tuple[int, int] | None = None
    if tuple(own.INPUT.SIZE_TEST) != tuple(cfg.INPUT.SIZE_TRAIN):
        height, width = own.INPUT.SIZE_TEST
        size = height, width
        logger.warning(
            "teacher %s expects %d x %d pixels: the student's images of %d x %d are resized",
            path,
            *size,
            *cfg.INPUT.SIZE_TRAIN,
        )
    mean, std = torch.tensor(cfg.INPUT.PIXEL_MEAN), torch.tensor(cfg.INPUT.PIXEL_STD)
    own_mean, own_std = torch.tensor(own.INPUT.PIXEL_MEAN), torch.tensor(own.INPUT.PIXEL_STD)
    if torch.equal(mean, own_mean) and torch.equal(std, own_std):
        return InputAdapter(size)
    logger.warning(
        "teacher %s has a different PIXEL_MEAN or PIXEL_STD: its images are normalized accordingly",
        path,
    )
    return InputAdapter(size, (std / own_std).to(device), ((mean - own_mean) / own_std).to(device))
