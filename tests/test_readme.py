"""The main commands of the README, in a fresh checkout that contains only the rendered people.

The quickstart recipe is trained in full and must reach the score that the README states.
tests/test_docs_commands.py runs the commands of all documents with reduced sizes.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUICK = ["SOLVER.MAX_EPOCHS", "2", "INPUT.SIZE_TRAIN", "(32,16)", "INPUT.SIZE_TEST", "(32,16)"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder like a fresh checkout: links to the tracked folders, no datasets/ and no runs/."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (
        "config",
        "configs",
        "data",
        "ember_reid",
        "engine",
        "evaluate",
        "layers",
        "modeling",
        "solver",
        "tools",
        "main.py",
    ):
        (folder / name).symlink_to(ROOT / name)
    run(folder, "python -m tools.quickstart_data datasets/quickstart --images")
    return folder


def run(folder: Path, command: str, more: list[str] = ()) -> str:
    """Run a command of the README in `folder`; if it fails, the error shows its output."""
    words = command.split()
    assert words[0] == "python"
    result = subprocess.run(
        [sys.executable, *words[1:], *more], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    return result.stdout


def scores(folder: Path, run_name: str) -> dict:
    return next(
        iter(json.loads((folder / "runs" / run_name / "results.json").read_text()).values())
    )


def test_the_quickstart_recipe_learns_to_recognize_people_it_never_saw(checkout):
    run(checkout, "python main.py -c configs/quickstart/people.yml")
    trained = scores(checkout, "quickstart")
    assert trained["mAP"] >= 0.80
    assert trained["reranked"]["mAP"] > trained["mAP"]
    assert (trained["num_query"], trained["num_gallery"]) == (300, 800)

    run(
        checkout, "python main.py -c configs/quickstart/people.yml --resume"
    )  # nothing is left to train
    assert scores(checkout, "quickstart") == trained
    tested = ["OUTPUT_DIR", "runs/tested"]
    run(checkout, "python main.py -t TEST.WEIGHT runs/quickstart/checkpoints/best.pt", tested)
    assert (
        scores(checkout, "tested")["mAP"] >= trained["mAP"] - 1e-3
    )  # `best` is the last epoch or a better one
    out = run(
        checkout,
        "python -m tools.visualize TEST.WEIGHT runs/quickstart/checkpoints/best.pt",
        ["--count", "2"],
    )
    assert {Path(line).name for line in out.splitlines()[-2:]} == {"index.html", "ranked.png"}


def test_a_key_can_be_overridden(checkout):
    more = [*QUICK, "OUTPUT_DIR", "runs/overridden"]
    run(checkout, "python main.py -c configs/quickstart/people.yml SOLVER.BASE_LR 1e-3", more)
    assert "BASE_LR: 0.001" in (checkout / "runs" / "overridden" / "config.yml").read_text()


def test_own_data_from_a_list(checkout, tmp_path):
    market = checkout / "datasets" / "quickstart" / "market1501"
    with open(tmp_path / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pid", "camid", "split"])
        for folder, split in (
            ("bounding_box_train", "train"),
            ("query", "query"),
            ("bounding_box_test", "gallery"),
        ):
            for path in sorted((market / folder).glob("[0-9]*.jpg")):
                pid, camera = path.name.split("_")[:2]
                writer.writerow([path, f"person {pid}", camera[:2], split])
    listed = f"csv:{tmp_path}/list.csv"
    report = run(checkout, f"python -m tools.doctor {listed}")
    assert "100" in report and "cross-camera" in report
    run(
        checkout,
        "python main.py -c configs/quickstart/people.yml "
        f"DATASETS.NAMES {listed} OUTPUT_DIR runs/cows",
        QUICK,
    )
    assert scores(checkout, "cows")["num_query"] == 300
