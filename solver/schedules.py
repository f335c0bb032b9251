"""Learning-rate schedules as pure functions of progress.

A schedule maps t, the training time in epochs, to a factor on the initial learning rates. t is 1-based as one
counts: during epoch e it is e, or, moving with the iterations, runs from e - 1 (excluded) to e.
"""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]


def _linear(factor: float, x: float) -> float:
    return factor * (1 - x) + x


def _constant(factor: float, x: float) -> float:
    return factor


def _exponential(factor: float, x: float) -> float:
    return factor ** (1 - x)


WARMUPS = {"linear": _linear, "constant": _constant, "exp": _exponential}
SCHEDULES = ("multistep", "cosine")


def multistep(t: float, *, steps: Sequence[float], gamma: float) -> float:
    """gamma^(number of steps reached); a step s holds in the whole of epoch s (1-based) and later."""
    epoch = math.ceil(t)
    return gamma ** sum(step <= epoch for step in steps)


def cosine(t: float, *, start: float, end: float, eta_min: float) -> float:
    """1 until `start`, eta_min from `end` on, half a cosine between (Loshchilov and Hutter 2017, eq. 5)."""
    x = min(max((t - start) / (end - start), 0.0), 1.0)
    return eta_min + (1 - eta_min) * (1 + math.cos(math.pi * x)) / 2


def warmup(t: float, *, epochs: float, factor: float, method: str) -> float:
    """Rises from `factor` toward 1, which holds from t = `epochs` on."""
    return 1.0 if t >= epochs else WARMUPS[method](factor, t / epochs)


def create_schedule(
    name: str,
    *,
    max_epochs: float,
    steps: Sequence[float] = (),
    gamma: float = 0.1,
    eta_min: float = 0.0,
    delay_epochs: float = 0.0,
    warmup_epochs: float = 0.0,
    warmup_factor: float = 0.01,
    warmup_method: str = "linear",
    steps_after_warmup: bool = False,
) -> Schedule:
    """The schedule called `name`, multiplied with its warm-up.

    Args:
        name: "multistep" or "cosine".
        max_epochs: where the cosine ends.
        steps, gamma: of multistep, in epochs, increasing.
        eta_min: the cosine's last factor.
        delay_epochs: the cosine's first epochs, at factor 1; the warm-up counts as such, too.
        warmup_epochs, warmup_factor, warmup_method: see `warmup`; "linear", "constant" or "exp".
        steps_after_warmup: multistep's epochs are counted from the end of the warm-up, rounded up to whole
            epochs, as FastReID's program does against its recipes' wording.

    Raises:
        ValueError: an unknown name, steps that do not increase, a cosine without room.
    """
    if name not in SCHEDULES:
        raise ValueError(f"SOLVER.SCHEDULE is {name!r}; choose one of {', '.join(SCHEDULES)}")
    if warmup_method not in WARMUPS:
        raise ValueError(
            f"SOLVER.WARMUP_METHOD is {warmup_method!r}; choose one of {', '.join(WARMUPS)}"
        )
    if list(steps) != sorted(steps):
        raise ValueError(f"SOLVER.STEPS is {tuple(steps)}; the epochs have to increase")
    start = max(delay_epochs, warmup_epochs)
    if name == "cosine" and start >= max_epochs:
        raise ValueError(
            f"a cosine from epoch {start:g} to epoch {max_epochs:g} has no room; train longer or start sooner"
        )
    shift = math.ceil(warmup_epochs) if steps_after_warmup else 0
    shifted = [step + shift for step in steps]

    def schedule(t: float) -> float:
        if name == "cosine":
            factor = cosine(t, start=start, end=max_epochs, eta_min=eta_min)
        else:
            factor = multistep(t, steps=shifted, gamma=gamma)
        return factor * warmup(t, epochs=warmup_epochs, factor=warmup_factor, method=warmup_method)

    return schedule
