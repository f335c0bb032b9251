"""The batch that the loader hands to the training step and to the evaluator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """B items. T is the number of frames of a tracklet, H x W the size in pixels.

    Attributes:
        images: uint8 [B, (T,) 3, H, W], RGB; float32 and normalized after the augmentation.
        pids: int64 [B]. In training class indices 0..C-1.
        camids: int64 [B].
        indices: int64 [B], positions in the dataset. Evaluation restores the order with them and
            drops repeated items.
        teachers: the outputs of the teachers, one entry each; empty without distillation.
    """

    images: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor
    teachers: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One item of a dataset; `images` is uint8 [(T,) 3, H, W]."""

    images: Tensor
    pid: int
    camid: int
    index: int


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device` without waiting: copies to a GPU start from pinned memory."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def collate(samples: Sequence[Sample] | Batch) -> Batch:
    """Stack samples into a batch. A Batch (of a dataset that fetches whole batches) is returned."""
    if isinstance(samples, Batch):
        return samples
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        pids=torch.tensor([sample.pid for sample in samples], dtype=torch.int64),
        camids=torch.tensor([sample.camid for sample in samples], dtype=torch.int64),
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
    )
