"""Datasets in the layout of Market-1501: one folder per split; pid and camera in file names.

0002_c1s1_000451_03.jpg is identity 2 under camera 1. In a gallery, -1 is junk and 0 a distractor.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ember_reid.data.datasets.common import (
    Official,
    find_root,
    finish,
    forbid_pids,
    list_images,
    logger,
    parse_names,
    read_lines,
)
from ember_reid.data.records import JUNK, UNKNOWN_VIEW, Record, Splits


@dataclass(frozen=True)
class MarketLayout:
    """The properties of a dataset in this layout.

    Attributes:
        name: the dataset's name.
        official: published identities, images and cameras of each split.
        train, query, gallery: the folders.
        pattern: matches file names from their start, with the groups `pid` and `camid`.
        example: a file name, for messages.
        withdrawn: whether the owners have withdrawn the data.
    """

    name: str
    official: Official = field(default_factory=dict)
    train: str = "bounding_box_train"
    query: str = "query"
    gallery: str = "bounding_box_test"
    pattern: re.Pattern[str] = re.compile(r"(?P<pid>-?\d+)_c(?P<camid>\d+)")
    example: str = "0002_c1s1_000451_03.jpg"
    withdrawn: bool = False


MARKET = MarketLayout(
    "market1501", {"train": (751, 12936, 6), "query": (750, 3368, 6), "gallery": (751, 15913, 6)}
)
QUICKSTART = MarketLayout("quickstart")
MARKET_500K = MarketLayout("market1501-500k", {"train": (751, 12936, 6), "query": (750, 3368, 6)})
DUKE = MarketLayout(
    "dukemtmc",
    {"train": (702, 16522, 8), "query": (702, 2228, 8), "gallery": (1110, 17661, 8)},
    example="0002_c1_f0044158.jpg",
    withdrawn=True,
)
OCCLUDED_DUKE = replace(
    DUKE,
    name="occluded-duke",
    official={"train": (702, 15618, 8), "query": (519, 2210, 8), "gallery": (1110, 17661, 8)},
)
CUHK03_NP_LABELED = MarketLayout(
    "cuhk03-np-labeled",
    {"train": (767, 7368, 2), "query": (700, 1400, 2), "gallery": (700, 5328, 2)},
    example="0001_c1_1.png",
)
CUHK03_NP_DETECTED = replace(
    CUHK03_NP_LABELED,
    name="cuhk03-np-detected",
    official={"train": (767, 7365, 2), "query": (700, 1400, 2), "gallery": (700, 5332, 2)},
)
VERI776 = MarketLayout(
    "veri776",
    {"train": (576, 37778, 20), "query": (200, 1678, 19), "gallery": (200, 11579, 19)},
    train="image_train",
    query="image_query",
    gallery="image_test",
    example="0001_c001_00016450_0.jpg",
)


def load_market_style(
    path: Path, layout: MarketLayout, *, extra_gallery: list[Record] | None = None
) -> Splits:
    """Read a dataset of this layout.

    Args:
        path: the folder that holds the three folders.
        layout: the dataset.
        extra_gallery: records to append to the gallery.

    Raises:
        FileNotFoundError: if a folder is missing or there are no images.
        ValueError: if a file name does not parse, or an identity is not allowed in its split.
    """
    name = layout.name
    root = find_root(path, needed=(layout.query, layout.train, layout.gallery), name=name)

    def read(folder: str) -> list[Record]:
        images = list_images(root / folder)
        return parse_names(images, layout.pattern, name=name, example=layout.example)

    train, query, gallery = read(layout.train), read(layout.query), read(layout.gallery)
    kept = [record for record in train if record.pid != JUNK]
    if len(kept) < len(train):
        logger.info(
            "%s: left out %d junk images (-1) of %s", name, len(train) - len(kept), layout.train
        )
    forbid_pids(kept, (0,), name=name, subset="the training split")
    forbid_pids(query, (JUNK, 0), name=name, subset="the queries")
    if layout.withdrawn:
        warn_withdrawn(name)
    return finish(
        name,
        root,
        train=kept,
        query=query,
        gallery=[*gallery, *(extra_gallery or ())],
        official=layout.official,
    )


def warn_withdrawn(name: str) -> None:
    """Warn that the images of a dataset are from DukeMTMC."""
    logger.warning(
        "%s comes from DukeMTMC, which its owners withdrew in 2019: use it only to compare with"
        " published results",
        name,
    )


def load_market1501(path: Path) -> Splits:
    """Market-1501 (Zheng et al. 2015): bounding_box_train/, query/, bounding_box_test/."""
    return load_market_style(path, MARKET)


def load_quickstart(path: Path) -> Splits:
    """The people rendered by tools/quickstart_data, or other data in Market-1501's layout."""
    return load_market_style(path, QUICKSTART)


