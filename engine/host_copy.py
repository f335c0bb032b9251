"""Reading values of a device without waiting for it."""

from collections import deque
from typing import Generic, TypeVar

import torch
from torch import Tensor

Note = TypeVar("Note")


class HostCopy:
    """A copy of a tensor in host memory, which arrives later if the tensor is on a GPU.

    The copy contains the values at the time of the call, because a GPU executes its operations in
    order.
    """

    def __init__(self, tensor: Tensor):
        tensor = tensor.detach()
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._values = host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._values = tensor.clone()

    def has_arrived(self) -> bool:
        """Whether `read` does not wait."""
        return self._event is None or self._event.query()

    def read(self) -> Tensor:
        """The values; waits until they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._values


class PendingReads(Generic[Note]):
    """Copies on their way to the host, in order, each with a note about it."""

    def __init__(self) -> None:
        self._reads: deque[tuple[HostCopy, Note]] = deque()

    def start(self, tensor: Tensor, note: Note) -> None:
        """Start to copy a tensor."""
        self._reads.append((HostCopy(tensor), note))

    def finished(self, *, wait: bool = False) -> list[tuple[Tensor, Note]]:
        """Remove and return the copies that have arrived; with `wait`, all of them."""
        arrived = []
        while self._reads and (wait or self._reads[0][0].has_arrived()):
            copy, note = self._reads.popleft()
            arrived.append((copy.read(), note))
        return arrived
