"""CUHK03 (Li et al. 2014) as its authors ship it: cuhk-03.mat, a MATLAB file of version 7.3.

The pictures are unpacked once into images_labeled/ or images_detected/ beside it. The 767/700 protocol (Zhong
et al. 2017) needs cuhk03_new_protocol_config_labeled.mat or ..._detected.mat; the classic one has 20 splits
with 100 test identities.
"""

from pathlib import Path

import numpy as np
from ember_reid.data.datasets.common import Official, find_root, finish, logger, read_mat
from ember_reid.data.records import SINGLE_SHOT, Record, Splits
from PIL import Image

OFFICIAL: dict[str, Official] = {
    "labeled": {"train": (767, 7368, 2), "query": (700, 1400, 2), "gallery": (700, 5328, 2)},
    "detected": {"train": (767, 7365, 2), "query": (700, 1400, 2), "gallery": (700, 5332, 2)},
}
NUM_PERSONS = 10_000  # more than any camera pair has; numbers a person over all pairs
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
        file = str(
            np.asarray(file).flatten()[0]
        )  # 1_001_1_01.png: camera pair, person, view, number
        records.append(Record((images / file,), int(label), int(file.split("_")[2]) - 1))
    parts = {}
    for subset in ("train", "query", "gallery"):
        rows = read_mat(place, f"{subset}_idx", name=name).flatten().astype(np.int64) - 1
        parts[subset] = [records[row] for row in rows]
    return finish(
        name,
        root,
        train=parts["train"],
        query=parts["query"],
        gallery=parts["gallery"],
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
    train, test = [], []
    for image in sorted(images.glob("*.png")):
        pair, person, view, _ = (int(field) for field in image.stem.split("_"))
        record = Record((image,), pair * NUM_PERSONS + person, view - 1)
        (test if (pair, person) in tested else train).append(record)
    return finish(name, root, train=train, query=test, gallery=test, protocol=SINGLE_SHOT)


def unpack_images(root: Path, boxes: str, *, name: str) -> Path:
    """Write the pictures of `boxes` as pair_person_view_number.png beside the .mat file, once."""
    folder = root / f"images_{boxes}"
    finished = folder / ".complete"
    if finished.is_file():
        return folder
    logger.info("%s: unpacking the pictures of %s into %s, once", name, root / MAT_NAME, folder)
    with _open_mat(root / MAT_NAME, name=name) as mat:
        folder.mkdir(exist_ok=True)
        for pair, reference in enumerate(mat[boxes][0], start=1):
            persons = mat[reference][:].T  # [persons, 10]; the first five columns are view 1
            for person, row in enumerate(persons, start=1):
                for number, cell in enumerate(row, start=1):
                    pixels = mat[cell][:].T  # [H, W, 3]; an empty cell is no picture
                    if pixels.ndim == 3 and pixels.size:
                        view = 1 if number <= 5 else 2
                        file = folder / f"{pair}_{person:03d}_{view}_{number:02d}.png"
                        Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(file)
    finished.touch()
    return folder


def _open_mat(path: Path, *, name: str):
    """Open a MATLAB file of version 7.3, which is HDF5. Raises ValueError when that is not possible."""
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"{name}: {path.name} is a MATLAB file of version 7.3, which needs h5py: pip install h5py"
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
