"""The differences between two recipes, key by key."""

from collections.abc import Mapping
from dataclasses import dataclass

# Keys that do not affect training.
IGNORED = ("OUTPUT_DIR", "OVERWRITE", "LOG.")


@dataclass(frozen=True)
class Difference:
    """A key and its value in both recipes."""

    key: str
    first: object
    second: object


def flatten(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested keys -> {"SOLVER.BASE_LR": value}."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def find_differences(first: Mapping, second: Mapping) -> list[Difference]:
    """Keys whose values differ, in configuration order; output settings are ignored."""
    left, right = flatten(first), flatten(second)
    return [
        Difference(key, left[key], right[key])
        for key in left
        if left[key] != right[key] and not key.startswith(IGNORED)
    ]
