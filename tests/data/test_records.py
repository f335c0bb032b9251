import logging
from pathlib import Path

import pytest
from ember_reid.data.records import (
    Counts,
    Record,
    Splits,
    check_test_splits,
    count,
    merge_train,
    relabel,
    statistics_table,
)


def record(pid, camid, name="a.jpg"):
    return Record((Path(name),), pid, camid)


def test_count_leaves_junk_out():
    records = [record(-1, 5), record(0, 1), record(3, 1), record(3, 2)]
    assert count(records) == Counts(pids=2, records=3, camids=2, junk=1)
    assert count([]) == Counts(0, 0, 0, 0)


def test_relabel_numbers_sorted_pids():
    records = [record(30, 0), record(4, 1), record(30, 2)]
    assert [(r.pid, r.camid) for r in relabel(records)] == [(1, 0), (0, 1), (1, 2)]


def test_merge_keeps_identities_and_cameras_apart():
    first = Splits((record(0, 0), record(1, 3)), (), ())
    second = Splits((record(0, 0), record(2, 1)), (), ())
    merged = merge_train([first, second, first])
    assert [(r.pid, r.camid) for r in merged] == [(0, 0), (1, 3), (2, 4), (3, 5), (4, 6), (5, 9)]
    assert merge_train([]) == ()


def test_statistics_table():
    splits = Splits((record(0, 0), record(1, 1)), (record(5, 0),), (record(5, 1), record(-1, 0)))
    lines = statistics_table(splits).splitlines()
    assert [field.strip() for field in lines[0].split("|")] == [
        "subset",
        "ids",
        "images",
        "cameras",
        "junk",
    ]
    assert [field.strip() for field in lines[2].split("|")] == ["train", "2", "2", "2", "0"]
    assert [field.strip() for field in lines[4].split("|")] == ["gallery", "1", "1", "1", "1"]
    video = Splits((Record((Path("a"), Path("b")), 0, 0),), (), ())
    assert "tracklets" in statistics_table(video)


def test_check_keeps_the_protocol_when_other_cameras_match(caplog):
    splits = Splits((), (record(1, 0),), (record(1, 1),))
    assert check_test_splits(splits) is splits
    assert not caplog.records


@pytest.mark.parametrize(
    ("query_cameras", "gallery_cameras", "reason"),
    [
        ((0, 0), (0, 0), "no camera labels, or one camera only"),
        ((0, 1), (0, 1), "seen by a second camera"),
    ],
)
def test_check_falls_back_to_all(caplog, query_cameras, gallery_cameras, reason):
    query = tuple(record(pid, camid) for pid, camid in enumerate(query_cameras))
    gallery = tuple(record(pid, camid) for pid, camid in enumerate(gallery_cameras))
    checked = check_test_splits(Splits((), query, gallery, name="mine"))
    assert checked.protocol == "all"
    assert reason in caplog.text and 'protocol "all" is used' in caplog.text


def test_check_counts_queries_without_a_match(caplog):
    query = (record(1, 0), record(2, 0), record(9, 0))
    gallery = (record(1, 1), record(2, 0))
    with caplog.at_level(logging.WARNING):
        check_test_splits(Splits((), query, gallery, name="mine"))
    assert "1 of 3 query identities have no image in the gallery (9)" in caplog.text
    assert "1 of 3 queries have matches in their own camera only" in caplog.text


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ((), (record(1, 0),), "mine has no query images, so it cannot be tested on"),
        ((record(1, 0),), (), "mine has no gallery images"),
        (
            (record(1, 0),),
            (record(2, 0),),
            "none of its 1 query images shows an identity of the gallery",
        ),
    ],
)
def test_check_refuses(query, gallery, message):
    with pytest.raises(ValueError, match=message):
        check_test_splits(Splits((), query, gallery, name="mine"))
