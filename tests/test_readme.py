"""The README's main commands, run as a newcomer runs them: in a checkout without data.

test_docs_commands.py runs the commands of all documents for one epoch. Here the quickstart recipe
must learn: with fewer and smaller images in `make test`, in full in `make test-recipes`.
"""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.documents import entry

ROOT = Path(__file__).parent.parent
FOLDERS = "config configs data ember_reid engine evaluate layers modeling solver tools".split()
TRAIN = "python main.py -c configs/quickstart/people.yml"
ONE_EPOCH = [
    *"SOLVER.MAX_EPOCHS 1 INPUT.SIZE_TRAIN (32,16) INPUT.SIZE_TEST (32,16)".split(),
    *"MODEL.BACKBONE.WIDTH 0.125 TEST.RE_RANKING False LOG.TENSORBOARD False".split(),
]


@dataclass(frozen=True)
class Quickstart:
    """A size of the quickstart: options of its two commands, and what the network must reach."""

    data: str
    training: str
    min_mAP: float
    counts: tuple[int, int]


FULL = Quickstart(data="", training="", min_mAP=0.80, counts=(300, 800))
SHORT = Quickstart(
    data="--train-ids 30 --test-ids 10 --distractors 10 --junk 5",
    training="INPUT.SIZE_TRAIN (64,32) INPUT.SIZE_TEST (64,32) INPUT.PADDING 3 "
    "SOLVER.MAX_EPOCHS 8 SOLVER.EVAL_PERIOD 8 DATALOADER.NUM_WORKERS 0",
    min_mAP=0.45,
    counts=(60, 130),
)
SIZES = [
    pytest.param(SHORT, id="short"),
    pytest.param(FULL, id="full", marks=pytest.mark.recipes),
]


@pytest.fixture(scope="module", params=SIZES)
def size(request) -> Quickstart:
    return request.param


@pytest.fixture(scope="module")
def checkout(size, tmp_path_factory) -> Path:
    """A folder like a fresh checkout, with links to what git tracks, and rendered people."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (*FOLDERS, "main.py"):
        (folder / name).symlink_to(ROOT / name)
    command = f"python -m tools.quickstart_data datasets/quickstart --images {size.data}"
    run_program(folder, command)
    return folder


def run_program(folder: Path, command: str) -> None:
    """Run a command of the README as a program in `folder`; it must succeed."""
    program, *words = command.split()
    assert program == "python"
    result = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"


@pytest.fixture
def run(checkout, monkeypatch):
    """run(command, words): run a command in the checkout, in this process; it must succeed."""
    monkeypatch.chdir(checkout)

    def run_here(command: str, words: list[str] = ()) -> None:
        function, arguments = entry(command.split())
        assert function([*arguments, *words]) == 0

    return run_here


def scores(folder: Path, name: str) -> dict:
    """The scores of the run `name` on its only test set."""
    (found,) = json.loads((folder / "runs" / name / "results.json").read_text()).values()
    return found


def test_the_quickstart_recipe_learns_to_recognize_people_it_never_saw(size, checkout, run, capfd):
    run_program(checkout, f"{TRAIN} {size.training}")
    trained = scores(checkout, "quickstart")
    assert trained["mAP"] >= size.min_mAP
    assert trained["reranked"]["mAP"] > trained["mAP"]
    assert (trained["num_query"], trained["num_gallery"]) == size.counts

    # No epoch is left to train.
    run(f"{TRAIN} --resume {size.training}")
    assert scores(checkout, "quickstart") == trained
    best = "runs/quickstart/checkpoints/best.pt"
    run(f"python main.py -t TEST.WEIGHT {best} OUTPUT_DIR runs/tested")
    # `best` is the last epoch or a better one.
    assert scores(checkout, "tested")["mAP"] >= trained["mAP"] - 1e-3
    capfd.readouterr()
    run(f"python -m tools.visualize TEST.WEIGHT {best} --count 2")
    written = capfd.readouterr().out.splitlines()[-2:]
    assert {Path(line).name for line in written} == {"index.html", "ranked.png"}


def test_a_key_can_be_overridden(checkout, run):
    run(f"{TRAIN} SOLVER.BASE_LR 1e-3", [*ONE_EPOCH, "OUTPUT_DIR", "runs/overridden"])
    assert "BASE_LR: 0.001" in (checkout / "runs" / "overridden" / "config.yml").read_text()


def test_own_data_from_a_list(size, checkout, run, tmp_path, capfd):
    market = checkout / "datasets" / "quickstart" / "market1501"
    splits = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    with open(tmp_path / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pid", "camid", "split"])
        for folder, split in splits.items():
            for path in sorted((market / folder).glob("[0-9]*.jpg")):
                pid, camera = path.name.split("_")[:2]
                writer.writerow([path, f"person {pid}", camera[:2], split])
    listed = f"csv:{tmp_path}/list.csv"
    run(f"python -m tools.doctor {listed}")
    assert "cross-camera" in capfd.readouterr().out
    run(f"{TRAIN} DATASETS.NAMES {listed} OUTPUT_DIR runs/cows", ONE_EPOCH)
    assert scores(checkout, "cows")["num_query"] == size.counts[0]
