"""From a configuration to batches."""

import logging
import os

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.augment_settings import AugmentationSettings
from ember_reid.data.build import (
    build_augmentation,
    build_normalization,
    build_splits,
    build_test_loader,
    build_train_loader,
)

from tests.helpers.benchmark_trees import write_text
from tests.helpers.trees import write_images, write_market


@pytest.fixture
def market(tmp_path):
    """Market-1501's layout: 6 training identities with 4 images in 2 cameras, a small test set."""
    root = write_market(tmp_path / "Market-1501-v15.09.15")
    names = [
        f"{pid:04d}_c{c}s1_{i:06d}_00.jpg" for pid in range(11, 15) for c in (1, 2) for i in (1, 2)
    ]
    write_images(root / "bounding_box_train", names)
    return tmp_path


def config(root, *overrides):
    small = ["DATASETS.ROOT", str(root), "INPUT.SIZE_TRAIN", (32, 16), "INPUT.SIZE_TEST", (32, 16)]
    small += ["SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCES", 2, "TEST.IMS_PER_BATCH", 3]
    return load_config(None, [*small, *overrides])


def test_splits(market):
    data = build_splits(config(market))
    assert data.num_classes == 6 and {record.pid for record in data.train} == set(range(6))
    assert list(data.tests) == ["market1501"] and data.validation == {}
    assert len(data.tests["market1501"].query) == 2


def test_several_datasets_train_together_and_are_tested_one_by_one(market):
    write_images(market, ["a.jpg", "b.jpg", "c.jpg"])
    write_text(
        market / "own.csv", "path,pid,split", "a.jpg,x,train", "b.jpg,y,query", "c.jpg,y,gallery"
    )
    own = f"csv:{market / 'own.csv'}"
    data = build_splits(config(market, "DATASETS.NAMES", ("market1501", own)))
    assert data.num_classes == 7
    cameras = {record.camid for record in data.train}
    # The images of the list have their own camera.
    assert cameras == {0, 1, 2, 3}
    assert {name: splits.protocol for name, splits in data.tests.items()} == {
        "market1501": "cross-camera",
        "own": "all",
    }
    twice = build_splits(config(market, "DATASETS.TESTS", (own, own)))
    assert list(twice.tests) == ["own", "own-2"] and twice.num_classes == 6


def test_validation_identities_are_not_trained_on(market):
    data = build_splits(config(market, "TEST.VALIDATION", 0.5))
    assert data.num_classes == 3 and {record.pid for record in data.train} == {0, 1, 2}
    assert list(data.validation) == ["market1501-validation"]


def test_training_folder_is_needed_for_training_only(market):
    train = market / "Market-1501-v15.09.15" / "bounding_box_train"
    train.rename(market / "elsewhere")
    assert build_splits(config(market), train=False).train == ()
    with pytest.raises(
        ValueError, match="no training images in .*expected there: bounding_box_train"
    ):
        build_splits(config(market))


def test_only_what_is_used_is_checked(market, tmp_path):
    root = market / "Market-1501-v15.09.15"
    (root / "bounding_box_train" / "0011_c1s1_000001_00.jpg").write_bytes(b"")
    assert build_splits(config(market), train=False).train == ()
    write_images(tmp_path / "own", ["a.jpg", "b.jpg"])
    write_text(tmp_path / "own" / "l.csv", "path,pid,split", "a.jpg,1,query", "b.jpg,1,gallery")
    (root / "bounding_box_train" / "0011_c1s1_000001_00.jpg").unlink()
    (root / "query" / "0003_c2s1_000301_00.jpg").write_bytes(b"")
    data = build_splits(config(market, "DATASETS.TESTS", (f"csv:{tmp_path / 'own' / 'l.csv'}",)))
    assert list(data.tests) == ["l"] and data.num_classes == 6


def test_broken_images_stop_or_are_left_out(market, caplog):
    root = market / "Market-1501-v15.09.15"
    (root / "query" / "0003_c2s1_000301_00.jpg").write_bytes(b"")
    with pytest.raises(OSError, match="0003_c2s1_000301_00.jpg is empty .*SKIP_BROKEN True"):
        build_splits(config(market))
    whole = (root / "bounding_box_train" / "0011_c1s1_000001_00.jpg").read_bytes()
    (root / "bounding_box_train" / "0011_c1s1_000001_00.jpg").write_bytes(whole[:300])
    os.mkfifo(root / "bounding_box_train" / "0011_c1s1_000009_00.jpg")
    (root / "bounding_box_train" / os.fsdecode(b"0011_c1s1_000010_\xff.jpg")).write_text("text")
    data = build_splits(config(market, "DATALOADER.SKIP_BROKEN", True))
    assert "left out 4 of 28 image files that cannot be read" in caplog.text
    assert len(data.tests["market1501"].query) == 1 and len(data.train) == 18
    caplog.text.encode("utf-8")


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_train_loader(market, cache):
    cfg = config(market, "DATALOADER.CACHE", cache, "DATALOADER.NUM_WORKERS", 0)
    data = build_splits(cfg)
    loader = build_train_loader(cfg, data.train)
    loader.batch_sampler.set_epoch(2)
    state = torch.get_rng_state()
    batches = list(loader)
    # An epoch does not change the global random state.
    assert torch.equal(torch.get_rng_state(), state)
    assert len(batches) == len(loader) == 2
    for batch in batches:
        assert batch.images.shape == (8, 3, 32, 16) and batch.images.dtype == torch.uint8
        assert batch.pids.dtype == batch.camids.dtype == batch.indices.dtype == torch.int64
        assert batch.pids.view(4, 2).unique(dim=1).shape == (4, 1)
        records = [data.train[i] for i in batch.indices]
        assert batch.pids.tolist() == [r.pid for r in records]
        assert batch.camids.tolist() == [r.camid for r in records]
    loader.batch_sampler.skip(1)
    (rest,) = loader
    assert all(torch.equal(a, b) for a, b in zip(rest[:4], batches[1][:4], strict=True))


