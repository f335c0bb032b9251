"""People's own data: csv lists and folders, and what is wrong with them."""

import logging

import pytest
from ember_reid.data.datasets import Source, load_splits, resolve

from tests.data.benchmark_trees import write_text
from tests.data.trees import describe, write_image, write_images


def write_list(folder, *rows, head="path,pid,camid,split"):
    write_text(folder / "list.csv", head, *rows)
    return f"csv:{folder / 'list.csv'}"


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    return tmp_path


def test_numbers_stay_and_cameras_count_from_zero(images):
    spec = write_list(
        images, "a.jpg,70,3,train", "b.jpg,8,10,query", "c.jpg,8,3,gallery", "d.jpg,-1,3,gallery"
    )
    splits = load_splits(spec)
    assert describe(splits.train) == [("a.jpg", 0, 0)]
    assert describe(splits.query) == [("b.jpg", 8, 1)]
    assert describe(splits.gallery) == [("c.jpg", 8, 0), ("d.jpg", -1, 0)]
    assert splits.protocol == "cross-camera" and splits.name == "list"


def test_words_columns_in_any_order_blanks_and_a_byte_order_mark(images):
    text = "\ufeffsplit, note, PID, path\ntrain, x, rex, a.jpg\nQuery, , leo, b.jpg\ngallery, , leo, c.jpg\n"
    (images / "list.csv").write_text(text, encoding="utf-8")
    splits = load_splits(f"csv:{images / 'list.csv'}")
    assert describe(splits.query) == [("b.jpg", 1, 0)] and describe(splits.gallery) == [
        ("c.jpg", 1, 0)
    ]


def test_no_cameras_means_protocol_all(images, caplog):
    spec = write_list(images, "a.jpg,1,query", "b.jpg,1,gallery", head="path,pid,split")
    assert load_splits(spec).protocol == "all"
    assert 'no camera labels; protocol "all"' in caplog.text


def test_tracklets(images):
    spec = write_list(
        images,
        "a.jpg,1,0,train,t1",
        "b.jpg,1,0,train,t1",
        "c.jpg,1,0,train,t2",
        "d.jpg,1,0,train,",
        head="path,pid,camid,split,tracklet",
    )
    assert [[p.name for p in r.paths] for r in load_splits(spec).train] == [
        ["a.jpg", "b.jpg"],
        ["c.jpg"],
        ["d.jpg"],
    ]


def test_identities_in_training_and_test_are_said(images, caplog):
    load_splits(write_list(images, "a.jpg,1,0,train", "b.jpg,1,0,query", "c.jpg,1,1,gallery"))
    assert "identities both trained on and tested on: 1 (1); scores will flatter" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["a.jpg,1,0,train", "e.jpg,1,0,train"],
            "list.csv, line 3: the image .*e.jpg does not exist$",
        ),
        (
            ["e.jpg,1,0,train", "f.jpg,1,0,train"],
            "line 2: .*e.jpg does not exist \\(nor do 1 others\\)",
        ),
        (["a.jpg,,0,train"], "line 2: the column pid is empty"),
        (["a.jpg,1,0,val"], 'line 2: the split is "val"; it must be train, query, gallery'),
        (
            ["a.jpg,-1,0,query"],
            "line 2: pid -1 marks gallery images to ignore, it cannot be",
        ),
        (["a.jpg,1,0,query", "b.jpg,1,,query"], "line 3: no camid, while other lines have one"),
        ([], "has no rows"),
    ],
)
def test_bad_rows(images, rows, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_splits(write_list(images, *rows))


def test_bad_lists(images):
    with pytest.raises(ValueError, match="line 1: no column path, split; .* found: file, pid"):
        load_splits(write_list(images, "a.jpg,1", head="file,pid"))
    with pytest.raises(FileNotFoundError, match="csv: the list .*none.csv does not exist"):
        load_splits(f"csv:{images}/none.csv")
    (images / "list.csv").write_bytes(b"path,pid,split\n\xff\xfe,1,train\n")
    with pytest.raises(ValueError, match="is not a csv list in UTF-8"):
        load_splits(f"csv:{images / 'list.csv'}")


def test_folders_without_cameras(tmp_path, caplog):
    for name in ("train/rex", "train/ada", "query/leo", "gallery/leo", "gallery/-1"):
        write_image(tmp_path / name / "x.jpg")
    splits = load_splits(f"folder:{tmp_path}")
    assert [r.pid for r in splits.train] == [0, 1]
    assert [r.pid for r in splits.query] == [2] and [r.pid for r in splits.gallery] == [-1, 2]
    assert splits.protocol == "all" and "no camera folders" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a.jpg"], "a.jpg lies in train/ itself; expected train/IDENTITY/a.jpg"),
        (["query/-1/a.jpg"], "marks images to ignore, which can only be in gallery/"),
        (["train/x/a.jpg", "train/x/cam/b.jpg"], "no camid, while other lines have one"),
    ],
)
def test_bad_folders(tmp_path, files, message):
    for file in files:
        write_image(tmp_path / file)
    with pytest.raises(ValueError, match=message):
        load_splits(f"folder:{tmp_path}")


def test_resolve(tmp_path):
    (tmp_path / "market-1501-V15.09.15").mkdir()
    (tmp_path / "VIPeR").mkdir()
    assert resolve("market1501", tmp_path).path == tmp_path / "market-1501-V15.09.15"
    (tmp_path / "quickstart" / "mars").mkdir(parents=True)
    assert resolve("quickstart-video", tmp_path).path == tmp_path / "quickstart" / "mars"
    assert resolve("quickstart", tmp_path).path == tmp_path / "quickstart"
    assert resolve("viper@3", tmp_path) == Source("viper", tmp_path / "VIPeR", 3)
    assert resolve("viper@3:/x/y", tmp_path).split == 3
    assert str(resolve("csv:/a/b:c.csv", tmp_path).path) == "/a/b:c.csv"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "market",
            ValueError,
            'unknown dataset "market"; choose one of quickstart, .*folder, or',
        ),
        (
            "mars",
            FileNotFoundError,
            "mars is not in .* \\(looked for MARS or mars\\); put it there",
        ),
        ("csv", ValueError, '"csv" needs a path: csv:/path/to/list.csv'),
        ("mars:", ValueError, "lacks the path"),
        ("viper@10", ValueError, "viper has the splits 0 to 9"),
        ("market1501@1", ValueError, "market1501 has the splits 0 to 0"),
    ],
)
def test_resolve_refuses(tmp_path, spec, error, message):
    with pytest.raises(error, match=message):
        resolve(spec, tmp_path)


def test_two_datasets_below_one_folder_are_named(tmp_path):
    for place in ("one", "two"):
        write_image(tmp_path / place / "query" / "0001_c1s1_1_1.jpg")
    with pytest.raises(FileNotFoundError, match="query is in several folders of .*one.*two"):
        load_splits(f"market1501:{tmp_path}")


def test_a_folder_too_deep_is_found(tmp_path, caplog):
    write_image(tmp_path / "query" / "0001_c1s1_1_1.jpg")
    write_image(tmp_path / "bounding_box_test" / "0001_c2s1_1_1.jpg")
    with caplog.at_level(logging.WARNING):
        assert len(load_splits(f"market1501:{tmp_path / 'query'}").gallery) == 1
    assert f"found query/ in {tmp_path}; using it" in caplog.text
