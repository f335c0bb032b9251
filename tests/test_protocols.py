"""Each family of datasets: a short training, scored by its own protocol and by the others."""

import json
from pathlib import Path

import pytest
from ember_reid.main import main

from tests.helpers import benchmark_trees as trees

SMALL = ["SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_INSTANCES", "2", "LOG.TO", "()"]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(
    ("name", "write", "num_frames", "protocol"),
    [
        ("vehicleid-800", trees.write_vehicleid, 1, "one-per-identity"),
        ("viper", trees.write_viper, 1, "single-shot"),
        ("ilids-vid", trees.write_ilids_vid, 2, "cross-camera"),
        ("csv", trees.write_csv, 1, "cross-camera"),
    ],
)
def test_a_data_set_is_scored_by_its_own_rule(
    tiny_recipe, tmp_path, name, write, num_frames, protocol
):
    spec = f"{name}:{write(tmp_path / 'data')}"
    more = [
        "DATASETS.NAMES",
        spec,
        "INPUT.NUM_FRAMES",
        str(num_frames),
        "OUTPUT_DIR",
        str(tmp_path / "run"),
        *SMALL,
    ]
    assert main(["-c", str(tiny_recipe), *more]) == 0
    (scores,) = results(tmp_path / "run").values()
    assert scores["protocol"] == protocol
    assert 0 < scores["mAP"] <= 1 and scores["num_valid"] > 0
    assert ("mAP_spread" in scores) == (protocol in ("one-per-identity", "single-shot"))


def test_tracklets_are_scored_from_videos_and_images_to_both(tiny_recipe, tmp_path):
    spec = f"mars:{trees.write_mars(tmp_path / 'mars')}"
    trained = tmp_path / "run"
    more = ["DATASETS.NAMES", spec, "INPUT.NUM_FRAMES", "2", "OUTPUT_DIR", str(trained), *SMALL]
    assert main(["-c", str(tiny_recipe), *more]) == 0
    galleries = {"video-to-video": 3, "image-to-video": 3, "video-to-image": 5, "image-to-image": 5}
    for protocol, num_gallery in galleries.items():
        out = tmp_path / protocol
        weight = str(trained / "checkpoints" / "best.pt")
        assert (
            main(["-t", "TEST.WEIGHT", weight, "TEST.PROTOCOL", protocol, "OUTPUT_DIR", str(out)])
            == 0
        )
        scores = results(out)["mars"]
        assert (scores["protocol"], scores["num_query"], scores["num_gallery"]) == (
            protocol,
            1,
            num_gallery,
        )


def test_one_network_on_several_test_sets(tiny_recipe, tiny_market, tmp_path, capsys):
    tests = f"('market1501:{tiny_market}', 'viper:{trees.write_viper(tmp_path / 'viper')}')"
    out = tmp_path / "run"
    assert main(["-c", str(tiny_recipe), "DATASETS.TESTS", tests, "OUTPUT_DIR", str(out)]) == 0
    assert list(results(out)) == ["market1501", "viper@0"]
    assert "tested on" in capsys.readouterr().out
