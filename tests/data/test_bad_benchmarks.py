"""What the benchmark readers say of files that are not what they should be."""

import numpy as np
import pytest
from ember_reid.data.datasets import DATASETS
from ember_reid.data.datasets.common import finish
from ember_reid.data.records import SUBSETS, Record
from scipy.io import savemat

from tests.helpers.benchmark_trees import (
    write_cuhk03,
    write_ilids_vid,
    write_mars,
    write_msmt17,
    write_prid2011,
    write_text,
    write_vehicleid,
    write_veri776,
    write_veri_wild,
)
from tests.helpers.trees import write_image, write_market


def test_names_that_do_not_parse(tmp_path):
    write_image(write_market(tmp_path) / "query" / "portrait.jpg")
    with pytest.raises(
        ValueError, match="portrait.jpg does not parse; expected one like 0002_c1s1"
    ):
        DATASETS["market1501"](tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("query/-1_c1s1_1_1.jpg", "has the identity -1 \\(junk\\), which cannot be in the queries"),
        (
            "query/0000_c1s1_1_1.jpg",
            "has the identity 0 \\(a distractor\\), which cannot be in the queries",
        ),
        ("bounding_box_train/0000_c1s1_1_1.jpg", "which cannot be in the training split"),
    ],
)
def test_identities_that_are_not_allowed_in_a_split_are_refused(tmp_path, file, message):
    write_image(write_market(tmp_path) / file)
    with pytest.raises(ValueError, match=message):
        DATASETS["market1501"](tmp_path)


def test_a_name_in_the_path_is_not_mistaken_for_the_file(tmp_path):
    splits = DATASETS["market1501"](write_market(tmp_path / "0999_c9" / "data"))
    assert {record.pid for record in splits.query} == {1, 3}


def test_official_numbers_are_compared(tmp_path, caplog):
    records = [Record((tmp_path / "a.jpg",), pid, 0) for pid in (1, 2, -1)]
    official = {"query": (2, 3, None), "train": (9, 9, 9)}
    finish("mine", tmp_path, train=(), query=records, gallery=records, official=official)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["mine: not the official data: query has 2 items (officially 3)"]


@pytest.mark.parametrize(
    ("name", "write", "file", "line", "message"),
    [
        (
            "msmt17",
            write_msmt17,
            "list_query.txt",
            "0000.jpg 1",
            "list_query.txt, line 2 does not parse",
        ),
        (
            "vehicleid-800",
            write_vehicleid,
            "train_list.txt",
            "1 2 3",
            "line 2 does not parse",
        ),
        (
            "veri-wild-3000",
            write_veri_wild,
            "vehicle_info.txt",
            "1;x",
            "line 2 does not parse",
        ),
        (
            "veri-wild-3000",
            write_veri_wild,
            "train_list.txt",
            "x.jpg",
            "line 2 does not parse",
        ),
        (
            "veri-wild-3000",
            write_veri_wild,
            "train_list.txt",
            "9/9.jpg",
            "has no camera for 9/9",
        ),
        (
            "veri776-video",
            write_veri776,
            "test_track.txt",
            "0002_c002_1.jpg 3",
            "line 2: the tracklet .* no frames",
        ),
        (
            "veri776-video",
            write_veri776,
            "name_train.txt",
            "car.jpg",
            "line 2 does not parse",
        ),
    ],
)
def test_lines_that_do_not_parse(tmp_path, name, write, file, line, message):
    write(tmp_path)
    (path,) = tmp_path.rglob(file)
    write_text(path, path.read_text().splitlines()[0], line)
    with pytest.raises(ValueError, match=message):
        DATASETS[name](tmp_path)


@pytest.mark.parametrize("file", ["list_gallery.txt", "list_train.txt"])
def test_missing_lists(tmp_path, file):
    (write_msmt17(tmp_path) / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"msmt17: the list file .*{file} does not exist"):
        DATASETS["msmt17"](tmp_path)


def test_mars_without_a_folder(tmp_path):
    write_mars(tmp_path)
    (tmp_path / "bbox_train").rename(tmp_path / "elsewhere")
    assert DATASETS["mars"](tmp_path).train == ()
    (tmp_path / "bbox_test").rename(tmp_path / "elsewhere2")
    with pytest.raises(FileNotFoundError, match="mars: the folder .*bbox_test does not exist"):
        DATASETS["mars"](tmp_path)


