"""The quickstart data: complete, always the same, readable in its layouts, and no task for colour alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from data import DATASETS
from evaluate import evaluate_features
from tools.quickstart_cameras import CAMERAS
from tools.quickstart_data import LAYOUTS, MARKER, Parameters, identity, main, make

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--seed", "7", "--train-ids", "3", "--test-ids", "8", "--distractors", "20", "--junk", "10"]
ARGUMENTS += ["--frames", "4", "--workers", "1"]
MARKET_NAME = re.compile(r"(-1|\d{4})_c([1-6])s1_\d{6}_\d{2}\.jpg")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A small set in both layouts, rendered once."""
    out = tmp_path_factory.mktemp("quickstart") / "data"
    assert main([str(out), "--images", "--tracklets", *ARGUMENTS]) == 0
    return out


def market(folder: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    files = sorted(folder.iterdir())
    labels = [MARKET_NAME.fullmatch(file.name).groups() for file in files]
    return (
        files,
        np.array([int(pid) for pid, _ in labels]),
        np.array([int(camera) - 1 for _, camera in labels]),
    )


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_market_counts_and_disjoint_identities(rendered):
    root = rendered / "market1501"
    _, train_pids, train_camids = market(root / "bounding_box_train")
    _, query_pids, query_camids = market(root / "query")
    _, gallery_pids, gallery_camids = market(root / "bounding_box_test")
    assert set(train_pids) == {1, 2, 3}
    assert set(query_pids) == set(range(4, 12)) == set(gallery_pids) - {0, -1}
    assert len(query_pids) == 8 * 6
    assert (gallery_pids == 0).sum() == 20 and (gallery_pids == -1).sum() == 10
    for pids, camids in (
        (train_pids, train_camids),
        (query_pids, query_camids),
        (gallery_pids, gallery_camids),
    ):
        for pid in set(pids) - {0, -1}:
            assert set(camids[pids == pid]) == set(range(6))


def test_the_default_size_is_what_the_readme_promises():
    from tools.quickstart_data import _parse

    defaults = _parse(["out"])
    assert defaults.train_ids >= 100 and defaults.test_ids >= 50 and len(CAMERAS) == 6
    assert defaults.distractors > 0 and defaults.junk > 0


def test_pictures_are_colour_jpegs_of_one_size(rendered):
    for file in [*(rendered / "market1501" / "query").iterdir(), *(rendered / "mars").rglob("*.jpg")]:
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_the_readers_of_both_layouts_take_it(rendered):
    images = DATASETS["market1501"](rendered / "market1501")
    assert {record.pid for record in images.train} == {0, 1, 2}
    assert len(images.query) == 48 and {record.camid for record in images.query} == set(range(6))
    tracklets = DATASETS["mars"](rendered / "mars")
    assert len(tracklets.train) == 3 * 4 and len(tracklets.query) == 8 * 2
    assert all(2 <= len(record.paths) <= 4 and record.paths[0].is_file() for record in tracklets.train)


def test_mars_tables_cover_the_name_lists(rendered):
    info = rendered / "mars" / "info"
    for split in ("train", "test"):
        names = (info / f"{split}_name.txt").read_text().split()
        table = loadmat(info / f"tracks_{split}_info.mat")[f"track_{split}_info"]
        assert table.dtype == np.int32 and table[0, 0] == 1 and table[-1, 1] == len(names)
        assert (table[1:, 0] == table[:-1, 1] + 1).all()  # one after the other, from 1, both ends inclusive
        for start, stop, pid, camera in table:
            stems = {name[:11] for name in names[start - 1 : stop]}
            assert len(stems) == 1
            stem = stems.pop()
            assert stem[:6] == f"{'00-1' if pid == -1 else f'{pid:04d}'}C{camera}"
        assert len(list((rendered / "mars" / f"bbox_{split}").rglob("*.jpg"))) == len(names)
    queries = loadmat(info / "query_IDX.mat")["query_IDX"]
    assert queries.shape == (1, 16) and queries.dtype == np.uint16
    assert np.bincount(table[queries[0] - 1, 2], minlength=12).tolist() == [0] * 4 + [2] * 8
    assert {-1, 0} < set(table[:, 2].tolist())


def test_the_same_parameters_give_the_same_files(tmp_path):
    few = Parameters(seed=7, train_ids=1, test_ids=2, distractors=2, junk=2, frames=2)
    make(tmp_path / "one", list(LAYOUTS), few, workers=1)
    make(tmp_path / "two", list(LAYOUTS), few, workers=2)  # the number of processes makes no difference
    expected, found = content(tmp_path / "one"), content(tmp_path / "two")
    assert len(expected) > 50
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_another_seed_gives_other_people():
    assert identity(7, 4) == identity(7, 4)
    assert identity(7, 4) != identity(8, 4)
    assert len({identity(7, pid) for pid in range(1, 151)}) == 150


def test_every_camera_has_a_look_of_its_own(rendered):
    """The mean colours of two cameras differ by more than those of one camera's halves do."""
    files, _, camids = market(rendered / "market1501" / "bounding_box_test")
    means = np.array([np.asarray(Image.open(file)).mean(axis=(0, 1)) for file in files])
    odd = np.arange(len(files)) % 2 == 1
    halves = [[means[(camids == camera) & half].mean(axis=0) for half in (odd, ~odd)] for camera in range(6)]
    within = np.mean([np.linalg.norm(first - second) for first, second in halves])
    centres = np.array(halves).mean(axis=1)
    between = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(6, 1)]
    assert np.median(between) > 2 * within


