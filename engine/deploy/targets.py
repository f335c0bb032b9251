"""File formats of exported networks, and the programs that load them, as tables.

Two targets differ by their rows: file formats, normalization of the input, and metadata.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ember_reid.engine.deploy.metadata import PIXELS, ExportMetadata
from torch import Tensor


@dataclass(frozen=True)
class ExportFormat:
    """A file format.

    Attributes:
        suffix: how the name ends.
        packages: what writing needs.
        is_folder: whether it is a folder with several files.
        half: what `--half` does: "network" computes the backbone in float16; "weights" stores
            weights in float16 and leaves the arithmetic to the runtime.
        int8: whether the format can be quantized here.
        pixels: the input by default, a key of `PIXELS`.
    """

    suffix: str
    packages: tuple[str, ...] = ()
    is_folder: bool = False
    half: str = "network"
    int8: bool = False
    pixels: str = "uint8"


_ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS: dict[str, ExportFormat] = {
    "onnx": ExportFormat(".onnx", _ONNX, int8=True),
    "torchscript": ExportFormat(".ts"),
    "exported-program": ExportFormat(".pt2"),
    "openvino": ExportFormat(
        "_openvino_model", (*_ONNX, "openvino"), is_folder=True, half="weights", int8=True
    ),
    "tensorrt": ExportFormat(".engine", (*_ONNX, "tensorrt"), half="weights"),
    "coreml": ExportFormat(
        ".mlpackage", ("coremltools",), is_folder=True, half="weights", pixels="unit"
    ),
}


@dataclass(frozen=True)
class Target:
    """What a program expects of a re-identification network.

    Attributes:
        formats: file formats that it loads, with the suffix it wants; the first is the default.
        pixels: how it normalizes images, a key of `PIXELS`; "" for the format's own.
        describe: (metadata) -> content of a JSON file that the program reads, if it reads one.
    """

    formats: dict[str, str]
    pixels: str = ""
    describe: Callable[[ExportMetadata], dict[str, object]] | None = None


def _describe_for_boxmot(metadata: ExportMetadata) -> dict[str, object]:
    """Without it, BoxMOT guesses the size from the name of the file."""
    size = list(metadata.size)
    return {
        "schema_version": 1,
        "model_name": "ember-reid",
        "preprocess": "resize",
        "img_size": size,
        "model_kwargs_schema_version": 1,
        "model_kwargs": {"img_size": size},
    }


TARGETS: dict[str, Target] = {
    "boxmot": Target(
        {
            "onnx": ".onnx",
            "torchscript": ".torchscript",
            "openvino": "_openvino_model",
            "tensorrt": ".engine",
        },
        pixels="imagenet",
        describe=_describe_for_boxmot,
    ),
    "ultralytics": Target({"onnx": ".onnx"}, pixels="unit"),
    "deepsort": Target({"torchscript": ".ts", "onnx": ".onnx"}, pixels="imagenet"),
    "openvino": Target({"openvino": FORMATS["openvino"].suffix}),
    "tensorrt": Target({"tensorrt": FORMATS["tensorrt"].suffix}),
    "coreml": Target({"coreml": FORMATS["coreml"].suffix}),
    "torchscript": Target({"torchscript": FORMATS["torchscript"].suffix}),
}


@dataclass(frozen=True)
class Export:
    """What to write: a format, the suffix of its name, the input, and who reads it."""

    format: str
    suffix: str
    pixels: str
    target: str = ""

    def describe(self) -> str:
        """The options that lead to this export."""
        return f"--for {self.target}" if self.target else f"--to {self.format}"


def choose_export(format: str | None, target: str | None) -> Export:
    """Combine `--to` and `--for`.

    Raises:
        ValueError: an unknown name, or a format that the target does not load.
    """
    if target is not None and target not in TARGETS:
        raise ValueError(f"--for is '{target}', it must be one of {', '.join(TARGETS)}")
    if format is not None and format not in FORMATS:
        raise ValueError(f"the export target is '{format}', it must be one of {', '.join(FORMATS)}")
    if target is None:
        format = format or "onnx"
        return Export(format, FORMATS[format].suffix, FORMATS[format].pixels)
    formats = TARGETS[target].formats
    format = format or next(iter(formats))
    if format not in formats:
        raise ValueError(f"--for {target} takes {', '.join(formats)}, not --to {format}")
    pixels = TARGETS[target].pixels or FORMATS[format].pixels
    return Export(format, formats[format], pixels, target)


def write_description(path: Path, target: str, metadata: ExportMetadata) -> Path | None:
    """Write the JSON file that the program of `target` reads next to an exported network.

    In a folder it is manifest.json, next to a file it is FILE.metadata.json.

    Returns:
        The file, or None if the program reads none.
    """
    describe = TARGETS[target].describe if target else None
    if describe is None:
        return None
    file = path / "manifest.json" if path.is_dir() else Path(f"{path}.metadata.json")
    file.write_text(json.dumps(describe(metadata), indent=2) + "\n", encoding="utf-8")
    return file


def encode_pixels(images: Tensor, pixels: str) -> Tensor:
    """Pixels uint8 0..255 [B, 3, H, W] as an exported network expects them."""
    if pixels == "uint8":
        return images
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in PIXELS[pixels])
    return (images.to(torch.float32) / 255 - mean.to(images.device)) / std.to(images.device)


def adapt_normalization(shift: Tensor, scale: Tensor, pixels: str) -> tuple[Tensor, Tensor]:
    """(u - shift) * scale of pixels u in 0..255, for pixels that are encoded already.

    With x = (u / 255 - mean) / std, it is (x - (shift / 255 - mean) / std) * (255 * std * scale).

    Args:
        shift, scale: float [3, 1, 1].
        pixels: a key of `PIXELS`.
    """
    if pixels == "uint8":
        return shift, scale
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in PIXELS[pixels])
    encoded_shift = (shift.double() / 255 - mean) / std
    return encoded_shift.to(shift.dtype), (255 * std * scale.double()).to(scale.dtype)
