"""Networks as Core ML packages, for macOS and iOS.

This module was written after the documentation of coremltools 9. Predictions need macOS, which no
machine of this project has: tests/engine/test_deploy_runtimes.py runs them there.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from ember_reid.engine.deploy.metadata import INPUT, METADATA_KEY, OUTPUT, ExportMetadata
from ember_reid.engine.deploy.network import DeployedNetwork
from torch import Tensor

MAX_BATCH = 64


def write_coreml(
    network: DeployedNetwork, metadata: ExportMetadata, path: Path, example: Tensor
) -> None:
    """Convert a network to an ML program; half precision computes in float16."""
    import coremltools
    import numpy as np

    with torch.inference_mode():
        traced = torch.jit.trace(network, (example,), check_trace=False)
    half = metadata.precision == "half"
    batch = coremltools.RangeDim(1, MAX_BATCH, default=1)
    shape = coremltools.Shape((batch, *example.shape[1:]))
    model = coremltools.convert(
        traced,
        inputs=[coremltools.TensorType(INPUT, shape, dtype=np.float32)],
        outputs=[coremltools.TensorType(OUTPUT, dtype=np.float32)],
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS16,
    )
    model.user_defined_metadata[METADATA_KEY] = metadata.to_json()
    model.save(str(path))


def open_coreml(path: Path) -> tuple[Callable[[Tensor], Tensor], str]:
    """Load a package: (encoded images -> embeddings), and the metadata ("" if there is none).

    Raises:
        ValueError: Core ML cannot load the package.
    """
    import coremltools

    try:
        model = coremltools.models.MLModel(str(path))
    # Core ML has no common class of exceptions.
    except Exception as error:
        raise ValueError(f"{path} is not a Core ML package: {str(error)[:300]}") from error

    def run(images: Tensor) -> Tensor:
        parts = [
            torch.from_numpy(model.predict({INPUT: part.cpu().numpy()})[OUTPUT])
            for part in images.split(MAX_BATCH)
        ]
        return torch.cat(parts)

    return run, model.user_defined_metadata.get(METADATA_KEY, "")
