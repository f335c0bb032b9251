"""The batch that the loader passes to the training step and to the evaluator."""

from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """B items. T is the number of frames of a tracklet, H x W the size in pixels.

    Attributes:
        images: uint8 [B, (T,) 3, H, W], RGB; float32 and normalized after the augmentation.
        pids: int64 [B]; class indices 0..C-1 in training.
        camids: int64 [B].
        indices: int64 [B], positions in the dataset. Evaluation uses them to restore the order and
            to drop repeated items.
        teachers: the outputs of the teachers, one entry each; empty without distillation.
        viewids: int64 [B], viewpoints of vehicles; `records.UNKNOWN_VIEW` where unknown.
    """

    images: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor
    teachers: tuple[Any, ...] = ()
    viewids: Tensor | None = None


class Selection(NamedTuple):
    """A batch whose images are still in the cache; int64 tensors on the CPU.

    Attributes:
        rows: [B] or, for clips, [B, T]: rows of the cache.
        pids, camids, indices, viewids: [B], see Batch.
    """

    rows: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor
    viewids: Tensor | None = None


class EmbeddingBatch(NamedTuple):
    """Embeddings, float32 [B, D], with the labels and dataset positions [B] they belong to."""

    embeddings: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor
