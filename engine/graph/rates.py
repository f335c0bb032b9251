"""Learning rates on the device."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class DeviceRates:
    """Makes optimizers read their learning rates from a static tensor.

    A captured optimizer step uses the rates that the tensor contains when it is replayed. Saved
    states contain numbers instead, as those of an eager run.

    Args:
        rates: float [G], one rate for each parameter group of all optimizers in their order.
        capturable: whether Adam keeps its whole state on the device.
    """

    def __init__(
        self, optimizers: Sequence[torch.optim.Optimizer], rates: Tensor, *, capturable: bool
    ) -> None:
        self._capturable = capturable
        self._numbers: list[float] = [
            float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups
        ]
        first = 0
        for optimizer in optimizers:
            place = slice(first, first + len(optimizer.param_groups))
            first = place.stop
            self._connect(optimizer, rates[place], place)

    def record(self, numbers: Sequence[float]) -> None:
        """Remember the rates of this iteration, for checkpoints."""
        self._numbers[:] = numbers

    def _connect(self, optimizer: torch.optim.Optimizer, rates: Tensor, place: slice) -> None:
        def read_rates(optimizer: torch.optim.Optimizer) -> None:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
                if self._capturable and "capturable" in group:
                    group["capturable"] = True

        def save_numbers(_optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
            groups = [dict(group) for group in state["param_groups"]]
            for group, number in zip(groups, self._numbers[place], strict=True):
                group["lr"] = number
                if "capturable" in group:
                    group["capturable"] = False
            state["param_groups"] = groups

        read_rates(optimizer)
        optimizer.register_load_state_dict_post_hook(read_rates)
        optimizer.register_state_dict_post_hook(save_numbers)
