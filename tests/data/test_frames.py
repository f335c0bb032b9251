from pathlib import Path

import numpy as np
import pytest
from ember_reid.data.frames import choose_frames, choose_views
from ember_reid.data.records import Record


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0, 0]),
        (3, [0, 1, 2, 2, 2, 2, 2, 2]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (9, [0, 2, 4, 6, 8, 8, 8, 8]),
        (12, [0, 2, 4, 6, 8, 10, 11, 11]),
        (17, [0, 3, 6, 9, 12, 15, 16, 16]),
        (20, [0, 3, 6, 9, 12, 15, 18, 19]),
        (33, [0, 5, 10, 15, 20, 25, 30, 32]),
    ],
)
def test_even_frames_are_the_first_of_each_chunk(num_frames, expected):
    assert choose_frames(num_frames, 8).tolist() == expected


def test_random_frames_stay_in_their_chunk_and_reach_all_of_it():
    seen = [set() for _ in range(4)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        for slot, frame in enumerate(choose_frames(10, 4, rng)):
            seen[slot].add(int(frame))
    assert seen == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9}]


def test_one_slot_takes_any_frame():
    rng = np.random.default_rng(0)
    assert {int(choose_frames(3, 1, rng)[0]) for _ in range(50)} == {0, 1, 2}
    assert choose_frames(3, 1).tolist() == [0]
    with pytest.raises(ValueError, match="at least one frame"):
        choose_frames(0, 4)


def tracklets(cameras):
    return [Record(tuple(Path(f"{i}/{f}") for f in range(3)), 0, c) for i, c in enumerate(cameras)]


def test_views_use_every_record_before_any_twice():
    records = tracklets([0, 0, 0, 1])
    views = choose_views(records, 8, np.random.default_rng(1))
    parents = [view.parent.name for view in views]
    assert sorted(parents[:4]) == ["0", "1", "2", "3"] and parents[:4] == parents[4:]
    assert len(choose_views(records[:1], 3, np.random.default_rng(1))) == 3


def test_views_spread_over_cameras():
    records = tracklets([0, 0, 0, 0, 0, 0, 1, 2])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        views = choose_views(records, 3, rng, spread_cameras=True)
        assert {records[int(view.parent.name)].camid for view in views} == {0, 1, 2}
