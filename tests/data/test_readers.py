"""Every dataset reader against a tiny tree in its authors' layout."""

import random
from pathlib import Path

import pytest
from ember_reid.data.datasets import DATASETS, LAYOUTS, load_splits
from ember_reid.data.records import PROTOCOLS

from tests.helpers.benchmark_trees import TREES
from tests.helpers.trees import describe

# name: (train, query, gallery) as (first frame, pid, camid); None where the splits are drawn
MARKET = (
    [
        ("0002_c1s1_000451_03.jpg", 0, 0),
        ("0002_c2s1_000801_01.jpg", 0, 1),
        ("0007_c3s1_000001_00.jpg", 1, 2),
    ],
    [("0001_c1s1_001051_00.jpg", 1, 0), ("0003_c2s1_000301_00.jpg", 3, 1)],
    [
        ("-1_c1s1_000401_03.jpg", -1, 0),
        ("0000_c2s1_000401_03.jpg", 0, 1),
        ("0001_c1s1_001051_01.jpg", 1, 0),
        ("0001_c6s1_001051_02.jpg", 1, 5),
        ("0003_c4s1_000301_02.jpg", 3, 3),
    ],
)
DUKE = (
    [("0001_c1_f0000001.jpg", 0, 0), ("0005_c2_f0046985.jpg", 1, 1)],
    [("0003_c1_f0000001.jpg", 3, 0)],
    [("0003_c8_f0000002.jpg", 3, 7), ("0004_c2_f0000003.jpg", 4, 1)],
)
CUHK03 = (
    [("1_001_1_01.png", 0, 0), ("1_001_2_06.png", 0, 1)],
    [("1_002_1_02.png", 2, 0), ("1_003_1_01.png", 3, 0)],
    [("1_002_2_07.png", 2, 1), ("1_003_2_10.png", 3, 1)],
)
CUHK03_TESTED = [("1_002_1_02.png", 10002, 0), ("1_002_2_07.png", 10002, 1)]
CUHK03_CLASSIC = (
    [
        ("1_001_1_01.png", 0, 0),
        ("1_001_2_06.png", 0, 1),
        ("1_003_1_01.png", 1, 0),
        ("1_003_2_10.png", 1, 1),
    ],
    CUHK03_TESTED,
    CUHK03_TESTED,
)
CUHK03_NP = (
    [("0001_c1_1.png", 0, 0), ("0001_c2_6.png", 0, 1)],
    [("0003_c1_1.png", 3, 0)],
    [("0003_c2_6.png", 3, 1)],
)
VEHICLEID_TESTED = [
    ("0000003.jpg", 5, 0),
    ("0000004.jpg", 5, 0),
    ("0000005.jpg", 6, 0),
    ("0000006.jpg", 6, 0),
]
VEHICLEID = ([("0000001.jpg", 1, 0), ("0000002.jpg", 0, 0)], VEHICLEID_TESTED, VEHICLEID_TESTED)
VERI_WILD = (
    [("000001.jpg", 0, 54), ("000002.jpg", 1, 1)],
    [("000003.jpg", 3, 0)],
    [("000004.jpg", 3, 173)],
)
MARS = (
    [("0007C1T0001F001.jpg", 1, 0), ("0003C2T0001F001.jpg", 0, 1)],
    [("0002C1T0001F001.jpg", 2, 0)],
    [
        ("0002C1T0001F001.jpg", 2, 0),
        ("00-1C1T0001F001.jpg", -1, 0),
        ("0000C2T0001F001.jpg", 0, 1),
        ("0002C6T0001F001.jpg", 2, 5),
    ],
)
EXPECTED = {
    "quickstart": MARKET,
    "quickstart-video": MARS,
    "market1501": MARKET,
    "market1501-500k": (
        MARKET[0],
        MARKET[1],
        [*MARKET[2], ("0000_c3s1_000001_00.jpg", 0, 2), ("7.jpg", 0, 0)],
    ),
    "dukemtmc": DUKE,
    "occluded-duke": DUKE,
    "msmt17": (
        [
            ("0000_000_01_0303morning_0008_0.jpg", 0, 0),
            ("0001_000_15_0303noon_0008_1.jpg", 1, 14),
        ],
        [("0000_000_03_0303morning_0001_0.jpg", 0, 2)],
        [
            ("0000_001_04_0303morning_0002_0.jpg", 0, 3),
            ("0001_000_04_0303morning_0003_0.jpg", 1, 3),
        ],
    ),
    "msmt17-trainval": (
        [
            ("0000_000_01_0303morning_0008_0.jpg", 0, 0),
            ("0001_000_15_0303noon_0008_1.jpg", 1, 14),
            ("0001_001_02_0303noon_0009_1.jpg", 1, 1),
        ],
        [("0000_000_03_0303morning_0001_0.jpg", 0, 2)],
        [
            ("0000_001_04_0303morning_0002_0.jpg", 0, 3),
            ("0001_000_04_0303morning_0003_0.jpg", 1, 3),
        ],
    ),
    "cuhk03-labeled": CUHK03,
    "cuhk03-detected": CUHK03,
    "cuhk03-classic-labeled": CUHK03_CLASSIC,
    "cuhk03-classic-detected": CUHK03_CLASSIC,
    "cuhk03-np-labeled": CUHK03_NP,
    "cuhk03-np-detected": CUHK03_NP,
    "partial-reid": (
        [],
        [("001_001.jpg", 1, 0), ("002_001.jpg", 2, 0)],
        [("001_001.jpg", 1, 1), ("002_001.jpg", 2, 1), ("002_002.jpg", 2, 1)],
    ),
    "partial-ilids": (
        [],
        [("001.jpg", 1, 0), ("002.jpg", 2, 0)],
        [("001.jpg", 1, 1), ("002.jpg", 2, 1)],
    ),
    "occluded-reid": (
        [],
        [("001_01.tif", 1, 0), ("002_01.tif", 2, 0)],
        [("001_01.tif", 1, 1), ("002_02.tif", 2, 1)],
    ),
    "veri776": (
        [
            ("0001_c001_00016450_0.jpg", 0, 0),
            ("0001_c001_00016460_0.jpg", 0, 0),
            ("0001_c020_00000001_0.jpg", 0, 19),
        ],
        [("0002_c002_00000001_0.jpg", 2, 1)],
        [
            ("0002_c002_00000001_0.jpg", 2, 1),
            ("0002_c002_00000002_0.jpg", 2, 1),
            ("0002_c003_00000003_0.jpg", 2, 2),
        ],
    ),
    "vehicleid-800": VEHICLEID,
    "vehicleid-1600": VEHICLEID,
    "vehicleid-2400": VEHICLEID,
    "veri-wild-3000": VERI_WILD,
    "veri-wild-5000": VERI_WILD,
    "veri-wild-10000": VERI_WILD,
    "mars": MARS,
    "dukemtmc-video": (
        [
            ("0001_C1_F0001_X1.jpg", 0, 0),
            ("0001_C1_F0009_X9.jpg", 0, 0),
            ("0001_C2_F0001_X1.jpg", 0, 1),
        ],
        [("0005_C6_F0001_X1.jpg", 5, 5)],
        [("0005_C8_F0001_X1.jpg", 5, 7)],
    ),
    "veri776-video": (
        [("0001_c001_00016450_0.jpg", 0, 0), ("0001_c020_00000001_0.jpg", 0, 19)],
        [("0002_c002_00000001_0.jpg", 2, 1)],
        [("0002_c002_00000001_0.jpg", 2, 1), ("0002_c003_00000003_0.jpg", 2, 2)],
    ),
    "veri776-image-to-video": (
        [("0001_c001_00016450_0.jpg", 0, 0), ("0001_c020_00000001_0.jpg", 0, 19)],
        [("0002_c002_00000001_0.jpg", 2, 1)],
        [("0002_c002_00000001_0.jpg", 2, 1), ("0002_c003_00000003_0.jpg", 2, 2)],
    ),
    "csv": ([("a.jpg", 1, 1), ("b.jpg", 0, 0)], [("c.jpg", 2, 0)], [("d.jpg", 2, 1)]),
    "folder": ([("ada.jpg", 0, 0), ("rex.jpg", 1, 1)], [("leo.jpg", 2, 0)], [("leo.jpg", 2, 1)]),
}
DRAWN = {"cuhk01": (2, 3, 4), "viper": (2, 3, 2), "ilids-vid": (2, 2, 2), "prid2011": (1, 2, 2)}


