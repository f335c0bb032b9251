"""Vehicle datasets with list files: VehicleID and VERI-Wild."""

from pathlib import Path

from ember_reid.data.datasets.common import Official, find_root, finish, read_lines, require_folder
from ember_reid.data.records import ONE_PER_IDENTITY, Record, Splits

VEHICLEID_TRAIN = (13164, 113346, None)
# Images of the test lists, by number of identities.
VEHICLEID_TEST = {800: 6493, 1600: 13377, 2400: 19777}
VERI_WILD_TRAIN = (30671, 277797, None)
# Query and gallery images, by number of identities.
VERI_WILD_TEST = {3000: (3000, 38861), 5000: (5000, 64389), 10000: (10000, 128517)}


def load_vehicleid_800(path: Path) -> Splits:
    """VehicleID, small test set."""
    return _load_vehicleid(path, 800)


def load_vehicleid_1600(path: Path) -> Splits:
    """VehicleID, medium test set."""
    return _load_vehicleid(path, 1600)


def load_vehicleid_2400(path: Path) -> Splits:
    """VehicleID, large test set."""
    return _load_vehicleid(path, 2400)


def _load_vehicleid(path: Path, num_identities: int) -> Splits:
    """VehicleID (Liu et al. 2016): image/0000001.jpg, lists of "image vehicle", no cameras.

    Query and gallery contain the same images here. The protocol repeats ten times: one random image
    of each vehicle is the gallery, and the others are the queries.
    """
    name = f"vehicleid-{num_identities}"
    root = find_root(path, needed=("train_test_split",), name=name)
    require_folder(root / "image", name=name)

    def read(file: str) -> list[Record]:
        records = []
        for number, line in read_lines(root / "train_test_split" / file, name=name):
            fields = line.split()
            if len(fields) != 2 or not fields[1].isdecimal():
                raise ValueError(
                    f"{name}: {root / 'train_test_split' / file}, line {number} does not parse:"
                    f' "{line}"; expected a line like 0000001 1'
                )
            image = f"{fields[0].removesuffix('.jpg')}.jpg"
            records.append(Record((root / "image" / image,), int(fields[1]), 0))
        return records

    test = read(f"test_list_{num_identities}.txt")
    official: Official = {
        "train": VEHICLEID_TRAIN,
        "gallery": (num_identities, VEHICLEID_TEST[num_identities], None),
    }
    return finish(
        name,
        root,
        train=read("train_list.txt"),
        query=test,
        gallery=test,
        protocol=ONE_PER_IDENTITY,
        official=official,
    )


def load_veri_wild_3000(path: Path) -> Splits:
    """VERI-Wild, small test set."""
    return _load_veri_wild(path, 3000)


def load_veri_wild_5000(path: Path) -> Splits:
    """VERI-Wild, medium test set."""
    return _load_veri_wild(path, 5000)


def load_veri_wild_10000(path: Path) -> Splits:
    """VERI-Wild, large test set."""
    return _load_veri_wild(path, 10000)


def _load_veri_wild(path: Path, num_identities: int) -> Splits:
    """VERI-Wild (Lou et al. 2019): images/00001/000001.jpg, lists of "vehicle/image".

    The authors name the test lists test_3000_id_query.txt and test_3000_id.txt; other copies name
    them test_3000_query.txt and test_3000.txt.
    """
    name = f"veri-wild-{num_identities}"
    root = find_root(path, needed=("train_test_split",), name=name)
    lists = root / "train_test_split"
    require_folder(root / "images", name=name)
    cameras = _read_veri_wild_cameras(lists / "vehicle_info.txt", name)

    def read(*files: str) -> list[Record]:
        file = next((lists / f for f in files if (lists / f).is_file()), lists / files[0])
        records = []
        for number, line in read_lines(file, name=name):
            key = line.split()[0].removesuffix(".jpg")
            vehicle = key.split("/")[0]
            if not vehicle.isdecimal() or "/" not in key:
                raise ValueError(
                    f'{name}: {file}, line {number} does not parse: "{line}"; expected a line like'
                    " 00001/000001.jpg"
                )
            if key not in cameras:
                raise ValueError(
                    f"{name}: {file}, line {number}: vehicle_info.txt has no camera for {key}"
                )
            records.append(Record((root / "images" / f"{key}.jpg",), int(vehicle), cameras[key]))
        return records

    num_query, num_gallery = VERI_WILD_TEST[num_identities]
    return finish(
        name,
        root,
        train=read("train_list.txt"),
        query=read(f"test_{num_identities}_id_query.txt", f"test_{num_identities}_query.txt"),
        gallery=read(f"test_{num_identities}_id.txt", f"test_{num_identities}.txt"),
        official={
            "train": VERI_WILD_TRAIN,
            "query": (num_identities, num_query, None),
            "gallery": (num_identities, num_gallery, None),
        },
    )


def _read_veri_wild_cameras(path: Path, name: str) -> dict[str, int]:
    """Read the cameras by "vehicle/image": a header, then lines "vehicle/image;camera;..."."""
    cameras = {}
    for number, line in read_lines(path, name=name)[1:]:
        fields = [field.strip() for field in line.split(";")]
        if len(fields) < 2 or not fields[1].isdecimal():
            raise ValueError(
                f'{name}: {path}, line {number} does not parse: "{line}"; expected a line like'
                " 00001/000001;55;..."
            )
        cameras[fields[0].removesuffix(".jpg")] = int(fields[1]) - 1
    return cameras
