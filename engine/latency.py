"""Speed and size of networks."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# Untimed forward passes at the start.
_WARMUP = 2


@dataclass(frozen=True)
class Latency:
    """Seconds per batch: the median over repeats and its quartiles."""

    median: float
    lower: float
    upper: float
    num_images: int

    @property
    def per_image(self) -> float:
        """Seconds per image."""
        return self.median / self.num_images


def count_parameters(model: nn.Module, *, without: tuple[str, ...] = ("classifier",)) -> int:
    """Number of parameters of the deployed network, which does not contain the classifiers."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not set(without) & set(name.split("."))
    )


@torch.inference_mode()
def count_gflops(model: nn.Module, image: Tensor) -> float:
    """10^9 multiply-adds for one image [1, 3, H, W], usually called GFLOPs in re-identification.

    Only convolutions and matrix products are counted.
    """
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2 / 1e9


@torch.inference_mode()
def measure_latency(
    model: nn.Module, images: Tensor, *, repeats: int = 10, amp_dtype: torch.dtype | None = None
) -> Latency:
    """The time of a forward pass in evaluation mode, after two untimed ones.

    Args:
        images: float [B, 3, H, W] on the model's device.
        amp_dtype: dtype of mixed precision; None for float32.
    """
    device = images.device
    was_training = model.training
    model.eval()
    times = []
    for repeat in range(repeats + _WARMUP):
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if repeat >= _WARMUP:
            times.append(time.perf_counter() - start)
    model.train(was_training)
    lower, median, upper = statistics.quantiles(times, n=4) if repeats > 1 else times * 3
    return Latency(median, lower, upper, len(images))
