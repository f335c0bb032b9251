"""BoxMOT and Ultralytics run our networks: the same embeddings, and better tracks.

Both are under the AGPL, so they are in an environment of their own (`make test-extras` builds it)
and run in processes of their own.
"""

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ember_reid.engine import load_model
from ember_reid.tools.export.command import main as export
from ember_reid.tools.quickstart_data.command import main as render
from PIL import Image

from tests.helpers.identity_scores import idf1, overlap

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("TRACKERS_PYTHON", ROOT / "build" / "trackers" / "bin" / "python"))
NAMES = {"boxmot": "person.onnx", "ultralytics": "person-yolo.onnx"}
RENDER = "--images --train-ids 60 --test-ids 10 --distractors 0 --junk 0".split()


def test_idf1_by_hand():
    box = (0, 0, 10, 10)
    truth = [(frame, 1, *box) for frame in range(4)]
    # One of four boxes has another track, and one false box: 2 * 3 / (4 + 5).
    found = [(frame, 7 if frame else 8, *box) for frame in range(4)] + [(0, 7, 50, 50, 60, 60)]
    assert idf1(truth, found) == pytest.approx(6 / 9)
    assert idf1(truth, truth) == 1 and idf1(truth, []) == 0
    assert overlap(box, (5, 0, 15, 10)) == pytest.approx(1 / 3)


def run_peer(*words: object) -> None:
    if not PYTHON.is_file():
        pytest.skip("BoxMOT and Ultralytics are not installed: run `make test-extras`")
    script = ROOT / "tests" / "helpers" / "peer_trackers.py"
    done = subprocess.run([str(PYTHON), str(script), *map(str, words)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a network (60 people, some minutes), its exports, and rendered videos."""
    if not PYTHON.is_file():
        pytest.skip("BoxMOT and Ultralytics are not installed: run `make test-extras`")
    from ember_reid import main as program

    folder = tmp_path_factory.mktemp("trackers")
    assert render([str(folder / "data"), *RENDER, "--videos"]) == 0
    settings = (
        f"DATASETS.NAMES ['quickstart:{folder}/data/market1501'] SOLVER.MAX_EPOCHS 8 "
        f"TEST.RE_RANKING False LOG.TO () LOG.PROGRESS False OUTPUT_DIR {folder}/run DEVICE cpu"
    ).split()
    recipe = ROOT / "configs" / "quickstart" / "people.yml"
    assert program.main(["-c", str(recipe), *settings]) == 0
    for target, name in NAMES.items():
        words = [str(folder / "run" / "checkpoints" / "best.pt"), "--for", target]
        assert export([*words, "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.extras
@pytest.mark.parametrize("program", NAMES)
def test_embeddings_are_ours(program, work):
    images = sorted((work / "data" / "market1501" / "query").glob("*.jpg"))[:16]
    crops = np.stack([np.asarray(Image.open(image).convert("RGB")) for image in images])
    np.save(work / "crops.npy", crops)
    run_peer("embed", program, work / NAMES[program], work / "crops.npy", work / "found.npy")
    ours = load_model(work / "run" / "checkpoints" / "best.pt", device="cpu").embed(crops).numpy()
    assert np.abs(np.load(work / "found.npy") - ours).max() < 1e-4


def detect(tracks: Path) -> tuple[list[tuple], list[list]]:
    """True boxes of which 30 % is visible, and detections: 5 % are missing, 3 % noise."""
    rng, truth, found = np.random.default_rng(0), [], []
    for frame, person, left, top, width, height, *_, visible in np.loadtxt(tracks, delimiter=","):
        if visible < 0.3:
            continue
        box = np.array([left, top, left + width, top + height])
        truth.append((int(frame) - 1, int(person), *box))
        if rng.random() < 0.95:
            noise = rng.normal(0, 0.03, 4) * [width, height, width, height]
            found.append([int(frame) - 1, *(box + noise).tolist(), 0.9])
    return truth, found


@pytest.mark.extras
@pytest.mark.parametrize("program", NAMES)
def test_tracks_are_better_with_our_network(program, work):
    videos = work / "data" / "videos"
    truth, detections = detect(videos / "cam1.txt")
    settings = {"video": str(videos / "cam1.mp4"), "detections": detections, "threshold": 0.35}
    (work / "input.json").write_text(json.dumps(settings))
    scores = []
    for weights in ("none", work / NAMES[program]):
        run_peer("track", program, weights, work / "input.json", work / "found.csv")
        with open(work / "found.csv") as file:
            rows = [tuple(map(float, row)) for row in csv.reader(file)]
        scores.append(idf1(truth, [(int(row[0]), int(row[1]), *row[2:]) for row in rows]))
    print(f"{program}: IDF1 {scores[0]:.4f} without appearance, {scores[1]:.4f} with our network")
    assert scores[1] > scores[0] + 0.1
