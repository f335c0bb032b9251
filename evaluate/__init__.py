"""Retrieval scores from distances or features: ranking, re-ranking, query expansion, verification."""

from .blocks import distance_blocks, distance_matrix
from .draws import draw_one_per_identity, evaluate_drawn, single_shot_metrics, summarise_draws
from .expansion import expand_features
from .identification import IdentificationScores, identification_scores
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
    "summarise_draws",
    "verification_scores",
]
