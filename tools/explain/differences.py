"""What two recipes do differently, key by key."""

from collections.abc import Mapping
from dataclasses import dataclass

# Keys that do not change what is trained.
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
    """Keys with other values, in the order of the configuration; names of outputs do not count."""
    left, right = flatten(first), flatten(second)
    return [
        Difference(key, left[key], right[key])
        for key in left
        if left[key] != right[key] and not key.startswith(IGNORED)
    ]
