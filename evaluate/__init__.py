"""Retrieval scores from distances or features: ranking metrics, re-ranking, query expansion, verification curves."""

from .ranking import RankScores, rank_metrics
from .reranking import Rerank, rerank_distances
from .retrieval import evaluate_features

__all__ = ["RankScores", "Rerank", "evaluate_features", "rank_metrics", "rerank_distances"]