def test_mars_tables_as_text(tmp_path):
    text = DATASETS["mars"](write_mars(tmp_path / "text", as_text=True))
    mat = DATASETS["mars"](write_mars(tmp_path / "mat"))
    for subset in SUBSETS:
        a, b = getattr(text, subset), getattr(mat, subset)
        assert [(len(r.paths), r.pid, r.camid) for r in a] == [
            (len(r.paths), r.pid, r.camid) for r in b
        ]
    assert [len(record.paths) for record in mat.train] == [2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"track_train_info": np.array([[1, 9, 7, 1]])},
            "row 1 .* lines 1 to 9, .*train_name.txt has 3 lines",
        ),
        (
            {"track_train_info": np.array([[2, 1, 7, 1]])},
            "row 1 of track_train_info is .* lines 2 to 1",
        ),
        ({"track_train_info": np.array([[1, 3, 7, 1]])}, "row 1 .* mixes identities or cameras"),
        ({"track_train_info": np.array([[1, 2, 7]])}, "has 3 columns"),
        ({"tracks": np.array([[1, 2, 7, 1]])}, "has no variable track_train_info; it has: tracks"),
    ],
)
def test_bad_mars_tables(tmp_path, content, message):
    write_mars(tmp_path)
    savemat(tmp_path / "info" / "tracks_train_info.mat", content)
    with pytest.raises(ValueError, match=message):
        DATASETS["mars"](tmp_path)


def test_mat_files_of_another_version_or_none_at_all(tmp_path):
    write_mars(tmp_path)
    (write_cuhk03(tmp_path / "cuhk03") / "cuhk-03.mat").rename(tmp_path / "info" / "query_IDX.mat")
    with pytest.raises(
        ValueError, match="query_IDX.mat (is a .mat file of version 7.3|cannot be read)"
    ):
        DATASETS["mars"](tmp_path)
    (tmp_path / "info" / "query_IDX.mat").write_bytes(b"no matlab file at all" * 20)
    with pytest.raises(ValueError, match="query_IDX.mat cannot be read as a .mat file"):
        DATASETS["mars"](tmp_path)


def test_cuhk03_needs_the_release(tmp_path):
    write_cuhk03(tmp_path)
    savemat(tmp_path / "cuhk-03.mat", {"labeled": np.zeros(1)})
    with pytest.raises(ValueError, match="cuhk-03.mat is not a MATLAB file of version 7.3"):
        DATASETS["cuhk03-labeled"](tmp_path)


def test_cuhk03_is_unpacked_once_with_its_pixels(tmp_path):
    from PIL import Image

    splits = DATASETS["cuhk03-detected"](write_cuhk03(tmp_path))
    with Image.open(splits.train[1].paths[0]) as image:
        assert image.size == (6, 12) and image.getpixel((0, 0)) == (21, 20, 20)
    splits.train[1].paths[0].write_bytes(b"kept")
    DATASETS["cuhk03-detected"](tmp_path)
    assert splits.train[1].paths[0].read_bytes() == b"kept"


def test_unknown_splits_are_refused(tmp_path):
    write_ilids_vid(tmp_path / "a")
    with pytest.raises(ValueError, match="ilids-vid: there is no split 5; choose 0 to 1"):
        DATASETS["ilids-vid"](tmp_path / "a", split=5)
    write_cuhk03(tmp_path / "b")
    with pytest.raises(ValueError, match="there is no split 2; choose 0 to 1"):
        DATASETS["cuhk03-classic-labeled"](tmp_path / "b", split=2)


def test_splits_differ_and_ilids_follows_the_file(tmp_path):
    write_ilids_vid(tmp_path)
    tested = [
        {record.pid for record in DATASETS["ilids-vid"](tmp_path, split=split).query}
        for split in (0, 1)
    ]
    # Persons 4, 1 and 1, 2 of the sorted folders 1, 4, 9, 12.
    assert tested == [
        {12, 1},
        {1, 4},
    ]


def test_tracklets_without_frames(tmp_path):
    (write_prid2011(tmp_path) / "multi_shot" / "cam_a" / "person_0006").mkdir()
    with pytest.raises(ValueError, match="prid2011: the tracklet .*person_0006 has no frames"):
        DATASETS["prid2011"](tmp_path)
