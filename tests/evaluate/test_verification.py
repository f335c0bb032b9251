import numpy as np
import pytest
from ember_reid.evaluate import verification_scores
from ember_reid.evaluate.distances import distance_matrix
from ember_reid.evaluate.verification import SmallestValues
from sklearn.metrics import roc_curve

from tests.helpers.synthetic import clustered_features, random_ids


def pairs(query, gallery, ids):
    """Distances of all same and all different pairs."""
    distances = distance_matrix(query, gallery)
    same = (ids[0][:, None] == ids[1]) & (ids[2][:, None] != ids[3]) & (ids[1] != -1)
    different = (ids[0][:, None] != ids[1]) & (ids[1] != -1)
    return distances[same], distances[different]


def test_equals_the_roc_of_all_pairs():
    generator = np.random.default_rng(0)
    ids = random_ids(generator, 60, 300, num_pids=12)
    query = clustered_features(generator, ids[0], noise=1.5)
    gallery = clustered_features(generator, np.maximum(ids[1], 0), noise=1.5)
    scores = verification_scores(query, gallery, *ids, fprs=(1e-3, 1e-2, 0.1, 1.0))
    same, different = pairs(query, gallery, ids)
    assert (scores.num_same, scores.num_different) == (len(same), len(different))
    labels = np.repeat([1, 0], [len(same), len(different)])
    fpr, tpr, _ = roc_curve(labels, -np.concatenate((same, different)), drop_intermediate=False)
    expected = [tpr[np.searchsorted(fpr, rate, side="right") - 1] for rate in (1e-3, 1e-2, 0.1)] + [
        1.0
    ]
    np.testing.assert_allclose(scores.tpr, expected)
    for threshold, rate in zip(scores.threshold, scores.fpr, strict=True):
        assert np.mean(different <= threshold) <= rate


def test_hand_example():
    # on a line: same pairs at 1 and 9, different pairs at 4, 16, 25, 36
    query, gallery = np.array([[0.0], [10.0]]), np.array([[1.0], [4.0], [7.0]])
    ids = ([1, 2], [1, 3, 2], [0, 0], [1, 1, 1])
    # squared distances: [1, 16, 49], [81, 36, 9] -> same 1, 9; different 16, 49, 81, 36
    scores = verification_scores(query, gallery, *ids, metric="euclidean", fprs=(0.25, 0.5))
    assert scores.tpr.tolist() == [1, 1]
    assert 16 <= scores.threshold[0] < 36 <= scores.threshold[1] < 49
    none = verification_scores(
        query, gallery, [1, 3], [3, 2, 1], [0, 0], [1, 1, 1], metric="euclidean", fprs=(0.1,)
    )
    # same: 49 and 81; different: 1, 16, 36, 9: not one of the four may pass
    assert none.tpr.tolist() == [0] and none.threshold[0] < 1


def test_smallest_values_of_a_stream():
    generator = np.random.default_rng(0)
    values = generator.permutation(400_000).astype(np.float32)
    kept = SmallestValues(1000)
    for piece in np.split(values, 40):
        kept.add(piece[piece <= kept.limit])
    assert kept.limit < 400_000
    np.testing.assert_array_equal(kept.sorted(), np.arange(1000))


EYE = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
    "ids, options, message",
    [
        (([1, 2, 3], [4, 5, 6]), {}, "There is no pair of same identities to verify"),
        (([1, 1, 1], [1, 1, 1]), {}, "There is no pair of different identities to verify"),
        (
            ([1, 2, 3], [1, 2, 3]),
            {"fprs": (0.0,)},
            r"Rates must be numbers above 0 and at most 1, found \(0.0,\)\.",
        ),
        (
            ([1, 2, 3], [1, 2, 3]),
            {"fprs": ()},
            r"Rates must be numbers above 0 and at most 1, found \(\)\.",
        ),
        (([1, 2], [1, 2, 3]), {}, r"query_pids must have shape \(3,\)"),
    ],
)
def test_invalid_arguments_are_refused(ids, options, message):
    with pytest.raises(ValueError, match=message):
        verification_scores(EYE, EYE, *ids, [0, 0, 0], [1, 1, 1], **options)