def histogram(file: Path) -> np.ndarray:
    """8 x 8 x 8 RGB histogram [512] under the square root (Hellinger), the usual strong form."""
    bins = np.asarray(Image.open(file)) // 32
    return np.sqrt(np.bincount((bins @ np.array([64, 8, 1])).ravel(), minlength=512))


def small_picture(file: Path) -> np.ndarray:
    """8 x 16 thumbnail around its mean: what is left when only rough places and colours count."""
    thumbnail = np.asarray(Image.open(file).resize((8, 16), Image.Resampling.BOX), dtype=np.float32)
    return (thumbnail - thumbnail.mean()).ravel()


@pytest.mark.parametrize("feature", [histogram, small_picture])
def test_colour_alone_does_not_solve_it(rendered, feature):
    query, query_pids, query_camids = market(rendered / "market1501" / "query")
    gallery, gallery_pids, gallery_camids = market(rendered / "market1501" / "bounding_box_test")
    scores = evaluate_features(
        np.array([feature(file) for file in query], dtype=np.float32),
        np.array([feature(file) for file in gallery], dtype=np.float32),
        query_pids,
        gallery_pids,
        query_camids,
        gallery_camids,
    )
    assert scores.num_valid == 48
    assert scores.mAP < 0.60


def test_data_that_is_there_is_left_alone(rendered, capsys):
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}
    assert main([str(rendered), "--images", "--tracklets", *ARGUMENTS]) == 0
    assert capsys.readouterr().out == "".join(f"{rendered / name}: already there\n" for name in LAYOUTS)
    assert before == {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}


def test_other_parameters_are_refused_in_one_line(rendered, capsys):
    before = content(rendered)
    assert main([str(rendered), "--images", *ARGUMENTS, "--seed", "8", "--junk", "11"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == (
        f"quickstart_data: {rendered} holds quickstart data made with seed 7 instead of 8, "
        "junk 10 instead of 11; choose another folder or give --overwrite\n"
    )
    assert before == content(rendered)


TINY = [
    "--seed",
    "7",
    "--train-ids",
    "1",
    "--test-ids",
    "1",
    "--distractors",
    "0",
    "--junk",
    "0",
    "--frames",
    "2",
]


def test_overwrite_and_a_layout_that_is_added_later(tmp_path):
    out, tiny = tmp_path / "out", [*TINY, "--workers", "1"]
    assert main([str(out), *tiny]) == 0
    first = content(out)
    assert main([str(out), *tiny, "--tracklets"]) == 0  # adds a layout, keeps the other
    assert {name: content(out)[name] for name in first if name != MARKER} == {
        name: first[name] for name in first if name != MARKER
    }
    assert (out / "mars" / "info" / "query_IDX.mat").is_file()
    assert main([str(out), *tiny, "--train-ids", "2", "--overwrite"]) == 0
    assert not (out / "mars").exists()
    _, pids, _ = market(out / "market1501" / "bounding_box_train")
    assert set(pids) == {1, 2}


def test_an_interrupted_rendering_starts_over(tmp_path):
    out, tiny = tmp_path / "out", [*TINY, "--workers", "1"]
    assert main([str(out), *tiny]) == 0
    whole = content(out / "market1501")
    (out / "market1501").rename(out / "market1501.part")
    shutil.rmtree(out / "market1501.part" / "query")
    assert main([str(out), *tiny]) == 0
    assert content(out / "market1501") == whole and not (out / "market1501.part").exists()


@pytest.mark.parametrize("extra", [[], ["--overwrite"]])
def test_files_of_others_are_never_touched(tmp_path, capsys, extra):
    (tmp_path / "market1501").mkdir()
    (tmp_path / "market1501" / "mine.jpg").write_bytes(b"mine")
    assert main([str(tmp_path), *TINY, *extra]) == 2
    assert "is not empty and holds no quickstart data; choose another folder" in capsys.readouterr().err
    assert (tmp_path / "market1501" / "mine.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test-ids", "0"], "--test-ids is 0, it must be at least 1"),
        (["--train-ids", "9990"], "make 10040 identities; the layouts have four digits, so at most 9999"),
        (["--workers", "0"], "--workers is 0, it must be at least 1"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, capsys, arguments, message):
    assert main([str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_named(tmp_path, capsys):
    (tmp_path / "out").write_text("x")
    assert main([str(tmp_path / "out"), *TINY]) == 2
    assert "out is a file; OUT must be a folder" in capsys.readouterr().err


def test_the_command_runs_from_the_checkout(tmp_path):
    command = [sys.executable, "-m", "tools.quickstart_data", str(tmp_path / "out"), *TINY, "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and re.fullmatch(r".*market1501: \d+ pictures in \d+ s\n", done.stdout)
