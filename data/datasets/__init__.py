"""Datasets by name, each with a reader Path -> Splits; your own data is a CSV list or folders."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ember_reid.data.datasets.cuhk03 import (
    load_cuhk03_classic_detected,
    load_cuhk03_classic_labeled,
    load_cuhk03_detected,
    load_cuhk03_labeled,
)
from ember_reid.data.datasets.custom import load_csv, load_folder
from ember_reid.data.datasets.market_style import (
    load_cuhk03_np_detected,
    load_cuhk03_np_labeled,
    load_dukemtmc,
    load_market1501,
    load_market1501_500k,
    load_occluded_duke,
    load_quickstart,
    load_veri776,
)
from ember_reid.data.datasets.persons import (
    load_cuhk01,
    load_msmt17,
    load_msmt17_trainval,
    load_occluded_reid,
    load_partial_ilids,
    load_partial_reid,
    load_viper,
)
from ember_reid.data.datasets.vehicles import (
    load_vehicleid_800,
    load_vehicleid_1600,
    load_vehicleid_2400,
    load_veri_wild_3000,
    load_veri_wild_5000,
    load_veri_wild_10000,
)
from ember_reid.data.datasets.video import (
    load_dukemtmc_video,
    load_ilids_vid,
    load_mars,
    load_prid2011,
    load_quickstart_video,
    load_veri776_image_to_video,
    load_veri776_video,
)
from ember_reid.data.records import Splits


class SplitReader(Protocol):
    """A reader of a dataset with several splits."""

    def __call__(self, path: Path, *, split: int = 0) -> Splits: ...


@dataclass(frozen=True)
class SplitDataset:
    """A reader and the number of its splits."""

    load: SplitReader
    num_splits: int


DATASETS: dict[str, Callable[[Path], Splits]] = {
    "quickstart": load_quickstart,
    "quickstart-video": load_quickstart_video,
    "market1501": load_market1501,
    "market1501-500k": load_market1501_500k,
    "dukemtmc": load_dukemtmc,
    "occluded-duke": load_occluded_duke,
    "msmt17": load_msmt17,
    "msmt17-trainval": load_msmt17_trainval,
    "cuhk01": load_cuhk01,
    "cuhk03-labeled": load_cuhk03_labeled,
    "cuhk03-detected": load_cuhk03_detected,
    "cuhk03-classic-labeled": load_cuhk03_classic_labeled,
    "cuhk03-classic-detected": load_cuhk03_classic_detected,
    "cuhk03-np-labeled": load_cuhk03_np_labeled,
    "cuhk03-np-detected": load_cuhk03_np_detected,
    "viper": load_viper,
    "partial-reid": load_partial_reid,
    "partial-ilids": load_partial_ilids,
    "occluded-reid": load_occluded_reid,
    "veri776": load_veri776,
    "vehicleid-800": load_vehicleid_800,
    "vehicleid-1600": load_vehicleid_1600,
    "vehicleid-2400": load_vehicleid_2400,
    "veri-wild-3000": load_veri_wild_3000,
    "veri-wild-5000": load_veri_wild_5000,
    "veri-wild-10000": load_veri_wild_10000,
    "mars": load_mars,
    "dukemtmc-video": load_dukemtmc_video,
    "veri776-video": load_veri776_video,
    "veri776-image-to-video": load_veri776_image_to_video,
    "ilids-vid": load_ilids_vid,
    "prid2011": load_prid2011,
    "csv": load_csv,
    "folder": load_folder,
}

# Datasets with several splits, chosen as NAME@SPLIT.
SPLIT_DATASETS: dict[str, SplitDataset] = {
    "cuhk01": SplitDataset(load_cuhk01, 10),
    "cuhk03-classic-labeled": SplitDataset(load_cuhk03_classic_labeled, 20),
    "cuhk03-classic-detected": SplitDataset(load_cuhk03_classic_detected, 20),
    "viper": SplitDataset(load_viper, 10),
    "ilids-vid": SplitDataset(load_ilids_vid, 10),
    "prid2011": SplitDataset(load_prid2011, 10),
}


@dataclass(frozen=True)
class Layout:
    """The folders that a dataset's archive unpacks to, and their contents (for messages)."""

    folders: tuple[str, ...]
    contents: str


_MARKET = "bounding_box_train/, query/, bounding_box_test/"
_MSMT17 = Layout(
    ("MSMT17_V2", "MSMT17_V1"), "list_train.txt, list_query.txt, list_gallery.txt and images"
)
_VEHICLEID = Layout(("VehicleID_V1.0", "VehicleID"), "image/, train_test_split/")
_VERI_WILD = Layout(("VERI-Wild", "veri-wild"), "images/, train_test_split/")
_CUHK03 = Layout(("cuhk03", "cuhk03_release"), "cuhk-03.mat, cuhk03_new_protocol_config_*.mat")
_CUHK03_NP = Layout(("cuhk03-np", "CUHK03_NP"), "labeled/, detected/ with " + _MARKET)

