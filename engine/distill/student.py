"""The initial weights of a student."""

import logging

import torch
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.modeling.backbones.densenet import DenseNet
from ember_reid.modeling.backbones.mobilenet import MobileNetV2
from ember_reid.modeling.backbones.resnet import ResNet
from ember_reid.modeling.model import ReidModel
from torch import nn

logger = logging.getLogger("ember.distill")


@torch.no_grad()
def init_student(student: ReidModel, path: str, *, reinit: str) -> None:
    """Copy the weights of a checkpoint of the same architecture, except for what is reinitialized.

    Reinitialized parts keep the weights that the student has: the backbone's ImageNet weights, or
    random ones. VKD does the same: ImageNet weights in the last stage, a random head.

    Args:
        reinit: "none", "head", or "last-stage" (the head and the backbone's last stage).

    Raises:
        FileNotFoundError, ValueError: there is no such checkpoint, or it has another architecture.
    """
    new: tuple[str, ...] = () if reinit == "none" else ("head.",)
    if reinit == "last-stage":
        new += last_stage(student.backbone)
    own, loaded = student.state_dict(), load_checkpoint(path).get("model", {})
    copied = {name: value for name, value in loaded.items() if not name.startswith(new)}
    mismatched = [
        name for name, value in copied.items() if name not in own or own[name].shape != value.shape
    ]
    missing = [name for name in own if name not in copied and not name.startswith(new)]
    if mismatched or missing:
        raise ValueError(
            f"KD.STUDENT_WEIGHTS: {path} and the student have different architectures: "
            f"{len(mismatched)} tensors do not fit, {len(missing)} are missing "
            f"({', '.join((mismatched + missing)[:3])}); use the same MODEL section, "
            "KD.REINIT head for other identities, or KD.STUDENT_WEIGHTS ''"
        )
    student.load_state_dict(copied, strict=False)
    logger.info(
        "the student starts with %d tensors of %s; initialized separately: %s",
        len(copied),
        path,
        ", ".join(new) or "none",
    )


def last_stage(backbone: nn.Module) -> tuple[str, ...]:
    """Prefixes of the parameters of the last stage as VKD defines it; MobileNet-V2 has none."""
    if isinstance(backbone, ResNet):
        return ("backbone.layer4.",)
    if isinstance(backbone, DenseNet):
        return ("backbone.features.denseblock4.",)
    if isinstance(backbone, MobileNetV2):
        return ()
    raise ValueError(
        "KD.REINIT last-stage supports ResNets, densenet121 and mobilenet_v2, "
        f"not {type(backbone).__name__}; use head or none"
    )
