"""Export networks to ONNX (also quantized), TorchScript, and exported programs.

B: images, D: dimensions of an embedding.
"""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from ember_reid.engine.deploy.coreml import write_coreml
from ember_reid.engine.deploy.metadata import INPUT, METADATA_KEY, OUTPUT, ExportMetadata
from ember_reid.engine.deploy.network import DeployedNetwork
from ember_reid.engine.deploy.openvino import write_openvino
from ember_reid.engine.deploy.targets import FORMATS, choose_export, encode_pixels
from ember_reid.engine.deploy.tensorrt import write_tensorrt
from torch import Tensor

# Formats that are written from an ONNX file: (file, metadata, path) -> None.
VIA_ONNX = {"openvino": write_openvino, "tensorrt": write_tensorrt}


def check_format(format: str) -> None:
    """Raise ValueError for an unknown format, or if its packages are not installed."""
    check_packages(format, FORMATS[choose_export(format, None).format].packages)


def check_packages(purpose: str, names: Iterable[str]) -> None:
    """Raise ValueError if packages are missing, with the command that installs them."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{purpose} needs {', '.join(missing)}, which is not installed: "
            f"python -m pip install {' '.join(missing)}"
        )


def write_network(
    network: DeployedNetwork, metadata: ExportMetadata, path: Path, *, format: str
) -> None:
    """Export to `path`. The batch size is free; the image size is that of the metadata.

    Raises:
        ValueError: see check_format.
    """
    check_format(format)
    images = torch.randint(0, 256, (2, 3, *metadata.size), dtype=torch.uint8)
    example = encode_pixels(images, metadata.pixels)  # [B, 3, H, W]
    if format in VIA_ONNX:
        with tempfile.TemporaryDirectory() as folder:
            onnx_file = Path(folder) / "network.onnx"
            _write_onnx(network, metadata, onnx_file, example)
            VIA_ONNX[format](onnx_file, metadata, path)
        return
    writers = {
        "onnx": _write_onnx,
        "torchscript": _write_torchscript,
        "exported-program": _write_program,
        "coreml": write_coreml,
    }
    writers[format](network, metadata, path, example)


@contextmanager
def without_messages() -> Iterator[None]:
    """Suppress the progress messages and warnings of torch's exporters."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    try:
        for log, _ in levels:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in levels:
            log.setLevel(level)


def _write_onnx(
    network: DeployedNetwork, metadata: ExportMetadata, path: Path, example: Tensor
) -> None:
    import onnx

    with without_messages():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.save(proto, path)


def _write_torchscript(
    network: DeployedNetwork, metadata: ExportMetadata, path: Path, example: Tensor
) -> None:
    with without_messages(), torch.inference_mode():
        traced = torch.jit.trace(network, (example,), check_trace=False)
        # Not into the file: torch aborts the process if the disk is full.
        content = BytesIO()
        torch.jit.save(traced, content, _extra_files={METADATA_KEY: metadata.to_json()})
    path.write_bytes(content.getbuffer())


def _write_program(
    network: DeployedNetwork, metadata: ExportMetadata, path: Path, example: Tensor
) -> None:
    with without_messages():
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        content = BytesIO()
        torch.export.save(program, content, extra_files={METADATA_KEY: metadata.to_json()})
    path.write_bytes(content.getbuffer())


def quantize_onnx(path: Path, metadata: ExportMetadata, batches: Iterable[Tensor]) -> None:
    """Quantize the convolutions of an ONNX file to 8 bits, in place.

    This is the static quantization of onnxruntime (QDQ format), with one scale per channel for
    weights and one per tensor for activations. Preprocessing, head and normalization stay in
    float32.

    Args:
        path: a float32 export.
        metadata: of the result.
        batches: [B, 3, H, W] of typical images, encoded as the network expects them; they
            determine the ranges.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory() as folder, without_messages():
        # This fuses batch norms into convolutions.
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.save(proto, path)
