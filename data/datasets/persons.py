"""Persons: MSMT17, CUHK01, VIPeR, and the partial and occluded sets."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from ember_reid.data.datasets.common import (
    Official,
    find_root,
    finish,
    list_images,
    list_images_below,
    parse_names,
    read_lines,
    require_folder,
)
from ember_reid.data.records import ALL, SINGLE_SHOT, Record, Splits

MSMT17_OFFICIAL: Official = {
    "train": (1041, 32621, 15),
    "query": (3060, 11659, 15),
    "gallery": (3060, 82161, 15),
}


def load_msmt17(path: Path) -> Splits:
    """MSMT17 (Wei et al. 2018) V1 (train/, test/) or V2 (mask_train_v2/, mask_test_v2/) with its four list
    files.

    Training images are those of list_train.txt and list_val.txt, which is the 32,621 of the paper; FastReID
    leaves the second list out. Identities of training and test are numbered from 0 each, in lists of "path
    pid".
    """
    name = "msmt17"
    root = find_root(path, needed=("list_train.txt", "list_query.txt"), name=name)
    second = (root / "mask_train_v2").is_dir() or (root / "mask_test_v2").is_dir()
    train_folder, test_folder = ("mask_train_v2", "mask_test_v2") if second else ("train", "test")
    require_folder(root / test_folder, name=name)

    def read(file: str, folder: str) -> list[Record]:
        records = []
        for number, line in read_lines(root / file, name=name):
            fields = line.split()
            # 0000_000_01_0303morning_0008_0.jpg: the third part is the camera
            parts = Path(fields[0]).name.split("_")
            if (
                len(fields) != 2
                or not fields[1].isdigit()
                or len(parts) < 3
                or not parts[2].isdigit()
            ):
                raise ValueError(
                    f'{name}: {root / file}, line {number} does not parse: "{line}"; expected a line like'
                    " 0000/0000_000_01_0303morning_0008_0.jpg 0"
                )
            records.append(Record((root / folder / fields[0],), int(fields[1]), int(parts[2]) - 1))
        return records

    train: list[Record] = []
    if (root / train_folder).is_dir():
        train = read("list_train.txt", train_folder)
        train += read("list_val.txt", train_folder) if (root / "list_val.txt").is_file() else []
    return finish(
        name,
        root,
        train=train,
        query=read("list_query.txt", test_folder),
        gallery=read("list_gallery.txt", test_folder),
        official=MSMT17_OFFICIAL,
    )


def load_viper(path: Path, *, split: int = 0) -> Splits:
    """VIPeR (Gray et al. 2007): cam_a/, cam_b/ with an image of each of 632 persons; half of them train.

    The authors ship no splits: ours are drawn with the split's number as the seed. Camera A asks, camera B
    answers.
    """
    name = "viper"
    root = find_root(path, needed=("cam_a", "cam_b"), name=name)
    pattern, example = re.compile(r"(?P<pid>\d+)_\d+"), "000_45.bmp"
    cameras = []
    for camid, folder in enumerate(("cam_a", "cam_b")):
        records = parse_names(
            list_images(require_folder(root / folder, name=name)),
            pattern,
            name=name,
            example=example,
        )
        cameras.append([replace(record, camid=camid) for record in records])
    train, test = split_halves([*cameras[0], *cameras[1]], split=split)
    official: Official = {"train": (316, 632, 2), "query": (316, 316, 1), "gallery": (316, 316, 1)}
    return _finish_two_cameras(name, root, train, test, official=official)


def load_cuhk01(path: Path, *, split: int = 0) -> Splits:
    """CUHK01 (Li et al. 2012): campus/0001001.png, two images of each of 971 persons under each of two
    cameras.

    485 persons train, 486 are tested on, a gallery image each (single shot). The authors ship no splits: ours
    are drawn with the split's number as the seed.
    """
    name = "cuhk01"
    path = Path(path)
    root = path if list_images(path) else find_root(path, needed=("campus",), name=name) / "campus"
    records = []
    for image in list_images(root):
        if not re.fullmatch(r"\d{7}", image.stem) or image.stem[4:] not in (
            "001",
            "002",
            "003",
            "004",
        ):
            raise ValueError(
                f"{name}: the file name {image} does not parse; expected one like 0001001.png"
            )
        records.append(Record((image,), int(image.stem[:4]), (int(image.stem[4:]) - 1) // 2))
    train, test = split_halves(records, split=split)
    official: Official = {"train": (485, 1940, 2), "query": (486, 972, 1), "gallery": (486, 972, 1)}
    return _finish_two_cameras(name, root, train, test, official=official)


def split_halves(records: list[Record], *, split: int) -> tuple[list[Record], list[Record]]:
    """Half of the identities (rounded down) to train on, drawn with `split` as the seed, and the others."""
    pids = sorted({record.pid for record in records})
    drawn = np.random.default_rng(split).permutation(len(pids))[: len(pids) // 2]
    chosen = {pids[i] for i in drawn}
    return [r for r in records if r.pid in chosen], [r for r in records if r.pid not in chosen]


def _finish_two_cameras(
    name: str, root: Path, train: list[Record], test: list[Record], *, official: Official
) -> Splits:
    """The first camera asks, the second answers; one gallery image per identity at a time."""
    return finish(
        name,
        root,
        train=train,
        query=[record for record in test if record.camid == 0],
        gallery=[record for record in test if record.camid == 1],
        protocol=SINGLE_SHOT,
        official=official,
    )


def load_partial_reid(path: Path) -> Splits:
    """Partial-REID (Zheng et al. 2015), testing only: partial_body_images/ ask, whole_body_images/
    answer.
    """
    official: Official = {"query": (60, 300, 1), "gallery": (60, 300, 1)}
    return _load_partial(
        path, "partial-reid", ("partial_body_images",), ("whole_body_images",), official
    )


def load_partial_ilids(path: Path) -> Splits:
    """Partial-iLIDS (Zheng et al. 2011), testing only: Probe/ or query/ ask, Gallery/ or gallery/ answer."""
    official: Official = {"query": (119, 119, 1), "gallery": (119, 119, 1)}
    return _load_partial(
        path, "partial-ilids", ("query", "Probe", "probe"), ("gallery", "Gallery"), official
    )


def load_occluded_reid(path: Path) -> Splits:
    """Occluded-REID (Zhuo et al. 2018), testing only: occluded_body_images/ ask, whole_body_images/
    answer.
    """
    official: Official = {"query": (200, 1000, 1), "gallery": (200, 1000, 1)}
    query, gallery = ("occluded_body_images", "query"), ("whole_body_images", "gallery")
    return _load_partial(path, "occluded-reid", query, gallery, official)


def _load_partial(
    path: Path,
    name: str,
    query_folders: tuple[str, ...],
    gallery_folders: tuple[str, ...],
    official: Official,
) -> Splits:
    """Two folders without cameras; a name starts with the identity, the images may lie in a folder per
    identity.
    """
    root = find_root(path, needed=query_folders, name=name)
    parts = []
    for camid, folders in enumerate((query_folders, gallery_folders)):
        folder = next((root / f for f in folders if (root / f).is_dir()), root / folders[0])
        images = list_images_below(require_folder(folder, name=name))
        pattern, example = re.compile(r"(?P<pid>\d+)"), "001_001.jpg"
        records = parse_names(images, pattern, name=name, example=example)
        parts.append([replace(record, camid=camid) for record in records])
    return finish(
        name, root, train=(), query=parts[0], gallery=parts[1], protocol=ALL, official=official
    )
