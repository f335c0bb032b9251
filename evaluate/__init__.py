"""Retrieval metrics: ranking, re-ranking, query expansion, verification, open-set identification.

Start with `reference.py`, which computes the main scores in plain numpy. The other modules return
the same numbers faster, with the implementations in `fast/` and the kernels in `eval_cylib/`.
"""

from .clusters import (
    ALGORITHMS,
    OUTLIER,
    ClusterSettings,
    Reliability,
    cluster,
    mean_silhouette,
    reliable_clusters,
)
from .distances import distance_blocks, distance_matrix
from .expansion import expand_features
from .identity_scores import IdentityScores, PairScores, identity_scores, pair_scores
from .inputs import QueryGallery, Rerank
from .jaccard import jaccard_distances
from .open_set import IdentificationScores, identification_scores
from .random_gallery import (
    evaluate_random_galleries,
    random_gallery_splits,
    single_shot_metrics,
    summarize_trials,
)
from .ranking import RankScores, rank_metrics
from .reference import JUNK_PID, label_pairs
from .reranking import rerank_distances
from .retrieval import evaluate_features
from .verification import VerificationScores, label_block, verification_scores

__all__ = [
    "ALGORITHMS",
    "JUNK_PID",
    "OUTLIER",
    "ClusterSettings",
    "IdentificationScores",
    "IdentityScores",
    "PairScores",
    "QueryGallery",
    "RankScores",
    "Reliability",
    "Rerank",
    "VerificationScores",
    "cluster",
    "distance_blocks",
    "distance_matrix",
    "evaluate_features",
    "evaluate_random_galleries",
    "expand_features",
    "identification_scores",
    "identity_scores",
    "jaccard_distances",
    "label_block",
    "label_pairs",
    "mean_silhouette",
    "pair_scores",
    "random_gallery_splits",
    "rank_metrics",
    "reliable_clusters",
    "rerank_distances",
    "single_shot_metrics",
    "summarize_trials",
    "verification_scores",
]
