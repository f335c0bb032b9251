"""The numbers of results.json under every protocol, on features whose ranks can be read off."""

import pytest
import torch
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.engine.scores import (
    ScoreSettings,
    describe_scores,
    retrieval_scores,
)
from ember_reid.evaluate import Rerank

ANGLES = torch.tensor([0.0, 40.0, 5.0, 10.0, 42.0, 60.0]).deg2rad()
# Queries at 0 and 40 degrees, then the gallery.
FEATURES = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
PIDS = torch.tensor([1, 2, 1, 2, 1, 2])
CAMIDS = torch.tensor([0, 0, 0, 1, 1, 1])
EMBEDDED = EmbeddingBatch(FEATURES, PIDS, CAMIDS, torch.arange(6))


def test_cross_camera_leaves_the_own_camera_out():
    # Query 0: its neighbor at 5 degrees is its own camera's; then 10 (wrong), 42 (right): AP 1/2.
    # Query 1: 42 (wrong), 60 and 10 (right, 20 and 30 degrees off), 5: AP (1/2 + 2/3) / 2 = 7/12.
    scores = retrieval_scores(EMBEDDED, 2, ScoreSettings())
    assert scores["mAP"] == pytest.approx((1 / 2 + 7 / 12) / 2)
    assert scores["mINP"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (scores["Rank-1"], scores["Rank-5"], scores["Rank-10"]) == (0.0, 1.0, 1.0)
    assert (scores["num_query"], scores["num_gallery"], scores["num_valid"]) == (2, 4, 2)
    assert scores["protocol"] == "cross-camera"


def test_all_counts_the_own_camera():
    # Query 0 now: 5 (right), 10 (wrong), 42 (right): AP (1 + 2/3) / 2 = 5/6.
    scores = retrieval_scores(EMBEDDED, 2, ScoreSettings(protocol="all"))
    assert scores["mAP"] == pytest.approx((5 / 6 + 7 / 12) / 2)
    assert scores["Rank-1"] == 0.5


def test_the_trapezoid_differs_from_the_mean():
    # Query 0: one match at rank 2: (1/2 + 0) / 2 = 1/4.
    # Query 1: ((1/2 + 0) + (2/3 + 1/2)) / 2 / 2 = 5/12.
    scores = retrieval_scores(EMBEDDED, 2, ScoreSettings(average_precision="trapezoid"))
    assert scores["mAP"] == pytest.approx((1 / 4 + 5 / 12) / 2)


def test_draws_report_their_spread():
    everything = EmbeddingBatch(
        FEATURES.repeat(2, 1), PIDS.repeat(2), CAMIDS.repeat(2), torch.arange(12)
    )
    one_each = retrieval_scores(everything, 6, ScoreSettings(protocol="one-per-identity"))
    single = retrieval_scores(EMBEDDED, 2, ScoreSettings(protocol="single-shot"))
    for scores, num_valid in ((one_each, 4), (single, 2)):
        assert (scores["num_draws"], scores["num_valid"]) == (10, num_valid)
        # One match among two identities.
        assert 0.5 <= scores["mAP"] <= 1 and scores["mAP"] == scores["mINP"]
        assert scores["mAP_spread"] >= 0
        assert any(line.startswith("means of 10 draws") for line in describe_scores(scores))


def test_reranking_with_lambda_one_changes_nothing():
    settings = ScoreSettings(rerank=Rerank(k1=2, k2=1, lambda_value=1.0))
    scores = retrieval_scores(EMBEDDED, 2, settings)
    assert scores["reranked"]["mAP"] == pytest.approx(scores["mAP"])
    assert describe_scores(scores)[5] == "after k-reciprocal re-ranking:"


def test_operating_points_in_closed_and_open_sets():
    # Pairs of the same identity across cameras: 2 for query 1 and 1 for query 0.
    # Different pairs: 5 - 40 = 35 degrees, ...
    closed = retrieval_scores(EMBEDDED, 2, ScoreSettings(rates=(0.5,)))
    assert 0 <= closed["TPR@FPR=0.5"] <= 1 and not any(name.startswith("TPIR") for name in closed)
    stranger = EMBEDDED._replace(pids=torch.tensor([9, 2, 1, 2, 1, 2]))
    opened = retrieval_scores(stranger, 2, ScoreSettings(rates=(0.5,)))
    low, high = opened["TPIR@FPIR=0.5_low"], opened["TPIR@FPIR=0.5_high"]
    assert 0 <= low <= opened["TPIR@FPIR=0.5"] <= high <= 1
    assert any(line.startswith("TPIR@FPIR=0.5: ") for line in describe_scores(opened))


def test_query_expansion_pulls_neighbors_together():
    # With k = 1 every feature is replaced by itself, so the scores stay.
    same = retrieval_scores(EMBEDDED, 2, ScoreSettings(expand_neighbors=1))
    assert same["mAP"] == pytest.approx(retrieval_scores(EMBEDDED, 2, ScoreSettings())["mAP"])
