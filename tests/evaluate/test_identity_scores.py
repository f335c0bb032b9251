"""Scores of predicted identities, against numbers computed by hand and by slow loops."""

from itertools import combinations, permutations

import numpy as np
import pytest
from ember_reid.evaluate import identity_scores, pair_scores


def test_idf1_of_a_small_example():
    # Identity 0 is split into 5 and 6, identity 1 is 6, and identity 2 is not found. The best
    # assignment is 0 to 5 and 1 to 6: 2 + 3 detections.
    scores = identity_scores(
        np.array([0, 0, 0, 0, 1, 1, 1, 2]), np.array([5, 5, 6, 6, 6, 6, 6, -1])
    )
    assert (scores.num_matched, scores.num_true, scores.num_predicted) == (5, 8, 7)
    assert (scores.idp, scores.idr, scores.idf1) == (5 / 7, 5 / 8, 10 / 15)


def test_idf1_uses_the_best_assignment():
    # The largest overlap is 3 (0 with 0), but 0 with 1 and 1 with 0 match 2 + 2.
    scores = identity_scores(np.array([0, 0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0, 0]))
    assert scores.num_matched == 4 and scores.idf1 == 8 / 14


def test_idf1_equals_the_best_of_all_assignments():
    rng = np.random.default_rng(0)
    for _ in range(10):
        true, predicted = rng.integers(-1, 4, (2, 20))
        best = max(
            sum(int(((true == t) & (predicted == p)).sum()) for t, p in enumerate(order))
            for order in permutations(range(4))
        )
        assert identity_scores(true, predicted).num_matched == best


def test_pairs_of_a_small_example():
    # Pairs 0-1 and 3-4 are right; 0-2 and 1-2 are missed; 2-3 and 2-4 are wrong.
    scores = pair_scores(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1]))
    assert (scores.num_matched, scores.num_true, scores.num_predicted) == (2, 4, 4)
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 0.5, 0.5)


def test_pairs_equal_a_loop_over_all_pairs():
    rng = np.random.default_rng(1)
    for _ in range(10):
        true, predicted = rng.integers(-1, 4, (2, 15))
        same = [
            {(i, j) for i, j in combinations(range(15), 2) if ids[i] == ids[j] != -1}
            for ids in (true, predicted)
        ]
        scores = pair_scores(true, predicted)
        found = (scores.num_true, scores.num_predicted, scores.num_matched)
        assert found == (len(same[0]), len(same[1]), len(same[0] & same[1]))


def test_ratios_without_a_denominator():
    apart = pair_scores(np.array([0, 0, 1]), np.array([0, 1, 2]))
    assert (apart.precision, apart.recall, apart.f1) == (1, 0, 0)
    empty = identity_scores(np.array([], int), np.array([], int))
    assert (empty.idp, empty.idr, empty.idf1) == (1, 1, 1)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (np.zeros(2), np.zeros(2, int), "true_ids must be integers of shape .N., found float64"),
        (np.zeros(2, int), np.zeros((2, 1), int), "predicted_ids must be integers of shape .N."),
        (np.zeros(2, int), np.zeros(3, int), "must have the same length, found 2 and 3"),
    ],
)
def test_invalid_labels(true, predicted, message):
    for function in (identity_scores, pair_scores):
        with pytest.raises(ValueError, match=message):
            function(true, predicted)
