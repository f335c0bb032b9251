"""Own data: CSV lists and folders, and mistakes in them."""

import logging
import os

import pytest
from ember_reid.data.datasets import Source, load_splits, resolve
from ember_reid.data.datasets.custom import number_labels

from tests.helpers.benchmark_trees import write_text
from tests.helpers.trees import describe, write_image, write_images


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
    text = (
        "\ufeffsplit, note, PID, path\ntrain, x, rex, a.jpg\n"
        "Query, , leo, b.jpg\ngallery, , leo, c.jpg\n"
    )
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


def test_identities_in_training_and_test_are_reported(images, caplog):
    load_splits(write_list(images, "a.jpg,1,0,train", "b.jpg,1,0,query", "c.jpg,1,1,gallery"))
    assert "1 identities are in training and test (1); scores will be too optimistic" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["a.jpg,1,0,train", "e.jpg,1,0,train"],
            "list.csv, line 3: the image .*e.jpg does not exist$",
        ),
        (
            ["e.jpg,1,0,train", "f.jpg,1,0,train"],
            "line 2: .*e.jpg does not exist \\(1 more files are unusable\\)",
        ),
        (["a.jpg,,0,train"], "line 2: the column pid is empty"),
        (["a.jpg,1,0,val"], 'line 2: the split is "val"; it must be train, query, gallery'),
        (
            ["a.jpg,-1,0,query"],
            "line 2: pid -1 marks gallery images to ignore; it is not",
        ),
        (["a.jpg,1,0,query", "b.jpg,1,,query"], "line 3: no camid, but other lines have one"),
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
    with pytest.raises(ValueError, match="is not a CSV list in UTF-8"):
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
        (["train/a.jpg"], "a.jpg is in train/ itself; expected train/IDENTITY/a.jpg"),
        (["query/-1/a.jpg"], "marks images to ignore, which can only be in gallery/"),
        (["train/x/a.jpg", "train/x/cam/b.jpg"], "no camid, but other lines have one"),
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
        ("mars:", ValueError, "has no path after the colon"),
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


@pytest.mark.parametrize(
    ("labels", "pids", "camids"),
    [
        (["10", "9", "-1"], {"-1": -1, "9": 9, "10": 10}, {"-1": 0, "9": 1, "10": 2}),
        (["1", "01"], {"-1": -1, "01": 1, "1": 2}, {"01": 0, "1": 1}),
        (["1_1", "11", "-1"], {"-1": -1, "11": 1, "1_1": 2}, {"-1": 0, "11": 1, "1_1": 2}),
        (["b", "a"], {"-1": -1, "a": 1, "b": 2}, {"a": 0, "b": 1}),
        (["-0", "+1", "\u0661"], {"-1": -1, "+1": 1, "-0": 2, "\u0661": 3}, None),
        # 2^63 - 1 is the largest 64-bit integer.
        (["9223372036854775807"], {"9223372036854775807": 2**63 - 1}, {"9223372036854775807": 0}),
        (["9223372036854775808"], {"-1": -1, "9223372036854775808": 1}, None),
    ],
)
def test_labels_are_integers_only_if_all_are_canonical(labels, pids, camids):
    assert number_labels(labels, keep_integers=True) == pids
    if camids is not None:
        assert number_labels(labels, keep_integers=False) == camids


def test_labels_with_similar_spellings_differ_and_give_one_warning(images, caplog):
    rows = ("a.jpg,1,1,train", "b.jpg,01,01,train", "c.jpg,1_1,1,train", "d.jpg,11,1,train")
    splits = load_splits(write_list(images, *rows))
    assert describe(splits.train) == [
        ("a.jpg", 1, 1),
        ("b.jpg", 0, 0),
        ("c.jpg", 3, 1),
        ("d.jpg", 2, 1),
    ]
    assert splits.train_labels == ("01", "1", "11", "1_1")
    assert caplog.text.count("with similar spellings") == 2
    assert (
        "identities with similar spellings are treated as different: 01 and 1; 11 and 1_1"
        in caplog.text
    )
    assert "cameras with similar spellings are treated as different: 01 and 1" in caplog.text


def test_padded_numbers_are_no_warning(images, caplog):
    splits = load_splits(write_list(images, "a.jpg,0002,1,train", "b.jpg,0010,1,train"))
    assert splits.train_labels == ("0002", "0010") and "with similar spellings" not in caplog.text


def test_special_files_and_paths(images):
    os.mkfifo(images / "pipe.jpg")
    (images / "folder.jpg").mkdir()
    for name, problem in (
        ("pipe.jpg", "is not a regular file"),
        ("folder.jpg", "is a folder"),
        ("a.jpg/b.jpg", "does not exist"),
        ("x" * 5000 + ".jpg", "x.jpg cannot be opened \\(File name too long\\)"),
        ("\0.jpg", "cannot be opened|line contains NUL"),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=problem) as raised:
            load_splits(write_list(images, f"{name},1,0,train"))
        assert len(str(raised.value)) < 700 and "\0" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="the list .*pipe.jpg is not a regular file"):
        load_splits(f"csv:{images / 'pipe.jpg'}")


@pytest.mark.parametrize(
    ("file", "name"), [("...csv", "data"), ("a b.csv", "a b"), ("x\x1b[2J.csv", "x__2J")]
)
def test_names_of_lists_cannot_choose_paths(images, file, name):
    list_file = images / file
    list_file.write_text("path,pid,split\na.jpg,1,train\n")
    assert load_splits(f"csv:{list_file}").name == name


def test_the_folder_above_has_a_name(tmp_path, monkeypatch):
    write_image(tmp_path / "mine" / "train" / "rex" / "a.jpg")
    monkeypatch.chdir(tmp_path / "mine" / "train")
    assert load_splits("folder:..").name == "mine"


def test_numbers_beyond_64_bits_in_file_names(tmp_path):
    for folder in ("query", "bounding_box_test"):
        write_image(tmp_path / folder / f"{10**20}_c1s1_1_1.jpg")
    with pytest.raises(ValueError, match="market1501: the identity .* does not fit into 64 bits"):
        load_splits(f"market1501:{tmp_path}")
