"""Runs with unlabeled images: clusters, errors, and resuming with the same bits."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch
from ember_reid.engine.adapt.clustering import (
    Clusters,
    count_changes,
    flip_consistency,
    subtract_camera_means,
)
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.handlers.batch import Seeder

from ember_reid import main
from tests.helpers import tiny

CLUSTERS = "ADAPT.CLUSTER.MIN_SAMPLES 2 ADAPT.CLUSTER.K1 6 ADAPT.CLUSTER.K2 2".split()
CENTERED = ["ADAPT.CLUSTER.CENTER_CAMERAS", "True"]
ALONE = ["DATASETS.NAMES", "()"]
SHORT = ["ADAPT.ITERS", "3", "SOLVER.MAX_EPOCHS", "3"]


def names(market):
    return ["DATASETS.UNLABELED", f"('unlabeled:market1501:{market}',)"]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Images that are not in `tiny_market`."""
    return tiny.write_market(tmp_path_factory.mktemp("target") / "market1501")


@pytest.fixture(scope="module")
def words(target):
    return [*names(target), *CLUSTERS, *SHORT]


def run(recipe, folder, *arguments):
    return main.main(["-c", str(recipe), *arguments, "OUTPUT_DIR", str(folder)])


def rows_of(folder):
    with open(folder / "clusters.csv", newline="") as file:
        return list(csv.DictReader(file))


def rounds_of(folder):
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["what"] == "clusters"]


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"environment", "config", "checksums"}:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_unlabeled_images_alone(words, train, tmp_path):
    folder = train(tmp_path / "alone", *words, *ALONE, "ADAPT.PERIOD", "2", *SHORT)
    assert [entry["epoch"] for entry in rounds_of(folder)] == [1, 3]
    values = rounds_of(folder)[-1]["values"]
    rows = rows_of(folder)
    clusters = [int(row["cluster"]) for row in rows]
    assert len(rows) == 32 and max(clusters) + 1 == values["clusters"] > 2
    assert clusters.count(-1) == values["outliers"]
    assert -1 <= values["silhouette"] <= 1 and 0 <= values["consistency"] <= 1
    assert sum(int(row["changes"]) for row in rows) == values["changed"]
    content = load_checkpoint(folder / "checkpoints" / "last.pt")
    state = content["adaptation"]
    assert state["labels"].tolist() == clusters
    memory = state["loss"]["memory"]
    assert memory.shape == (values["clusters"], 16)
    torch.testing.assert_close(memory.norm(dim=1), torch.ones(len(memory)))
    assert "1 identities, 32 images" in (folder / "log.txt").read_text()
    assert json.loads((folder / "results.json").read_text())["market1501"]["mAP"] > 0.3
    # The network is tested without the unlabeled images.
    weight = str(folder / "checkpoints" / "last.pt")
    code = main.main(["-t", "TEST.WEIGHT", weight, "OUTPUT_DIR", str(tmp_path / "test")])
    assert code == 0


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl", "cap", "mmt"])
def test_labeled_and_unlabeled_images(method, words, train, tmp_path):
    options = ["ADAPT.METHOD", method, "SOLVER.EMA_DECAY", "0.9"]
    folder = train(tmp_path / method, *words, *options)
    losses = json.loads((folder / "metrics.jsonl").read_text().splitlines()[1])["values"]
    assert {"ce", "triplet", method} < losses.keys()
    state = load_checkpoint(folder / "checkpoints" / "last.pt")["adaptation"]
    if method == "spcl":
        # 8 labeled identities and 32 unlabeled images.
        assert state["loss"]["memory"].shape == (40, 16)
        assert state["loss"]["labels"][:8].tolist() == list(range(8))
        assert state["loss"]["labels"][8:].min() == 8


