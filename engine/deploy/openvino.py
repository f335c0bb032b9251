"""Networks as OpenVINO models: a folder with NAME.xml and NAME.bin."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ember_reid.engine.deploy.metadata import METADATA_KEY, ExportMetadata
from torch import Tensor

NAME = "network"
_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")


def write_openvino(onnx_file: Path, metadata: ExportMetadata, path: Path) -> None:
    """Convert an ONNX file. Half precision stores the weights in float16."""
    import openvino

    _save(openvino.convert_model(onnx_file), metadata, path)


def _save(model: Any, metadata: ExportMetadata, path: Path) -> None:
    import openvino

    path.mkdir(parents=True, exist_ok=True)
    model.set_rt_info(metadata.to_json(), [METADATA_KEY])
    half = metadata.precision == "half"
    openvino.save_model(model, path / f"{NAME}.xml", compress_to_fp16=half)


def quantize_openvino(path: Path, metadata: ExportMetadata, batches: Iterable[Tensor]) -> None:
    """Quantize a model in place with NNCF: weights per channel, activations by their ranges.

    Preprocessing, and everything after the last convolution or matrix product, stay in float32:
    embeddings whose normalization is quantized do not have length 1.

    Args:
        path: a float32 export.
        metadata: of the result.
        batches: [B, 3, H, W] of typical images, encoded as the network expects them.
    """
    import nncf
    import openvino

    data = [batch.numpy() for batch in batches]
    # OpenVINO maps the weights into memory, so the file must not be overwritten.
    model = openvino.Core().read_model(path / f"{NAME}.xml")
    quantized = nncf.quantize(
        model,
        nncf.Dataset(data),
        subset_size=len(data),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=_find_outer_operations(model)),
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _save(quantized, replace(metadata, precision="int8"), Path(folder) / "int8")
        path.rename(Path(folder) / "float32")
        (Path(folder) / "int8").rename(path)


def _find_outer_operations(model: Any) -> list[str]:
    """Names of the operations before the first or after the last convolution or product."""
    operations = model.get_ordered_ops()
    after = _reach(operations, lambda node: [v.get_node() for v in node.input_values()])
    before = _reach(
        operations[::-1],
        lambda node: [i.get_node() for v in node.outputs() for i in v.get_target_inputs()],
    )
    return [
        node.get_friendly_name()
        for node in operations
        if node.get_type_name() not in (*_PRODUCTS, "Parameter", "Constant", "Result")
        and not (node.get_friendly_name() in after and node.get_friendly_name() in before)
    ]


def _reach(operations: Iterable[Any], neighbors: Callable[[Any], Iterable[Any]]) -> set[str]:
    """Names of the operations that have a product among their (indirect) neighbors."""
    reached: set[str] = set()
    for node in operations:
        if any(
            other.get_type_name() in _PRODUCTS or other.get_friendly_name() in reached
            for other in neighbors(node)
        ):
            reached.add(node.get_friendly_name())
    return reached


def find_model(path: Path) -> Path | None:
    """The .xml file of a folder with one OpenVINO model, or None."""
    found = sorted(path.glob("*.xml")) if path.is_dir() else []
    return found[0] if len(found) == 1 and found[0].with_suffix(".bin").is_file() else None


def open_openvino(path: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """Load a model on the CPU, with as many threads as torch uses and float32 arithmetic.

    Returns:
        (encoded images -> embeddings), and the metadata as JSON ("" if there is none).

    Raises:
        ValueError: OpenVINO cannot load the model.
    """
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        model = core.read_model(find_model(path))
        compiled = core.compile_model(model, "CPU", settings)
        keys = [METADATA_KEY]
        text = str(model.get_rt_info(keys).value) if model.has_rt_info(keys) else ""
    # OpenVINO raises RuntimeError for every kind of damage, with several lines.
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ValueError(f"{path} is not a model that OpenVINO can run: {line[:300]}") from error

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.cpu().numpy())[0].copy())

    return run, text
