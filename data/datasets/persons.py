"""Datasets of people: MSMT17, CUHK01, VIPeR, and the partial and occluded sets."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from ember_reid.data.datasets.common import (
    Official,
    find_root,
    finish,
    finish_two_cameras,
    list_images,
    list_images_below,
    parse_names,
    read_lines,
    require_folder,
)
from ember_reid.data.records import ALL, SINGLE_SHOT, Record, Splits

MSMT17_TEST: Official = {"query": (3060, 11659, 15), "gallery": (3060, 82161, 15)}
# 0000/0000_000_01_0303morning_0008_0.jpg 0: the camera is the third part of the file name.
_MSMT17_LINE = re.compile(r"((?:\S*/)?[^/_\s]*_[^/_\s]*_(\d+)(?:_[^/\s]*)?)\s+(\d+)")


def load_msmt17(path: Path) -> Splits:
    """MSMT17, training on list_train.txt: 30,248 images, as FastReID and torchreid do."""
    official: Official = {"train": (1041, 30248, 15), **MSMT17_TEST}
    return _load_msmt17(path, "msmt17", ("list_train.txt",), official)


def load_msmt17_trainval(path: Path) -> Splits:
    """MSMT17, training on list_train.txt and list_val.txt: the 32,621 images of the paper."""
    official: Official = {"train": (1041, 32621, 15), **MSMT17_TEST}
    return _load_msmt17(path, "msmt17-trainval", ("list_train.txt", "list_val.txt"), official)


def _load_msmt17(path: Path, name: str, train_lists: tuple[str, ...], official: Official) -> Splits:
    """MSMT17 (Wei et al. 2018) V1 (train/, test/) or V2 (mask_train_v2/, mask_test_v2/).

    The lists have lines of "path pid". Identities of training and test are numbered from 0 each.
    """
    root = find_root(path, needed=("list_train.txt", "list_query.txt"), name=name)
    is_v2 = (root / "mask_train_v2").is_dir() or (root / "mask_test_v2").is_dir()
    train_folder, test_folder = ("mask_train_v2", "mask_test_v2") if is_v2 else ("train", "test")
    require_folder(root / test_folder, name=name)

    def read(file: str, folder: str) -> list[Record]:
        records = []
        for number, line in read_lines(root / file, name=name):
            match = _MSMT17_LINE.fullmatch(line)
            if match is None:
                raise ValueError(
                    f'{name}: {root / file}, line {number} does not parse: "{line}"; expected a'
                    " line like 0000/0000_000_01_0303morning_0008_0.jpg 0"
                )
            image, camera, pid = match.groups()
            records.append(Record((root / folder / image,), int(pid), int(camera) - 1))
        return records

    train: list[Record] = []
    if (root / train_folder).is_dir():
        train = [record for file in train_lists for record in read(file, train_folder)]
    return finish(
        name,
        root,
        train=train,
        query=read("list_query.txt", test_folder),
        gallery=read("list_gallery.txt", test_folder),
        official=official,
    )


def load_viper(path: Path, *, split: int = 0) -> Splits:
    """VIPeR (Gray et al. 2007): cam_a/ and cam_b/ with one image each of 632 people.

    Half of the people are for training. There are no published splits. Ours are drawn with the
    number of the split as the seed. Camera A is the query, camera B the gallery.
    """
    name = "viper"
    root = find_root(path, needed=("cam_a", "cam_b"), name=name)
    pattern, example = re.compile(r"(?P<pid>\d+)_\d+"), "000_45.bmp"
    records: list[Record] = []
    for camid, folder in enumerate(("cam_a", "cam_b")):
        images = list_images(require_folder(root / folder, name=name))
        parsed = parse_names(images, pattern, name=name, example=example)
        records += [replace(record, camid=camid) for record in parsed]
    train, test = split_halves(records, split=split)
    official: Official = {"train": (316, 632, 2), "query": (316, 316, 1), "gallery": (316, 316, 1)}
    return finish_two_cameras(
        name, root, train=train, test=test, protocol=SINGLE_SHOT, official=official
    )


def load_cuhk01(path: Path, *, split: int = 0) -> Splits:
    """CUHK01 (Li et al. 2012): campus/0001001.png, two images of 971 people in each of two cameras.

    485 people are for training and 486 for testing, with one gallery image each (single shot).
    There are no published splits. Ours are drawn with the number of the split as the seed.
    """
    name = "cuhk01"
    path = Path(path)
    root = path if list_images(path) else find_root(path, needed=("campus",), name=name) / "campus"
    records = []
    for image in list_images(root):
        match = re.fullmatch(r"(\d{4})00([1-4])", image.stem)
        if match is None:
            raise ValueError(
                f"{name}: the file name {image} does not parse; expected one like 0001001.png"
            )
        records.append(Record((image,), int(match[1]), (int(match[2]) - 1) // 2))
    train, test = split_halves(records, split=split)
    official: Official = {"train": (485, 1940, 2), "query": (486, 972, 1), "gallery": (486, 972, 1)}
    return finish_two_cameras(
        name, root, train=train, test=test, protocol=SINGLE_SHOT, official=official
    )


def split_halves(records: list[Record], *, split: int) -> tuple[list[Record], list[Record]]:
    """Divide the identities into halves, drawn with `split` as the seed: (train, test).

    With an odd number of identities the training half is the smaller one.
    """
    pids = sorted({record.pid for record in records})
    drawn = np.random.default_rng(split).permutation(len(pids))[: len(pids) // 2]
    chosen = {pids[i] for i in drawn}
    return [r for r in records if r.pid in chosen], [r for r in records if r.pid not in chosen]


def load_partial_reid(path: Path) -> Splits:
    """Partial-REID (Zheng et al. 2015), for testing only.

    partial_body_images/ are the queries, whole_body_images/ the gallery.
    """
    official: Official = {"query": (60, 300, 1), "gallery": (60, 300, 1)}
    query, gallery = ("partial_body_images",), ("whole_body_images",)
    return _load_partial(path, "partial-reid", query, gallery, official)


def load_partial_ilids(path: Path) -> Splits:
    """Partial-iLIDS (Zheng et al. 2011), for testing only: Probe/ (query/), Gallery/."""
    official: Official = {"query": (119, 119, 1), "gallery": (119, 119, 1)}
    query, gallery = ("query", "Probe", "probe"), ("gallery", "Gallery")
    return _load_partial(path, "partial-ilids", query, gallery, official)


def load_occluded_reid(path: Path) -> Splits:
    """Occluded-REID (Zhuo et al. 2018), for testing only.

    occluded_body_images/ are the queries, whole_body_images/ the gallery.
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
    """Two folders without cameras. File names start with the identity; subfolders are allowed."""
    root = find_root(path, needed=query_folders, name=name)

    def read(folders: tuple[str, ...], camid: int) -> list[Record]:
        folder = next((root / f for f in folders if (root / f).is_dir()), root / folders[0])
        images = list_images_below(require_folder(folder, name=name))
        pattern = re.compile(r"(?P<pid>\d+)")
        parsed = parse_names(images, pattern, name=name, example="001_001.jpg")
        return [replace(record, camid=camid) for record in parsed]

    return finish(
        name,
        root,
        train=(),
        query=read(query_folders, 0),
        gallery=read(gallery_folders, 1),
        protocol=ALL,
        official=official,
    )
