"""CUHK03 (Li et al. 2014) in its original form: cuhk-03.mat, a MATLAB file of version 7.3.

The images are unpacked once, into images_labeled/ or images_detected/ beside the file. The 767/700
protocol (Zhong et al. 2017) needs cuhk03_new_protocol_config_labeled.mat or ..._detected.mat. The
classic protocol has 20 splits with 100 test identities.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ember_reid.data.datasets.common import Official, find_root, finish, logger, read_mat
from ember_reid.data.records import SINGLE_SHOT, Record, Splits
from PIL import Image

OFFICIAL: dict[str, Official] = {
    "labeled": {"train": (767, 7368, 2), "query": (700, 1400, 2), "gallery": (700, 5328, 2)},
    "detected": {"train": (767, 7365, 2), "query": (700, 1400, 2), "gallery": (700, 5332, 2)},
}
# An upper bound for each camera pair: pid = pair * NUM_PERSONS + person.
NUM_PERSONS = 10_000
MAT_NAME = "cuhk-03.mat"


def load_cuhk03_labeled(path: Path) -> Splits:
    """767/700 protocol, hand-drawn boxes."""
    return _load_new(path, "labeled")


def load_cuhk03_detected(path: Path) -> Splits:
    """767/700 protocol, detected boxes."""
    return _load_new(path, "detected")


def load_cuhk03_classic_labeled(path: Path, *, split: int = 0) -> Splits:
    """One of the 20 classic splits, hand-drawn boxes; single shot."""
    return _load_classic(path, "labeled", split)


def load_cuhk03_classic_detected(path: Path, *, split: int = 0) -> Splits:
    """One of the 20 classic splits, detected boxes; single shot."""
    return _load_classic(path, "detected", split)


def _load_new(path: Path, boxes: str) -> Splits:
    name = f"cuhk03-{boxes}"
    root = find_root(path, needed=(MAT_NAME,), name=name)
    config = f"cuhk03_new_protocol_config_{boxes}.mat"
    place = next((p / config for p in (root, root.parent) if (p / config).is_file()), root / config)
    files, labels = read_mat(place, "filelist", name=name), read_mat(place, "labels", name=name)
    images = unpack_images(root, boxes, name=name)
    records = []
    for file, label in zip(files.flatten(), labels.flatten(), strict=True):
        # 1_001_1_01.png: camera pair, person, view, number
        image = str(np.asarray(file).flatten()[0])
        records.append(Record((images / image,), int(label), int(image.split("_")[2]) - 1))

    def select(key: str) -> list[Record]:
        rows = read_mat(place, key, name=name).flatten().astype(np.int64) - 1
        return [records[row] for row in rows]

    return finish(
        name,
        root,
        train=select("train_idx"),
        query=select("query_idx"),
        gallery=select("gallery_idx"),
        official=OFFICIAL[boxes],
    )


def _load_classic(path: Path, boxes: str, split: int) -> Splits:
    name = f"cuhk03-classic-{boxes}"
    root = find_root(path, needed=(MAT_NAME,), name=name)
    images = unpack_images(root, boxes, name=name)
    with _open_mat(root / MAT_NAME, name=name) as mat:
        sets = mat["testsets"][0]
        if not 0 <= split < len(sets):
            raise ValueError(f"{name}: there is no split {split}; choose 0 to {len(sets) - 1}")
        tested = {(int(pair), int(person)) for pair, person in mat[sets[split]][:].T}
    train: list[Record] = []
    test: list[Record] = []
    for image in sorted(images.glob("*.png")):
        pair, person, view, _ = (int(field) for field in image.stem.split("_"))
        record = Record((image,), pair * NUM_PERSONS + person, view - 1)
        (test if (pair, person) in tested else train).append(record)
    return finish(name, root, train=train, query=test, gallery=test, protocol=SINGLE_SHOT)


def unpack_images(root: Path, boxes: str, *, name: str) -> Path:
    """Write the images of `boxes` as pair_person_view_number.png beside the .mat file, once."""
    folder = root / f"images_{boxes}"
    finished = folder / ".complete"
    if finished.is_file():
        return folder
    logger.info("%s: unpacking the images of %s into %s, once", name, root / MAT_NAME, folder)
    with _open_mat(root / MAT_NAME, name=name) as mat:
        folder.mkdir(exist_ok=True)
        for pair, reference in enumerate(mat[boxes][0], start=1):
            # [persons, 10]; the first five columns are view 1
            persons = mat[reference][:].T
            for person, row in enumerate(persons, start=1):
                _write_images(folder / f"{pair}_{person:03d}", [mat[cell][:].T for cell in row])
    finished.touch()
    return folder


def _write_images(prefix: Path, cells: list[np.ndarray[Any, Any]]) -> None:
    """Write the images [H, W, 3] of one person; empty cells have other shapes and are skipped."""
    for number, pixels in enumerate(cells, start=1):
        if pixels.ndim == 3 and pixels.size:
            view = 1 if number <= 5 else 2
            file = prefix.with_name(f"{prefix.name}_{view}_{number:02d}.png")
            Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(file)


def _open_mat(path: Path, *, name: str) -> Any:
    """Open a MATLAB file of version 7.3, which is HDF5: an `h5py.File`. Raises ValueError."""
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"{name}: {path.name} is a MATLAB file of version 7.3, which needs h5py:"
            " pip install h5py"
        ) from None
    try:
        mat = h5py.File(path, "r")
    except OSError:
        raise ValueError(
            f"{name}: {path} is not a MATLAB file of version 7.3, as the release is"
        ) from None
    missing = [key for key in ("labeled", "detected", "testsets") if key not in mat]
    if missing:
        mat.close()
        raise ValueError(f"{name}: {path} has no variable {', '.join(missing)}")
    return mat
