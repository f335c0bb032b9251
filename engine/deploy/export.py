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
from ember_reid.engine.deploy.metadata import METADATA_KEY, ExportMetadata
from ember_reid.engine.deploy.network import DeployedNetwork
from torch import Tensor

# Export targets, and the packages that each one needs.
PACKAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torchscript": (),
    "exported-program": (),
}
INPUT, OUTPUT = "images", "embeddings"


def check_target(target: str) -> None:
    """Raise ValueError for an unknown target, or if its packages are not installed."""
    if target not in PACKAGES:
        raise ValueError(
            f"the export target is '{target}', it must be one of {', '.join(PACKAGES)}"
        )
    check_packages(target, PACKAGES[target])


def check_packages(purpose: str, names: Iterable[str]) -> None:
    """Raise ValueError if packages are missing, with the command that installs them."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{purpose} needs {', '.join(missing)}, which is not installed: "
            f"python -m pip install {' '.join(missing)}"
        )


def write_network(
    network: DeployedNetwork, metadata: ExportMetadata, path: Path, *, target: str
) -> None:
    """Export to `path`. The batch size is free; the image size is that of the metadata.

    Raises:
        ValueError: see check_target.
    """
    check_target(target)
    # [B, 3, H, W]
    example = torch.randint(0, 256, (2, 3, *metadata.size), dtype=torch.uint8)
    writers = {
        "onnx": _write_onnx,
        "torchscript": _write_torchscript,
        "exported-program": _write_program,
    }
    writers[target](network, metadata, path, example)


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


def quantize_onnx(
    source: Path, path: Path, metadata: ExportMetadata, batches: Iterable[Tensor]
) -> None:
    """Quantize the convolutions of an ONNX file to 8 bits.

    This is the static quantization of onnxruntime (QDQ format), with one scale per channel for
    weights and one per tensor for activations. Preprocessing, head and normalization stay in
    float32.

    Args:
        source: a float32 export.
        batches: uint8 [B, 3, H, W] of typical images, which determine the ranges.
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
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
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
