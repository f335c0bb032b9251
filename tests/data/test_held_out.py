from pathlib import Path

import pytest
from ember_reid.data.records import Record, Splits, count_matched
from ember_reid.data.validation import hold_out


def dataset(protocol="cross-camera", num_pids=10):
    """Every identity: two images under camera 0, one under camera 1."""
    train = tuple(
        Record((Path(f"{pid}-{camid}-{i}"),), pid, camid)
        for pid in range(num_pids)
        for camid, number in ((0, 2), (1, 1))
        for i in range(number)
    )
    return Splits(train, (), (), protocol, "mine")


def test_identities_are_held_out_whole():
    kept, held = hold_out(dataset(), 0.3, seed=1)
    held_pids = {record.pid for record in held.gallery}
    assert len(held_pids) == 3 and not held_pids & {record.pid for record in kept.train}
    assert len(kept.train) == 21 and held.name == "mine-validation" and held.train == ()
    assert set(held.gallery) == {record for record in dataset().train if record.pid in held_pids}


def test_one_query_per_camera_and_every_query_has_a_match():
    _, held = hold_out(dataset(), 0.5)
    assert sorted((r.pid, r.camid) for r in held.query) == sorted(
        {(r.pid, r.camid) for r in held.gallery}
    )
    assert count_matched(held.query, held.gallery, cross_camera=True) == len(held.query) == 10


def test_without_cameras_one_query_per_identity_outside_the_gallery():
    _, held = hold_out(dataset("all"), 0.2)
    assert (
        len(held.query) == 2 and len(held.gallery) == 4 and not set(held.query) & set(held.gallery)
    )


def test_the_seed_decides():
    assert hold_out(dataset(), 0.4, seed=3) == hold_out(dataset(), 0.4, seed=3)
    assert hold_out(dataset(), 0.4, seed=3) != hold_out(dataset(), 0.4, seed=4)


@pytest.mark.parametrize("fraction", [0.01, 1.0, -0.5])
def test_refuses_fractions_that_leave_nothing(fraction):
    with pytest.raises(
        ValueError, match="of the 10 training identities of mine; it must leave at least one"
    ):
        hold_out(dataset(), fraction)
