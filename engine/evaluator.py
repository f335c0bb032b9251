"""The Engine that turns images into embeddings and, at its end, embeddings into retrieval scores."""

from collections.abc import Callable
from typing import NamedTuple

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn


class EmbeddingBatch(NamedTuple):
    """A batch after the network: float32 embeddings [B, D] and the labels and positions [B] they belong to."""

    embeddings: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor


def create_evaluator(
    model: nn.Module,
    normalize: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    flip: bool = False,
) -> Engine:
    """An Engine whose step embeds one `Batch` of uint8 images [B, (T,) 3, H, W].

    Args:
        normalize: uint8 images to what the network was trained on.
        amp_dtype: the dtype of mixed precision, None for float32. Embeddings leave as float32.
        flip: sum the embedding of an image and that of its mirror image (retrieval normalizes, so this is their mean).
    """

    def evaluation_step(engine: Engine, batch) -> EmbeddingBatch:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None),
        ):
            images = normalize(batch.images.to(device, non_blocking=True))
            embeddings = model(images).embedding.float()
            if flip:
                embeddings = embeddings + model(images.flip(-1)).embedding.float()
        return EmbeddingBatch(embeddings, batch.pids, batch.camids, batch.indices)

    evaluator = Engine(evaluation_step)
    evaluator.add_event_handler(Events.STARTED, lambda: _share_statistics(model.eval()))
    return evaluator


def _share_statistics(model: nn.Module) -> None:
    """Give every rank the buffers of rank 0, which are those that are saved: batch norms of a CPU run are not synchronized."""
    if idist.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


class EmbeddingAccumulator:
    """Keeps what an evaluator embeds; afterward every rank holds each image exactly once, in order of its index.

    Attach to an evaluator: STARTED empties it, ITERATION_COMPLETED adds a batch.
    """

    def __init__(self):
        self._batches: list[EmbeddingBatch] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self._batches.clear())
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: self._batches.append(e.state.output)
        )

    def collect(self) -> EmbeddingBatch:
        """All batches of all ranks: embeddings [N, D], pids, camids, indices [N], ordered, repeats dropped."""
        device = self._batches[0].embeddings.device
        columns = [
            torch.cat([tensor.to(device) for tensor in column])
            for column in zip(*self._batches, strict=True)
        ]
        gathered = EmbeddingBatch(*_gather_rows(columns))
        order = torch.argsort(gathered.indices, stable=True)
        ordered = gathered.indices[order]
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered[1:] != ordered[:-1]
        return EmbeddingBatch(*(tensor[order[first]] for tensor in gathered))


def _gather_rows(columns: list[Tensor]) -> list[Tensor]:
    """Rows of all ranks; ranks may hold different numbers of rows (gloo aborts on unequal shapes, so they are padded)."""
    if idist.get_world_size() == 1:
        return columns
    counts = idist.all_gather(torch.tensor([len(columns[0])], device=idist.device())).tolist()
    gathered = []
    for tensor in columns:
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        shards = idist.all_gather(padded.to(idist.device())).split(max(counts))
        gathered.append(
            torch.cat([shard[:count] for shard, count in zip(shards, counts, strict=True)])
        )
    return gathered
