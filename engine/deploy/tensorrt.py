"""Networks as TensorRT engines. An engine runs only on the kind of GPU that built it.

This module was written after the documentation of TensorRT 10. It has not been run, because no
machine of this project has TensorRT: tests/engine/test_deploy_runtimes.py runs it where it is
installed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ember_reid.engine.deploy.metadata import ExportMetadata
from torch import Tensor

# Smallest, most frequent and largest batch.
BATCHES = (1, 16, 64)
_WORKSPACE = 2**32  # bytes


def write_tensorrt(onnx_file: Path, metadata: ExportMetadata, path: Path) -> None:
    """Build an engine from an ONNX file on the GPU of this machine.

    The metadata is the name of the network, which engines keep.

    Raises:
        ValueError: TensorRT cannot build an engine from this network.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(onnx_file.read_bytes()):
        raise ValueError(f"TensorRT cannot read the network: {str(parser.get_error(0))[:300]}")
    network.name = metadata.to_json()
    profile = builder.create_optimization_profile()
    shapes = ((batch, 3, *metadata.size) for batch in BATCHES)
    profile.set_shape(network.get_input(0).name, *shapes)
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    if metadata.precision == "half":
        config.set_flag(tensorrt.BuilderFlag.FP16)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("TensorRT could not build an engine from this network")
    path.write_bytes(engine)


def open_tensorrt(path: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """Load an engine on the first GPU: (encoded images -> embeddings), and the metadata.

    Raises:
        ValueError: TensorRT cannot load the engine.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ValueError(
            f"{path} is not an engine for this GPU and this version of TensorRT: export it here"
        )
    context = engine.create_execution_context()
    source, result = (engine.get_tensor_name(index) for index in range(2))

    def run(images: Tensor) -> Tensor:
        parts = [_run(context, source, result, part) for part in images.cuda().split(BATCHES[-1])]
        return torch.cat(parts)

    return run, engine.name


def _run(context: Any, source: str, result: str, images: Tensor) -> Tensor:
    """One batch on the current stream."""
    images = images.contiguous()
    context.set_input_shape(source, tuple(images.shape))
    shape = tuple(context.get_tensor_shape(result))
    embeddings = torch.empty(shape, dtype=torch.float32, device=images.device)
    context.set_tensor_address(source, images.data_ptr())
    context.set_tensor_address(result, embeddings.data_ptr())
    context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.current_stream().synchronize()
    return embeddings
