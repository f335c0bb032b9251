"""Export a checkpoint to ONNX, an exported program or TorchScript."""

from ember_reid.tools.export.command import main

__all__ = ["main"]
