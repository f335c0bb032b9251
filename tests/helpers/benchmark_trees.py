"""Small synthetic datasets in their authors' layouts: functions that fill a folder."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

from tests.helpers.trees import write_image, write_images, write_market


def write_text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_market_500k(root: Path) -> Path:
    write_images(root / "images", ["0000_c3s1_000001_00.jpg", "7.jpg"])
    return write_market(root)


def write_duke(root: Path) -> Path:
    write_images(root / "bounding_box_train", ["0005_c2_f0046985.jpg", "0001_c1_f0000001.jpg"])
    write_images(root / "query", ["0003_c1_f0000001.jpg"])
    write_images(root / "bounding_box_test", ["0003_c8_f0000002.jpg", "0004_c2_f0000003.jpg"])
    return root


def write_msmt17(root: Path) -> Path:
    names = {
        "train": [
            "0000/0000_000_01_0303morning_0008_0.jpg",
            "0001/0001_000_15_0303noon_0008_1.jpg",
        ],
        "val": ["0001/0001_001_02_0303noon_0009_1.jpg"],
        "query": ["0000/0000_000_03_0303morning_0001_0.jpg"],
        "gallery": [
            "0000/0000_001_04_0303morning_0002_0.jpg",
            "0001/0001_000_04_0303morning_0003_0.jpg",
        ],
    }
    for subset, files in names.items():
        write_text(root / f"list_{subset}.txt", *(f"{file} {int(file[:4])}" for file in files))
        folder = "mask_train_v2" if subset in ("train", "val") else "mask_test_v2"
        write_images(root / folder, files)
    return root


def write_cuhk01(root: Path) -> Path:
    write_images(
        root / "campus", [f"{pid:04d}{i:03d}.png" for pid in range(1, 6) for i in range(1, 5)]
    )
    return root


def write_viper(root: Path) -> Path:
    write_images(root / "cam_a", [f"{pid:03d}_45.bmp" for pid in range(5)])
    write_images(root / "cam_b", [f"{pid:03d}_90.bmp" for pid in range(5)])
    return root


def write_cuhk03(root: Path) -> Path:
    """One camera pair, three persons with two pictures each."""
    root.mkdir(parents=True, exist_ok=True)
    pictures = {(1, 1): 10, (1, 6): 20, (2, 2): 30, (2, 7): 40, (3, 1): 50, (3, 10): 60}
    with h5py.File(root / "cuhk-03.mat", "w") as mat:
        reference = h5py.special_dtype(ref=h5py.Reference)
        empty = mat.create_dataset("#refs#/empty", data=np.zeros(2, dtype=np.uint64))
        for boxes in ("labeled", "detected"):
            # Transposed, as MATLAB stores it.
            cells = np.empty((10, 3), dtype=reference)
            for number in range(10):
                for person in range(3):
                    value = pictures.get((person + 1, number + 1))
                    cell = empty
                    if value is not None:
                        # [3, W, H]
                        pixels = np.full((3, 6, 12), value, dtype=np.uint8)
                        pixels[0] += boxes == "detected"
                        cell = mat.create_dataset(f"#refs#/{boxes}{person}{number}", data=pixels)
                    cells[number, person] = cell.ref
            pair = mat.create_dataset(f"#refs#/{boxes}", data=cells, dtype=reference)
            mat.create_dataset(boxes, data=np.array([[pair.ref]], dtype=reference), dtype=reference)
        sets = [
            mat.create_dataset(f"#refs#/set{i}", data=np.array([[1.0], [person]]))
            for i, person in enumerate((2, 3))
        ]
        data = np.array([[one.ref for one in sets]], dtype=reference)
        mat.create_dataset("testsets", data=data, dtype=reference)
    names = [f"1_{p:03d}_{1 if n <= 5 else 2}_{n:02d}.png" for p, n in sorted(pictures)]
    for boxes in ("labeled", "detected"):
        savemat(
            root / f"cuhk03_new_protocol_config_{boxes}.mat",
            {
                "filelist": np.array([[name] for name in names], dtype=object),
                "labels": np.array([[int(name[2:5])] for name in names], dtype=np.uint16),
                "train_idx": np.array([[1], [2]], dtype=np.uint16),
                "query_idx": np.array([[3], [5]], dtype=np.uint16),
                "gallery_idx": np.array([[4], [6]], dtype=np.uint16),
            },
        )
    return root


def write_cuhk03_np(root: Path) -> Path:
    for boxes in ("labeled", "detected"):
        write_images(root / boxes / "bounding_box_train", ["0001_c1_1.png", "0001_c2_6.png"])
        write_images(root / boxes / "query", ["0003_c1_1.png"])
        write_images(root / boxes / "bounding_box_test", ["0003_c2_6.png"])
    return root


def write_partial_reid(root: Path) -> Path:
    write_images(root / "partial_body_images", ["001_001.jpg", "002_001.jpg"])
    write_images(root / "whole_body_images", ["001_001.jpg", "002_001.jpg", "002_002.jpg"])
    return root


def write_partial_ilids(root: Path) -> Path:
    write_images(root / "Probe", ["001.jpg", "002.jpg"])
    write_images(root / "Gallery", ["001.jpg", "002.jpg"])
    return root


def write_occluded_reid(root: Path) -> Path:
    write_images(root / "occluded_body_images", ["001/001_01.tif", "002/002_01.tif"])
    write_images(root / "whole_body_images", ["001/001_01.tif", "002/002_02.tif"])
    return root


def write_veri776(root: Path) -> Path:
    train = ["0001_c001_00016450_0.jpg", "0001_c001_00016460_0.jpg", "0001_c020_00000001_0.jpg"]
    query = ["0002_c002_00000001_0.jpg"]
    test = ["0002_c002_00000001_0.jpg", "0002_c002_00000002_0.jpg", "0002_c003_00000003_0.jpg"]
    write_images(root / "image_train", train)
    write_images(root / "image_query", query)
    write_images(root / "image_test", test)
    write_text(root / "name_train.txt", *train)
    write_text(root / "name_query.txt", *query)
    write_text(
        root / "test_track.txt",
        f"0002_c002_00000001_1.jpg {test[0]} {test[1]} 2",
        f"0002_c003_00000003_1.jpg {test[2]} 1",
    )
    return root


def write_vehicleid(root: Path) -> Path:
    lists = root / "train_test_split"
    write_images(root / "image", [f"{i:07d}.jpg" for i in range(1, 7)])
    write_text(lists / "train_list.txt", "0000001 42", "0000002 7")
    for number in (800, 1600, 2400):
        write_text(
            lists / f"test_list_{number}.txt", "0000003 5", "0000004 5", "0000005 6", "0000006 6"
        )
    return root


def write_veri_wild(root: Path) -> Path:
    lists = root / "train_test_split"
    keys = ["00001/000001", "00002/000002", "00003/000003", "00003/000004"]
    write_images(root / "images", [f"{key}.jpg" for key in keys])
    cameras = (55, 2, 1, 174)
    write_text(
        lists / "vehicle_info.txt",
        "id/image;Camera ID;Time;Model;Type;Color",
        *(f"{key};{camera};2018;a;b;c" for key, camera in zip(keys, cameras, strict=True)),
    )
    write_text(lists / "train_list.txt", *(f"{key}.jpg" for key in keys[:2]))
    for number in (3000, 5000):
        write_text(lists / f"test_{number}_id_query.txt", keys[2])
        write_text(lists / f"test_{number}_id.txt", keys[3])
    write_text(lists / "test_10000_query.txt", f"{keys[2]}.jpg")
    write_text(lists / "test_10000.txt", f"{keys[3]}.jpg")
    return root


MARS_TRAIN = {
    (7, 1): ["0007C1T0001F001.jpg", "0007C1T0001F002.jpg"],
    (3, 2): ["0003C2T0001F001.jpg"],
}
MARS_TEST = {
    (-1, 1): ["00-1C1T0001F001.jpg"],
    (0, 2): ["0000C2T0001F001.jpg"],
    (2, 1): ["0002C1T0001F001.jpg", "0002C1T0001F002.jpg", "0002C1T0001F003.jpg"],
    (2, 6): ["0002C6T0001F001.jpg"],
}


def write_mars(root: Path, *, as_text: bool = False) -> Path:
    info = root / "info"
    for subset, tracklets in (("train", MARS_TRAIN), ("test", MARS_TEST)):
        frames = [frame for tracklet in tracklets.values() for frame in tracklet]
        write_images(root / f"bbox_{subset}", [f"{frame[:4]}/{frame}" for frame in frames])
        write_text(info / f"{subset}_name.txt", *frames)
        table, first = [], 1
        for (pid, camera), tracklet in tracklets.items():
            table.append([first, first + len(tracklet) - 1, pid, camera])
            first += len(tracklet)
        if as_text:
            write_text(
                info / f"tracks_{subset}_info.txt", *(" ".join(map(str, row)) for row in table)
            )
        else:
            savemat(
                info / f"tracks_{subset}_info.mat",
                {f"track_{subset}_info": np.array(table, dtype=np.int32)},
            )
    if as_text:
        write_text(info / "query_IDX.txt", "3")
    else:
        savemat(info / "query_IDX.mat", {"query_IDX": np.array([[3]], dtype=np.uint16)})
    return root


def write_duke_video(root: Path) -> Path:
    write_images(root / "train" / "0001" / "0001", ["0001_C1_F0001_X1.jpg", "0001_C1_F0002_X2.jpg"])
    write_images(root / "train" / "0001" / "0002", ["0001_C1_F0009_X9.jpg", "0001_C2_F0001_X1.jpg"])
    write_images(root / "query" / "0005" / "0001", ["0005_C6_F0001_X1.jpg"])
    write_images(
        root / "gallery" / "0005" / "0001", ["0005_C8_F0001_X1.jpg", "0005_C8_F0002_X1.jpg"]
    )
    return root


def write_ilids_vid(root: Path) -> Path:
    for camera in ("cam1", "cam2"):
        for person in (1, 4, 9, 12):
            write_images(
                root / "sequences" / camera / f"person{person:03d}", ["a_00001.png", "a_00002.png"]
            )
    folder = root / "train-test people splits"
    folder.mkdir()
    table = np.array([[4, 1, 2, 3], [1, 2, 3, 4]], dtype=np.uint16)
    savemat(folder / "train_test_splits_ilidsvid.mat", {"ls_set": table})
    return root


def write_prid2011(root: Path) -> Path:
    """People 1, 2, 5 are used; 3 has a short tracklet, 201 is in one camera only."""
    for camera in ("cam_a", "cam_b"):
        for person in (1, 2, 3, 5, 201):
            number = 2 if (camera, person) == ("cam_b", 3) else 22
            folder = root / "multi_shot" / camera / f"person_{person:04d}"
            folder.mkdir(parents=True)
            # The frames are never decoded, so one image is sufficient.
            for frame in range(1, number + 1):
                (folder / f"{frame:04d}.png").write_bytes(b"-")
    return root


def write_csv(root: Path) -> Path:
    write_images(root, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    write_text(
        root / "list.csv",
        "path,pid,camid,split",
        "a.jpg,rex,yard,train",
        "b.jpg,ada,gate,train",
        "c.jpg,leo,gate,query",
        "d.jpg,leo,yard,gallery",
    )
    return root / "list.csv"


def write_folder(root: Path) -> Path:
    for split, identity, camera in (
        ("train", "rex", "yard"),
        ("train", "ada", "gate"),
        ("query", "leo", "gate"),
        ("gallery", "leo", "yard"),
    ):
        write_image(root / split / identity / camera / f"{identity}.jpg")
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "quickstart": write_market,
    "quickstart-video": write_mars,
    "market1501": write_market,
    "market1501-500k": write_market_500k,
    "dukemtmc": write_duke,
    "occluded-duke": write_duke,
    "msmt17": write_msmt17,
    "msmt17-trainval": write_msmt17,
    "cuhk01": write_cuhk01,
    "cuhk03-labeled": write_cuhk03,
    "cuhk03-detected": write_cuhk03,
    "cuhk03-classic-labeled": write_cuhk03,
    "cuhk03-classic-detected": write_cuhk03,
    "cuhk03-np-labeled": write_cuhk03_np,
    "cuhk03-np-detected": write_cuhk03_np,
    "viper": write_viper,
    "partial-reid": write_partial_reid,
    "partial-ilids": write_partial_ilids,
    "occluded-reid": write_occluded_reid,
    "veri776": write_veri776,
    "vehicleid-800": write_vehicleid,
    "vehicleid-1600": write_vehicleid,
    "vehicleid-2400": write_vehicleid,
    "veri-wild-3000": write_veri_wild,
    "veri-wild-5000": write_veri_wild,
    "veri-wild-10000": write_veri_wild,
    "mars": write_mars,
    "dukemtmc-video": write_duke_video,
    "veri776-video": write_veri776,
    "veri776-image-to-video": write_veri776,
    "ilids-vid": write_ilids_vid,
    "prid2011": write_prid2011,
    "csv": write_csv,
    "folder": write_folder,
}
