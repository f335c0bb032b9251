"""Parameters, floating-point operations and activation memory of a network, from its shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one image.

    Attributes:
        parameters: number of weights, including the classifier.
        flops: floating-point operations of a forward pass; a multiply-add counts as two.
        activation_bytes: float32 bytes that a training step keeps for the backward pass.
    """

    parameters: int
    flops: int
    activation_bytes: int


def measure_cost(model: nn.Module, size: tuple[int, int], *, batch_size: int = 2) -> Cost:
    """Measure the cost of `model` for images of `size` (height, width).

    The model runs on PyTorch's "meta" device, which tracks shapes and computes nothing. The model
    is moved there, so it must not be used afterward.

    Args:
        model: takes normalized images [B, 3, H, W].
        size: height and width of the images.
        batch_size: images of the traced batch; the result is per image.
    """
    model = model.to(META).train()
    images = torch.empty(batch_size, 3, *size, device=META)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=_count_flops(model, images) // batch_size,
        activation_bytes=saved_bytes(model, images) // batch_size,
    )


def mean_training_flops(
    model: nn.Module, sizes: Sequence[tuple[int, int]], steps: Sequence[float]
) -> float:
    """The mean floating-point operations of a forward pass over the images of a training.

    Args:
        model: see `measure_cost`.
        sizes: (height, width) of the phases of progressive resizing.
        steps: the parts of the training after which a phase ends, one fewer than sizes.
    """
    model = model.to(META).train()
    starts, ends = (0.0, *steps), (*steps, 1.0)
    shares = [end - start for start, end in zip(starts, ends, strict=True)]
    flops = [_count_flops(model, torch.empty(2, 3, *size, device=META)) / 2 for size in sizes]
    return sum(share * number for share, number in zip(shares, flops, strict=True))


@torch.no_grad()
def _count_flops(model: nn.Module, images: Tensor) -> int:
    """Floating-point operations of a forward pass."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes of the tensors that autograd keeps after a forward pass, without weights."""
    weights = {
        tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())
    }
    # The storages are kept alive so that no identifier is used twice.
    storages: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        output = model(images)
    total = sum(storage.nbytes() for storage in storages.values())
    del output
    return total
