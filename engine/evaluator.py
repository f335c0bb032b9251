"""Compute the embeddings of a test set, and score them."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import ignite.distributed as idist
import torch
from ember_reid.data.batch import Batch, EmbeddingBatch
from ember_reid.data.records import Record
from ember_reid.engine.distributed import all_gather
from ember_reid.engine.fuse_conv_bn import fused_copy
from ember_reid.engine.inference import CapturedInference
from ember_reid.engine.scores import ScoreSettings, describe_scores, retrieval_scores
from ember_reid.modeling.model import side_inputs, uses_cameras
from ignite.engine import Engine, Events
from torch import Tensor, nn

logger = logging.getLogger("ember.eval")


def create_evaluator(
    model: nn.Module,
    normalize: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    flip: bool = False,
) -> Engine:
    """An Engine whose step embeds one `Batch` of uint8 images [B, (T,) 3, H, W].

    On a GPU, every run uses a copy of the model whose batch norms are fused into its convolutions,
    as a CUDA graph. Embeddings differ by rounding; a CPU computes those of the model itself, and so
    does a GPU if the model uses cameras.

    Args:
        normalize: uint8 images -> input of the network.
        amp_dtype: the dtype of mixed precision; None for float32. Embeddings are float32 in any
            case.
        flip: add the embedding of the mirrored image. Retrieval normalizes embeddings, so the sum
            is equivalent to the mean.
    """

    def embed(network: nn.Module, images: Tensor, *side: Tensor) -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None),
        ):
            inputs = normalize(images.to(device, non_blocking=True))
            embeddings = network(inputs, *side).embedding.float()
            if flip:
                embeddings = embeddings + network(inputs.flip(-1), *side).embedding.float()
        return embeddings

    inference: list[Callable[..., Tensor]] = []

    def start() -> None:
        _broadcast_buffers(model.eval())
        inference[:] = [partial(embed, model)]
        if uses_graphs(device) and not uses_cameras(model):
            network = fused_copy(model, amp_dtype=amp_dtype)
            inference[:] = [CapturedInference(partial(embed, network), device)]

    def evaluation_step(engine: Engine, batch: Batch) -> EmbeddingBatch:
        embeddings = inference[0](batch.images, *side_inputs(model, batch))
        return EmbeddingBatch(embeddings, batch.pids, batch.camids, batch.indices)

    evaluator = Engine(evaluation_step)
    evaluator.add_event_handler(Events.STARTED, start)
    evaluator.add_event_handler(Events.COMPLETED, inference.clear)
    return evaluator


def uses_graphs(device: torch.device) -> bool:
    """Whether inference on this device is captured in CUDA graphs."""
    return device.type == "cuda"


def _broadcast_buffers(model: nn.Module) -> None:
    """Copy the buffers of rank 0, which are saved, to all ranks.

    Batch norms on CPUs are not synchronized, so the statistics of the ranks differ.
    """
    if idist.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


class EmbeddingAccumulator:
    """Evaluator, STARTED: is cleared. ITERATION_COMPLETED: stores a batch of embeddings."""

    def __init__(self) -> None:
        self._batches: list[EmbeddingBatch] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self._batches.clear())
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: self._batches.append(e.state.output)
        )

    def collect(self) -> EmbeddingBatch:
        """The embeddings of all ranks, [N, D], ordered by index and without duplicates."""
        device = self._batches[0].embeddings.device
        columns = [
            torch.cat([tensor.to(device) for tensor in column])
            for column in zip(*self._batches, strict=True)
        ]
        gathered = EmbeddingBatch(*_gather_columns(columns))
        order = torch.argsort(gathered.indices, stable=True)
        ordered = gathered.indices[order]
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        return EmbeddingBatch(*(tensor[order[is_first]] for tensor in gathered))


def _gather_columns(columns: list[Tensor]) -> list[Tensor]:
    """Gather the rows of all ranks. Their numbers may differ; gloo needs padding."""
    if idist.get_world_size() == 1:
        return columns
    counts = all_gather(torch.tensor([len(columns[0])], device=idist.device())).tolist()
    gathered = []
    for tensor in columns:
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        shards = all_gather(padded.to(idist.device())).split(max(counts))
        rows = [shard[:count] for shard, count in zip(shards, counts, strict=True)]
        gathered.append(torch.cat(rows))
    return gathered


@dataclass(frozen=True)
class Benchmark:
    """A test set that is ready to be scored.

    Attributes:
        evaluator: embeds one batch per iteration.
        accumulator: attached to the evaluator.
        loader: yields the records of `query`, then those of `gallery`.
        gallery: without junk images.
    """

    evaluator: Engine
    accumulator: EmbeddingAccumulator
    loader: Iterable
    query: Sequence[Record]
    gallery: Sequence[Record]
    settings: ScoreSettings

    def embed(self) -> EmbeddingBatch:
        """Run the evaluator and return the embeddings of all queries, then of the gallery."""
        self.evaluator.run(self.loader)
        return self.accumulator.collect()


def score(
    benchmarks: Mapping[str, Benchmark],
    *,
    rerank: bool = True,
    show: Callable[[str, Benchmark, EmbeddingBatch], None] | None = None,
) -> dict[str, dict]:
    """Score all benchmarks and log the results.

    Args:
        rerank: whether to re-rank if the settings contain parameters of re-ranking.
        show: called with (name, benchmark, embeddings) of each benchmark.

    Returns:
        {dataset: scores}, equal on every rank.
    """
    results = {}
    for name, benchmark in benchmarks.items():
        settings = benchmark.settings if rerank else replace(benchmark.settings, rerank=None)
        embeddings = benchmark.embed()
        results[name] = retrieval_scores(embeddings, len(benchmark.query), settings)
        if show is not None:
            show(name, benchmark, embeddings)
        logger.info("results on %s (%s protocol)", name, settings.protocol)
        for line in describe_scores(results[name]):
            logger.info(line)
    return results
