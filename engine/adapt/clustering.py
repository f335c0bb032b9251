"""One clustering of the unlabeled images, and what is known about its quality without labels.

Letters: N unlabeled images, D dimensions.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ember_reid.evaluate import (
    OUTLIER,
    ClusterSettings,
    cluster,
    jaccard_distances,
    mean_silhouette,
    reliable_clusters,
)
from ember_reid.layers.contrast import cluster_centers
from torch import Tensor

# Larger Jaccard distances count as this one in the silhouette, for every radius of the clusters.
SILHOUETTE_RADIUS = 0.8


@dataclass(frozen=True)
class ClusteringOptions:
    """How the unlabeled images are clustered.

    Attributes:
        settings: algorithm and radius.
        k1, k2: see `jaccard_distances`.
        gap: SpCL's criterion with radii that differ by this number; None: all clusters count.
        center_cameras: subtract the mean of each camera from its features before the search for
            neighbors, so that images of one camera are not near each other for that reason.
        memory_gib: budget of the distances.
    """

    settings: ClusterSettings
    k1: int = 30
    k2: int = 6
    gap: float | None = None
    center_cameras: bool = False
    memory_gib: float | None = None


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of the unlabeled images.

    Attributes:
        features: float32 [N, D], L2-normalized, on the device of the training.
        labels: int64 [N], numbered from 0, or `OUTLIER`.
        silhouette: see `mean_silhouette`.
        limit: `Reliability.limit`; 0 without SpCL's criterion.
    """

    features: Tensor
    labels: np.ndarray
    silhouette: float
    limit: float = 0.0

    @property
    def num(self) -> int:
        """The number of clusters."""
        return int(self.labels.max(initial=OUTLIER)) + 1

    @property
    def num_outliers(self) -> int:
        return int((self.labels == OUTLIER).sum())

    def label_tensor(self) -> Tensor:
        """The labels on the device of the features."""
        return torch.from_numpy(self.labels).to(self.features.device)

    def centers(self) -> Tensor:
        """The normalized mean of each cluster, [C, D]."""
        return cluster_centers(self.features, self.label_tensor(), self.num)


def subtract_camera_means(features: Tensor, camids: Tensor) -> Tensor:
    """Features [N, D] minus the mean of the features of their camera, int64 [N]."""
    names, cameras = torch.unique(camids, return_inverse=True)
    sums = features.new_zeros(len(names), features.shape[1]).index_add_(0, cameras, features)
    return features - (sums / torch.bincount(cameras)[:, None])[cameras]


def cluster_features(
    features: Tensor,
    tracks: np.ndarray,
    camids: Tensor,
    options: ClusteringOptions,
    limit: float | None = None,
) -> Clusters:
    """Cluster L2-normalized features [N, D].

    Args:
        tracks: int64 [N], see `evaluate.cluster`.
        camids: int64 [N].
        limit: see `evaluate.reliable_clusters`.

    Raises:
        ValueError: there is no cluster, or all images are in one.
    """
    settings, gap = options.settings, options.gap or 0.0
    loose = replace(settings, radius=min(settings.radius + gap, 1.0))
    searched = features
    if options.center_cameras:
        searched = subtract_camera_means(features, camids.to(features.device))
    distances = jaccard_distances(
        searched,
        k1=min(options.k1, len(features)),
        k2=min(options.k2, len(features)),
        radius=max(loose.stored_radius, SILHOUETTE_RADIUS),
        memory_gib=options.memory_gib,
        distributed=True,
    )
    labels = cluster(distances, settings, tracks)
    if options.gap is not None:
        tight = replace(settings, radius=settings.radius - gap)
        found = reliable_clusters(
            labels, cluster(distances, tight, tracks), cluster(distances, loose, tracks), limit
        )
        labels, limit = found.labels, found.limit
    _check(labels, settings)
    silhouette = mean_silhouette(distances, labels, SILHOUETTE_RADIUS)
    return Clusters(features, labels, silhouette, limit or 0.0)


def _check(labels: np.ndarray, settings: ClusterSettings) -> None:
    used = (
        f"ADAPT.CLUSTER: {settings.algorithm}, RADIUS {settings.radius:g}, "
        f"MIN_SAMPLES {settings.min_samples}"
    )
    if labels.max(initial=OUTLIER) == OUTLIER:
        raise ValueError(
            f"there is no cluster among the {len(labels)} unlabeled images ({used}): use a larger "
            "radius, fewer samples, or better initial weights (ADAPT.WEIGHTS)"
        )
    if labels.max() == 0:
        raise ValueError(
            f"all {(labels == 0).sum()} of {len(labels)} unlabeled images that are in a cluster "
            f"are in the same one ({used}): use a smaller radius, or better initial weights "
            "(ADAPT.WEIGHTS)"
        )


def count_changes(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Which images have another label, although clusters are numbered differently: bool [N].

    Each new cluster continues the old one with which it shares the most images (of equal ones,
    the first). An image has changed if its old cluster is not the one that its new cluster
    continues, or if it was or became an outlier.
    """
    both = (old != OUTLIER) & (new != OUTLIER)
    changed = (old == OUTLIER) != (new == OUTLIER)
    pairs, counts = np.unique(np.stack((new[both], old[both])), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    names, first = np.unique(pairs[0][order], return_index=True)
    continued = np.full(int(new.max(initial=OUTLIER)) + 1, OUTLIER)
    continued[names] = pairs[1][order][first]
    changed[both] = continued[new[both]] != old[both]
    return changed


def flip_consistency(clusters: Clusters, items: Tensor, mirrored: Tensor) -> float:
    """The part of some images whose mirror image is nearest to the center of their own cluster.

    Outliers count as inconsistent.

    Args:
        items: int64 [B], the images.
        mirrored: [B, D], L2-normalized features of their mirror images.
    """
    nearest = (mirrored @ clusters.centers().T).argmax(dim=1)
    return float((nearest == clusters.label_tensor()[items]).float().mean())