@pytest.mark.parametrize(
    ("iteration", "options"),
    [
        (3, ["ADAPT.METHOD", "spcl", "ADAPT.DOMAIN_NORM", "True"]),
        (5, ["SOLVER.EMA_DECAY", "0.9", "TEST.SELECT", "silhouette", "ADAPT.UPDATE", "hardest"]),
        (2, ["ADAPT.METHOD", "mmt", "SOLVER.EMA_DECAY", "0.9", *ALONE]),
        (8, ["ADAPT.METHOD", "cap", "ADAPT.CAP.START", "1", *CENTERED, *ALONE]),
    ],
)
def test_a_resumed_run_has_the_same_bits(
    iteration, options, words, train, tiny_recipe, tmp_path, monkeypatch
):
    whole = train(tmp_path / "whole", *words, *options)
    seed = Seeder.__call__

    def seed_and_stop(self, engine):
        if engine.state.iteration == iteration:
            os.kill(os.getpid(), signal.SIGTERM)
        seed(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(Seeder, "__call__", seed_and_stop)
        assert run(tiny_recipe, tmp_path / "part", *words, *options) == 143
    assert run(tiny_recipe, tmp_path / "part", *words, *options, "--resume") == 0
    for name in ("last", "best"):
        contents = (
            load_checkpoint(f / "checkpoints" / f"{name}.pt") for f in (whole, tmp_path / "part")
        )
        assert_same(*contents)
    for name in ("clusters.csv", "results.json"):
        assert (tmp_path / "part" / name).read_text() == (whole / name).read_text()


def test_a_folder_alone_is_selected_without_labels(target, train, tmp_path, tiny_recipe, capfd):
    crops = ["DATASETS.UNLABELED", f"('folder:{target}/bounding_box_train',)", *ALONE, *CLUSTERS]
    assert run(tiny_recipe, tmp_path / "none", *crops) == 2
    assert "no labeled test set (DATASETS.TESTS)" in capfd.readouterr().err
    folder = train(tmp_path / "run", *crops, "TEST.SELECT", "consistency")
    best = load_checkpoint(folder / "checkpoints" / "best.pt")["evaluation"]
    assert 0 <= best["best_score"] <= 1
    assert json.loads((folder / "results.json").read_text()) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ADAPT.CLUSTER.MIN_SAMPLES", "33"], "there is no cluster among the 32 unlabeled images"),
        (["ADAPT.CLUSTER.RADIUS", "1.0"], "that are in a cluster are in the same one (ADAPT.CLUS"),
        (["SOLVER.IMS_PER_BATCH", "64"], "and a batch of 64 unlabeled images needs 32: lower SOL"),
        (["SOLVER.ACCUMULATION_STEPS", "2"], "cannot be combined with SOLVER.ACCUMULATION_STEPS"),
        (["KD.EMA.ENABLED", "True", "KD.LOGITS.WEIGHT", "1"], "cannot be combined with KD"),
        (["TEST.VALIDATION", "0.5"], "TEST.VALIDATION holds out labeled identities"),
        (["DATALOADER.NUM_INSTANCES", "1", "LOSS.TRIPLET.WEIGHT", "0"], "or more images of a clu"),
        (["ADAPT.CLUSTER.K2", "7"], "ADAPT.CLUSTER.K2 7 must be at most ADAPT.CLUSTER.K1 6"),
        (["ADAPT.WEIGHTS", "missing.pt"], "missing.pt"),
        (["ADAPT.METHOD", "mmt"], "mmt needs the average of the network: set SOLVER.EMA_DECAY"),
        (["ADAPT.DOMAIN_NORM", "True"], "separates labeled from unlabeled images, but DATASETS"),
    ],
)
def test_errors_are_one_line(options, message, words, tiny_recipe, tmp_path, capfd):
    assert run(tiny_recipe, tmp_path / "run", *words, *ALONE, *options) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("main.py: ") and message in error
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()


def test_cap_needs_cameras(target, tiny_recipe, tmp_path, capfd):
    words = ["DATASETS.UNLABELED", f"('folder:{target}/bounding_box_train',)"]
    assert run(tiny_recipe, tmp_path / "run", *words, "ADAPT.METHOD", "cap") == 2
    assert "ADAPT.METHOD cap needs the cameras of the unlabeled" in capfd.readouterr().err


def test_camera_means_by_hand():
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 5.0]])
    found = subtract_camera_means(features, torch.tensor([4, 4, 7]))
    assert found.tolist() == [[-1, -1], [1, 1], [0, 0]]


def test_selection_by_clusters_needs_them(tiny_recipe, tmp_path, capfd):
    assert run(tiny_recipe, tmp_path / "run", "TEST.SELECT", "silhouette") == 2
    assert "TEST.SELECT silhouette needs clusters" in capfd.readouterr().err


def test_changes_by_hand():
    old = np.array([0, 0, 0, 1, 1, -1, -1, 2])
    assert not count_changes(old, np.array([3, 3, 3, 0, 0, -1, -1, 1])).any()
    found = count_changes(old, np.array([0, 0, 1, 1, 1, -1, 1, -1]))
    assert found.tolist() == [False, False, True, False, False, False, True, True]
    assert not count_changes(np.array([-1, -1]), np.array([-1, -1])).any()


def test_consistency_by_hand():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    clusters = Clusters(features, np.array([0, 0, 1, -1]), 0.0)
    items = torch.tensor([0, 1, 2, 3])
    # The second mirror image is nearest to the other cluster; the last image has none.
    mirrored = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.0, 1.0]])
    assert flip_consistency(clusters, items, mirrored) == 0.5
