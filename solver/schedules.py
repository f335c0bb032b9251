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


def _half_cosine(x: float) -> float:
    return (1 + math.cos(math.pi * x)) / 2


def _straight_line(x: float) -> float:
    return 1 - x


# From 1 at x = 0 to 0 at x = 1.
DESCENTS = {"cosine": _half_cosine, "linear": _straight_line}
SCHEDULES = ("multistep", *DESCENTS)


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The learning-rate schedule of the SOLVER section. All times are in epochs.

    Attributes:
        name: one of SCHEDULES.
        max_epochs: end of the descent of "cosine" or "linear".
        steps: increasing times at which "multistep" multiplies the factor by `gamma`.
        gamma: see `steps`.
        eta_min: the last factor of the descent.
        delay_epochs: the descent starts here; before, the factor is 1. The warm-up is part of this
            time. "linear" with a warm-up and a delay is a trapezoid.
        cosine_from_start: compute the descent from epoch 0, and replace it by the warm-up in the
            first epochs (timm, TransReID).
        warmup_epochs: length of the warm-up.
        warmup_factor: first factor of the warm-up.
        warmup_method: one of WARMUPS.
        steps_after_warmup: count `steps` from the end of the warm-up, rounded up to whole epochs.
            FastReID's program does this, although its recipes state otherwise.
        cosine_from_zero: the descent starts at 0, and the warm-up replaces its first epochs, as in
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


def descent(t: float, *, shape: str, start: float, end: float, eta_min: float) -> float:
    """From 1 at `start` to `eta_min` at `end`; 1 before `start` and `eta_min` after `end`.

    Args:
        t: training time in epochs.
        shape: "cosine" (Loshchilov and Hutter 2017, eq. 5) or "linear".
        start, end: of the descent, in epochs.
        eta_min: the last factor.
    """
    x = min(max((t - start) / (end - start), 0.0), 1.0)
    return eta_min + (1 - eta_min) * DESCENTS[shape](x)


def warmup(t: float, *, epochs: float, factor: float, method: str) -> float:
    """Increases from `factor` to 1, which is reached at t = `epochs`."""
    return 1.0 if t >= epochs else WARMUPS[method](factor, t / epochs)


def create_schedule(options: ScheduleOptions) -> Schedule:
    """Create the schedule of `options`, multiplied by its warm-up.

    Raises:
        ValueError: the descent would start after its end.
    """
    start = 0.0 if options.cosine_from_zero else max(options.delay_epochs, options.warmup_epochs)
    descends = options.name in DESCENTS
    if descends and start >= options.max_epochs:
        raise ValueError(
            f"the {options.name} schedule would start in epoch {start:g} and end in epoch "
            f"{options.max_epochs:g}; increase SOLVER.MAX_EPOCHS, or decrease "
            "SOLVER.DELAY_EPOCHS or SOLVER.WARMUP_EPOCHS"
        )
    shift = math.ceil(options.warmup_epochs) if options.steps_after_warmup else 0
    steps = [step + shift for step in options.steps]

    def warm(t: float) -> float:
        return warmup(
            t,
            epochs=options.warmup_epochs,
            factor=options.warmup_factor,
            method=options.warmup_method,
        )

    def descend(t: float, *, start: float) -> float:
        end, eta_min = options.max_epochs, options.eta_min
        return descent(t, shape=options.name, start=start, end=end, eta_min=eta_min)

    def schedule(t: float) -> float:
        if not descends:
            return multistep(t, steps=steps, gamma=options.gamma) * warm(t)
        if t < options.warmup_epochs and (options.cosine_from_zero or options.cosine_from_start):
            return warm(t)
        return descend(t, start=0.0 if options.cosine_from_start else start) * warm(t)

    return schedule
