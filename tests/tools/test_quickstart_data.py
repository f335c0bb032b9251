"""The quickstart data: complete, reproducible, readable, and not solvable by color alone."""

import json
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data import DATASETS
from ember_reid.data.build import build_normalization
from ember_reid.data.images import load_image
from ember_reid.evaluate import evaluate_features
from ember_reid.modeling import build_model
from ember_reid.tools.quickstart_data.cameras import CAMERAS, NUM_CAMERAS
from ember_reid.tools.quickstart_data.command import MARKER, add_options, main
from ember_reid.tools.quickstart_data.layouts import LAYOUTS, identity
from ember_reid.tools.quickstart_data.visits import FRAME_RATE, plan_route
from PIL import Image
from scipy.io import loadmat

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--seed",
    "7",
    "--train-ids",
    "3",
    "--test-ids",
    "8",
    "--distractors",
    "20",
    "--junk",
    "10",
]
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
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
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
    parser = ArgumentParser()
    add_options(parser)
    defaults = parser.parse_args(["out"])
    assert defaults.train_ids >= 100 and defaults.test_ids >= 50 and NUM_CAMERAS == 6
    assert len(CAMERAS) == 2 * NUM_CAMERAS
    assert defaults.distractors > 0 and defaults.junk > 0


def test_images_are_color_jpegs_of_one_size(rendered):
    for file in [
        *(rendered / "market1501" / "query").iterdir(),
        *(rendered / "mars").rglob("*.jpg"),
    ]:
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_both_layouts_can_be_read(rendered):
    images = DATASETS["market1501"](rendered / "market1501")
    assert {record.pid for record in images.train} == {0, 1, 2}
    assert len(images.query) == 48 and {record.camid for record in images.query} == set(range(6))
    tracklets = DATASETS["mars"](rendered / "mars")
    assert len(tracklets.train) == 3 * 4 and len(tracklets.query) == 8 * 2
    assert all(
        2 <= len(record.paths) <= 4 and record.paths[0].is_file() for record in tracklets.train
    )


def test_mars_tables_cover_the_name_lists(rendered):
    info = rendered / "mars" / "info"
    for split in ("train", "test"):
        names = (info / f"{split}_name.txt").read_text().split()
        table = loadmat(info / f"tracks_{split}_info.mat")[f"track_{split}_info"]
        assert table.dtype == np.int32 and table[0, 0] == 1 and table[-1, 1] == len(names)
        # Consecutive numbers from 1, both ends inclusive.
        assert (table[1:, 0] == table[:-1, 1] + 1).all()
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


TINY = [
    "--seed",
    "7",
    "--train-ids",
    "1",
    "--test-ids",
    "1",
    "--distractors",
    "1",
    "--junk",
    "1",
    "--frames",
    "2",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The smallest dataset in both layouts. Tests that change it must copy it."""
    out = tmp_path_factory.mktemp("tiny") / "data"
    assert main([str(out), "--images", "--tracklets", *TINY, "--workers", "1"]) == 0
    return out


def test_the_command_gives_the_same_files_in_other_processes(tiny, tmp_path):
    command = [
        sys.executable,
        "-m",
        "tools.quickstart_data",
        str(tmp_path / "out"),
        "--images",
        "--tracklets",
    ]
    done = subprocess.run(
        [*command, *TINY, "--workers", "2"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(.*(market1501|mars): \d+ images in \d+ s\n){2}", done.stdout)
    expected, found = content(tiny), content(tmp_path / "out")
    assert expected.keys() == found.keys() and len(expected) > 50
    assert [name for name in expected if expected[name] != found[name]] == []


def test_another_seed_gives_other_people():
    assert identity(7, 4) == identity(7, 4)
    assert identity(7, 4) != identity(8, 4)
    assert len({identity(7, pid) for pid in range(1, 151)}) == 150


def test_every_camera_has_its_own_appearance(rendered):
    """The mean colors of two cameras differ by more than those of one camera's halves do."""
    files, _, camids = market(rendered / "market1501" / "bounding_box_test")
    means = np.array([np.asarray(Image.open(file)).mean(axis=(0, 1)) for file in files])
    odd = np.arange(len(files)) % 2 == 1
    halves = [
        [means[(camids == camera) & half].mean(axis=0) for half in (odd, ~odd)]
        for camera in range(6)
    ]
    within = np.mean([np.linalg.norm(first - second) for first, second in halves])
    centers = np.array(halves).mean(axis=1)
    between = np.linalg.norm(centers[:, None] - centers[None], axis=-1)[np.triu_indices(6, 1)]
    assert np.median(between) > 2 * within


def histogram(file: Path) -> np.ndarray:
    """8 x 8 x 8 RGB histogram [512] under the square root (Hellinger), the usual strong form."""
    bins = np.asarray(Image.open(file)) // 32
    return np.sqrt(np.bincount((bins @ np.array([64, 8, 1])).ravel(), minlength=512))


def small_picture(file: Path) -> np.ndarray:
    """8 x 16 thumbnail around its mean: what is left when only rough places and colors count."""
    thumbnail = np.asarray(Image.open(file).resize((8, 16), Image.Resampling.BOX), dtype=np.float32)
    return (thumbnail - thumbnail.mean()).ravel()


def scores_of(root: Path, features) -> float:
    """mAP of `features` (files -> [N, D]) on the rendered test set."""
    query, query_pids, query_camids = market(root / "query")
    gallery, gallery_pids, gallery_camids = market(root / "bounding_box_test")
    scores = evaluate_features(
        features(query), features(gallery), query_pids, gallery_pids, query_camids, gallery_camids
    )
    assert scores.num_valid == len(query) == 48
    return scores.mAP


@pytest.mark.parametrize("feature", [histogram, small_picture])
def test_color_alone_does_not_identify_people(rendered, feature):
    def features(files: list[Path]) -> np.ndarray:
        return np.array([feature(file) for file in files], dtype=np.float32)

    assert scores_of(rendered / "market1501", features) < 0.60


def test_an_untrained_network_does_not_identify_people(rendered):
    cfg = load_config(ROOT / "configs" / "quickstart" / "people.yml")
    normalize = build_normalization(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=1, pretrained=False).eval()

    def features(files: list[Path]) -> np.ndarray:
        images = torch.stack([load_image(file, size=tuple(cfg.INPUT.SIZE_TEST)) for file in files])
        with torch.inference_mode():
            return torch.cat(
                [model(normalize(part)).embedding for part in images.split(32)]
            ).numpy()

    assert scores_of(rendered / "market1501", features) < 0.30


def test_existing_data_is_not_rendered_again(rendered, capsys):
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}
    assert main([str(rendered), "--images", "--tracklets", *ARGUMENTS]) == 0
    assert capsys.readouterr().out == "".join(
        f"{rendered / name} already exists\n" for name in LAYOUTS
    )
    assert before == {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}


