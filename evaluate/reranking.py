"""Re-ranked distances of features; see `reference.reference_rerank` for the method."""

import torch

from .fast.k_reciprocal import encode, plan_reranking, write_reranked
from .fast.tiles import create_feature_matrix, full_precision
from .inputs import Rerank, check_feature_pair, check_rerank


def rerank_distances(query, gallery, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3):
    """Re-ranked distances of features [Q, D] and [G, D], which are L2-normalized first.

    k-reciprocal encoding (Zhong et al., CVPR 2017), exact up to float32 rounding. Only the result
    is dense. Distances are rounded to multiples of 2^-19 before and 2^-20 after re-ranking, so that
    float32 rounding does not decide which of two equally near items comes first.

    Returns:
        float32 [Q, G]: a tensor on the features' device for torch input, else a numpy array.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    rerank = check_rerank(Rerank(k1, k2, lambda_value))
    as_numpy = not isinstance(query, torch.Tensor)
    query, gallery = check_feature_pair(query, gallery)
    with torch.no_grad(), full_precision():
        features = create_feature_matrix((query, gallery), "cosine")
        plan = plan_reranking(features, len(query), rerank)
        encoding = encode(features, len(query), rerank, plan)
        result = query.new_empty(len(query), len(gallery))
        for first, last in features.spans(0, len(query), plan.block):
            items = torch.arange(first, last, device=features.device)
            write_reranked(result[first:last], items, encoding=encoding, plan=plan)
    return result.numpy() if as_numpy else result
