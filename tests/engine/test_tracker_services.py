"""Experiment trackers with their libraries, without a server: a run and its continuation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extras


def track(recipe: Path, folder: Path, tracker: str, settings: dict[str, str]) -> None:
    """One epoch, and another one after --resume, in processes of their own."""
    for words in (["SOLVER.MAX_EPOCHS", "1"], ["--resume"]):
        found = subprocess.run(
            [
                *(sys.executable, "-m", "tests.helpers.tiny", "-c", str(recipe)),
                *("LOG.TO", tracker, "OUTPUT_DIR", str(folder), *words),
            ],
            capture_output=True, text=True, env={**os.environ, **settings}, timeout=600,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr[-2000:]
    assert "WARNING" not in (folder / "log.txt").read_text()


def test_wandb_offline(tiny_recipe, tmp_path):
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    track(tiny_recipe, folder, "wandb", {"WANDB_MODE": "offline"})
    run_id = (folder / "trackers" / "wandb.id").read_text().strip()
    runs = sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))
    assert len(runs) == 2
    recorded = b"".join((run / f"run-{run_id}.wandb").read_bytes() for run in runs)
    for name in (b"train/loss", b"test/market1501/mAP", b"SOLVER.IMS_PER_BATCH", b"iteration"):
        assert name in recorded
    assert [len(list(run.glob("files/media/images/ranked/*.png"))) for run in runs] == [1, 1]
    assert f"best-{run_id}".encode() in recorded


def test_mlflow_in_files(tiny_recipe, tiny_run, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    folder, store = tmp_path / "run", tmp_path / "store"
    settings = {"MLFLOW_TRACKING_URI": store.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    track(tiny_recipe, folder, "mlflow", settings)
    run_id = (folder / "trackers" / "mlflow.id").read_text().strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = mlflow.MlflowClient(store.as_uri())
        run = client.get_run(run_id)
        curve = client.get_metric_history(run_id, "train/loss")
        artifacts = {
            item.path
            for part in ("checkpoints", "ranked/market1501")
            for item in client.list_artifacts(run_id, part)
        }
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["SOLVER.IMS_PER_BATCH"] == "8"
    untracked = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert [(point.step, point.value) for point in curve] == [
        (entry["iteration"], entry["values"]["loss"])
        for entry in untracked
        if entry["what"] == "train"
    ]
    results = json.loads((folder / "results.json").read_text())["market1501"]
    assert run.data.metrics["test/market1501/mAP"] == results["mAP"]
    assert artifacts == {
        "checkpoints/best.pt",
        "ranked/market1501/00000004.png",
        "ranked/market1501/00000008.png",
    }


def test_clearml_offline(tiny_recipe, tmp_path):
    pytest.importorskip("clearml")
    folder, cache = tmp_path / "run", tmp_path / "cache"
    track(
        tiny_recipe,
        folder,
        "clearml",
        {"CLEARML_OFFLINE_MODE": "1", "CLEARML_CACHE_DIR": str(cache), "CI": "1"},
    )
    task_id = (folder / "trackers" / "clearml.id").read_text().strip()
    task = cache / "offline" / task_id
    assert "SOLVER.IMS_PER_BATCH" in (task / "task.json").read_text()
    recorded = (task / "metrics.jsonl").read_text()
    assert "train" in recorded and "market1501" in recorded and "mAP" in recorded
    (best,) = task.rglob("best.pt")
    assert best.read_bytes() == (folder / "checkpoints" / "best.pt").read_bytes()
    assert list(task.rglob("ranked.slash.market1501_*.jpeg"))
