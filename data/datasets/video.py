"""Datasets of tracklets. A record's paths are the frames of one tracklet, in temporal order."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from ember_reid.data.datasets.common import (
    Official,
    find_root,
    finish,
    finish_two_cameras,
    forbid_pids,
    list_images,
    list_images_below,
    logger,
    read_lines,
    read_mat,
    require_folder,
)
from ember_reid.data.datasets.market_style import load_veri776, warn_withdrawn
from ember_reid.data.datasets.persons import split_halves
from ember_reid.data.records import JUNK, Record, Splits

MARS_OFFICIAL: Official = {
    "train": (625, 8298, 6),
    "query": (626, 1980, 6),
    "gallery": (635, 11310, 6),
}
DUKE_OFFICIAL: Official = {
    "train": (702, 2196, None),
    "query": (702, 702, None),
    "gallery": (1110, 2636, None),
}
# Minimum frames per tracklet; without people who have shorter ones (Wang et al. 2014), 178 remain.
PRID_SHORTEST = 22


def load_mars(path: Path) -> Splits:
    """MARS (Zheng et al. 2016): bbox_train/, bbox_test/ and info/ with name lists and tables.

    The tables of the authors are .mat files. Text tables with the same columns are also read
    (tracks_train_info.txt, tracks_test_info.txt, query_IDX.txt; numbers separated by blanks). The
    gallery includes the queries: without them 140 queries have no match.

    Raises:
        FileNotFoundError, ValueError: if a file is missing or does not parse.
    """
    return _load_mars(path, "mars", MARS_OFFICIAL)


def load_quickstart_video(path: Path) -> Splits:
    """The tracklets rendered by tools/quickstart_data, in the layout of MARS."""
    return _load_mars(path, "quickstart-video", {})


def _load_mars(path: Path, name: str, official: Official) -> Splits:
    root = find_root(path, needed=("info",), name=name)
    info = root / "info"
    train: list[Record] = []
    if (root / "bbox_train").is_dir():
        table = info / "tracks_train_info"
        train = _tracklets(root / "bbox_train", info / "train_name.txt", table, "track_train_info")
    test_folder = require_folder(root / "bbox_test", name=name)
    test = _tracklets(
        test_folder, info / "test_name.txt", info / "tracks_test_info", "track_test_info"
    )
    chosen = _read_table(info / "query_IDX", "query_IDX").flatten() - 1
    if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(test):
        raise ValueError(
            f"{name}: query_IDX in {info} names tracklet {chosen.max() + 1}, there are {len(test)}"
        )
    is_query = np.zeros(len(test), dtype=bool)
    is_query[chosen] = True
    query = [test[row] for row in chosen]
    gallery = query + [record for row, record in enumerate(test) if not is_query[row]]
    train = [record for record in train if record.pid != JUNK]
    forbid_pids(query, (JUNK, 0), name=name, subset="the queries")
    return finish(name, root, train=train, query=query, gallery=gallery, official=official)


def _tracklets(folder: Path, names_file: Path, table_file: Path, key: str) -> list[Record]:
    """One record per row (first, last, pid, camera); lines of the name list count from 1."""
    names = [line for _, line in read_lines(names_file, name="mars")]
    table = _read_table(table_file, key)
    if table.shape[1] != 4:
        raise ValueError(
            f"mars: {key} has {table.shape[1]} columns; expected first line, last line,"
            " identity, camera"
        )
    records = []
    for row, (first, last, pid, camera) in enumerate(table.tolist(), start=1):
        if not 1 <= first <= last <= len(names):
            raise ValueError(
                f"mars: row {row} of {key} is a tracklet of lines {first} to {last}, but"
                f" {names_file} has {len(names)} lines"
            )
        frames = names[first - 1 : last]
        if len({frame[:6] for frame in frames}) > 1:
            raise ValueError(
                f"mars: row {row} of {key} mixes identities or cameras: {frames[0]} and others"
            )
        place = folder / frames[0][:4]
        records.append(Record(tuple(place / frame for frame in frames), pid, camera - 1))
    return records


def _read_table(stem: Path, key: str) -> np.ndarray:
    """A table from stem.mat or stem.txt: int64 [rows, columns]."""
    text = stem.with_suffix(".txt")
    if text.is_file() and not stem.with_suffix(".mat").is_file():
        try:
            rows = [
                [int(field) for field in line.split()] for _, line in read_lines(text, name="mars")
            ]
            return np.array(rows, dtype=np.int64).reshape(len(rows), -1)
        except ValueError:
            raise ValueError(f"mars: {text} is not a table of whole numbers") from None
    return read_mat(stem.with_suffix(".mat"), key, name="mars").astype(np.int64)


def load_dukemtmc_video(path: Path) -> Splits:
    """DukeMTMC-VideoReID (Wu et al. 2018): train/, query/, gallery/.

    Names are like 0001_C6_F0001_X30823.jpg. The frames of one folder with the same identity and
    camera are a tracklet.
    """
    name = "dukemtmc-video"
    root = find_root(path, needed=("query", "gallery"), name=name)
    parts: dict[str, list[Record]] = {}
    for subset in ("train", "query", "gallery"):
        images = list_images_below(root / subset)
        parts[subset] = [
            Record(tuple(frames), pid, camid)
            for (_, pid, camid), frames in groupby(images, lambda image: _duke_key(image, name))
        ]
    warn_withdrawn(name)
    return finish(
        name,
        root,
        train=parts["train"],
        query=parts["query"],
        gallery=parts["gallery"],
        official=DUKE_OFFICIAL,
    )


def _duke_key(image: Path, name: str) -> tuple[Path, int, int]:
    fields = image.name.replace("C", "").split("_")
    if len(fields) < 3 or not fields[0].isdecimal() or not fields[1].isdecimal():
        raise ValueError(
            f"{name}: the file name {image} does not parse; expected one like"
            " 0001_C6_F0001_X30823.jpg"
        )
    return image.parent, int(fields[0]), int(fields[1]) - 1


def load_veri776_video(path: Path) -> Splits:
    """VeRi-776 as tracklets (VKD, Porrello et al. 2020).

    Consecutive names of one vehicle and camera in name_train.txt are a training tracklet; a line of
    test_track.txt is a tracklet of the gallery. For each image of name_query.txt, the query is the
    gallery's first tracklet of the same vehicle and camera.
    """
    name = "veri776-video"
    root = find_root(path, needed=("name_train.txt", "test_track.txt"), name=name)

    def parse(file: str, number: int, token: str) -> tuple[int, int]:
        fields = token.replace("c", "").split("_")
        if len(fields) < 2 or not fields[0].isdecimal() or not fields[1].isdecimal():
            raise ValueError(
                f'{name}: {root / file}, line {number} does not parse: "{token}"; expected a'
                " name like 0001_c001_00016450_0.jpg"
            )
        return int(fields[0]), int(fields[1]) - 1

    names = sorted(
        (line, parse("name_train.txt", number, line))
        for number, line in _lines(root, "name_train.txt", name)
    )
    train = [
        Record(tuple(root / "image_train" / image for image, _ in frames), pid, camid)
        for (pid, camid), frames in groupby(names, lambda item: item[1])
    ]
    gallery = []
    for number, line in _lines(root, "test_track.txt", name):
        track, *frames = line.split()
        frames = [frame for frame in frames if frame.lower().endswith(".jpg")]
        if not frames:
            raise ValueError(
                f"{name}: {root / 'test_track.txt'}, line {number}: the tracklet {track} has no"
                " frames"
            )
        pid, camid = parse("test_track.txt", number, track)
        gallery.append(Record(tuple(root / "image_test" / frame for frame in frames), pid, camid))
    first = {(record.pid, record.camid): record for record in reversed(gallery)}
    keys = [
        parse("name_query.txt", number, line)
        for number, line in _lines(root, "name_query.txt", name)
    ]
    query = [first[key] for key in keys if key in first]
    if len(query) < len(keys):
        logger.warning(
            "%s: %d query images have no tracklet in the gallery", name, len(keys) - len(query)
        )
    return finish(
        name, root, train=train, query=query, gallery=gallery, official={"train": (576, None, 20)}
    )


def load_veri776_image_to_video(path: Path) -> Splits:
    """VeRi-776 with the images of image_query/ as queries and tracklets as the gallery.

    This is the image-to-video protocol of VKD (data/veri/data_manager.py:136 there). The protocol
    "image-to-video" of veri776-video differs: its queries are first frames of gallery tracklets.
    """
    images, video = load_veri776(path), load_veri776_video(path)
    return replace(video, query=images.query, name="veri776-image-to-video")


def _lines(root: Path, file: str, name: str) -> list[tuple[int, str]]:
    return read_lines(root / file, name=name)


def load_ilids_vid(path: Path, *, split: int = 0) -> Splits:
    """iLIDS-VID (Wang et al. 2014): sequences/cam1/person001/, .../cam2/, ten splits of 150/150.

    "train-test people splits/train_test_splits_ilidsvid.mat" has a row of the numbers 1..300 for
    each split: the first half is for testing, the second for training. Camera 1 is the query,
    camera 2 the gallery.
    """
    name = "ilids-vid"
    root = find_root(path, needed=("sequences",), name=name)
    splits_file = _find_file(root, "train-test people splits/train_test_splits_ilidsvid.mat")
    table = read_mat(splits_file, "ls_set", name=name)
    _check_split(name, split, len(table))
    records = _two_cameras(root / "sequences", ("cam1", "cam2"), name=name)
    persons = sorted({record.pid for record in records})
    row = table[split].astype(np.int64)
    if row.max() > len(persons):
        raise ValueError(
            f"{name}: {splits_file} names person {row.max()}, {root} has {len(persons)} persons"
        )
    tested = {persons[number - 1] for number in row[: len(row) // 2]}
    trained = {persons[number - 1] for number in row[len(row) // 2 :]}
    return finish_two_cameras(
        name,
        root,
        train=[record for record in records if record.pid in trained],
        test=[record for record in records if record.pid in tested],
        official={"train": (150, 300, 2), "query": (150, 150, 1), "gallery": (150, 150, 1)},
    )


def load_prid2011(path: Path, *, split: int = 0) -> Splits:
    """PRID2011 (Hirzer et al. 2011): multi_shot/cam_a/person_0001/, .../cam_b/.

    People 1 to 200, who appear in both cameras, are used if they have more than 21 frames in each:
    178 people, half of them for training. There are no published splits. Ours are drawn with the
    number of the split as the seed. Camera A is the query, camera B the gallery.
    """
    name = "prid2011"
    root = find_root(path, needed=("multi_shot",), name=name)
    records = _two_cameras(root / "multi_shot", ("cam_a", "cam_b"), name=name)
    long_enough: dict[int, int] = {}
    for record in records:
        long_enough[record.pid] = long_enough.get(record.pid, 0) + (
            len(record.paths) >= PRID_SHORTEST
        )
    kept = [record for record in records if record.pid <= 200 and long_enough[record.pid] == 2]
    train, test = split_halves(kept, split=split)
    official: Official = {"train": (89, 178, 2), "query": (89, 89, 1), "gallery": (89, 89, 1)}
    return finish_two_cameras(name, root, train=train, test=test, official=official)


def _two_cameras(root: Path, cameras: tuple[str, str], *, name: str) -> list[Record]:
    """One tracklet per person folder; the pid is the digits of the folder's name."""
    records = []
    for camid, camera in enumerate(cameras):
        for folder in sorted(
            p for p in require_folder(root / camera, name=name).iterdir() if p.is_dir()
        ):
            digits = "".join(c for c in folder.name if c.isdecimal())
            frames = list_images(folder)
            if not digits:
                raise ValueError(f"{name}: the folder {folder} has no person number in its name")
            if not frames:
                raise ValueError(f"{name}: the tracklet {folder} has no frames")
            records.append(Record(tuple(frames), int(digits), camid))
    return records


def _find_file(root: Path, file: str) -> Path:
    """`file` in `root` or in the folder above it."""
    return next((p / file for p in (root, root.parent) if (p / file).is_file()), root / file)


def _check_split(name: str, split: int, number: int) -> None:
    if not 0 <= split < number:
        raise ValueError(f"{name}: there is no split {split}; choose 0 to {number - 1}")
