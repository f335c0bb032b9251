"""From the configuration to optimizers and the schedule."""

import math
from collections.abc import Callable

from ember_reid.solver.optimizers import create_optimizer, group_parameters
from ember_reid.solver.schedules import create_schedule
from torch import nn
from torch.optim import Optimizer
from yacs.config import CfgNode


def build_optimizers(cfg: CfgNode, model: nn.Module, criterion: nn.Module) -> list[Optimizer]:
    """The optimizer of the model and, when the criterion has centers, an SGD of their own.

    Other parameters of the criterion (connectors, projections, adapters of distillation) train with the model.
    Every group carries "initial_lr", on which the schedule's factor acts; the centers' learning rate stays.
    """
    s = cfg.SOLVER
    lr = s.BASE_LR * (s.IMS_PER_BATCH / s.BASE_BATCH if s.BASE_BATCH else 1)
    groups = group_parameters(
        model,
        lr=lr,
        weight_decay=s.WEIGHT_DECAY,
        bias_lr_factor=s.BIAS_LR_FACTOR,
        head_lr_factor=s.HEAD_LR_FACTOR,
        weight_decay_bias=s.WEIGHT_DECAY_BIAS,
        weight_decay_norm=s.WEIGHT_DECAY_NORM,
    )
    learned = {name: p for name, p in criterion.named_parameters() if p.requires_grad}
    centers = [p for name, p in learned.items() if name.endswith("centers")]
    others = [p for name, p in learned.items() if not name.endswith("centers")]
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
    """The factor on every "initial_lr" during iteration i, counted from 1 since the start of training.

    With SOLVER.SCHEDULE_BY "epoch" it changes between epochs only.
    """
    s = cfg.SOLVER
    if s.SCHEDULE_BY not in ("epoch", "iteration"):
        raise ValueError(f"SOLVER.SCHEDULE_BY is {s.SCHEDULE_BY!r}; choose one of epoch, iteration")
    schedule = create_schedule(
        s.SCHEDULE,
        max_epochs=s.MAX_EPOCHS,
        steps=s.STEPS,
        gamma=s.GAMMA,
        eta_min=s.ETA_MIN_FACTOR,
        delay_epochs=s.DELAY_EPOCHS,
        warmup_epochs=s.WARMUP_EPOCHS,
        warmup_factor=s.WARMUP_FACTOR,
        warmup_method=s.WARMUP_METHOD,
        steps_after_warmup=s.STEPS_AFTER_WARMUP,
    )
    by_epoch = s.SCHEDULE_BY == "epoch"

    def factor(iteration: int) -> float:
        t = iteration / iterations_per_epoch
        return schedule(math.ceil(t) if by_epoch else t)

    return factor
