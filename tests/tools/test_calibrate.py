import json
import re
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from ember_reid.data.records import Record, Splits
from ember_reid.evaluate import QueryGallery, distance_matrix
from ember_reid.tools.calibrate.calibration import (
    Histograms,
    collect_histograms,
    fit_probability,
    half_open_gallery,
    intervals,
)
from ember_reid.tools.calibrate.command import check_pairs, main, measure


def on_circle(*degrees: float) -> torch.Tensor:
    """Embeddings whose cosine is that of the angle between them."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_histograms_count_every_pair_once_against_a_loop():
    rng = np.random.default_rng(0)
    query, gallery = (
        torch.tensor(rng.normal(size=(7, 3))).float(),
        torch.tensor(rng.normal(size=(11, 3))).float(),
    )
    query_pids, gallery_pids = rng.integers(0, 3, 7), rng.integers(-1, 3, 11)
    query_camids, gallery_camids = rng.integers(0, 2, 7), rng.integers(0, 2, 11)
    found = collect_histograms(
        QueryGallery(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids),
        num_bins=8,
    )
    distances = distance_matrix(query, gallery)
    identities = sorted(set(query_pids.tolist()))
    same, different = np.zeros((len(identities), 8)), np.zeros((len(identities), 8))
    for q in range(7):
        for g in range(11):
            row, k = identities.index(query_pids[q]), int(distances[q, g] / 2 * 8)
            if gallery_pids[g] == query_pids[q] and gallery_camids[g] != query_camids[q]:
                same[row, k] += 1
            elif gallery_pids[g] not in (-1, query_pids[q]):
                different[row, k] += 1
    assert np.array_equal(found.same, same) and np.array_equal(found.different, different)
    assert found.edges[[0, -1]].tolist() == [0, 2] and found.num_identities == len(identities)


def test_intervals_without_spread_are_points():
    # Same pairs: 4 at 0..1. Different pairs: one at 0..1 and nine at 2..3.
    one = Histograms(np.arange(4.0), np.array([[3.0, 1, 0]] * 2), np.array([[1.0, 0, 9]] * 2))
    thresholds, fnmr = intervals(one, (0.05, 0.1), num_resamples=20)
    # At 5% no query may pass; at 10% everything up to 2.
    assert thresholds.tolist() == [
        [0, 2],
        [0, 2],
    ]
    assert fnmr.tolist() == [[1, 0], [1, 0]]


def test_intervals_are_wider_with_fewer_identities_and_repeat():
    rng = np.random.default_rng(1)

    def width(num_identities: int) -> float:
        same = rng.multinomial(
            20, np.linspace(2, 0.1, 50) / np.linspace(2, 0.1, 50).sum(), size=num_identities
        )
        different = rng.multinomial(
            99, np.linspace(0.1, 2, 50) / np.linspace(0.1, 2, 50).sum(), size=num_identities
        )
        histograms = Histograms(np.linspace(0, 2, 51), same.astype(float), different.astype(float))
        first, again = (intervals(histograms, (0.1,), num_resamples=100)[1] for _ in range(2))
        assert np.array_equal(first, again)
        return float(first[1, 0] - first[0, 0])

    assert width(4) > 2 * width(100) > 0


@pytest.mark.parametrize("method", ["isotonic", "logistic"])
def test_probabilities_fall_with_distance_and_obey_the_prior(method):
    # Bins at 0.5, 1.5, 2.5: only same pairs, equal shares of both kinds, only different pairs.
    histograms = Histograms(np.arange(4.0), np.array([[5.0, 5, 0]]), np.array([[0.0, 500, 500]]))
    distances, probabilities = fit_probability(histograms, method=method, num_points=3)
    assert distances.tolist() == [0.5, 1.5, 2.5]
    assert probabilities == pytest.approx([1, 0.5, 0], abs=0.02 if method == "isotonic" else 0.15)
    _, rare = fit_probability(histograms, method=method, prior=0.1, num_points=3)
    assert (
        rare[1] == pytest.approx(0.1, abs=0.01 if method == "isotonic" else 0.1)
        and rare[1] < probabilities[1]
    )
    with pytest.raises(
        ValueError, match="the fit is 'spline', it must be one of isotonic, logistic"
    ):
        fit_probability(histograms, method="spline")


def test_half_of_the_identities_leave_the_gallery():
    kept = half_open_gallery(np.array([1, 1, 2, 3, 4]), np.array([1, 2, 3, 4, 0, -1, 1]), seed=0)
    gone = {pid for pid, stays in zip([1, 2, 3, 4], kept, strict=False) if not stays}
    assert len(gone) == 2 and kept[4] and kept[5] and kept[6] == kept[0]


def test_a_threshold_by_hand():
    # Four identities, 60 degrees apart in camera 1. Camera 2 sees them five degrees
    # further, the last one 40 degrees further.
    angles = (0.0, 60.0, 120.0, 180.0)
    embeddings = torch.cat([on_circle(*angles), on_circle(5.0, 65.0, 125.0, 220.0)])
    pids, camids = torch.arange(4).repeat(2), torch.tensor([0] * 4 + [1] * 4)
    embedded = Namespace(embeddings=embeddings, pids=pids, camids=camids)
    asked = Namespace(fmr=0.1, prior=0.5, confidence=0.9, resamples=20, fit="isotonic")
    found = measure(embedded, 4, asked, metric="cosine", seed=0)
    # One of the 12 different pairs may match. The nearest three are tied at 55 degrees
    # (60-5, 120-65, 180-125), so none does.
    assert found["num_same_pairs"] == 4 and found["num_different_pairs"] == 12
    assert found["threshold"] == pytest.approx(1 - np.cos(np.deg2rad(55)), abs=1e-5)
    assert found["fnmr_at_fmr"][0] | {
        "threshold": 0,
        "threshold_interval": 0,
        "fnmr_interval": 0,
    } == {
        "fmr": 0.1,
        "threshold": 0,
        "threshold_interval": 0,
        "fnmr": 0.0,
        "fnmr_interval": 0,
        "false_matches": 1,
    }
    assert "rests on very few of them" in found["warning"]


def test_the_command_writes_beside_the_weights(tiny_run, tmp_path, capsys):
    weights = tmp_path / "best.pt"
    weights.write_bytes((tiny_run / "checkpoints" / "best.pt").read_bytes())
    assert main(["TEST.WEIGHT", str(weights), "--fmr", "0.25", "--resamples", "50"]) == 0
    path = tmp_path / "best.pt.calibration.json"
    shown = capsys.readouterr().out
    assert shown.endswith(f"{path}\n") and "4 identities, 8 same and 40 different pairs" in shown
    content = json.loads(path.read_text())
    assert content["threshold"] == next(
        row["threshold"] for row in content["fnmr_at_fmr"] if row["fmr"] == 0.25
    )
    assert content["dataset"] == "market1501" and content["metric"] == "cosine"
    assert re.fullmatch("[0-9a-f]{64}", content["sha256"])
    probabilities = content["probability"]["probabilities"]
    assert (
        probabilities == sorted(probabilities, reverse=True)
        and 0 <= probabilities[-1] <= probabilities[0] <= 1
    )
    for row in content["fnmr_at_fmr"]:
        assert row["fnmr_interval"][0] <= row["fnmr_interval"][1]


def test_held_out_identities_are_used_where_there_are_some(tiny_run, tmp_path):
    out = tmp_path / "calibration.json"
    words = ["TEST.WEIGHT", str(tiny_run / "checkpoints" / "best.pt"), "TEST.VALIDATION", "0.5"]
    assert main([*words, "--out", str(out), "--resamples", "20", "--fit", "logistic"]) == 0
    content = json.loads(out.read_text())
    assert (
        content["identities"] == "held out of training (TEST.VALIDATION)"
        and content["num_identities"] == 4
    )


def test_no_identity_twice():
    query, other = Record((), 1, 0), Record((), 2, 1)
    with pytest.raises(
        ValueError, match="no identity of cows appears under two different cameras"
    ) as error:
        check_pairs("cows", Splits((), (query,), (query, other)))
    assert "(1 queries, 2 gallery entries)" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cows has a single identity"):
        check_pairs("cows", Splits((), (query,), (replace(query, camid=1),)))
    check_pairs("cows", Splits((), (query,), (replace(query, camid=1), other)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no checkpoint to test: set TEST.WEIGHT runs/x/checkpoints/best.pt"),
        (["TEST.WEIGHT", "nowhere.pt"], "weight file nowhere.pt does not exist"),
        (
            ["TEST.WEIGHT", "person.onnx"],
            "person.onnx is an exported network (onnx), "
            "give the checkpoint from which it was exported",
        ),
        (["--fmr", "0"], "--fmr is 0.0, it must be between 0 and 1"),
        (["--prior", "1"], "--prior is 1.0, it must be between 0 and 1"),
        (["--resamples", "3"], "--resamples is 3, it must be at least 10"),
    ],
)
def test_user_errors_are_one_line(capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The fields ir_version and graph of an ONNX file.
    (tmp_path / "person.onnx").write_bytes(bytes([1 << 3, 8, 7 << 3 | 2, 1, 0]))
    assert main(words) == 2
    assert capsys.readouterr().err == f"calibrate: {message}\n"
