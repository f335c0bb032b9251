import numpy as np
import pytest
from ember_reid.evaluate import (
    evaluate_random_galleries,
    random_gallery_splits,
    rank_metrics,
    single_shot_metrics,
    summarize_trials,
)

from tests.helpers.synthetic import clustered_features, random_ids


def test_single_shot_with_one_image_an_identity_is_plain_ranking():
    generator = np.random.default_rng(0)
    distances = generator.random((20, 10))
    ids = (generator.integers(0, 10, 20), np.arange(10), np.zeros(20, int), np.ones(10, int))
    plain = rank_metrics(distances, *ids)
    for scores in single_shot_metrics(distances, *ids, num_trials=3):
        np.testing.assert_array_equal(scores.ap, plain.ap)
        np.testing.assert_array_equal(scores.cmc, plain.cmc)


def test_single_shot_hand_example():
    # Own identity at 0.1 or 0.5, the other at 0.3: rank 1 or 2, each in about half of the trials.
    trials = single_shot_metrics(
        np.array([[0.1, 0.5, 0.3]]), [1], [1, 1, 2], [0], [1, 1, 1], num_trials=200
    )
    assert {scores.mAP for scores in trials} == {1.0, 0.5}
    assert 60 < sum(scores.mAP == 1.0 for scores in trials) < 140


def test_single_shot_excludes_own_camera_and_junk():
    # The own-camera image (0.0) and the junk (0.05) would be first. The match is always at 0.2,
    # after the negative at 0.1.
    distances, ids = np.array([[0.0, 0.05, 0.1, 0.2]]), ([1], [1, -1, 2, 1], [0], [0, 1, 1, 1])
    for scores in single_shot_metrics(distances, *ids, num_trials=20):
        assert scores.ap.tolist() == [0.5] and scores.cmc[:2].tolist() == [0, 1]


def test_trials_are_seeded_and_do_not_depend_on_their_number():
    generator = np.random.default_rng(0)
    distances, ids = generator.random((30, 80)), random_ids(generator, 30, 80)
    three, ten = (single_shot_metrics(distances, *ids, num_trials=n, seed=4) for n in (3, 10))
    for first, again in zip(three, ten, strict=False):
        np.testing.assert_array_equal(first.ap, again.ap)
    assert len({scores.mAP for scores in ten}) > 5
    summary = summarize_trials(ten)
    assert summary.mAP == pytest.approx(np.mean([scores.mAP for scores in ten]))
    assert summary.mAP_std == pytest.approx(np.std([scores.mAP for scores in ten], ddof=1))
    assert summary.num_trials == 10 and (np.diff(summary.cmc) >= 0).all()
    assert summarize_trials(ten[:1]).mAP_std == 0


def test_one_per_identity():
    pids = np.array([5, 5, 5, 9, 9, 2])
    galleries = set()
    for query, gallery in random_gallery_splits(pids, num_trials=20):
        assert sorted([*query, *gallery]) == list(range(6))
        assert sorted(pids[gallery]) == [2, 5, 9]
        galleries.add(tuple(gallery))
    # 3 x 2 x 1 choices.
    assert len(galleries) == 6


def test_evaluate_random_galleries():
    generator = np.random.default_rng(0)
    pids = generator.integers(0, 10, 100)
    features = clustered_features(generator, pids, noise=1.5)
    trials = evaluate_random_galleries(features, pids, num_trials=3, seed=1)
    for scores, (query, gallery) in zip(
        trials, random_gallery_splits(pids, num_trials=3, seed=1), strict=True
    ):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        cameras = np.zeros(len(query), int), np.ones(len(gallery), int)
        expected = rank_metrics(
            -unit[query] @ unit[gallery].T, pids[query], pids[gallery], *cameras
        )
        np.testing.assert_allclose(scores.ap, expected.ap)
        assert scores.num_valid == 90


@pytest.mark.parametrize("num_trials", [0, 1.5])
def test_invalid_arguments_are_refused(num_trials):
    with pytest.raises(
        ValueError, match=f"num_trials must be a whole number of at least 1, found {num_trials}."
    ):
        single_shot_metrics(np.ones((1, 1)), [1], [1], [0], [1], num_trials=num_trials)
    with pytest.raises(ValueError, match="pids must be integers, found <U1"):
        list(random_gallery_splits(["a", "b"]))