LAYOUTS: dict[str, Layout] = {
    "quickstart": Layout(("quickstart/market1501", "quickstart"), _MARKET),
    "quickstart-video": Layout(("quickstart/mars", "quickstart"), "bbox_train/, bbox_test/, info/"),
    "market1501": Layout(("Market-1501-v15.09.15", "Market-1501"), _MARKET),
    "market1501-500k": Layout(("Market-1501-v15.09.15", "Market-1501"), _MARKET + ", images/"),
    "dukemtmc": Layout(("DukeMTMC-reID", "dukemtmc-reid"), _MARKET),
    "occluded-duke": Layout(("Occluded_Duke", "Occluded-DukeMTMC"), _MARKET),
    "msmt17": _MSMT17,
    "msmt17-trainval": _MSMT17,
    "cuhk01": Layout(("CUHK01", "CUHK-01"), "campus/"),
    "cuhk03-labeled": _CUHK03,
    "cuhk03-detected": _CUHK03,
    "cuhk03-classic-labeled": _CUHK03,
    "cuhk03-classic-detected": _CUHK03,
    "cuhk03-np-labeled": _CUHK03_NP,
    "cuhk03-np-detected": _CUHK03_NP,
    "viper": Layout(("VIPeR", "VIPeR.v1.0"), "cam_a/, cam_b/"),
    "partial-reid": Layout(
        ("Partial_REID", "PartialREID"), "partial_body_images/, whole_body_images/"
    ),
    "partial-ilids": Layout(("Partial_iLIDS", "PartialiLIDS", "Partial-iLIDS"), "query/, gallery/"),
    "occluded-reid": Layout(
        ("Occluded_REID", "OccludedREID"), "occluded_body_images/, whole_body_images/"
    ),
    "veri776": Layout(("VeRi", "VeRi_with_plate"), "image_train/, image_query/, image_test/"),
    "vehicleid-800": _VEHICLEID,
    "vehicleid-1600": _VEHICLEID,
    "vehicleid-2400": _VEHICLEID,
    "veri-wild-3000": _VERI_WILD,
    "veri-wild-5000": _VERI_WILD,
    "veri-wild-10000": _VERI_WILD,
    "mars": Layout(("MARS",), "bbox_train/, bbox_test/, info/"),
    "dukemtmc-video": Layout(("DukeMTMC-VideoReID",), "train/, query/, gallery/"),
    "veri776-video": Layout(
        ("VeRi", "VeRi_with_plate"), "name_train.txt, name_query.txt, test_track.txt"
    ),
    "veri776-image-to-video": Layout(("VeRi", "VeRi_with_plate"), "image_query/, test_track.txt"),
    "ilids-vid": Layout(("i-LIDS-VID", "iLIDS-VID"), "sequences/, train-test people splits/"),
    "prid2011": Layout(("prid_2011",), "multi_shot/"),
    "csv": Layout((), "rows with the split train, query or gallery"),
    "folder": Layout((), "train/, query/, gallery/ with a folder of images per identity"),
}


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        name: a name of DATASETS.
        path: the folder, or the CSV list.
        split: the number of the split; 0 if there is only one.
    """

    name: str
    path: Path
    split: int = 0


def resolve(spec: str, root: Path) -> Source:
    """Find a dataset.

    Args:
        spec: "NAME", "NAME:/path", "NAME@SPLIT", "csv:/path/list.csv" or "folder:/path".
        root: where NAME without a path is searched: in root/NAME, or in the folder that its archive
            unpacks to. Case is ignored.

    Raises:
        ValueError: if the name or the split is unknown.
        FileNotFoundError: if there is no such folder.
    """
    head, colon, place = spec.partition(":")
    name, at, number = head.partition("@")
    if name not in DATASETS:
        raise ValueError(
            f'unknown dataset "{name}"; choose one of {", ".join(DATASETS)}, or NAME:/path'
        )
    num_splits = SPLIT_DATASETS[name].num_splits if name in SPLIT_DATASETS else 1
    if at and not (number.isdecimal() and int(number) < num_splits):
        raise ValueError(f'"{spec}": {name} has the splits 0 to {num_splits - 1}, not "{number}"')
    split = int(number or 0)
    if colon:
        if not place:
            raise ValueError(f'"{spec}" has no path after the colon')
        return Source(name, Path(place).expanduser(), split)
    if name in ("csv", "folder"):
        example = "list.csv" if name == "csv" else "folder"
        raise ValueError(f'"{name}" needs a path: {name}:/path/to/{example}')
    return Source(name, _find_folder(name, Path(root).expanduser()), split)


def _find_folder(name: str, root: Path) -> Path:
    """Find the folder of a dataset in `root`. Raises FileNotFoundError."""
    entries = sorted(root.iterdir()) if root.is_dir() else []
    by_name = {entry.name.lower(): entry for entry in entries}
    wanted = list(dict.fromkeys((*LAYOUTS[name].folders, name)))
    for folder in wanted:
        top, _, below = folder.lower().partition("/")
        if top in by_name and (by_name[top] / below).is_dir():
            return by_name[top] / below
    raise FileNotFoundError(
        f"{name} is not in {root} (looked for {' or '.join(wanted)}); put it there, set"
        f" DATASETS.ROOT, or give its path: {name}:/path"
    )


def read(source: Source) -> Splits:
    """Read a dataset. Raises ValueError and OSError with one-line messages."""
    if source.name not in SPLIT_DATASETS:
        return DATASETS[source.name](source.path)
    splits = SPLIT_DATASETS[source.name].load(source.path, split=source.split)
    return replace(splits, name=f"{source.name}@{source.split}")


def load_splits(spec: str, root: Path = Path("datasets")) -> Splits:
    """Read the dataset that `spec` names; see `resolve`. Raises ValueError and OSError."""
    return read(resolve(spec, root))
