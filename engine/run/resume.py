"""Decide which changes of the configuration are allowed when a run is resumed."""

from collections.abc import Mapping, Sequence

# Sections and keys that define what is learned; a run cannot be resumed with other values.
_FIXED = ("MODEL.", "LOSS.", "KD.", "ADAPT.", "DATASETS.UNLABELED", "SOLVER.OPTIMIZER")
# Keys of the start of a run, which a resumed run does not use.
_INITIAL = (
    "MODEL.BACKBONE.WEIGHTS",
    "KD.STUDENT_WEIGHTS",
    "KD.REINIT",
    "ADAPT.WEIGHTS",
    "ADAPT.MMT.WEIGHTS",
)
# Keys without any influence on the results.
_IGNORED = ("OUTPUT_DIR", "OVERWRITE")


def compare_configs(
    saved: Mapping[str, object], current: Mapping[str, object]
) -> tuple[list[str], list[str]]:
    """Compare flat configurations, {key: value}.

    Returns:
        (changes that forbid resuming, other changes), each as "KEY old -> new".
    """
    forbidden: list[str] = []
    allowed: list[str] = []
    for key in sorted(set(saved) | set(current)):
        old, new = saved.get(key), current.get(key)
        if _plain(old) == _plain(new) or key in _IGNORED:
            continue
        change = f"{key} {_shorten(old)} -> {_shorten(new)}"
        is_fixed = key.startswith(_FIXED) and key not in _INITIAL
        (forbidden if is_fixed else allowed).append(change)
    return forbidden, allowed


def compare_classes(saved: Sequence[Sequence[object]], current: Sequence[Sequence[object]]) -> str:
    """The first difference between the identities of the classes; "" if they are the same."""
    if len(saved) != len(current):
        return f"{len(saved)} training identities in the checkpoint, {len(current)} in the data"
    for index, (old, new) in enumerate(zip(saved, current, strict=True)):
        if list(old) != list(new):
            return (
                f"class {index} is identity {_shorten(' '.join(map(str, old)))} in the checkpoint "
                f"and {_shorten(' '.join(map(str, new)))} in the data"
            )
    return ""


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shorten(value: object, limit: int = 40) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
