"""Inference on a GPU: batch norms fused into convolutions, and one CUDA graph per batch size."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger("ember.eval")

Function = Callable[[Tensor], Tensor]
# Calls before a capture, in which cudnn and the allocator settle.
_NUM_WARMUPS = 3


class Captured(NamedTuple):
    """A captured function: `replay` computes `output` [B, D] from `images` [B, ...]."""

    images: Tensor
    replay: Callable[[], object]
    output: Tensor


def capture_graph(function: Function, images: Tensor) -> Captured:
    """Record a function of a GPU tensor as a CUDA graph.

    Args:
        images: the tensor that a replay reads.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_NUM_WARMUPS):
            function(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads, such as the one that writes checkpoints, may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = function(images)
    return Captured(images, graph.replay, output)


class CapturedInference:
    """Replays a function of image batches as a CUDA graph: one launch instead of several hundred.

    A batch with fewer images than an earlier one uses its graph: the rows that are missing keep
    their old content, and their results are dropped. So the last batch of a test set needs no graph
    and no search for kernels of its own. If capturing fails, the function is called directly, with
    one warning.

    Args:
        function: images [B, ...] on the device -> [B, D]. Rows must not depend on each other.
        device: of the function.
        capture: (function, images) -> `Captured`.
    """

    def __init__(
        self,
        function: Function,
        device: torch.device,
        capture: Callable[[Function, Tensor], Captured] = capture_graph,
    ):
        self.function, self.device, self.capture = function, device, capture
        self._graphs: dict[tuple[torch.Size, torch.dtype], Captured] = {}
        self._has_failed = False

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """The results [B, D] for images [B, ...] of any device, in a tensor of their own."""
        graph = self._graph_for(images)
        if graph is None:
            return self.function(images.to(self.device, non_blocking=True))
        graph.images[: len(images)].copy_(images, non_blocking=True)
        graph.replay()
        return graph.output[: len(images)].clone()

    def _graph_for(self, images: Tensor) -> Captured | None:
        """A graph for at least as many images; None if capturing fails."""
        key = (images.shape[1:], images.dtype)
        graph = self._graphs.get(key)
        if self._has_failed or (graph is not None and len(graph.images) >= len(images)):
            return graph
        try:
            graph = self.capture(self.function, images.to(self.device, copy=True))
        except RuntimeError as error:
            self._has_failed = True
            self._graphs.clear()
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "inference cannot be captured as a CUDA graph and continues without: %.300s", reason
            )
            return None
        self._graphs[key] = graph
        return graph
