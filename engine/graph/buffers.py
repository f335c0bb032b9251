"""Static tensors on the device, and a ring of pinned copies on the host that feed them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

# Bytes; every tensor of a block starts at a multiple of it.
_ALIGNMENT = 16


@dataclass(frozen=True)
class Field:
    """Shape and dtype of a tensor in a block of bytes."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class StepBuffers:
    """Named static tensors, which one copy per iteration fills.

    The host fills one of several slots while the device may still read the others. A slot is used
    again once its last copy has been completed.

    Attributes:
        device: the static tensors by name.

    Args:
        fields: of the tensors, by name.
        num_slots: at least 3, so that the host may be two iterations ahead.
    """

    def __init__(
        self, fields: Mapping[str, Field], device: torch.device, *, num_slots: int = 3
    ) -> None:
        size, offsets = 0, {}
        for name, field in fields.items():
            offsets[name] = size
            size += -(-field.num_bytes // _ALIGNMENT) * _ALIGNMENT
        is_cuda = device.type == "cuda"
        self._block = torch.zeros(size, dtype=torch.uint8, device=device)
        self._slots = [
            torch.zeros(size, dtype=torch.uint8, pin_memory=is_cuda) for _ in range(num_slots)
        ]
        self._copied = [torch.cuda.Event() if is_cuda else None for _ in range(num_slots)]
        self._views = [_split(slot, fields, offsets) for slot in self._slots]
        self._current = 0
        self.device = _split(self._block, fields, offsets)

    def acquire(self) -> dict[str, Tensor]:
        """The tensors of the next slot, on the host; waits until its last copy is complete."""
        self._current = (self._current + 1) % len(self._slots)
        event = self._copied[self._current]
        if event is not None:
            event.synchronize()
        return self._views[self._current]

    def send(self) -> None:
        """Copy the slot acquired last to the device, without waiting."""
        self._block.copy_(self._slots[self._current], non_blocking=True)
        event = self._copied[self._current]
        if event is not None:
            event.record()


def _split(
    block: Tensor, fields: Mapping[str, Field], offsets: Mapping[str, int]
) -> dict[str, Tensor]:
    """Views of a block of bytes by name."""
    return {
        name: block[offsets[name] : offsets[name] + field.num_bytes]
        .view(field.dtype)
        .view(field.shape)
        for name, field in fields.items()
    }
