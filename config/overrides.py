"""Configuration words of a command line: KEY VALUE, KEY=VALUE, short names such as epochs=20."""

import re
from collections.abc import Sequence
from pathlib import Path

# Short name -> key; `--test` and `ember-reid test` use TEST_SHORT_NAMES in addition.
SHORT_NAMES = {
    "batch": "SOLVER.IMS_PER_BATCH",
    "data": "DATASETS.NAMES",
    "device": "DEVICE",
    "epochs": "SOLVER.MAX_EPOCHS",
    "model": "MODEL.BACKBONE.NAME",
    "out": "OUTPUT_DIR",
    "seed": "SEED",
    "weights": "MODEL.BACKBONE.WEIGHTS",
}
TEST_SHORT_NAMES = {"batch": "TEST.IMS_PER_BATCH", "weights": "TEST.WEIGHT"}

_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")
_ASSIGNMENT = re.compile(r"([A-Za-z][A-Za-z0-9_.]*)=(.*)", re.DOTALL)
_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)


def expand_overrides(words: Sequence[str], *, testing: bool = False) -> list[str]:
    """Return alternating full keys and values.

    `data=X` also empties DATASETS.TESTS, so that X is tested as well, unless another word sets it.

    Args:
        words: a mixture of `KEY VALUE`, `KEY=VALUE` and `name=VALUE` with a name of SHORT_NAMES.
        testing: whether a checkpoint is tested: `weights` and `batch` then mean TEST.WEIGHT and
            TEST.IMS_PER_BATCH.

    Raises:
        ValueError: a key without a value, or an unknown short name.
    """
    short_names = SHORT_NAMES | (TEST_SHORT_NAMES if testing else {})
    pairs: list[tuple[str, str]] = []
    remaining = iter(words)
    for word in remaining:
        assignment = _ASSIGNMENT.fullmatch(word) if isinstance(word, str) else None
        if assignment is None:
            value = next(remaining, None)
            if value is None:
                raise ValueError(
                    f"configuration: {word!r} on the command line has no value; "
                    "write KEY VALUE or KEY=VALUE"
                )
            pairs.append((word, value))
            continue
        name, value = assignment.groups()
        if name in short_names:
            key = short_names[name]
            pairs.append((key, _data_source(value) if name == "data" else value))
        elif "." in name or name.isupper():
            pairs.append((name, value))
        else:
            raise ValueError(
                f"configuration: unknown short name {name!r}; allowed: {', '.join(short_names)}, "
                "or a full key"
            )
    keys = {key for key, _ in pairs}
    if any(isinstance(word, str) and word.startswith("data=") for word in words):
        pairs += [] if "DATASETS.TESTS" in keys else [("DATASETS.TESTS", "()")]
    return [word for pair in pairs for word in pair]


def join_negative_values(words: Sequence[str]) -> list[str]:
    """Write `KEY -1` as `KEY=-1`; argparse would take the value for an option."""
    joined: list[str] = []
    for word in words:
        if joined and _NEGATIVE.match(word) and _KEY.fullmatch(joined[-1]):
            joined[-1] = f"{joined[-1]}={word}"
        else:
            joined.append(word)
    return joined


def _data_source(value: str) -> str:
    """A CSV file or a folder as DATASETS.NAMES writes it; anything else is a dataset's name."""
    if ":" in value:
        return value
    if value.lower().endswith(".csv"):
        return f"csv:{value}"
    return f"folder:{value}" if Path(value).is_dir() else value
