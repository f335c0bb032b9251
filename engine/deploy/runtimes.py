"""Create Embedders from exported files and from networks in memory."""

from collections.abc import Callable
from pathlib import Path

import torch
from ember_reid.engine.deploy.coreml import open_coreml
from ember_reid.engine.deploy.detect import check_trust, detect_format
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.export import check_packages, without_messages
from ember_reid.engine.deploy.metadata import (
    INPUT,
    METADATA_KEY,
    OUTPUT,
    ExportMetadata,
    parse_metadata,
)
from ember_reid.engine.deploy.network import DeployedNetwork
from ember_reid.engine.deploy.openvino import open_openvino
from ember_reid.engine.deploy.targets import encode_pixels
from ember_reid.engine.deploy.tensorrt import open_tensorrt
from ember_reid.engine.machine import limit_threads
from torch import Tensor

# Format: the packages that running a file needs.
RUNTIMES = {
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "coreml": ("coremltools",),
}


def open_exported(path: Path, *, device: torch.device, trust: bool = False) -> Embedder:
    """The Embedder of an exported file.

    ONNX files and OpenVINO models run on the CPU, with as many threads as torch uses.

    Args:
        trust: allow programs (TorchScript, torch.export), which can execute any code.

    Raises:
        ValueError: the file is a program and `trust` is False; it is damaged or was not written
            by tools.export; or packages are not installed.
    """
    check_trust(path, trust=trust)
    kind = detect_format(path)
    if kind == "checkpoint":
        raise ValueError(f"{path} is not an exported network")
    check_packages(f"running {path}", RUNTIMES.get(kind, ()))
    limit_threads()
    if kind == "torchscript":
        run, text = _open_torchscript(path, device)
    elif kind == "exported-program":
        run, text = _open_program(path, device)
    else:
        run, text = _OPENERS[kind](path)
    metadata = _read_metadata(text, path)

    def forward(images: Tensor) -> Tensor:
        return run(encode_pixels(images, metadata.pixels))

    return Embedder(forward, metadata)


def create_embedder(
    network: DeployedNetwork, metadata: ExportMetadata, device: torch.device
) -> Embedder:
    """The Embedder of a network in memory, on a device."""
    limit_threads()
    network.to(device).to(memory_format=torch.channels_last)
    run = _run_with_torch(network, device)
    return Embedder(lambda images: run(encode_pixels(images, metadata.pixels)), metadata)


def _open_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], str | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    # onnxruntime raises a different exception for each kind of damage, without a common base.
    except Exception as error:
        raise ValueError(
            f"{path} is not an ONNX file that onnxruntime can run: {_first_line(error)}"
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.cpu().numpy()})[0])

    return run, text


def _open_torchscript(
    path: Path, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], str | bytes | None]:
    extra = {METADATA_KEY: ""}
    try:
        with without_messages():
            network = torch.jit.load(path, map_location=device, _extra_files=extra).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a TorchScript file: {_first_line(error)}") from error
    return _run_with_torch(network, device), extra[METADATA_KEY]


def _open_program(
    path: Path, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], str | bytes | None]:
    extra = {METADATA_KEY: ""}
    try:
        with without_messages():
            network = torch.export.load(path, extra_files=extra).module().to(device)
    # A damaged archive can make the deserializer of torch raise any exception.
    except Exception as error:
        raise ValueError(
            f"{path} is not an exported program that torch can load: {_first_line(error)}"
        ) from error
    return _run_with_torch(network, device), extra[METADATA_KEY]


def _read_metadata(text: str | bytes | None, path: Path) -> ExportMetadata:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if not text:
        raise ValueError(
            f"{path} has no metadata of ember-reid: it was not written by tools.export"
        )
    try:
        return parse_metadata(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _run_with_torch(
    network: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(images.to(device))

    return forward


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


# Format: a function that opens a file that is data, not a program.
_OPENERS = {
    "onnx": _open_onnx,
    "openvino": open_openvino,
    "tensorrt": open_tensorrt,
    "coreml": open_coreml,
}
