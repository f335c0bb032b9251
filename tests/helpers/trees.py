"""Tiny image trees for the tests."""

from collections.abc import Sequence
from pathlib import Path

from ember_reid.data.records import Record
from PIL import Image


def write_image(
    path: Path, color: tuple[int, int, int] = (200, 30, 60), *, size: tuple[int, int] = (8, 16)
) -> Path:
    """One image of a single color; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def write_images(folder: Path, names: Sequence[str]) -> None:
    """Images that all differ a little, so that none is a duplicate."""
    for i, name in enumerate(names):
        write_image(folder / name, (i % 256, (7 * i) % 256, (31 * i + len(name)) % 256))


def describe(records: Sequence[Record]) -> list[tuple[str, int, int]]:
    """(name of the first frame, pid, camid) of every record."""
    return [(record.paths[0].name, record.pid, record.camid) for record in records]


def write_market(root: Path) -> Path:
    """Market-1501's layout: 2 training identities, 2 queries, a distractor and a junk image."""
    write_images(
        root / "bounding_box_train",
        [
            "0002_c1s1_000451_03.jpg",
            "0002_c2s1_000801_01.jpg",
            "0007_c3s1_000001_00.jpg",
            "-1_c1s1_000001_00.jpg",
        ],
    )
    write_images(root / "query", ["0001_c1s1_001051_00.jpg", "0003_c2s1_000301_00.jpg"])
    write_images(
        root / "bounding_box_test",
        [
            "-1_c1s1_000401_03.jpg",
            "0000_c2s1_000401_03.jpg",
            "0001_c1s1_001051_01.jpg",
            "0001_c6s1_001051_02.jpg",
            "0003_c4s1_000301_02.jpg",
        ],
    )
    return root
