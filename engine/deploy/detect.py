"""Detect the format of a model file from its content, and decide whether it may be loaded.

Checkpoints (of this program and of others), safetensors files and ONNX files are data: reading
them executes no code. TorchScript files and exported programs are programs: loading or running
them can execute any code.
"""

import zipfile
from pathlib import Path
from typing import BinaryIO, Literal

from ember_reid.engine.deploy.openvino import find_model

ModelFormat = Literal[
    "checkpoint", "onnx", "torchscript", "exported-program", "openvino", "tensorrt", "coreml"
]
# A TensorRT engine contains code for the GPU.
PROGRAMS: tuple[ModelFormat, ...] = ("torchscript", "exported-program", "tensorrt")
_TENSORRT_MAGIC = b"ftrt"

# The fields of ModelProto (onnx.proto3): number -> wire type (0: varint, 2: length-delimited).
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH = 7


def detect_format(path: Path) -> ModelFormat:
    """Detect the format of a file. Unknown files are treated as checkpoints.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if path.is_dir():
        kind = _detect_folder(path)
        if kind is not None:
            return kind
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} does not exist")
    names = _archive_members(path)
    if any("/code/" in f"/{name}" for name in names):
        return "torchscript"
    if any(name.endswith("archive_format") for name in names):
        return "exported-program"
    if _starts_with(path, _TENSORRT_MAGIC):
        return "tensorrt"
    return "onnx" if not names and _is_onnx(path) else "checkpoint"


def _detect_folder(path: Path) -> ModelFormat | None:
    """The format of a folder, or None if it has no network."""
    if find_model(path) is not None:
        return "openvino"
    return "coreml" if (path / "Manifest.json").is_file() else None


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _archive_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError):
        # Not an archive, or a damaged one. Reading it as a checkpoint gives the reason.
        return []


def _is_onnx(path: Path) -> bool:
    """Whether the file is a sequence of fields of ModelProto that includes a graph."""
    size = path.stat().st_size
    found = set()
    with path.open("rb") as file:
        while file.tell() < size:
            tag = _read_varint(file)
            number, wire_type = tag >> 3, tag & 7
            if _ONNX_FIELDS.get(number) != wire_type:
                return False
            value = _read_varint(file)
            if value < 0 or wire_type == 2 and file.tell() + value > size:
                return False
            if wire_type == 2:
                file.seek(value, 1)
            found.add(number)
    return _ONNX_GRAPH in found


def _read_varint(file: BinaryIO) -> int:
    """Read a base-128 integer of Protocol Buffers; -1 at the end of the file or if too long."""
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return -1
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return -1


def check_trust(path: Path, *, trust: bool) -> None:
    """Raise ValueError if the file is a program that the user does not trust."""
    kind = detect_format(path)
    if kind in PROGRAMS and not trust:
        raise ValueError(
            f"{path} is a program ({kind}), and loading it would execute its code: if you trust "
            "its source, use --trust (Python: trust=True); ONNX files and checkpoints need no trust"
        )


def check_checkpoint(path: Path) -> None:
    """Raise ValueError for an exported file where a checkpoint is needed."""
    kind = detect_format(path)
    if kind != "checkpoint":
        raise ValueError(
            f"{path} is an exported network ({kind}), "
            "give the checkpoint from which it was exported"
        )
