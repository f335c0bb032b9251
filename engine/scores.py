"""From collected embeddings to the numbers of `results.json`."""

from typing import NamedTuple

import ignite.distributed as idist

from evaluate import Rerank, evaluate_features

REPORTED_RANKS = (1, 5, 10)


class ScoreSettings(NamedTuple):
    """How embeddings are compared; see `evaluate.evaluate_features`."""

    metric: str = "cosine"
    max_rank: int = 50
    protocol: str = "cross-camera"
    rerank: Rerank | None = None
    memory_gib: float | None = None


def retrieval_scores(embedded, num_query: int, settings: ScoreSettings) -> dict[str, float | int | dict]:
    """The scores of the first `num_query` rows against the others.

    Returns:
        mAP, mINP, Rank-1, Rank-5, Rank-10 as fractions, num_query, num_gallery, num_valid (queries that have a
        match), and with re-ranking the same again under "reranked".
    """
    scores = _scores(embedded, num_query, settings._replace(rerank=None))
    if settings.rerank is not None:
        scores["reranked"] = _scores(embedded, num_query, settings)
    return scores


def _scores(embedded, num_query: int, settings: ScoreSettings) -> dict:
    query_camids, gallery_camids = embedded.camids[:num_query], embedded.camids[num_query:]
    if settings.protocol == "all":  # no camera of a query equals one of the gallery, so nothing is left out
        query_camids, gallery_camids = query_camids * 0, gallery_camids * 0 + 1
    result = evaluate_features(
        embedded.embeddings[:num_query],
        embedded.embeddings[num_query:],
        embedded.pids[:num_query].cpu().numpy(),
        embedded.pids[num_query:].cpu().numpy(),
        query_camids.cpu().numpy(),
        gallery_camids.cpu().numpy(),
        metric=settings.metric,
        rerank=settings.rerank,
        max_rank=settings.max_rank,
        memory_gib=settings.memory_gib,
        distributed=idist.get_world_size() > 1,
    )
    scores = {"mAP": float(result.mAP), "mINP": float(result.mINP)}
    scores |= {f"Rank-{k}": float(result.cmc[min(k, len(result.cmc)) - 1]) for k in REPORTED_RANKS}
    counts = {
        "num_query": num_query,
        "num_gallery": len(embedded.pids) - num_query,
        "num_valid": int(result.num_valid),
    }
    return scores | counts


def describe_scores(scores: dict) -> list[str]:
    """Log lines in the field's form."""
    lines = [f"CMC Rank-{k}: {scores[f'Rank-{k}']:.2%}" for k in REPORTED_RANKS]
    lines += [f"mAP: {scores['mAP']:.2%}", f"mINP: {scores['mINP']:.2%}"]
    if "reranked" in scores:
        lines += [
            "after k-reciprocal re-ranking:",
            *(f"  {line}" for line in describe_scores(scores["reranked"])),
        ]
    return lines
