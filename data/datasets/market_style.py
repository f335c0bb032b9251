"""Image datasets in Market-1501's form: a folder per split, identity and camera in the file name.

0002_c1s1_000451_03.jpg is identity 2 under camera 1. In a gallery -1 is junk and 0 a distractor.
"""

import re
from pathlib import Path
from typing import NamedTuple

from ember_reid.data.datasets.common import (
    Official,
    find_root,
    finish,
    forbid_pids,
    list_images,
    logger,
    parse_names,
)
from ember_reid.data.records import JUNK, Record, Splits


class Form(NamedTuple):
    """What distinguishes the datasets of this form; `folders` are those of train, query and gallery."""

    name: str
    official: Official
    folders: tuple[str, str, str] = ("bounding_box_train", "query", "bounding_box_test")
    pattern: re.Pattern = re.compile(r"(?P<pid>-?\d+)_c(?P<camid>\d+)")
    example: str = "0002_c1s1_000451_03.jpg"
    withdrawn: bool = False


MARKET = Form(
    "market1501", {"train": (751, 12936, 6), "query": (750, 3368, 6), "gallery": (751, 15913, 6)}
)
QUICKSTART = MARKET._replace(name="quickstart", official={})
MARKET_500K = MARKET._replace(
    name="market1501-500k", official={"train": (751, 12936, 6), "query": (750, 3368, 6)}
)
DUKE = Form(
    "dukemtmc",
    {"train": (702, 16522, 8), "query": (702, 2228, 8), "gallery": (1110, 17661, 8)},
    example="0002_c1_f0044158.jpg",
    withdrawn=True,
)
OCCLUDED_DUKE = Form(
    "occluded-duke",
    {"train": (702, 15618, 8), "query": (519, 2210, 8), "gallery": (1110, 17661, 8)},
    example="0002_c1_f0044158.jpg",
    withdrawn=True,
)
CUHK03_NP_LABELED = Form(
    "cuhk03-np-labeled",
    {"train": (767, 7368, 2), "query": (700, 1400, 2), "gallery": (700, 5328, 2)},
    example="0001_c1_1.png",
)
CUHK03_NP_DETECTED = CUHK03_NP_LABELED._replace(
    name="cuhk03-np-detected",
    official={"train": (767, 7365, 2), "query": (700, 1400, 2), "gallery": (700, 5332, 2)},
)
VERI776 = Form(
    "veri776",
    {"train": (576, 37778, 20), "query": (200, 1678, 19), "gallery": (200, 11579, 19)},
    folders=("image_train", "image_query", "image_test"),
    example="0001_c001_00016450_0.jpg",
)


def load_form(path: Path, form: Form, *, extra_gallery: list[Record] | None = None) -> Splits:
    """Read one of these datasets. Raises FileNotFoundError and ValueError in one sentence."""
    name = form.name
    train_folder, query_folder, gallery_folder = form.folders
    root = find_root(path, needed=(query_folder, train_folder, gallery_folder), name=name)
    train, query, gallery = (
        parse_names(list_images(root / folder), form.pattern, name=name, example=form.example)
        for folder in form.folders
    )
    kept = [record for record in train if record.pid != JUNK]
    if len(kept) < len(train):
        logger.info(
            "%s: %d junk images (-1) of %s are left out", name, len(train) - len(kept), train_folder
        )
    forbid_pids(kept, (0,), name=name, subset="the training split")
    forbid_pids(query, (JUNK, 0), name=name, subset="the queries")
    if form.withdrawn:
        logger.warning(
            "%s comes from DukeMTMC, withdrawn by its owners in 2019; only compare with old results",
            name,
        )
    return finish(
        name,
        root,
        train=kept,
        query=query,
        gallery=[*gallery, *(extra_gallery or ())],
        official=form.official,
    )


def load_market1501(path: Path) -> Splits:
    """Market-1501 (Zheng et al. 2015): bounding_box_train/, query/, bounding_box_test/."""
    return load_form(path, MARKET)


def load_quickstart(path: Path) -> Splits:
    """The rendered people of tools/quickstart_data, or anybody's data in Market-1501's form."""
    return load_form(path, QUICKSTART)


def load_market1501_500k(path: Path) -> Splits:
    """Market-1501 with its 500,000 distractors, from images/ or distractors_500k/ beside or in the three
    folders.
    """
    root = find_root(path, needed=("query", "bounding_box_test"), name=MARKET_500K.name)
    places = [root / "images", root / "distractors_500k", root.parent / "distractors_500k"]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"{MARKET_500K.name}: no distractors in {root}; expected there: images/ or distractors_500k/"
        )
    distractors = []
    for image in list_images(folder):
        match = MARKET_500K.pattern.match(image.name)
        distractors.append(Record((image,), 0, int(match["camid"]) - 1 if match else 0))
    return load_form(root, MARKET_500K, extra_gallery=distractors)


def load_dukemtmc(path: Path) -> Splits:
    """DukeMTMC-reID (Zheng et al. 2017); 408 of the gallery's identities are distractors."""
    return load_form(path, DUKE)


def load_occluded_duke(path: Path) -> Splits:
    """Occluded-Duke (Miao et al. 2019): occluded queries."""
    return load_form(path, OCCLUDED_DUKE)


def load_cuhk03_np_labeled(path: Path) -> Splits:
    """CUHK03-NP (Zhong et al. 2017), hand-drawn boxes: labeled/ of the archive, or the folder itself."""
    return _load_cuhk03_np(path, "labeled", CUHK03_NP_LABELED)


def load_cuhk03_np_detected(path: Path) -> Splits:
    """CUHK03-NP (Zhong et al. 2017), detected boxes: detected/ of the archive, or the folder itself."""
    return _load_cuhk03_np(path, "detected", CUHK03_NP_DETECTED)


def _load_cuhk03_np(path: Path, boxes: str, form: Form) -> Splits:
    if any((Path(path) / folder).is_dir() for folder in form.folders):
        return load_form(path, form)
    return load_form(find_root(path, needed=(boxes,), name=form.name) / boxes, form)


def load_veri776(path: Path) -> Splits:
    """VeRi-776 (Liu et al. 2016), vehicles: image_train/, image_query/, image_test/."""
    return load_form(path, VERI776)
