"""Renamed configuration keys; recipes, overrides and checkpoints may use the old names."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

logger = logging.getLogger("ember.config")


@dataclass(frozen=True)
class Renamed:
    """The new name of a key, and the conversion of old values.

    Attributes:
        new: the full name of the key that replaces the old one.
        convert: called with the old value; raises TypeError or ValueError for a value of a wrong
            type. None keeps the value.
        note: how the values differ, for the warning.
        item: for an old flag: whether the list in the new key contains this item. Several old keys
            may then have the same new key.
    """

    new: str
    convert: Callable | None = None
    note: str = ""
    item: str = ""

    def value(self, old: Any, current: Any) -> Any:
        """The new value.

        Args:
            current: the value of the new key so far.

        Raises:
            TypeError, ValueError: the old value has a wrong type.
        """
        if not self.item:
            return self.convert(old) if self.convert else old
        if not isinstance(old, bool):
            raise TypeError("True or False")
        others = tuple(item for item in current if item != self.item)
        return (*others, self.item) if old else others


def _momentum_to_decay(momentum: float) -> float:
    """Convert the weight of new values to the decay of an average; 0 (disabled) stays 0."""
    momentum = float(momentum)
    return 1.0 - momentum if momentum else 0.0


def _compile_to_step(mode: str) -> str:
    """How a step is executed, for a mode of compilation."""
    steps = {"auto": "auto", "none": "eager", "default": "compile", "reduce-overhead": "compile"}
    if mode not in steps:
        raise ValueError("auto, none, default or reduce-overhead")
    return steps[mode]


RENAMED_KEYS = {
    "KD.EMA.MOMENTUM": Renamed("KD.EMA.DECAY"),
    "LOG.TENSORBOARD": Renamed(
        "LOG.TO", note="a list that contains tensorboard", item="tensorboard"
    ),
    "LOG.VISDOM": Renamed("LOG.TO", note="a list that contains visdom", item="visdom"),
    "SOLVER.COMPILE": Renamed(
        "SOLVER.STEP", _compile_to_step, "none is eager; default and reduce-overhead are compile"
    ),
    "SOLVER.EMA": Renamed("SOLVER.EMA_DECAY", _momentum_to_decay, "1 - the old value; 0 is off"),
    "TEST.RATES": Renamed("TEST.FPRS"),
}


# Removed keys -> the value without effect; None: any value.
REMOVED_KEYS = {
    "INPUT.CUTOUT_PROB": 0.0,
    "LOSS.FOCAL.GAMMA": None,
    "LOSS.FOCAL.WEIGHT": 0.0,
}


def check_removed(name: str, value: Any) -> None:
    """Accept a removed key if its value has no effect.

    Raises:
        ValueError: another value.
    """
    unused = REMOVED_KEYS[name]
    if unused is not None and value != unused:
        raise ValueError(f"left out or {unused:g}: this version has no such setting any more;")


def warn_about_old_names(old_names: Iterable[str]) -> None:
    """Log one warning that names all old keys and their replacements, once per process."""
    names = tuple(sorted(set(old_names)))
    if names:
        _warn_once(names)


@cache
def _warn_once(names: tuple[str, ...]) -> None:
    changes = []
    for name in names:
        renamed = RENAMED_KEYS[name]
        changes.append(f"{name} -> {renamed.new}" + (f" ({renamed.note})" if renamed.note else ""))
    logger.warning("old names of configuration keys were read: %s", ", ".join(changes))
