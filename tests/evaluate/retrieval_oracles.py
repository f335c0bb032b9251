"""Slow, direct versions of what evaluate/ computes, and made-up inputs to compare them on."""

import numpy as np


def scores_by_sorting(distances, query_pids, gallery_pids, query_camids, gallery_camids, max_rank):
    """(cmc, ap, inp) by a full stable sort of every row, as the definitions read."""
    cmc, ap, inp = [], [], []
    for q in range(len(distances)):
        same = gallery_pids == query_pids[q]
        kept = np.flatnonzero((gallery_pids != -1) & ~(same & (gallery_camids == query_camids[q])))
        order = kept[np.argsort(distances[q, kept], kind="stable")]
        hits = np.flatnonzero(gallery_pids[order] == query_pids[q])
        if len(hits) == 0 or query_pids[q] == -1:
            continue
        ap.append(np.mean([(n + 1) / (hit + 1) for n, hit in enumerate(hits)]))
        inp.append(len(hits) / (hits[-1] + 1))
        cmc.append([float(hits[0] <= rank) for rank in range(max_rank)])
    return np.mean(cmc, axis=0), np.array(ap), np.array(inp)


def reranked_by_formula(features, num_query, k1, k2, lambda_value):
    """The nine steps of k-reciprocal encoding, dense and in float64: distances [Q, G]."""
    features = features.astype(np.float64)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    num = len(features)
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    scaled = (distances / distances.max(axis=0)).T
    order = np.argsort(scaled, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    weights = np.zeros((num, num))
    for i in range(num):
        near = reciprocal(i, k1)
        expanded = set(near)
        for candidate in near:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(theirs & near) > 2 / 3 * len(theirs):
                expanded |= theirs
        members = sorted(expanded)
        values = np.exp(-scaled[i, members])
        weights[i, members] = values / values.sum()
    if k2 > 1:
        weights = np.stack([weights[order[i, :k2]].mean(axis=0) for i in range(num)])
    shared = np.minimum(weights[:num_query, None], weights[None]).sum(axis=2)
    final = (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * scaled[:num_query]
    return final[:, num_query:]


def random_ids(generator, num_query, num_gallery, num_pids=5, num_cams=3, junk=True):
    """(query_pids, gallery_pids, query_camids, gallery_camids), with some junk in the gallery."""
    return (
        generator.integers(0, num_pids, num_query),
        generator.integers(-1 if junk else 0, num_pids, num_gallery),
        generator.integers(0, num_cams, num_query),
        generator.integers(0, num_cams, num_gallery),
    )


def clustered_features(generator, pids, dims=16, noise=0.6):
    """Features float32 [N, D] that scatter around one random center an identity."""
    centers = np.random.default_rng(7).normal(size=(int(max(pids)) + 2, dims))
    return (centers[pids] + noise * generator.normal(size=(len(pids), dims))).astype(np.float32)
