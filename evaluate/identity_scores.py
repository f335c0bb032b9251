"""Scores of predicted identities: IDF1 over detections, precision and recall over pairs.

Letters: N items (detections or tracklets), T true identities, P predicted identities.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

# The label of an item that is in only one of the two labelings.
NO_LABEL = -1


@dataclass(frozen=True)
class IdentityScores:
    """ID precision, ID recall and IDF1, fractions in [0, 1].

    Attributes:
        num_matched: IDTP, detections whose predicted identity is assigned to their true one.
        num_true, num_predicted: detections with a true, and with a predicted identity.
    """

    idp: float
    idr: float
    idf1: float
    num_matched: int
    num_true: int
    num_predicted: int


@dataclass(frozen=True)
class PairScores:
    """Precision, recall and F1 of the pairs of items with one identity, fractions in [0, 1].

    Attributes:
        num_matched: pairs with one predicted and one true identity.
        num_true, num_predicted: pairs with one true, and with one predicted identity.
    """

    precision: float
    recall: float
    f1: float
    num_matched: int
    num_true: int
    num_predicted: int


def identity_scores(true_ids: np.ndarray, predicted_ids: np.ndarray) -> IdentityScores:
    """IDF1 of detections (Ristani et al., Performance Measures and a Data Set for Multi-Target,
    Multi-Camera Tracking, ECCV 2016 workshops, equations 9 to 11).

    Each true identity is assigned to at most one predicted identity and vice versa, such that the
    number of matched detections (IDTP) is as large as possible. Then

        IDP = IDTP / predicted    IDR = IDTP / true    IDF1 = 2 IDTP / (true + predicted)

    where true and predicted are numbers of detections. The assignment takes memory for T x P
    numbers.

    Args:
        true_ids, predicted_ids: int [N]; `NO_LABEL` for a detection without a true or without a
            predicted identity.

    Returns:
        The scores. A ratio is 1 if its denominator is 0: nothing was claimed or nothing was to be
        found.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    table, num_true, num_predicted = _contingency(true_ids, predicted_ids)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = int(table[rows, columns].sum())
    idp, idr, idf1 = _ratios(matched, num_true.sum(), num_predicted.sum())
    return IdentityScores(idp, idr, idf1, matched, int(num_true.sum()), int(num_predicted.sum()))


def pair_scores(true_ids: np.ndarray, predicted_ids: np.ndarray) -> PairScores:
    """Precision, recall and F1 over all pairs of items.

    A pair is predicted if both items have the same predicted identity, and true if both have the
    same true identity. The numbers of pairs come from the sizes of the groups: a group of n items
    has n (n - 1) / 2 pairs.

    Args:
        true_ids, predicted_ids: int [N]; `NO_LABEL` for an item that is in no pair.

    Returns:
        The scores. A ratio is 1 if its denominator is 0.

    Raises:
        ValueError: one sentence about the first invalid argument.
    """
    table, num_true, num_predicted = _contingency(true_ids, predicted_ids)
    matched, true, predicted = (_num_pairs(sizes) for sizes in (table, num_true, num_predicted))
    return PairScores(*_ratios(matched, true, predicted), matched, true, predicted)


def _contingency(
    true_ids: np.ndarray, predicted_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items per true and predicted identity [T, P], per true [T], and per predicted one [P]."""
    true_ids, predicted_ids = np.asarray(true_ids), np.asarray(predicted_ids)
    for name, ids in (("true_ids", true_ids), ("predicted_ids", predicted_ids)):
        if ids.ndim != 1 or (ids.dtype.kind not in "iu" and ids.size):
            raise ValueError(
                f"{name} must be integers of shape [N], found {ids.dtype} of shape {ids.shape}."
            )
    if len(true_ids) != len(predicted_ids):
        raise ValueError(
            f"true_ids and predicted_ids must have the same length, found {len(true_ids)} and "
            f"{len(predicted_ids)}."
        )
    has_true, has_predicted = true_ids != NO_LABEL, predicted_ids != NO_LABEL
    true_names, num_true = np.unique(true_ids[has_true], return_counts=True)
    predicted_names, num_predicted = np.unique(predicted_ids[has_predicted], return_counts=True)
    has_both = has_true & has_predicted
    table = np.zeros((len(true_names), len(predicted_names)), np.int64)
    rows = np.searchsorted(true_names, true_ids[has_both])
    columns = np.searchsorted(predicted_names, predicted_ids[has_both])
    np.add.at(table, (rows, columns), 1)
    return table, num_true, num_predicted


def _num_pairs(sizes: np.ndarray) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _ratios(matched: int, true: int, predicted: int) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    return (
        matched / predicted if predicted else 1.0,
        matched / true if true else 1.0,
        2 * matched / (true + predicted) if true + predicted else 1.0,
    )
