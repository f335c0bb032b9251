"""Gradients in one tensor, for a single all-reduce between two graphs."""

from collections.abc import Iterable
from typing import cast

import torch
from ember_reid.engine.distributed import all_reduce_
from torch import Tensor, nn


class FlatGradients:
    """The gradients of all processes, averaged with one all-reduce instead of one per bucket.

    Parameters that get no gradient in the first step must never get one, as in
    DistributedDataParallel.

    Args:
        parameters: of the model and of the losses.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, world_size: int) -> None:
        self.parameters, self.world_size = list(parameters), world_size
        self._flat: Tensor | None = None
        self._views: list[Tensor] = []
        self._used: list[nn.Parameter] = []

    @torch.no_grad()
    def pack(self) -> None:
        """Copy the gradients into the flat tensor, and replace them by views of it."""
        if self._flat is None:
            self._allocate()
        gradients = [cast(Tensor, parameter.grad) for parameter in self._used]
        torch._foreach_copy_(self._views, gradients)
        for parameter, view in zip(self._used, self._views, strict=True):
            parameter.grad = view

    def all_reduce(self) -> None:
        """Add the gradients of all processes."""
        if self._flat is not None:
            all_reduce_(self._flat)

    def divide(self) -> None:
        """Turn the sum into the mean."""
        if self._flat is not None:
            self._flat.div_(self.world_size)

    def _allocate(self) -> None:
        self._used = [parameter for parameter in self.parameters if parameter.grad is not None]
        sizes = [parameter.numel() for parameter in self._used]
        first = self._used[0]
        self._flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        self._views = [
            part.as_strided(parameter.shape, parameter.stride())
            for part, parameter in zip(self._flat.split(sizes), self._used, strict=True)
        ]
