"""The student's start."""

import logging

import torch
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.modeling.backbones.densenet import DenseNet
from ember_reid.modeling.backbones.mobilenet import MobileNetV2
from ember_reid.modeling.backbones.resnet import ResNet
from torch import nn

logger = logging.getLogger("ember.distill")


@torch.no_grad()
def start_student(student: nn.Module, path: str, *, reinit: str) -> None:
    """Give the student the weights of a checkpoint of the same architecture, except for what begins anew.

    What begins anew keeps what the student has: its backbone's ImageNet weights, or random ones (VKD re-loads the last
    stage from ImageNet's and draws the head).

    Args:
        reinit: "none", "head", or "last-stage": the head and the backbone's last stage.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or of another architecture.
    """
    new: tuple[str, ...] = () if reinit == "none" else ("head.",)
    if reinit == "last-stage":
        new += last_stage(student.backbone)
    own, theirs = student.state_dict(), load_checkpoint(path)["model"]
    kept = {name: value for name, value in theirs.items() if not name.startswith(new)}
    wrong = [
        name for name, value in kept.items() if name not in own or own[name].shape != value.shape
    ]
    missing = [name for name in own if name not in kept and not name.startswith(new)]
    if wrong or missing:
        raise ValueError(
            f"KD.STUDENT_WEIGHTS: {path} has another architecture than the student: {len(wrong)} tensors do not fit, "
            f"{len(missing)} are missing ({', '.join((wrong + missing)[:3])}); "
            "use the same MODEL section, KD.REINIT head for other identities, or KD.STUDENT_WEIGHTS ''"
        )
    student.load_state_dict(kept, strict=False)
    logger.info(
        "the student starts from %s: %d tensors; new: %s", path, len(kept), ", ".join(new) or "none"
    )


def last_stage(backbone: nn.Module) -> tuple[str, ...]:
    """Prefixes of the parameters of a backbone's last stage, as VKD has it: MobileNet-V2 has none."""
    if isinstance(backbone, ResNet):
        return ("backbone.layer4.",)
    if isinstance(backbone, DenseNet):
        return ("backbone.features.denseblock4.",)
    if isinstance(backbone, MobileNetV2):
        return ()
    raise ValueError(
        f"KD.REINIT last-stage knows ResNets, densenet121 and mobilenet_v2, not {type(backbone).__name__}; use head or none"
    )
