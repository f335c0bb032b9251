"""Retrieval evaluation in plain numpy, from features to scores: short and simple, but slow.

Read this file to learn what is computed. The rest of `evaluate` computes the same numbers
faster and with less memory, and is tested against this file. The steps are

    1. `pairwise_distances`   distances between all queries and gallery entries
    2. `label_pairs`          which gallery entries are correct, and which do not count
    3. `match_ranks`          at which ranks the correct entries of a query appear
    4. `reference_scores`     average precision, inverse negative penalty and CMC of these ranks
    5. `reference_rerank`     optionally, better distances before steps 2 to 4

Only step 2 is used by the fast implementations as well: the rule is written once.
Letters: Q queries, G gallery entries, N = Q + G items, D dimensions.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

# The label of gallery images that are neither correct nor wrong.
JUNK_PID = -1

Ids = TypeVar("Ids", np.ndarray, "torch.Tensor")


def pairwise_distances(
    left: np.ndarray, right: np.ndarray, *, metric: str = "cosine"
) -> np.ndarray:
    """Distances between features [Q, D] and [G, D].

    Returns:
        float64 [Q, G]: 1 - cosine similarity for "cosine", else the squared Euclidean distance.
        Under "cosine" a feature of zeros is at distance 1 from everything.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    if metric == "cosine":
        left, right = normalize(left), normalize(right)
        return 1 - left @ right.T
    return ((left[:, None] - right[None]) ** 2).sum(axis=2)


def normalize(features: np.ndarray) -> np.ndarray:
    """Features divided by their Euclidean norm; zeros stay zeros."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def label_pairs(
    query_pids: Ids, gallery_pids: Ids, query_camids: Ids, gallery_camids: Ids
) -> tuple[Ids, Ids]:
    """The protocol: which pairs of a query and a gallery entry are matches, which are excluded.

    Excluded are junk entries and entries of the query's own identity and camera. A match has the
    query's identity and is not excluded. All other pairs are negatives.

    Args:
        query_pids, gallery_pids, query_camids, gallery_camids: integer arrays or tensors whose
            shapes broadcast, for example [Q, 1], [G], [Q, 1], [G].

    Returns:
        (is_match, is_excluded), booleans of the broadcast shape.
    """
    same_pid = gallery_pids == query_pids
    is_excluded = (gallery_pids == JUNK_PID) | (same_pid & (gallery_camids == query_camids))
    return same_pid & ~is_excluded, is_excluded


def match_ranks(distances: np.ndarray, is_match: np.ndarray, is_excluded: np.ndarray) -> np.ndarray:
    """Ranks of one query's matches, 1 for the nearest entry that counts; all arguments are [G].

    Equal distances keep the order of the gallery.
    """
    counted = np.flatnonzero(~is_excluded)
    ranking = counted[np.argsort(distances[counted], kind="stable")]
    return np.flatnonzero(is_match[ranking]) + 1


def reference_scores(
    distances: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_camids: np.ndarray,
    *,
    max_rank: int = 50,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a distance matrix [Q, G]. Queries without a match do not count.

    With the ranks r_1 < ... < r_n of a query's n matches:
        average precision          AP  = 1/n sum_i i / r_i
        inverse negative penalty   INP = n / r_n      (Ye et al., TPAMI 2022, eq. 2)
        CMC at k                   1 if r_1 <= k, else 0

    Returns:
        (cmc [max_rank], ap [V], inp [V]) of the V queries that have a match. The means of ap and
        inp are mAP and mINP; cmc is averaged already.
    """
    is_match, is_excluded = label_pairs(
        query_pids[:, None], gallery_pids, query_camids[:, None], gallery_camids
    )
    cmc, ap, inp = [], [], []
    for q in range(len(distances)):
        ranks = match_ranks(distances[q], is_match[q], is_excluded[q])
        num_matches = len(ranks)
        if num_matches == 0:
            continue
        ap.append(np.mean(np.arange(1, num_matches + 1) / ranks))
        inp.append(num_matches / ranks[-1])
        cmc.append(ranks[0] <= np.arange(1, max_rank + 1))
    return np.mean(cmc, axis=0), np.array(ap), np.array(inp)


def reference_rerank(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    """k-reciprocal re-ranking of features [Q, D] and [G, D]: new distances, float64 [Q, G].

    Zhong, Zheng, Cao, Li: "Re-ranking Person Re-identification with k-reciprocal Encoding",
    CVPR 2017. Items with the same neighbors are similar, so the Jaccard distance of neighbor
    sets is averaged with the original distance. The equations are quoted line by line.
    As in the authors' program, but not in the paper, V is divided by its sum, and k1 / 2 is
    rounded half to even.
    """
    features = np.concatenate((query, gallery))
    num, num_query = len(features), len(query)
    # D'[i, j] = D[i, j] / max_r D[i, r], D the squared Euclidean distance of normalized features
    distances = np.maximum(2 * pairwise_distances(features, features), 0)
    distances = round_ties(distances)
    np.fill_diagonal(distances, 0)
    scaled = distances / np.maximum(distances.max(axis=1, keepdims=True), 1e-12)
    # eq. 2: N(i, k), the first k + 1 columns of row i; the item itself is included
    nearest = np.argsort(distances, axis=1, kind="stable")

    weights = np.zeros((num, num))
    for i in range(num):
        members = sorted(expanded_neighbors(nearest, i, k1))
        # eq. 7: V[i, j] = exp(-D'[i, j]) for the expanded neighbors of i, else 0
        values = np.exp(-scaled[i, members])
        weights[i, members] = values / values.sum()
    # eq. 11: V[i] <- the mean of V over the k2 nearest of i
    if k2 > 1:
        weights = np.stack([weights[nearest[i, :k2]].mean(axis=0) for i in range(num)])
    # eq. 10: Jaccard distance 1 - s / (2 - s) with s = sum_m min(V[i, m], V[j, m])
    shared = np.minimum(weights[:num_query, None], weights[None, num_query:]).sum(axis=2)
    jaccard = 1 - shared / (2 - shared)
    # eq. 12
    mixed = (1 - lambda_value) * jaccard + lambda_value * scaled[:num_query, num_query:]
    return round_ties(mixed, 2.0**-20)


def reciprocal_neighbors(nearest: np.ndarray, i: int, k: int) -> set[int]:
    """R(i, k): items that are among the k + 1 nearest of i and have i among theirs (eq. 3)."""
    return {int(j) for j in nearest[i, : k + 1] if i in nearest[j, : k + 1]}


def expanded_neighbors(nearest: np.ndarray, i: int, k1: int) -> set[int]:
    """R*(i): R(i, k1) and every R(c, k1 / 2), c in R(i, k1), that lies in it by 2/3 (eq. 5)."""
    near = reciprocal_neighbors(nearest, i, k1)
    expanded = set(near)
    for candidate in near:
        # Python rounds half to even.
        half = reciprocal_neighbors(nearest, candidate, round(k1 / 2))
        if 3 * len(half & near) > 2 * len(half):
            expanded |= half
    return expanded


def round_ties(distances: np.ndarray, resolution: float = 2.0**-19) -> np.ndarray:
    """Distances as multiples of `resolution`, so that rounding errors do not order equal ones.

    Without this step, which of two equally near items comes first depends on the order in which a
    library adds up float32 numbers. The program of the authors does not do this.
    """
    return np.round(distances / resolution) * resolution
