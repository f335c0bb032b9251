"""Retrieval scores from distances or features: ranking, re-ranking, query expansion, verification."""

from .ranking import RankScores, rank_metrics
from .reranking import Rerank, rerank_distances
from .retrieval import evaluate_features

__all__ = ["RankScores", "Rerank", "evaluate_features", "rank_metrics", "rerank_distances"]
