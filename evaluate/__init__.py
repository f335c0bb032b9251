"""Retrieval scores from distances or features: ranking metrics, re-ranking, query expansion, verification curves."""

from .ranking import RankScores, rank_metrics

__all__ = ["RankScores", "rank_metrics"]
