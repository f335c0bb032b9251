"""Optimizers and learning-rate schedules."""

from ember_reid.solver.build import build_optimizers, build_schedule
from ember_reid.solver.optimizers import (
    OPTIMIZERS,
    RateOptions,
    create_optimizer,
    group_parameters,
)
from ember_reid.solver.schedules import SCHEDULES, WARMUPS, ScheduleOptions, create_schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "WARMUPS",
    "RateOptions",
    "ScheduleOptions",
    "build_optimizers",
    "build_schedule",
    "create_optimizer",
    "create_schedule",
    "group_parameters",
]
