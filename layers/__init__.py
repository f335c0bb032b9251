"""Tensor functions and small modules. Nothing here knows a configuration or another folder."""

from layers.attention import BAM, NonLocal, SqueezeExcite
from layers.center import CenterLoss
from layers.cross_entropy import SMOOTH_OVER, focal_loss, smoothed_cross_entropy
from layers.distances import cosine_similarities, euclidean_distances, squared_distances
from layers.distillation import (
    cosine_matching,
    distance_matching,
    kd_divergence,
    logit_matching,
    relational_angles,
    relational_distances,
    similarity_matching,
)
from layers.margins import MARGINS, apply_margin
from layers.memory import MemoryBank, References
from layers.normalization import IBNa
from layers.overhaul import margin_relu, negative_means, partial_distance
from layers.pairwise import circle_loss, cosface_loss
from layers.pooling import POOLINGS, AvgMaxPool, AvgPool, GeMPool, MaxPool, create_pooling
from layers.triplet import MININGS, triplet_loss

__all__ = [
    "BAM",
    "MARGINS",
    "MININGS",
    "POOLINGS",
    "SMOOTH_OVER",
    "AvgMaxPool",
    "AvgPool",
    "CenterLoss",
    "GeMPool",
    "IBNa",
    "MaxPool",
    "MemoryBank",
    "NonLocal",
    "References",
    "SqueezeExcite",
    "apply_margin",
    "circle_loss",
    "cosface_loss",
    "cosine_matching",
    "cosine_similarities",
    "create_pooling",
    "distance_matching",
    "euclidean_distances",
    "focal_loss",
    "kd_divergence",
    "logit_matching",
    "margin_relu",
    "negative_means",
    "partial_distance",
    "relational_angles",
    "relational_distances",
    "similarity_matching",
    "smoothed_cross_entropy",
    "squared_distances",
    "triplet_loss",
]
