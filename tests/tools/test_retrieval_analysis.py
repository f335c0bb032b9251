"""The report's analysis of retrieval: near entries, label errors, camera pairs."""

import numpy as np
import pytest
from ember_reid.tools.report.retrieval_analysis import (
    CameraScore,
    Nearest,
    analyze_retrieval,
    choose,
    find_nearest,
    find_suspects,
    quantile,
    score_camera_pairs,
    score_match_counts,
)

from tests.helpers.labeled_points import labeled, noisy_city


def test_nearest_entries_by_hand():
    query = labeled([0.0, 90.0], [1, 2], [0, 0])
    gallery = labeled([0.0, 60.0, 60.0, 180.0], [1, 1, 2, -1], [0, 1, 1, 1])
    nearest = find_nearest(query, gallery)
    # The query's own camera and junk do not count: cos 60 = 1/2; from 90 to 60 degrees, cos 30.
    assert nearest.same == pytest.approx([0.5, 1 - np.cos(np.pi / 6)], abs=1e-6)
    assert nearest.different == pytest.approx([0.5, 1 - np.cos(np.pi / 6)], abs=1e-6)
    assert nearest.num_matches.tolist() == [1, 1]


def test_suspects_are_near_another_identity_and_far_from_their_own():
    same = np.array([0.9, 0.6, 0.2, np.inf, 0.9, 0.4])
    nearest = Nearest(same, np.array([0.1, 0.2, 0.3, 0.1, 0.7, 0.1]), np.array([3, 3, 3, 0, 3, 3]))
    suspects, notes = find_suspects(nearest, 0.4, 0.5, count=5)
    # 2 has its match first, 3 has no match, 4 has no near neighbor, and the match of 5 is not far.
    assert suspects == [0, 1]
    assert notes[1] == (
        "Likely label error, or two similar identities: another identity is at 0.200, "
        "nearer than half of all true pairs (0.400); the nearest image of its own identity "
        "is at 0.600, farther than nine in ten true pairs (0.500)."
    )
    assert find_suspects(nearest, 0.4, 0.5, count=1)[0] == [0]


def test_best_median_and_worst_do_not_overlap():
    valid, ap = (
        np.array([10, 20, 30, 40, 50, 60, 70]),
        np.array([0.1, 0.9, 0.5, 0.4, 0.6, 0.8, 0.2]),
    )
    assert choose(valid, ap, count=2) == {"best": [20, 60], "median": [50, 30], "worst": [10, 70]}
    assert choose(valid[:1], ap[:1], count=6) == {"best": [10], "median": [], "worst": []}


def test_scores_by_number_of_matches_by_hand():
    scores = score_match_counts(np.array([1, 2, 4, 25]), np.array([1.0, 0.2, 0.4, 0.5]))
    assert scores == {"1": (1.0, 1), "2 to 4": (pytest.approx(0.3), 2), "20 or more": (0.5, 1)}


def test_camera_pairs_by_hand():
    query = labeled([0.0, 90.0], [1, 2], [0, 1])
    gallery = labeled([10.0, 5.0, 80.0, 20.0], [1, 2, 2, 1], [1, 1, 0, 0])
    # Query of camera 1, gallery of camera 2: id 2 at 5 degrees precedes id 1 at 10, so AP is 1/2.
    # Query of camera 2, gallery of camera 1: id 2 is first, so AP is 1.
    assert score_camera_pairs(query, gallery) == {
        (0, 1): CameraScore(0.5, 1),
        (1, 0): CameraScore(1.0, 1),
    }
    whole = score_camera_pairs(query, gallery, rule="all")
    # Within camera 1, the gallery has one image of each identity; id 1 at 20 degrees is nearest.
    assert whole[0, 0] == CameraScore(1.0, 1) and set(whole) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_retrieval_analysis_of_noisy_data():
    city = noisy_city()
    found = analyze_retrieval(*city, name="city", count=2, top=5)
    assert [ranked.choice for ranked in found.lists] == ["best"] * 2 + ["median"] * 2 + [
        "worst"
    ] * 2 + ["suspect"]
    assert (
        found.lists[-1].index == 23
        and found.lists[-1].pid == 6
        and not found.lists[-1].entries[0].correct
    )
    assert list(found.notes) == [23] and found.lists[4].index == 23
    assert found.cmc[0] == pytest.approx(23 / 24, abs=0.05)
    assert found.histograms.same.sum() == 24 * 4 and found.histograms.different.sum() == 24 * 42
    assert 0 < quantile(found.histograms, 0.5) < 0.2
    assert set(found.camera_pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}
    with pytest.raises(ValueError):
        analyze_retrieval(city[0], city[1].take(np.array([], dtype=np.int64)))
