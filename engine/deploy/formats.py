"""Exported files: written, read again, quantized. Their metadata hold the card of the network.

B: images, D: dimensions of an embedding.
"""

import importlib.util
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.deploy.network import CARD_KEY, Card, DeployedNetwork, read_card
from torch import Tensor

PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torchscript": (),
    "exported-program": (),
}
INPUT, OUTPUT = "images", "embeddings"


def check_installed(target: str) -> None:
    """Raises ValueError for an unknown target and one that lacks packages, with the command that installs them."""
    if target not in PACKAGES:
        raise ValueError(
            f"the export target is '{target}', it must be one of {', '.join(PACKAGES)}"
        )
    _check_packages(target, PACKAGES[target])


def _check_packages(what: str, names: Iterable[str]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{what} needs {', '.join(missing)}, which is not installed: python -m pip install {' '.join(missing)}"
        )


def write_network(network: DeployedNetwork, card: Card, path: Path, *, target: str) -> None:
    """Export to `path`; the batch size stays free, the image size is the card's.

    Raises:
        ValueError: see check_installed.
    """
    check_installed(target)
    example = torch.randint(0, 256, (2, 3, *card.size), dtype=torch.uint8)  # [B, 3, H, W]
    {"onnx": _write_onnx, "torchscript": _write_torchscript, "exported-program": _write_program}[
        target
    ](network, card, path, example)


@contextmanager
def _quiet():
    """Exporters announce their steps, and their deprecations, to people who did not ask."""
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


def _write_onnx(network: DeployedNetwork, card: Card, path: Path, example: Tensor) -> None:
    import onnx

    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {CARD_KEY: card.to_json()})
    onnx.save(proto, path)


def _write_torchscript(network: DeployedNetwork, card: Card, path: Path, example: Tensor) -> None:
    with _quiet(), torch.inference_mode():
        traced = torch.jit.trace(network, (example,), check_trace=False)
        torch.jit.save(traced, path, _extra_files={CARD_KEY: card.to_json()})


def _write_program(network: DeployedNetwork, card: Card, path: Path, example: Tensor) -> None:
    with _quiet():
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, path, extra_files={CARD_KEY: card.to_json()})


def quantize_onnx(source: Path, path: Path, card: Card, batches: Iterable[Tensor]) -> None:
    """An ONNX file with 8-bit convolutions: weights per channel, activations by their range over `batches`.

    Static quantization of onnxruntime (QDQ form). What is not a convolution stays in float32: preprocessing, head,
    normalization.

    Args:
        source: a float32 export.
        batches: uint8 [B, 3, H, W] of typical images.
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

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"  # batch norms folded into convolutions
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
    onnx.helper.set_model_props(proto, {CARD_KEY: card.to_json()})
    onnx.save(proto, path)


def kind_of(path: Path) -> str:
    """What a file is by its content: onnx, torchscript, exported-program, or "checkpoint" for anything else.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weight file {path} does not exist")
    if path.suffix == ".onnx":
        return "onnx"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/code/" in name for name in names):
            return "torchscript"
        if any(name.endswith("archive_format") for name in names):
            return "exported-program"
    return "checkpoint"


def check_checkpoint(path: Path) -> None:
    """Raises ValueError for an exported file, where the checkpoint it was made of is asked for."""
    kind = kind_of(path)
    if kind != "checkpoint":
        raise ValueError(
            f"{path} is an exported network ({kind}), give the checkpoint that it was made of"
        )


def open_network(path: Path, *, device: torch.device) -> Embedder:
    """The Embedder of an exported file. ONNX files run on the CPU in as many threads as torch has.

    Raises:
        ValueError: it is damaged or was not written by tools.export, or its packages are not installed.
    """
    opener = {
        "onnx": _open_onnx,
        "torchscript": _open_torchscript,
        "exported-program": _open_program,
    }
    return opener[kind_of(path)](path, device)


def _open_onnx(path: Path, device: torch.device) -> Embedder:
    _check_packages(f"running {path}", ("onnxruntime",))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has classes of its own for each way of being broken
        raise ValueError(
            f"{path} is no ONNX file that onnxruntime can run: {_first_line(error)}"
        ) from error
    card = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.cpu().numpy()})[0])

    return Embedder(run, _card(card, path))


def _open_torchscript(path: Path, device: torch.device) -> Embedder:
    extra = {CARD_KEY: ""}
    with _quiet():
        network = torch.jit.load(path, map_location=device, _extra_files=extra).eval()
    text = extra[CARD_KEY]
    return _in_torch(
        network, _card(text.decode() if isinstance(text, bytes) else text, path), device
    )


def _open_program(path: Path, device: torch.device) -> Embedder:
    extra = {CARD_KEY: ""}
    with _quiet():
        network = torch.export.load(path, extra_files=extra).module().to(device)
    return _in_torch(network, _card(extra[CARD_KEY], path), device)


def _card(text: str | None, path: Path) -> Card:
    if not text:
        raise ValueError(f"{path} carries no card: it was not written by tools.export")
    return read_card(text)


def _in_torch(network, card: Card, device: torch.device) -> Embedder:
    """An Embedder of a module of torch on a device."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(images.to(device))

    return Embedder(run, card)


def create_embedder(network: DeployedNetwork, card: Card, device: torch.device) -> Embedder:
    """An Embedder of a network as it is, on a device."""
    return _in_torch(network.to(device, memory_format=torch.channels_last), card, device)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
