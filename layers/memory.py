"""Embeddings of earlier batches. B: embeddings of a batch, M: of the memory, D: width."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

EMPTY = -1  # the pid of a place of the memory that holds nothing


class References(NamedTuple):
    """What the anchors [B, D] of a pair loss are compared with.

    embeddings: [M, D].
    pids: [M]; -1 is neither a positive nor a negative of anybody.
    own: int64 [B], the row that is the anchor itself.
    """

    embeddings: Tensor
    pids: Tensor
    own: Tensor


def references_or_batch(
    references: References | None, embeddings: Tensor, pids: Tensor
) -> References:
    """The references, or where there are none the batch [B, D], [B] itself."""
    return references or References(embeddings, pids, torch.arange(len(pids), device=pids.device))


class MemoryBank(nn.Module):
    """The last M embeddings of training, a ring (Wang et al. 2020, arXiv 1912.06798, algorithm 1).

    Embeddings drift slowly once the network has settled, so those of earlier batches stand in for a larger batch: they cost
    no forward pass, and no gradient flows into them. All of it is buffers, so a checkpoint holds it, and the place to write is
    computed on the device, so that nothing waits.
    """

    def __init__(self, size: int, dim: int, *, start: int = 0) -> None:
        """`size` is M; the first `start` embeddings are not kept, for a network that has not settled yet."""
        super().__init__()
        self.start = start
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("pids", torch.full((size,), EMPTY))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def store(self, embeddings: Tensor, pids: Tensor) -> References:
        """Write [B, D] and [B] over the oldest; the whole memory, these included, until the next call changes it.

        Raises:
            ValueError: more embeddings than places.
        """
        size = len(self.pids)
        if len(pids) > size:
            raise ValueError(f"a memory of {size} embeddings cannot take {len(pids)} at once")
        rows = (self.seen + torch.arange(len(pids), device=pids.device)) % size
        kept = pids.where(self.seen >= self.start, EMPTY)
        self.embeddings.index_copy_(0, rows, embeddings.to(self.embeddings.dtype))
        self.pids.index_copy_(0, rows, kept)
        self.seen.add_(len(pids))
        return References(self.embeddings, self.pids, rows)