def load(name, tmp_path):
    return load_splits(f"{name}:{TREES[name](tmp_path / 'tree')}")


def test_every_dataset_is_tested():
    assert set(DATASETS) == set(TREES) == set(LAYOUTS) == set(EXPECTED) | set(DRAWN)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_dataset_is_read(name, tmp_path):
    splits = load(name, tmp_path)
    train, query, gallery = EXPECTED[name]
    assert describe(splits.train) == train
    assert describe(splits.query) == query
    assert describe(splits.gallery) == gallery
    assert splits.protocol in PROTOCOLS
    assert all(path.is_file() for record in splits.records() for path in record.paths)


@pytest.mark.parametrize("name", DRAWN)
def test_reader_with_drawn_splits(name, tmp_path):
    splits = load(name, tmp_path)
    num_train, num_test, train_per_pid = DRAWN[name]
    assert sorted({record.pid for record in splits.train}) == list(range(num_train))
    assert len(splits.train) == num_train * train_per_pid
    tested = {record.pid for record in splits.query}
    assert len(tested) == num_test and {record.pid for record in splits.gallery} == tested
    assert {r.camid for r in splits.query} == {0} and {r.camid for r in splits.gallery} == {1}
    used = [path for record in splits.records() for path in record.paths]
    assert len(used) == len(set(used)) and all(path.is_file() for path in used)


@pytest.mark.parametrize("name", TREES)
def test_order_of_files_on_disk_changes_nothing(name, tmp_path, monkeypatch):
    tree = TREES[name](tmp_path / "tree")
    expected = DATASETS[name](tree)
    rng = random.Random(0)

    def shuffle(original):
        def shuffled(self, *arguments):
            found = list(original(self, *arguments))
            rng.shuffle(found)
            return iter(found)

        return shuffled

    for method in ("iterdir", "rglob", "glob"):
        monkeypatch.setattr(Path, method, shuffle(getattr(Path, method)))
    assert DATASETS[name](tree) == expected


@pytest.mark.parametrize("name", [name for name in TREES if name not in ("csv", "folder")])
def test_missing_and_empty_folders_are_named(name, tmp_path):
    said = name.removesuffix("-image-to-video")
    with pytest.raises(FileNotFoundError, match=f"{said}: the folder .*gone does not exist"):
        DATASETS[name](tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{said}: .*empty"):
        DATASETS[name](tmp_path / "empty")


@pytest.mark.parametrize("name", [name for name in TREES if name != "csv"])
def test_a_folder_too_high_is_found(name, tmp_path, caplog):
    TREES[name](tmp_path / "download" / "unpacked")
    splits = DATASETS[name](tmp_path / "download")
    assert splits.query and splits.gallery
    assert "; using it" in caplog.text
