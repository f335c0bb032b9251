"""CSV lists with unusual cells and damaged bytes, for training, the doctor and tools.extract."""

import shutil

import pytest
from ember_reid.tools.doctor import main as doctor
from ember_reid.tools.extract import main as extract
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import strategies
from tests.hostile.harness import check, check_training

NAMES = tuple(f"{index}.jpg" for index in range(8))


@pytest.fixture
def image_folder(fresh, tiny_market):
    def create():
        folder = fresh("lists")
        sources = sorted((tiny_market / "bounding_box_train").glob("*.jpg"))
        for name, source in zip(NAMES, sources, strict=False):
            shutil.copy(source, folder / name)
        return folder

    return create


def write_list(data, path):
    text = data.draw(strategies.csv_lists(NAMES))
    content = text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace")
    if data.draw(st.integers(0, 3)) == 0:
        content = data.draw(strategies.changed_bytes(content))
    path.write_bytes(content)


@given(data=st.data())
def test_training(data, image_folder, tiny_recipe):
    path = image_folder() / "list.csv"
    write_list(data, path)
    words = ["DATASETS.NAMES", f"('csv:{path}',)", "DATASETS.TESTS", "()"]
    few = ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_INSTANCES", "2"]
    check_training("lists, training", ["-c", str(tiny_recipe), *words, *few])


@given(data=st.data())
def test_doctor(data, image_folder):
    path = image_folder() / "list.csv"
    write_list(data, path)
    words = [f"csv:{path}", "--out", str(path.with_name("page.html"))]
    # 1: training would fail.
    check("lists, doctor", doctor, words, allowed=(0, 1, 2))


@given(data=st.data())
def test_extract(data, image_folder, tiny_run):
    path = image_folder() / "list.csv"
    write_list(data, path)
    weights = ["TEST.WEIGHT", str(tiny_run / "checkpoints" / "best.pt"), "DEVICE", "cpu"]
    out = ["--out", str(path.with_name("a.npz")), "--no-progress"]
    check("lists, extract", extract, [*weights, str(path), *out])
