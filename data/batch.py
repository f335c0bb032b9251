"""What travels from the loader to the training step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """B items. T frames each for tracklets, H x W pixels.

    images: uint8 [B, (T,) 3, H, W], RGB; float32 and normalized once augmented.
    pids, camids: int64 [B]. In training pids are class indices 0..C-1.
    indices: int64 [B], positions in the dataset; evaluation restores the order with them and drops repeats.
    teachers: outputs of the teachers, one entry each; empty when nothing is distilled.
    """

    images: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor
    teachers: tuple = ()


class Sample(NamedTuple):
    """One item of a dataset: images uint8 [(T,) 3, H, W]."""

    images: Tensor
    pid: int
    camid: int
    index: int


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`, for which the host does not wait: a copy to a GPU starts from pinned memory."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def collate(samples: "Sequence[Sample] | Batch") -> Batch:
    """Stack samples into a batch. A dataset that fetches whole batches hands over a Batch, which passes
    through.
    """
    if isinstance(samples, Batch):
        return samples
    return Batch(
        images=torch.stack([sample.images for sample in samples]),
        pids=torch.tensor([sample.pid for sample in samples], dtype=torch.int64),
        camids=torch.tensor([sample.camid for sample in samples], dtype=torch.int64),
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
    )
