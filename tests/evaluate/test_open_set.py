import numpy as np
import pytest
from ember_reid.evaluate import QueryGallery, identification_scores
from ember_reid.evaluate.distances import distance_matrix
from ember_reid.evaluate.open_set import NearestEntries, nearest_entries, rates_of_nearest

from tests.helpers.synthetic import clustered_features, random_ids


def nearest(mated, unmated, wrong=()):
    """Entries with the distances of identified mated, unmated and wrongly identified queries."""
    distances = np.array([*mated, *wrong, *unmated], np.float32)
    is_mated = np.arange(len(distances)) < len(mated) + len(wrong)
    return NearestEntries(distances, np.arange(len(distances)) < len(mated), is_mated)


def test_hand_example():
    # One of four unmated queries may raise an alarm, so distances below 0.4 are accepted:
    # 0.1, 0.2 and 0.3 are identified.
    found = nearest([0.1, 0.2, 0.3, 0.6], [0.25, 0.4, 0.5, 0.7], wrong=[0.05])
    scores = rates_of_nearest(found, fpirs=(0.25, 1.0), num_resamples=200)
    assert scores.tpir.tolist() == [3 / 5, 4 / 5]
    assert 0.3 <= scores.threshold[0] < 0.4 and scores.threshold[1] == np.inf
    assert (scores.num_mated, scores.num_unmated) == (5, 4)
    assert (scores.low <= scores.tpir).all() and (scores.tpir <= scores.high).all()
    assert scores.low[0] < scores.high[0]


def test_intervals_are_seeded_and_shrink_with_data():
    generator = np.random.default_rng(0)
    few, many = (nearest(generator.random(n), 0.5 + generator.random(n)) for n in (40, 4000))
    first, again = (rates_of_nearest(few, num_resamples=100, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.low, again.low)
    wide, narrow = (
        scores.high - scores.low for scores in (first, rates_of_nearest(many, num_resamples=100))
    )
    assert (narrow < wide).all()


def test_nearest_entries_exclude_what_ranking_excludes():
    generator = np.random.default_rng(0)
    ids = random_ids(generator, 40, 200, num_pids=30)
    query = clustered_features(generator, ids[0])
    gallery = clustered_features(generator, np.maximum(ids[1], 0))
    found = nearest_entries(QueryGallery(query, gallery, *ids))
    distances = distance_matrix(query, gallery)
    for q in range(40):
        same = ids[1] == ids[0][q]
        kept = np.flatnonzero((ids[1] != -1) & ~(same & (ids[3] == ids[2][q])))
        first = kept[np.argmin(distances[q, kept])]
        assert found.distances[q] == distances[q, first]
        assert found.mated[q] == same[kept].any()
        assert found.correct[q] == same[first]


EYE = np.eye(2, dtype=np.float32)


@pytest.mark.parametrize(
    "pids, options, message",
    [
        (
            [1, 2],
            {},
            "needs unmated queries, and there are none: add identities missing in",
        ),
        (
            [3, 4],
            {},
            "needs mated queries, and there are none: add identities shared with",
        ),
        ([1, 3], {"fpirs": (2,)}, r"Rates must be numbers above 0 and at most 1, found \(2,\)\."),
        ([1, 3], {"confidence": 1.0}, "confidence must be a number between 0 and 1, found 1.0."),
        (
            [1, 3],
            {"num_resamples": 0},
            "num_resamples must be a whole number of at least 1, found 0.",
        ),
    ],
)
def test_invalid_arguments_are_refused(pids, options, message):
    with pytest.raises(ValueError, match=message):
        identification_scores(EYE, EYE, pids, [1, 2], [0, 0], [1, 1], **options)
