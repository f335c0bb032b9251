"""Build optimizers and the schedule from the configuration."""

import logging
import math
from collections.abc import Callable, Collection, Mapping

from ember_reid.solver.optimizers import RateOptions, create_optimizer, group_parameters
from ember_reid.solver.schedules import DESCENTS, ScheduleOptions, create_schedule
from torch import nn
from torch.optim import Optimizer
from yacs.config import CfgNode

logger = logging.getLogger("ember.train")


def build_optimizers(
    cfg: CfgNode,
    model: nn.Module,
    criterion: nn.Module,
    *,
    depths: Mapping[str, int] | None = None,
    embeddings: Collection[str] = (),
) -> list[Optimizer]:
    """The optimizer of the model, and a separate SGD if the criterion has centers.

    Other parameters of the criterion (connectors, projections and adapters of distillation) are
    trained by the optimizer of the model. Every group contains "initial_lr", which the schedule
    multiplies; the learning rate of the centers is constant.

    Args:
        cfg: SOLVER and LOSS.CENTER.LR are used.
        model: the network.
        criterion: the losses.
        depths, embeddings: of the parameters of the model; see group_parameters.

    Raises:
        ValueError: there is nothing to train, or nothing that the optimizer can train.
    """
    s = cfg.SOLVER
    lr = s.BASE_LR * (s.IMS_PER_BATCH / s.BASE_BATCH if s.BASE_BATCH else 1)
    rates = RateOptions(
        lr=lr,
        weight_decay=s.WEIGHT_DECAY,
        bias_lr_factor=s.BIAS_LR_FACTOR,
        head_lr_factor=s.HEAD_LR_FACTOR,
        weight_decay_bias=s.WEIGHT_DECAY_BIAS,
        weight_decay_norm=s.WEIGHT_DECAY_NORM,
        weight_decay_embedding=s.WEIGHT_DECAY_EMBEDDING,
        layer_decay=s.LAYER_DECAY,
        muon_lr=s.MUON_LR if s.OPTIMIZER == "muon" else None,
    )
    groups = group_parameters(model, rates, depths=depths, embeddings=embeddings)
    if s.OPTIMIZER == "muon" and not any("muon" in group for group in groups):
        raise ValueError(
            "SOLVER.OPTIMIZER muon trains convolutions without bias, and this network has none; "
            "use adamw"
        )
    trainable = {name: p for name, p in criterion.named_parameters() if p.requires_grad}
    centers = [p for name, p in trainable.items() if name.endswith("centers")]
    others = [p for name, p in trainable.items() if not name.endswith("centers")]
    if others:
        groups.append(
            {"params": others, "lr": lr, "initial_lr": lr, "weight_decay": s.WEIGHT_DECAY}
        )
    optimizers = [
        create_optimizer(
            s.OPTIMIZER, groups, momentum=s.MOMENTUM, nesterov=s.NESTEROV, fused=s.FUSED
        )
    ]
    if centers:
        rate = cfg.LOSS.CENTER.LR
        group = {"params": centers, "lr": rate, "initial_lr": rate}
        optimizers.append(create_optimizer("sgd", [group], momentum=0.0, fused=s.FUSED))
    return optimizers


def build_schedule(cfg: CfgNode, iterations_per_epoch: int) -> Callable[[int], float]:
    """The factor on every "initial_lr" at iteration i, counted from 1 since the start of training.

    With SOLVER.SCHEDULE_BY "epoch" it changes only between epochs.
    """
    s = cfg.SOLVER
    warmup_epochs, delay_epochs = s.WARMUP_EPOCHS, s.DELAY_EPOCHS
    descends = s.SCHEDULE in DESCENTS
    if warmup_epochs > s.MAX_EPOCHS or (
        descends and max(warmup_epochs, delay_epochs) >= s.MAX_EPOCHS
    ):
        warmup_epochs = min(warmup_epochs, s.MAX_EPOCHS / 2)
        delay_epochs = min(delay_epochs, s.MAX_EPOCHS / 2) if descends else delay_epochs
        logger.warning(
            "SOLVER.MAX_EPOCHS %g is too short for the schedule: SOLVER.WARMUP_EPOCHS %g -> %g, "
            "SOLVER.DELAY_EPOCHS %g -> %g",
            s.MAX_EPOCHS,
            s.WARMUP_EPOCHS,
            warmup_epochs,
            s.DELAY_EPOCHS,
            delay_epochs,
        )
    options = ScheduleOptions(
        name=s.SCHEDULE,
        max_epochs=s.MAX_EPOCHS,
        steps=s.STEPS,
        gamma=s.GAMMA,
        eta_min=s.ETA_MIN_FACTOR,
        delay_epochs=delay_epochs,
        cosine_from_start=s.COSINE_FROM_START,
        warmup_epochs=warmup_epochs,
        warmup_factor=s.WARMUP_FACTOR,
        warmup_method=s.WARMUP_METHOD,
        steps_after_warmup=s.STEPS_AFTER_WARMUP,
        cosine_from_zero=descends and s.COSINE_FROM_ZERO,
    )
    schedule = create_schedule(options)
    by_epoch = s.SCHEDULE_BY == "epoch"

    def factor(iteration: int) -> float:
        t = iteration / iterations_per_epoch
        return schedule(math.ceil(t) if by_epoch else t)

    return factor
