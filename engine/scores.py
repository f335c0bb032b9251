"""Compute the numbers of `results.json` from embeddings."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import ignite.distributed as idist
import numpy as np
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.data.protocols import SCORING_RULES
from ember_reid.data.records import ALL, ONE_PER_IDENTITY, SINGLE_SHOT
from ember_reid.evaluate import (
    QueryGallery,
    RankScores,
    Rerank,
    distance_matrix,
    evaluate_features,
    evaluate_random_galleries,
    expand_features,
    identification_scores,
    rerank_distances,
    single_shot_metrics,
    summarize_trials,
    verification_scores,
)

REPORTED_RANKS = (1, 5, 10)


@dataclass(frozen=True)
class ScoreSettings:
    """How embeddings are compared. Protocols are explained in docs/reference/datasets.md.

    Attributes:
        expand_neighbors: of average query expansion with the exponent `expand_alpha`; 0: off.
        rates: false positive rates at which TPR and open-set TPIR are reported; empty: not at all.
    """

    metric: str = "cosine"
    max_rank: int = 50
    protocol: str = "cross-camera"
    rerank: Rerank | None = None
    memory_gib: float | None = None
    average_precision: str = "mean"
    expand_neighbors: int = 0
    expand_alpha: float = 3.0
    rates: tuple[float, ...] = ()


def retrieval_scores(
    embedded: EmbeddingBatch, num_query: int, settings: ScoreSettings
) -> dict[str, Any]:
    """Score the first `num_query` rows as queries against the other rows.

    Returns:
        mAP, mINP, Rank-1, Rank-5, Rank-10 as fractions; num_query, num_gallery, num_valid (queries
        with a match); protocol; standard deviations for protocols with random galleries; TPR and
        TPIR at the selected false positive rates; and with re-ranking, the same under "reranked".
    """
    rule = SCORING_RULES[settings.protocol]
    pids, camids = embedded.pids.cpu().numpy(), embedded.camids.cpu().numpy()
    labeled = QueryGallery.split(embedded.embeddings, pids, camids, num_query)
    if rule == ALL:
        labeled = labeled.ignore_cameras()
    if settings.expand_neighbors:
        query, gallery = expand_features(
            labeled.query,
            labeled.gallery,
            num_neighbors=settings.expand_neighbors,
            alpha=settings.expand_alpha,
            memory_gib=settings.memory_gib,
        )
        labeled = labeled._replace(query=query, gallery=gallery)
    scores: dict[str, Any] = _scores(labeled, rule, replace(settings, rerank=None))
    if settings.rates:
        scores |= _operating_points(labeled, settings)
    if settings.rerank is not None and rule != ONE_PER_IDENTITY:
        scores["reranked"] = _scores(labeled, rule, settings)
    return {**scores, "protocol": settings.protocol}


def _scores(labeled: QueryGallery, rule: str, settings: ScoreSettings) -> dict[str, float | int]:
    counts = {"num_query": len(labeled.query_pids), "num_gallery": len(labeled.gallery_pids)}
    if rule == SINGLE_SHOT:
        if settings.rerank is None:
            distances = distance_matrix(labeled.query, labeled.gallery, metric=settings.metric)
        else:
            distances = rerank_distances(labeled.query, labeled.gallery, **asdict(settings.rerank))
        return _mean_scores(
            single_shot_metrics(distances, *labeled.ids, max_rank=settings.max_rank), counts
        )
    if rule == ONE_PER_IDENTITY:
        trials = evaluate_random_galleries(
            labeled.query,
            labeled.query_pids,
            metric=settings.metric,
            max_rank=settings.max_rank,
            average_precision=settings.average_precision,
            memory_gib=settings.memory_gib,
        )
        return _mean_scores(trials, counts)
    result = evaluate_features(
        *labeled,
        metric=settings.metric,
        rerank=settings.rerank,
        max_rank=settings.max_rank,
        memory_gib=settings.memory_gib,
        average_precision=settings.average_precision,
        distributed=idist.get_world_size() > 1,
    )
    return (
        _numbers(result.mAP, result.mINP, result.cmc)
        | counts
        | {"num_valid": int(result.num_valid)}
    )


def _numbers(mean_ap: float, mean_inp: float, cmc: np.ndarray) -> dict[str, float]:
    ranks = {f"Rank-{k}": float(cmc[min(k, len(cmc)) - 1]) for k in REPORTED_RANKS}
    return {"mAP": float(mean_ap), "mINP": float(mean_inp), **ranks}


def _mean_scores(trials: tuple[RankScores, ...], counts: dict[str, int]) -> dict[str, float | int]:
    """Means over random galleries, and their standard deviations."""
    summary = summarize_trials(trials)
    spread = {"mAP_spread": summary.mAP_std, "Rank-1_spread": float(summary.cmc_std[0])}
    means = _numbers(summary.mAP, summary.mINP, summary.cmc)
    return (
        means
        | counts
        | {"num_valid": int(trials[0].num_valid), "num_draws": summary.num_trials}
        | spread
    )


def _operating_points(labeled: QueryGallery, settings: ScoreSettings) -> dict[str, float]:
    """TPR at FPR over all pairs; TPIR at FPIR with 95 % intervals if some queries have no match."""
    metric, memory_gib = settings.metric, settings.memory_gib
    pairs = verification_scores(*labeled, fprs=settings.rates, metric=metric, memory_gib=memory_gib)
    points = {
        f"TPR@FPR={rate:g}": float(value)
        for rate, value in zip(settings.rates, pairs.tpr, strict=True)
    }
    if set(labeled.query_pids.tolist()) <= set(labeled.gallery_pids.tolist()):
        # A closed set: every query has a match.
        return points
    found = identification_scores(
        *labeled, fpirs=settings.rates, metric=metric, memory_gib=memory_gib
    )
    for rate, value, low, high in zip(
        settings.rates, found.tpir, found.low, found.high, strict=True
    ):
        name = f"TPIR@FPIR={rate:g}"
        points |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return points


def describe_scores(scores: dict) -> list[str]:
    """Log lines in the usual form of the field."""
    lines = [f"CMC Rank-{k}: {scores[f'Rank-{k}']:.2%}" for k in REPORTED_RANKS]
    lines += [f"mAP: {scores['mAP']:.2%}", f"mINP: {scores['mINP']:.2%}"]
    if "num_draws" in scores:
        lines.append(
            f"means of {scores['num_draws']} draws; standard deviation of mAP "
            f"{scores['mAP_spread']:.2%}, of Rank-1 {scores['Rank-1_spread']:.2%}"
        )
    for name, value in scores.items():
        if name.startswith("TPR@"):
            lines.append(f"{name}: {value:.2%}")
        elif name.startswith("TPIR@") and f"{name}_low" in scores:
            lines.append(
                f"{name}: {value:.2%} ({scores[f'{name}_low']:.2%} to {scores[f'{name}_high']:.2%})"
            )
    if "reranked" in scores:
        lines += [
            "after k-reciprocal re-ranking:",
            *(f"  {line}" for line in describe_scores(scores["reranked"])),
        ]
    return lines
