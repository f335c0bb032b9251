"""Pooling of feature maps into vectors, in float32: [B, C, H, W] -> [B, C]."""

import torch
from ember_reid.layers.numerics import as_float
from torch import Tensor, nn


class AvgPool(nn.Module):
    """Mean over all positions."""

    def forward(self, maps: Tensor) -> Tensor:
        return as_float(maps).mean(dim=(2, 3))


class MaxPool(nn.Module):
    """Maximum over all positions."""

    def forward(self, maps: Tensor) -> Tensor:
        return as_float(maps).amax(dim=(2, 3))


class AvgMaxPool(nn.Module):
    """Mean plus maximum."""

    def forward(self, maps: Tensor) -> Tensor:
        maps = as_float(maps)
        return maps.mean(dim=(2, 3)) + maps.amax(dim=(2, 3))


class GeMPool(nn.Module):
    """Generalized mean (mean of x^p)^(1/p) (Radenovic et al. 2018, eq. 3) of values not below 1e-6.

    Args:
        p: exponent; 1 gives the mean, infinity the maximum.
        learnable: train one exponent for all channels. `p` has shape [1] and is a parameter, or a
            buffer if it is not trained, so weight files are the same in both cases.
    """

    p: Tensor

    def __init__(self, p: float = 3.0, *, learnable: bool = True) -> None:
        super().__init__()
        if learnable:
            self.p = nn.Parameter(torch.tensor([p]))
        else:
            self.register_buffer("p", torch.tensor([p]))

    def forward(self, maps: Tensor) -> Tensor:
        return as_float(maps).clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


POOLINGS = ("avg", "max", "avgmax", "gem")


def create_pooling(name: str, *, gem_p: float = 3.0, gem_learnable: bool = True) -> nn.Module:
    """Create the pooling `name`, one of POOLINGS.

    Args:
        name: "avg", "max", "avgmax" or "gem".
        gem_p, gem_learnable: arguments of GeMPool, used by "gem" only.

    Raises:
        ValueError: unknown name.
    """
    if name == "gem":
        return GeMPool(gem_p, learnable=gem_learnable)
    classes: dict[str, type[nn.Module]] = {"avg": AvgPool, "max": MaxPool, "avgmax": AvgMaxPool}
    if name not in classes:
        raise ValueError(f"pooling is {name!r}; choose one of {', '.join(POOLINGS)}")
    return classes[name]()
