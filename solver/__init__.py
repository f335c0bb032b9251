"""Optimizers and learning-rate schedules."""

from solver.build import build_optimizers, build_schedule
from solver.optimizers import OPTIMIZERS, create_optimizer, group_parameters
from solver.schedules import SCHEDULES, WARMUPS, create_schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "WARMUPS",
    "build_optimizers",
    "build_schedule",
    "create_optimizer",
    "create_schedule",
    "group_parameters",
]