def test_other_parameters_are_refused_in_one_line(rendered, capsys):
    before = content(rendered)
    assert main([str(rendered), "--images", *ARGUMENTS, "--seed", "8", "--junk", "11"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == (
        f"quickstart_data: {rendered} contains quickstart data with seed 7 instead of 8, "
        "junk 10 instead of 11; choose another folder or give --overwrite\n"
    )
    assert before == content(rendered)


def test_a_layout_that_is_asked_for_later_is_added(tiny, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(tiny / "market1501", out / "market1501")
    marker = json.loads((tiny / MARKER).read_text())
    (out / MARKER).write_text(json.dumps({**marker, "layouts": ["market1501"]}))
    kept = {path: path.stat().st_mtime_ns for path in (out / "market1501").rglob("*")}
    assert main([str(out), *TINY, "--images", "--tracklets", "--workers", "1"]) == 0
    assert content(out) == content(tiny)
    assert kept == {path: path.stat().st_mtime_ns for path in (out / "market1501").rglob("*")}


def test_overwrite_replaces_quickstart_data(tiny, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(tiny, out)
    assert main([str(out), *TINY, "--junk", "2", "--overwrite", "--workers", "1"]) == 0
    assert not (out / "mars").exists()
    _, pids, _ = market(out / "market1501" / "bounding_box_test")
    assert (pids == -1).sum() == 2


def test_an_interrupted_rendering_starts_over(tiny, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(tiny / "market1501", out / "market1501.part")
    shutil.rmtree(out / "market1501.part" / "query")
    marker = json.loads((tiny / MARKER).read_text())
    (out / MARKER).write_text(json.dumps({**marker, "layouts": []}))
    assert main([str(out), *TINY, "--workers", "1"]) == 0
    assert content(out / "market1501") == content(tiny / "market1501")
    assert not (out / "market1501.part").exists()


@pytest.mark.parametrize("extra", [[], ["--overwrite"]])
def test_foreign_files_are_never_changed(tmp_path, capsys, extra):
    (tmp_path / "market1501").mkdir()
    (tmp_path / "market1501" / "mine.jpg").write_bytes(b"mine")
    assert main([str(tmp_path), *TINY, *extra]) == 2
    assert (
        "contains files that are not quickstart data; choose another folder"
        in capsys.readouterr().err
    )
    assert (tmp_path / "market1501" / "mine.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test-ids", "0"], "--test-ids is 0, it must be at least 1"),
        (
            ["--train-ids", "9990"],
            "sum to 10040; identities have four digits, so at most 9999 are possible",
        ),
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


def test_on_a_route_everybody_visits_both_cameras_once():
    plans = plan_route([0, 3], seed=0, people=40, frames=200)
    for before, after in zip(plans[0], plans[3], strict=True):
        assert before.person == after.person
        assert 2 <= (after.first - before.last) / FRAME_RATE <= 4
        assert 0 <= before.first and after.last < 200
    assert [visit.person for visit in plans[0]] == list(range(1, 41))
    with pytest.raises(ValueError, match="a route needs more than 133 frames per video, found 133"):
        plan_route([0, 3], seed=0, people=1, frames=133)
