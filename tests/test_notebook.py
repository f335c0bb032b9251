"""The quickstart notebook runs from top to bottom, with smaller sizes."""

import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


def test_the_quickstart_notebook_runs(tmp_path, monkeypatch):
    sizes = {"EMBER_REID_TRAIN_IDS": "17", "EMBER_REID_TEST_IDS": "3", "EMBER_REID_EPOCHS": "1"}
    for name, value in {**sizes, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    results = json.loads((tmp_path / "runs" / "notebook" / "results.json").read_text())
    (scores,) = results.values()
    assert 0 < scores["mAP"] <= 1
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert f"mAP {scores['mAP']:.1%}" in printed


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
