"""Unlabeled images, and batches with pseudo labels."""

import csv

import numpy as np
import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.adaptation.sampler import AdaptationSampler, UnlabeledRows
from ember_reid.data.adaptation.unlabeled import NO_TRACK, load_unlabeled
from ember_reid.data.build import build_splits, build_train_loader
from ember_reid.data.records import NO_PID
from ember_reid.data.samplers import IdentityBatchSampler
from PIL import Image


def write_images(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), (len(name), 0, 0)).save(path)


def write_csv(path, rows, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([columns, *rows])


def test_a_folder_has_a_camera_per_subfolder(tmp_path):
    write_images(tmp_path, ["b/2.jpg", "a/deep/1.jpg", "a/3.jpg"])
    found = load_unlabeled([f"folder:{tmp_path}"], tmp_path)
    names = [(record.paths[0].name, record.pid, record.camid) for record in found.records]
    assert sorted(names) == [("1.jpg", NO_PID, 0), ("2.jpg", NO_PID, 1), ("3.jpg", NO_PID, 0)]
    assert found.has_cameras and set(found.tracks.tolist()) == {NO_TRACK}
    write_images(tmp_path, ["loose.jpg"])
    found = load_unlabeled([f"folder:{tmp_path}"], tmp_path)
    assert not found.has_cameras and len(found.records) == 4


def test_a_list_without_identities(tmp_path):
    write_images(tmp_path, [f"{number}.jpg" for number in range(5)])
    rows = [
        ("0.jpg", "east", "1", "train", "7"),
        ("1.jpg", "west", "1", "train", "7"),
        ("2.jpg", "east", "1", "train", "8"),
        ("3.jpg", "east", "", "train", "9"),
        ("4.jpg", "east", "2", "query", "9"),
    ]
    write_csv(tmp_path / "list.csv", rows, ("path", "camid", "track", "split", "pid"))
    found = load_unlabeled([f"csv:{tmp_path}/list.csv"], tmp_path)
    # A track belongs to one camera; the identities are not read.
    assert found.tracks.tolist() == [0, 1, 0, NO_TRACK]
    assert [record.camid for record in found.records] == [0, 1, 0, 0]
    assert {record.pid for record in found.records} == {NO_PID}
    write_csv(tmp_path / "plain.csv", [("0.jpg",), ("1.jpg",)], ("path",))
    both = load_unlabeled([f"csv:{tmp_path}/list.csv", f"csv:{tmp_path}/plain.csv"], tmp_path)
    assert [record.camid for record in both.records] == [0, 1, 0, 0, 2, 2]


def test_errors_are_one_sentence(tmp_path, tiny_market):
    (tmp_path / "empty").mkdir()
    write_csv(tmp_path / "none.csv", [("0.jpg",)], ("path",))
    write_csv(tmp_path / "columns.csv", [("0.jpg",)], ("image",))
    for spec, message in (
        (f"folder:{tmp_path}/empty", "has no training images"),
        (f"folder:{tmp_path}/missing", "missing is not a folder"),
        (f"csv:{tmp_path}/none.csv", "line 2: the image .*0.jpg does not exist"),
        (f"csv:{tmp_path}/columns.csv", "line 1: no column path; found: image"),
        ("market1501", "allowed: unlabeled:NAME"),
        ("unlabeled:nothing", 'unknown dataset "nothing"'),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            load_unlabeled([spec], tmp_path)
    names = ["DATASETS.NAMES", f"('market1501:{tiny_market}',)"]
    unlabeled = ["DATASETS.UNLABELED", f"('folder:{tiny_market}/bounding_box_train',)"]
    with pytest.raises(ValueError, match="^32 of the images of DATASETS.UNLABELED are also in"):
        build_splits(load_config(None, [*names, *unlabeled]))


def sampler(labels, *, source=None, first=0, **options):
    ranks = {name: options.pop(name) for name in ("rank", "world_size") if name in options}
    rows = UnlabeledRows(**({"batch_size": 4, "num_instances": 2, "num_steps": 3} | options))
    camids, pids = np.arange(len(labels)) % 2, np.array(labels)
    pids[first:] = NO_PID
    found = AdaptationSampler(source, pids, camids, rows, seed=1, **ranks)
    found.set_pids(np.asarray(labels))
    return found


def batches(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_batches_are_clusters_from_different_cameras():
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, -1, -1]
    found = sampler(labels, num_steps=20)
    epoch = batches(found, 1)
    assert len(epoch) == len(found) == 20
    for batch in epoch:
        (a, b, c, d) = (labels[index] for index in batch)
        assert a == b != c == d and min(a, c) >= 0
        assert (batch[0] - batch[1]) % 2 == (batch[2] - batch[3]) % 2 == 1
    assert {index for batch in epoch for index in batch} == set(range(10))
    assert batches(found, 1) == epoch != batches(found, 2)
    # Two processes: the parts of a batch.
    parts = [batches(sampler(labels, num_steps=20, rank=r, world_size=2), 1) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == epoch


def test_outliers_are_left_out_or_alone():
    labels = [0, 0, 0, -1, -1, -1]
    epoch = batches(sampler(labels, use_outliers=True, num_steps=40), 1)
    counts = np.bincount(np.concatenate(epoch), minlength=6)
    assert (counts > 0).all()
    # Three outliers and two images of the cluster: the last of five is left out.
    assert counts.sum() == 160
    with pytest.raises(ValueError, match="found 1 clusters, and a batch of 4 .* needs 2: lower"):
        sampler(labels)


def test_labels_change_between_epochs():
    found = sampler([0, 0, 1, 1, -1, -1])
    assert {index for batch in batches(found, 1) for index in batch} == {0, 1, 2, 3}
    found.set_pids(np.array([-1, -1, 0, 0, 1, 1]))
    assert {index for batch in batches(found, 2) for index in batch} == {2, 3, 4, 5}


def test_the_first_rows_are_labeled():
    source = IdentityBatchSampler([0, 0, 1, 1, 2, 2], num_instances=2, batch_size=4, seed=1)
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, -1]
    for world_size, rows in ((1, 4), (2, 2)):
        for rank in range(world_size):
            found = sampler(labels, source=source, first=6, rank=rank, world_size=world_size)
            for batch in batches(found, 1):
                assert max(batch[:rows]) < 6 <= min(batch[rows:])
                assert len(batch) == 2 * rows
    # All epochs of the other sampler are used, one after another.
    one = np.concatenate([batches(sampler(labels, source=source, first=6), e) for e in (1, 2)])
    expected = np.concatenate([source._plan(number) for number in range(1, 8)])[:6]
    np.testing.assert_array_equal(one[:, :4], expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_have_the_current_labels(tiny_market, workers):
    words = [
        "DATASETS.NAMES",
        "()",
        "DATASETS.UNLABELED",
        f"('unlabeled:market1501:{tiny_market}',)",
    ]
    words += ["DATALOADER.NUM_WORKERS", workers, "DATALOADER.CACHE", "none" if workers else "ram"]
    words += ["INPUT.SIZE_TRAIN", "(16, 8)", "SOLVER.IMS_PER_BATCH", 8, "DEVICE", "cpu"]
    cfg = load_config(None, words)
    data = build_splits(cfg)
    assert data.num_classes == 1 and not data.train and list(data.tests) == ["market1501"]
    loader = build_train_loader(cfg, data.records)
    labels = np.arange(32) // 4
    for epoch in (1, 2):
        loader.batch_sampler.set_pids(labels)
        loader.dataset.set_pids(torch.from_numpy(labels))
        loader.batch_sampler.set_epoch(epoch)
        seen = {}
        for batch in loader:
            seen |= dict(zip(batch.indices.tolist(), batch.pids.tolist(), strict=True))
        assert all(labels[index] == pid for index, pid in seen.items()) and len(seen) > 8
        labels = labels[::-1].copy() + 10