def test_workers_change_nothing(market):
    write_images(market, [f"{i}.jpg" for i in range(12)])
    rows = [f"{i}.jpg,{i // 6},0,train,{i // 3}" for i in range(12)]
    write_text(
        market / "own.csv",
        "path,pid,camid,split,tracklet",
        *rows,
        "0.jpg,5,0,query,",
        "1.jpg,5,1,gallery,",
    )
    batches = []
    for workers in (0, 2):
        cfg = config(
            market,
            *("DATASETS.NAMES", (f"csv:{market / 'own.csv'}",), "DATALOADER.CACHE", "none"),
            *("DATALOADER.NUM_WORKERS", workers, "INPUT.NUM_FRAMES", 2, "SOLVER.IMS_PER_BATCH", 4),
        )
        loader = build_train_loader(cfg, build_splits(cfg).train)
        for epoch in (1, 2):
            loader.batch_sampler.set_epoch(epoch)
            batches.append(list(loader))
    assert batches[0][0].images.shape == (4, 2, 3, 32, 16)
    for alone, shared in ((batches[0], batches[2]), (batches[1], batches[3])):
        for a, b in zip(alone, shared, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices)
    assert not torch.equal(batches[0][0].images, batches[1][0].images)


def test_ranks_share_the_batch(market):
    cfg = config(market)
    loader = build_train_loader(cfg, build_splits(cfg).train, rank=1, world_size=2)
    assert len(loader) == 2 and {len(batch.pids) for batch in loader} == {4}


def test_test_loader(market):
    cfg = config(market)
    splits = build_splits(cfg).tests["market1501"]
    loader = build_test_loader(cfg, splits.query + splits.gallery)
    batches = list(loader)
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(7))
    assert torch.cat([batch.pids for batch in batches]).tolist() == [1, 3, -1, 0, 1, 1, 3]
    ranks = [
        build_test_loader(cfg, splits.query + splits.gallery, rank=r, world_size=2) for r in (0, 1)
    ]
    assert [i for loader in ranks for batch in loader for i in batch.indices.tolist()] == list(
        range(7)
    )


def test_images_are_tested_as_single_images_for_any_training(market):
    cfg = config(market, "INPUT.NUM_FRAMES", 4, "INPUT.FRAME_SAMPLING", "multiview-cameras")
    data = build_splits(cfg)
    splits = data.tests["market1501"]
    assert next(iter(build_train_loader(cfg, data.train))).images.shape == (8, 4, 3, 32, 16)
    assert next(iter(build_test_loader(cfg, splits.query))).images.shape == (2, 3, 32, 16)


def test_too_few_identities_for_a_batch(market):
    with pytest.raises(
        ValueError, match="a batch needs 20 identities .* has 6; lower SOLVER.IMS_PER_BATCH"
    ):
        build_train_loader(
            config(market, "SOLVER.IMS_PER_BATCH", 40), build_splits(config(market)).train
        )


def test_augmentation_and_normalization_read_the_configuration():
    cfg = load_config(
        None,
        ["INPUT.RE_FILL", "published", "INPUT.PADDING", 3, "INPUT.JITTER_PROB", 0.25]
        + ["INPUT.RE_ASPECT", (0.7, 1.4)],
    )
    augmentation = build_augmentation(cfg)
    assert augmentation.settings == AugmentationSettings(
        flip_prob=0.5,
        padding=3,
        erase_prob=0.5,
        erase_aspect=(0.7, 1.4),
        erase_fill=(0.485, 0.456, 0.406),
        jitter_prob=0.25,
        jitter=(0.15, 0.15, 0.1, 0.1),
    )
    assert build_augmentation(load_config()).settings.erase_fill == (0.0, 0.0, 0.0)
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(build_normalization(cfg)(white)[0, :, 0, 0], expected)


def test_one_line_when_the_cache_is_too_small(market, caplog):
    cfg = config(market, "DATALOADER.CACHE_GIB", 1e-6, "DATALOADER.NUM_WORKERS", 0)
    with caplog.at_level(logging.INFO):
        loader = build_train_loader(cfg, build_splits(cfg).train)
    assert loader.dataset.cache is None and "decoded when they are used" in caplog.text
