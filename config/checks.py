"""Kinds of values that a configuration key may have."""

import math
from dataclasses import dataclass
from typing import Any

MAX_ITEMS = 1000
MAX_TEXT = 4096


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        return "" if isinstance(value, bool) else self.describe()

    def describe(self) -> str:
        return "True or False"


@dataclass(frozen=True)
class Choices:
    """One of a few values, or a list of different ones.

    Attributes:
        items: whether the value is a list.
    """

    values: tuple
    items: bool = False

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        values = value if self.items else (value,)
        ok = all(item in self.values for item in values) and len(set(values)) == len(values)
        return "" if ok else self.describe()

    def describe(self) -> str:
        choices = ", ".join(map(str, self.values))
        return f"a list of {choices}, each at most once" if self.items else choices


@dataclass(frozen=True)
class Range:
    """A finite number, or a list of them.

    Attributes:
        low, high: the bounds.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
        lengths: the allowed lengths of a list; () is a single number, (-1,) is any length.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    lengths: tuple[int, ...] = ()

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        values = value if self.lengths else (value,)
        allowed_length = -1 in self.lengths or not self.lengths or len(values) in self.lengths
        if len(values) > MAX_ITEMS:
            return f"at most {MAX_ITEMS} numbers"
        ok = allowed_length and all(self._contains(number) for number in values)
        return "" if ok else self.describe()

    def _contains(self, number: Any) -> bool:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return False
        if isinstance(number, float) and not math.isfinite(number):
            return False
        too_low = number <= self.low if self.above else number < self.low
        too_high = number >= self.high if self.below else number > self.high
        return not (too_low or too_high)

    def describe(self) -> str:
        low = f"above {self.low:g}" if self.above else f"{self.low:g}"
        text = f"{low} to {'below ' if self.below else ''}{_plain(self.high)}"
        if not self.lengths:
            return text
        if -1 in self.lengths:
            return f"a list of numbers, each {text}"
        return f"{' or '.join(map(str, self.lengths))} numbers, each {text}"


@dataclass(frozen=True)
class Text:
    """Text of at most `MAX_TEXT` characters without control characters, or a list of texts.

    Attributes:
        path: whether a leading `~` means the home folder.
        items: whether the value is a list of texts.
        empty: whether the text may be empty.
    """

    path: bool = False
    items: bool = False
    empty: bool = True

    def error(self, value: Any) -> str:
        """Return what is allowed if the value is not; empty if it is."""
        values = value if self.items else (value,)
        ok = len(values) <= MAX_ITEMS and all(self._allows(text) for text in values)
        return "" if ok else self.describe()

    def _allows(self, text: Any) -> bool:
        return (
            isinstance(text, str)
            and len(text) <= MAX_TEXT
            and not any(ord(character) < 32 for character in text)
            and (self.empty or bool(text.strip()))
        )

    def describe(self) -> str:
        what = "a list of texts" if self.items else "text" if self.empty else "text, not empty"
        return f"{what}, at most {MAX_TEXT:,} characters, no control characters"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:g}"


Check = Flag | Choices | Range | Text
