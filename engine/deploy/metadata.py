"""Metadata of an exported network: preprocessing, embedding, threshold."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ember_reid.data.images import INTERPOLATIONS

# Names of the tensors in exported files.
INPUT, OUTPUT = "images", "embeddings"
# The key of our entry in the metadata of an exported file.
METADATA_KEY = "ember-reid"
PRECISIONS = ("float32", "half", "int8")
# Mean and standard deviation with which pixels in 0..1 are normalized outside of the network.
PIXELS = {
    "uint8": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
INPUTS = {
    "uint8": "uint8 RGB images [B, 3, H, W], 0..255, not normalized",
    "unit": "float32 RGB images [B, 3, H, W], 0..1",
    "imagenet": "float32 RGB images [B, 3, H, W], 0..1, normalized by the ImageNet mean and std",
}
# Pixels. Larger sizes are refused, since they would exhaust the memory.
_MAX_SIDE = 4096
# Characters of JSON.
_MAX_TEXT = 100_000


@dataclass(frozen=True)
class ExportMetadata:
    """Description of a network, stored in exported files and in feature files.

    Attributes:
        fingerprint: digest of the weights and the preprocessing. Embeddings may be compared only
            if their fingerprints are equal.
        size: (H, W) to which images are resized.
        interpolation: method of the antialiased resizing.
        mean, std: of RGB values in 0..1; the network applies them itself.
        flip: whether the embedding is the mean over the image and its mirror image.
        embedding_dim: D.
        precision: float32, half or int8.
        threshold: cosine distance up to which two images show the same identity; None if it was
            not calibrated.
        pixels: how the input is normalized before the network, a key of `PIXELS`.
        input, output: readable descriptions of the tensors.
    """

    fingerprint: str
    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    embedding_dim: int
    precision: str = "float32"
    threshold: float | None = None
    pixels: str = "uint8"
    input: str = INPUTS["uint8"]
    output: str = "float32 embeddings [B, D] of length 1"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 2 and all(_is_count(v, _MAX_SIDE) for v in value)
    )


def _are_colors(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


# Field: (requirement, the check).
_REQUIREMENTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "fingerprint": ("a text", _is_text),
    "size": (f"two whole numbers in 1..{_MAX_SIDE}", _is_size),
    "interpolation": (f"one of {', '.join(INTERPOLATIONS)}", lambda v: v in tuple(INTERPOLATIONS)),
    "mean": ("three numbers", _are_colors),
    "std": ("three numbers above 0", lambda v: _are_colors(v) and min(v) > 0),
    "flip": ("true or false", lambda v: isinstance(v, bool)),
    "embedding_dim": ("a whole number in 1..100000", lambda v: _is_count(v, 100_000)),
    "precision": (f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS),
    "threshold": ("null or a number in 0..2", lambda v: v is None or _is_number(v) and 0 <= v <= 2),
    "pixels": (f"one of {', '.join(PIXELS)}", lambda v: v in tuple(PIXELS)),
    "input": ("a text", _is_text),
    "output": ("a text", _is_text),
}


def parse_metadata(text: str) -> ExportMetadata:
    """Parse the metadata of an exported file or a feature file. Unknown fields are ignored.

    Raises:
        ValueError: the text is not such metadata, or a field has an invalid value.
    """
    try:
        if len(text) > _MAX_TEXT:
            raise ValueError(f"{len(text)} characters")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"found a {type(content).__name__}")
        names = {field.name for field in fields(ExportMetadata)}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
            if key in names
        }
        metadata = ExportMetadata(**values)
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix("ExportMetadata.__init__() ")[:200]
        raise ValueError(f"this is not the metadata of an exported network: {reason}") from error
    for name, (requirement, is_valid) in _REQUIREMENTS.items():
        value = getattr(metadata, name)
        if not is_valid(value):
            raise ValueError(
                f"the metadata of the exported network has {name} {repr(value)[:60]}, "
                f"it must be {requirement}"
            )
    return metadata
