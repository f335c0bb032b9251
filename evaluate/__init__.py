"""Retrieval scores from distances or features: ranking, re-ranking, query expansion, verification."""

from .distances import distance_blocks, distance_matrix
from .expansion import expand_features
from .open_set import IdentificationScores, identification_scores
from .random_gallery import (
    draw_one_per_identity,
    evaluate_drawn,
    single_shot_metrics,
    summarize_draws,
)
from .ranking import RankScores, rank_metrics
from .reranking import Rerank, rerank_distances
from .retrieval import evaluate_features
from .verification import VerificationScores, verification_scores

__all__ = [
    "IdentificationScores",
    "RankScores",
    "Rerank",
    "VerificationScores",
    "distance_blocks",
    "distance_matrix",
    "draw_one_per_identity",
    "evaluate_drawn",
    "evaluate_features",
    "expand_features",
    "identification_scores",
    "rank_metrics",
    "rerank_distances",
    "single_shot_metrics",
    "summarize_draws",
    "verification_scores",
]
