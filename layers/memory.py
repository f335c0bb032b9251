"""Cross-batch memory. B: embeddings of a batch, M: of the memory, D: dimension."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

# The pid of an empty entry of the memory.
EMPTY = -1


class References(NamedTuple):
    """The embeddings with which the anchors [B, D] of a pair loss are compared.

    Attributes:
        embeddings: [M, D].
        pids: [M]; entries with pid -1 are neither positives nor negatives.
        own: int64 [B], for each anchor the row of `embeddings` that is the anchor itself.
    """

    embeddings: Tensor
    pids: Tensor
    own: Tensor


def references_or_batch(
    references: References | None, embeddings: Tensor, pids: Tensor
) -> References:
    """Return `references`, or the batch itself (embeddings [B, D], pids [B]) if it is None."""
    return references or References(embeddings, pids, torch.arange(len(pids), device=pids.device))


class MemoryBank(nn.Module):
    """A ring buffer of the last M training embeddings.

    Wang et al. 2020, arXiv 1912.06798, algorithm 1.

    After the first iterations the embeddings of a network change slowly, so embeddings of earlier
    batches can serve as additional pairs. They need no forward pass and receive no gradient. The
    whole state consists of buffers, so checkpoints contain it. The write position is computed on
    the device, which avoids synchronization.

    Args:
        size: M.
        dim: dimension D of the embeddings.
        start: the first `start` embeddings of training are not stored.
    """

    embeddings: Tensor
    pids: Tensor
    seen: Tensor

    def __init__(self, size: int, dim: int, *, start: int = 0) -> None:
        super().__init__()
        self.start = start
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("pids", torch.full((size,), EMPTY))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def store(self, embeddings: Tensor, pids: Tensor) -> References:
        """Overwrites the oldest entries with embeddings [B, D] and pids [B].

        Returns:
            The whole memory, including the new entries. The tensors are views: the next call
            changes them.

        Raises:
            ValueError: B is larger than the memory.
        """
        size = len(self.pids)
        if len(pids) > size:
            raise ValueError(f"a memory of {size} embeddings cannot store {len(pids)} at once")
        rows = (self.seen + torch.arange(len(pids), device=pids.device)) % size
        kept = torch.where(self.seen >= self.start, pids, EMPTY)
        self.embeddings.index_copy_(0, rows, embeddings.to(self.embeddings.dtype))
        self.pids.index_copy_(0, rows, kept)
        self.seen.add_(len(pids))
        return References(self.embeddings, self.pids, rows)