def load_market1501_500k(path: Path) -> Splits:
    """Market-1501 with its 500,000 distractors.

    The distractors are in images/ or distractors_500k/, beside the three folders or one level up.
    """
    root = find_root(path, needed=("query", "bounding_box_test"), name=MARKET_500K.name)
    places = [root / "images", root / "distractors_500k", root.parent / "distractors_500k"]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{MARKET_500K.name}: no distractors in {root}; expected images/ or distractors_500k/"
        )
    distractors = []
    for image in list_images(folder):
        match = MARKET_500K.pattern.match(image.name)
        distractors.append(Record((image,), 0, int(match["camid"]) - 1 if match else 0))
    return load_market_style(root, MARKET_500K, extra_gallery=distractors)


def load_dukemtmc(path: Path) -> Splits:
    """DukeMTMC-reID (Zheng et al. 2017); 408 of the gallery's identities are distractors."""
    return load_market_style(path, DUKE)


def load_occluded_duke(path: Path) -> Splits:
    """Occluded-Duke (Miao et al. 2019): occluded queries."""
    return load_market_style(path, OCCLUDED_DUKE)


def load_cuhk03_np_labeled(path: Path) -> Splits:
    """CUHK03-NP (Zhong et al. 2017), hand-drawn boxes: labeled/ of the archive or its parent."""
    return _load_cuhk03_np(path, "labeled", CUHK03_NP_LABELED)


def load_cuhk03_np_detected(path: Path) -> Splits:
    """CUHK03-NP (Zhong et al. 2017), detected boxes: detected/ of the archive or its parent."""
    return _load_cuhk03_np(path, "detected", CUHK03_NP_DETECTED)


def _load_cuhk03_np(path: Path, boxes: str, layout: MarketLayout) -> Splits:
    folders = (layout.train, layout.query, layout.gallery)
    if any((Path(path) / folder).is_dir() for folder in folders):
        return load_market_style(path, layout)
    return load_market_style(find_root(path, needed=(boxes,), name=layout.name) / boxes, layout)


def load_veri776(path: Path) -> Splits:
    """VeRi-776 (Liu et al. 2016), vehicles: image_train/, image_query/, image_test/.

    Viewpoints are read from keypoint_train.txt and keypoint_test.txt (Wang et al. 2017), if these
    files are in the same folder.
    """
    splits = load_market_style(path, VERI776)
    root = splits.train[0].paths[0].parents[1]
    files = [root / f"keypoint_{part}.txt" for part in ("train", "test")]
    views: dict[str, int] = {}
    for file in files:
        views |= _read_views(file) if file.is_file() else {}

    def add(records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(replace(r, viewid=views.get(r.paths[0].name, UNKNOWN_VIEW)) for r in records)

    if not views:
        return splits
    return replace(
        splits, train=add(splits.train), query=add(splits.query), gallery=add(splits.gallery)
    )


def _read_views(file: Path) -> dict[str, int]:
    """The viewpoint of each image, by its name: the last field of its line, 0 to 7."""
    views = {}
    for number, line in read_lines(file, name="veri776"):
        fields = line.split()
        if len(fields) < 2 or fields[-1] not in set("01234567"):
            raise ValueError(
                f'veri776: {file}, line {number} does not parse: "{line[:80]}"; expected the name '
                "of an image, the coordinates of 20 points, and a viewpoint of 0 to 7"
            )
        views[Path(fields[0]).name] = int(fields[-1])
    return views
