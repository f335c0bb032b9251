"""Proposed identities: clusters of embeddings, and how certain each image is.

Letters: N images, C identities.
"""

from dataclasses import dataclass

import numpy as np
from ember_reid.evaluate import OUTLIER, ClusterSettings, cluster, jaccard_distances
from scipy import sparse

# Distances up to the largest one below 1 are stored: pairs with a common neighbor.
STORED_RADIUS = 1 - 2**-20
MEMORY_GIB = 1.0


@dataclass(frozen=True, eq=False)
class Proposal:
    """Proposed identities.

    Attributes:
        labels: int64 [N], the identity of each image, numbered from 0; `OUTLIER` for none.
        confidence: float64 [N] in [-1, 1]: the mean Jaccard similarity of an image to the other
            images of its identity, minus the largest mean similarity to another identity.
        next_identity: int64 [C], the most similar other identity; `OUTLIER` if none is similar.
        next_similarity: float64 [C], the mean similarity of all pairs of images of the two.
    """

    labels: np.ndarray
    confidence: np.ndarray
    next_identity: np.ndarray
    next_similarity: np.ndarray

    @property
    def num_identities(self) -> int:
        return len(self.next_identity)


def propose(
    embeddings: np.ndarray,
    settings: ClusterSettings,
    *,
    k1: int,
    k2: int,
    tracks: np.ndarray | None = None,
) -> Proposal:
    """Cluster embeddings by the Jaccard distances of their k-reciprocal neighbors.

    Args:
        embeddings: float32 [N, D].
        settings: how they are clustered.
        k1, k2: see `jaccard_distances`.
        tracks: int64 [N], images of one track have one identity; -1: without a track.

    Raises:
        ValueError: there is no identity, or a single one.
    """
    distances = jaccard_distances(
        embeddings, k1=k1, k2=k2, radius=STORED_RADIUS, memory_gib=MEMORY_GIB
    )
    labels = cluster(distances, settings, tracks)
    num = int(labels.max(initial=OUTLIER)) + 1
    if not num:
        raise ValueError(
            f"no identity was found: {settings.min_samples} images within --radius "
            f"{settings.radius:g} are needed; raise --radius or lower --min-images"
        )
    if num == 1 and (labels != OUTLIER).all():
        raise ValueError(
            f"all {len(labels)} images have one identity at --radius {settings.radius:g}; lower it"
        )
    return score_labels(distances, labels)


def score_labels(distances: sparse.csr_array, labels: np.ndarray) -> Proposal:
    """The confidences of identities, and their most similar ones.

    Args:
        distances: [N, N], see `jaccard_distances`; pairs that are not stored have a distance of 1.
        labels: int64 [N].
    """
    num_images, num = len(labels), int(labels.max(initial=OUTLIER)) + 1
    clustered = np.flatnonzero(labels != OUTLIER)
    similar = distances.copy()
    similar.data = 1 - similar.data.astype(np.float64)
    similar.setdiag(0)
    columns = (np.ones(len(clustered)), (clustered, labels[clustered]))
    members = sparse.csr_array(columns, (num_images, num))
    # Sums of the similarities of each image to the images of each identity, [N, C].
    sums = (similar @ members).tocoo()
    sizes = np.bincount(labels[clustered], minlength=num)
    own, other = np.zeros(num_images), np.zeros(num_images)
    is_own = sums.col == labels[sums.row]
    rows = sums.row[is_own]
    own[rows] = sums.data[is_own] / np.maximum(sizes[labels[rows]] - 1, 1)
    np.maximum.at(other, sums.row[~is_own], sums.data[~is_own] / sizes[sums.col[~is_own]])
    next_identity, next_similarity = _most_similar((members.T @ sums.tocsr()).tocoo(), sizes)
    return Proposal(labels, own - other, next_identity, next_similarity)


def _most_similar(sums: sparse.coo_array, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other identity with the largest mean similarity [C], and that similarity [C].

    Args:
        sums: [C, C], sums over pairs of images.
        sizes: [C], images of each identity.
    """
    identities = np.full(len(sizes), OUTLIER)
    means = np.zeros(len(sizes))
    pairs = sums.data / (sizes[sums.row] * sizes[sums.col])
    # Of equal similarities, the first identity.
    for place in np.lexsort((sums.col, -pairs)).tolist():
        row, column = int(sums.row[place]), int(sums.col[place])
        if row != column and identities[row] == OUTLIER and pairs[place] > 0:
            identities[row], means[row] = column, pairs[place]
    return identities, means
