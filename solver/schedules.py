"""Learning-rate schedules as pure functions of the training time.

A schedule maps the training time t in epochs to a factor on the initial learning rates. t is
1-based: in epoch e it is e if the schedule changes once per epoch, and increases from e - 1
(excluded) to e if it changes at every iteration.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[[float], float]


def _linear(factor: float, x: float) -> float:
    return factor * (1 - x) + x


def _constant(factor: float, x: float) -> float:
    return factor


def _exponential(factor: float, x: float) -> float:
    return factor ** (1 - x)


WARMUPS = {"linear": _linear, "constant": _constant, "exp": _exponential}
SCHEDULES = ("multistep", "cosine")


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The learning-rate schedule of the SOLVER section. All times are in epochs.

    Attributes:
        name: one of SCHEDULES.
        max_epochs: end of the cosine.
        steps: increasing times at which "multistep" multiplies the factor by `gamma`.
        gamma: see `steps`.
        eta_min: the last factor of the cosine.
        delay_epochs: the cosine starts here; before, the factor is 1. The warm-up is part of this
            time.
        cosine_from_start: compute the cosine from epoch 0, and replace it by the warm-up in the
            first epochs (timm, TransReID).
        warmup_epochs: length of the warm-up.
        warmup_factor: first factor of the warm-up.
        warmup_method: one of WARMUPS.
        steps_after_warmup: count `steps` from the end of the warm-up, rounded up to whole epochs.
            FastReID's program does this, although its recipes state otherwise.
        cosine_from_zero: the cosine starts at 0, and the warm-up replaces its first epochs, as in
            the programs of TransReID and SOLIDER.
    """

    name: str = "multistep"
    max_epochs: float
    steps: Sequence[float] = ()
    gamma: float = 0.1
    eta_min: float = 0.0
    delay_epochs: float = 0.0
    cosine_from_start: bool = False
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.01
    warmup_method: str = "linear"
    steps_after_warmup: bool = False
    cosine_from_zero: bool = False


def multistep(t: float, *, steps: Sequence[float], gamma: float) -> float:
    """gamma^n with n the number of steps reached; step s is reached at the start of epoch s."""
    epoch = math.ceil(t)
    return gamma ** sum(step <= epoch for step in steps)


def cosine(t: float, *, start: float, end: float, eta_min: float) -> float:
    """Half a cosine from 1 at `start` to `eta_min` at `end` (Loshchilov and Hutter 2017, eq. 5).

    The value is 1 before `start` and `eta_min` after `end`.
    """
    x = min(max((t - start) / (end - start), 0.0), 1.0)
    return eta_min + (1 - eta_min) * (1 + math.cos(math.pi * x)) / 2


def warmup(t: float, *, epochs: float, factor: float, method: str) -> float:
    """Increases from `factor` to 1, which is reached at t = `epochs`."""
    return 1.0 if t >= epochs else WARMUPS[method](factor, t / epochs)


def create_schedule(options: ScheduleOptions) -> Schedule:
    """Create the schedule of `options`, multiplied by its warm-up.

    Raises:
        ValueError: the cosine would start after its end.
    """
    start = 0.0 if options.cosine_from_zero else max(options.delay_epochs, options.warmup_epochs)
    if options.name == "cosine" and start >= options.max_epochs:
        raise ValueError(
            f"the cosine schedule would start in epoch {start:g} and end in epoch "
            f"{options.max_epochs:g}; increase SOLVER.MAX_EPOCHS, or decrease "
            "SOLVER.DELAY_EPOCHS or SOLVER.WARMUP_EPOCHS"
        )
    shift = math.ceil(options.warmup_epochs) if options.steps_after_warmup else 0
    steps = [step + shift for step in options.steps]

    def schedule(t: float) -> float:
        if options.cosine_from_zero and t < options.warmup_epochs:
            return warmup(
                t,
                epochs=options.warmup_epochs,
                factor=options.warmup_factor,
                method=options.warmup_method,
            )
        if options.name == "cosine" and options.cosine_from_start:
            is_warm = t >= options.warmup_epochs
            end = options.max_epochs
            factor = cosine(t, start=0, end=end, eta_min=options.eta_min) if is_warm else 1.0
        elif options.name == "cosine":
            factor = cosine(t, start=start, end=options.max_epochs, eta_min=options.eta_min)
        else:
            factor = multistep(t, steps=steps, gamma=options.gamma)
        return factor * warmup(
            t,
            epochs=options.warmup_epochs,
            factor=options.warmup_factor,
            method=options.warmup_method,
        )

    return schedule
