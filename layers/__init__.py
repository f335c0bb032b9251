"""Loss functions and small modules. Independent of the configuration and of other folders."""

from ember_reid.layers.attention import BAM, NonLocal, SqueezeExcite
from ember_reid.layers.center import CenterLoss
from ember_reid.layers.cross_entropy import SMOOTH_OVER, smoothed_cross_entropy
from ember_reid.layers.distillation import (
    cosine_matching,
    distance_matching,
    kd_divergence,
    logit_matching,
    relational_angles,
    relational_distances,
    similarity_matching,
)
from ember_reid.layers.margins import MARGINS, apply_margin
from ember_reid.layers.memory import MemoryBank, References
from ember_reid.layers.mixstyle import MixStyle, draw_partners, mix_styles
from ember_reid.layers.numerics import cosine_similarities, euclidean_distances, squared_distances
from ember_reid.layers.overhaul import margin_relu, negative_means, partial_distance
from ember_reid.layers.pairwise import circle_loss, cosface_loss
from ember_reid.layers.pooling import (
    POOLINGS,
    AvgMaxPool,
    AvgPool,
    GeMPool,
    MaxPool,
    create_pooling,
)
from ember_reid.layers.triplet import MININGS, triplet_loss

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
    "MaxPool",
    "MemoryBank",
    "MixStyle",
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
    "draw_partners",
    "euclidean_distances",
    "kd_divergence",
    "logit_matching",
    "margin_relu",
    "mix_styles",
    "negative_means",
    "partial_distance",
    "relational_angles",
    "relational_distances",
    "similarity_matching",
    "smoothed_cross_entropy",
    "squared_distances",
    "triplet_loss",
]
