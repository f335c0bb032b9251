"""Embeddings of training images, by the evaluator that also scores test sets."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from ember_reid.engine.evaluator import EmbeddingAccumulator
from ignite.engine import Engine
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images that are embedded as a test set is.

    Attributes:
        evaluator: embeds one batch per iteration.
        accumulator: attached to the evaluator.
        loader: yields all images in order.
    """

    evaluator: Engine
    accumulator: EmbeddingAccumulator
    loader: Iterable

    def embed(self) -> Tensor:
        """L2-normalized embeddings of all images, float32 [N, D], equal on every process."""
        self.evaluator.run(self.loader)
        # Not an inference tensor: a memory is updated in training.
        return F.normalize(self.accumulator.collect().embeddings.float()).clone()


def sample_items(num: int, count: int) -> Tensor:
    """At most `count` of `num` items, evenly distributed: int64."""
    return torch.linspace(0, num - 1, min(num, count)).round().long().unique()


def mirror(normalize: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The preprocessing that also mirrors the images."""
    return lambda images: normalize(images).flip(-1)
