from pathlib import Path

import numpy as np
import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.data.dataset import ImageCache, ReidDataset, Sample, collate, used_paths
from ember_reid.data.images import ImageError
from ember_reid.data.records import Record
from torch.utils.data import DataLoader

from tests.helpers.trees import write_image


@pytest.fixture
def clips(tmp_path) -> list[Record]:
    """Six tracklets of 5 frames; red is the tracklet, green the frame. Identities 0, 0,
    1, 1, 2, 2.
    """
    records = []
    for i in range(6):
        paths = [write_image(tmp_path / f"{i}/{f}.png", (10 * i, f, 0)) for f in range(5)]
        records.append(Record(tuple(paths), i // 2, i % 2))
    return records


def test_images_are_equal_with_and_without_a_cache(clips):
    paths = [path for record in clips for path in record.paths]
    cache = ImageCache(paths, size=(16, 8))
    plain = ReidDataset(clips, size=(16, 8))
    cached = ReidDataset(clips, size=(16, 8), cache=cache)
    for a, b in zip(plain.__getitems__([5, 1]), cached.__getitems__([5, 1]), strict=True):
        assert a == b if isinstance(a, tuple) else torch.equal(a, b)
    batch = plain.__getitems__([5, 1])
    assert batch.images.shape == (2, 3, 16, 8) and batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [50, 10]
    assert (batch.pids.tolist(), batch.camids.tolist(), batch.indices.tolist()) == (
        [2, 0],
        [1, 1],
        [5, 1],
    )


def test_items_equal_batches(clips):
    dataset = ReidDataset(clips, size=(16, 8), num_frames=2)
    batch = collate([dataset[i] for i in range(6)])
    whole = dataset.__getitems__(list(range(6)))
    assert torch.equal(batch.images, whole.images) and batch.images.shape == (6, 2, 3, 16, 8)
    assert torch.equal(batch.indices, whole.indices) and collate(whole) is whole
    assert isinstance(dataset[0], Sample) and isinstance(whole, Batch) and whole.teachers == ()


def test_even_clips(clips):
    images = ReidDataset(clips, size=(16, 8), num_frames=3)[2].images
    assert images[:, 0, 0, 0].tolist() == [20, 20, 20] and images[:, 1, 0, 0].tolist() == [0, 2, 4]


def test_chunk_clips_depend_on_epoch_index_and_occurrence_only(clips):
    epoch = torch.zeros(1, dtype=torch.int64)
    dataset = ReidDataset(clips, size=(4, 4), num_frames=1, sampling="chunk", seed=3, epoch=epoch)

    def frames(indices):
        return dataset.__getitems__(indices).images[:, 1, 0, 0].tolist()

    np.random.seed(0)
    torch.manual_seed(0)
    first = frames([0, 1, 2, 0, 0])
    np.random.seed(1)
    torch.manual_seed(1)
    assert frames([0, 1, 2, 0, 0]) == first
    assert frames([2]) == first[2:3] and frames([1, 0]) == [first[1], first[0]]
    draws = set()
    for number in range(30):
        epoch.fill_(number)
        draws.add(tuple(frames([0, 0])))
    assert {frame for pair in draws for frame in pair} == {0, 1, 2, 3, 4}
    # A repeated index is drawn again.
    assert any(a != b for a, b in draws)


def test_used_paths(clips):
    every = [path for record in clips for path in record.paths]
    assert used_paths(clips, num_frames=2, sampling="chunk") == every
    assert [path.name for path in used_paths(clips[:1], num_frames=3, sampling="even")] == [
        "0.png",
        "2.png",
        "4.png",
    ]
    assert len(used_paths(clips[:1], num_frames=8, sampling="even")) == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_one_sentence_even_from_a_loader_process(clips, workers):
    clips[0].paths[0].write_bytes(b"")
    loader = DataLoader(
        ReidDataset(clips, size=(4, 4)),
        batch_sampler=[[0, 1]],
        collate_fn=collate,
        num_workers=workers,
    )
    with pytest.raises(ImageError) as raised:
        next(iter(loader))
    message = str(raised.value)
    assert (
        message.startswith(f"{clips[0].paths[0]} is empty (0 bytes); repair")
        and "\n" not in message
    )


def test_multiview_stays_with_the_identity(clips):
    dataset = ReidDataset(clips, size=(4, 4), num_frames=4, sampling="multiview-cameras")
    for sample in (dataset[2], dataset[3]):
        tracklets = (sample.images[:, 0, 0, 0] // 10).tolist()
        assert sorted(tracklets) == [2, 2, 3, 3] and tracklets[0] != tracklets[1]


def test_dataset_refuses():
    records = [Record((Path("a"),), 0, 0)]
    with pytest.raises(
        ValueError, match='FRAME_SAMPLING is "all"; choose one of even, chunk, multiview'
    ):
        ReidDataset(records, size=(4, 4), sampling="all")
    with pytest.raises(ValueError, match="NUM_FRAMES is 0"):
        ReidDataset(records, size=(4, 4), num_frames=0)
