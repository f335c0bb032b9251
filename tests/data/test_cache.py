"""Where decoded images are kept, and what comes out of there."""

import logging

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data import cache as cache_module
from ember_reid.data.build import build_splits, build_test_loader, build_train_loader
from ember_reid.data.cache import CPU, choose_cache
from ember_reid.data.dataset import ImageCache, ReidDataset, gather_images
from ember_reid.data.images import ImageError, load_image
from ember_reid.data.records import Record

from tests.helpers.trees import write_image, write_images, write_market

GPU = torch.device("cuda")
# A device with shapes and without values.
META = torch.device("meta")
# 98,304 bytes per image.
SIZE = (256, 128)


def test_cache_holds_each_file_once(tmp_path, caplog):
    paths = [write_image(tmp_path / f"{i}.png", (i, i, i)) for i in range(5)]
    with caplog.at_level(logging.INFO):
        cache = ImageCache([*paths, *paths], size=(16, 8))
    assert cache.images.shape == (5, 3, 16, 8)
    assert "cached 5 images at 16 x 8 on cpu" in caplog.text
    loaded = gather_images(cache.images, cache.find([paths[3], paths[0], paths[3]]))
    assert loaded[:, 0, 0, 0].tolist() == [3, 0, 3]
    assert torch.equal(loaded[0], load_image(paths[3], size=(16, 8)))


def test_cache_names_the_first_broken_file(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    paths = [write_image(tmp_path / "a.png"), empty, tmp_path / "text.jpg", tmp_path / "gone.jpg"]
    with pytest.raises(ImageError, match="empty.jpg is empty .*, and 2 more"):
        ImageCache(paths, size=(4, 4))


@pytest.fixture
def free(monkeypatch, caplog):
    """free(gpu_gib, ram_gib): what is free from here on; the log is kept."""
    caplog.set_level(logging.INFO)

    def set_free(gpu: float, ram: float) -> None:
        sizes = {"cuda": gpu * 2**30, "cpu": ram * 2**30}
        monkeypatch.setattr(cache_module, "free_memory", lambda device=CPU: sizes[device.type])

    return set_free


def test_auto_on_a_cpu(free, caplog):
    free(0, 2)
    assert choose_cache(1000, size=SIZE, mode="auto", budget_gib=1.0) == CPU
    assert caplog.messages[-1] == (
        "1000 decoded images need 0.09 GiB; the limit is 1.00 GiB of the 2.00 GiB free in this"
        " machine (DATALOADER.CACHE_GIB): cached on cpu"
    )
    assert choose_cache(20_000, size=SIZE, mode="auto", budget_gib=1.0) is None
    assert caplog.messages[-1].endswith("files are decoded when they are used")
    assert choose_cache(9_000, size=SIZE, mode="auto", budget_gib=1.0, copies=2) is None
    assert len(caplog.messages) == 3


def test_auto_on_a_gpu_falls_back_step_by_step(free, caplog):
    words = {"size": SIZE, "mode": "auto", "budget_gib": 4.0, "device": GPU, "device_share": 0.3}
    free(10, 20)
    # 1.18 of 3 GiB.
    assert choose_cache(12_936, **words) == GPU
    assert caplog.messages[-1] == (
        "12936 decoded images need 1.18 GiB; the limit is 3.00 GiB of the 10.00 GiB free on cuda "
        "(DATALOADER.CACHE_SHARE): cached on cuda"
    )
    # 3.66 GiB.
    assert choose_cache(40_000, **words) == CPU
    assert (
        "the limit is 3.00 GiB" in caplog.messages[-1]
        and "4.00 GiB of the 20.00" in caplog.messages[-1]
    )
    assert choose_cache(50_000, **words) is None
    assert len(caplog.messages) == 3


def test_device_takes_more_of_a_gpu_and_is_memory_on_a_cpu(free, caplog):
    free(10, 1)
    words = {"size": SIZE, "mode": "device", "budget_gib": 4.0}
    # 7.32 of 7.5 GiB.
    assert choose_cache(80_000, device=GPU, **words) == GPU
    # Neither 7.6 there nor 0.75 here.
    assert choose_cache(83_000, device=GPU, **words) is None
    assert len(caplog.messages) == 2
    assert choose_cache(10**9, device=CPU, **words) == CPU
    assert choose_cache(10**9, device=GPU, **words | {"mode": "ram"}) == CPU
    assert choose_cache(1, device=GPU, **words | {"mode": "none"}) is None
    assert len(caplog.messages) == 2
    with pytest.raises(ValueError, match='CACHE is "disk"; choose auto, device, ram or none'):
        choose_cache(1, **words | {"mode": "disk"})


def test_batches_are_on_the_device_of_the_cache(tmp_path):
    records = [
        Record(tuple(write_image(tmp_path / f"{i}-{f}.png") for f in range(3)), i // 2, i % 2)
        for i in range(4)
    ]
    cache = ImageCache([path for r in records for path in r.paths], size=(16, 8), device=META)
    batch = ReidDataset(records, size=(16, 8), num_frames=2, cache=cache).__getitems__([3, 0])
    assert batch.images.shape == (2, 2, 3, 16, 8) and batch.images.dtype == torch.uint8
    assert {value.device for value in batch[:4]} == {META}


@pytest.fixture
def market(tmp_path):
    root = write_market(tmp_path / "market1501")
    names = [
        f"{pid:04d}_c{c}s1_{i:06d}_00.jpg" for pid in range(11, 15) for c in (1, 2) for i in (1, 2)
    ]
    write_images(root / "bounding_box_train", names)
    return tmp_path


def test_loaders_put_their_cache_on_the_device(market):
    cfg = load_config(
        None,
        ["DATASETS.ROOT", str(market), "INPUT.SIZE_TRAIN", (32, 16), "INPUT.SIZE_TEST", (32, 16)]
        + ["SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCES", 2, "DATALOADER.CACHE", "device"],
    )
    data = build_splits(cfg)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "free_memory", lambda device=CPU: 2**40)
        loaders = [
            build_train_loader(cfg, data.train, device=META),
            build_test_loader(cfg, data.tests["market1501"].query, device=META),
        ]
    for loader in loaders:
        assert loader.num_workers == 0 and not loader.pin_memory
        assert next(iter(loader)).images.device == META


def test_a_run_with_its_cache_on_the_device_has_the_same_bits(train, tiny_run, tmp_path):
    from ember_reid.engine.checkpoint import load_checkpoint

    ours = load_checkpoint(
        train(tmp_path / "run", "DATALOADER.CACHE", "device") / "checkpoints" / "last.pt"
    )
    theirs = load_checkpoint(tiny_run / "checkpoints" / "last.pt")
    assert all(torch.equal(ours["model"][name], value) for name, value in theirs["model"].items())
    assert (tmp_path / "run" / "results.json").read_text() == (
        tiny_run / "results.json"
    ).read_text()
