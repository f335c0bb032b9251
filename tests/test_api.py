"""`import ember_reid as er`: train, test, load, embed, evaluate and export from Python."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ember_reid as er

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def rows(tiny_market) -> list[dict[str, str]]:
    """The tiny dataset as rows of a CSV."""
    splits = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    return [
        {"path": str(path), "pid": path.name[:4], "camid": path.name[5:7], "split": split}
        for folder, split in splits.items()
        for path in sorted((tiny_market / folder).glob("[0-9]*.jpg"))
    ]


@pytest.fixture(scope="module")
def csv_file(rows, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("csv") / "tiny.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def run(tiny_recipe, csv_file, tmp_path_factory) -> er.Run:
    out = tmp_path_factory.mktemp("api") / "run"
    return er.train(tiny_recipe, data=csv_file, out=out, epochs=2, **{"SOLVER.LOG_PERIOD": 1})


def test_import_does_not_import_torch():
    program = "import sys, ember_reid; print('torch' in sys.modules, ember_reid.__version__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", er.__version__], done.stderr


def test_every_public_name_exists_and_others_are_refused():
    assert all(getattr(er, name) is not None for name in er.__all__)
    assert set(er.__all__) <= set(dir(er))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = er.nothing


def test_a_run_has_results_a_folder_and_checkpoints(run):
    assert run.folder.name == "run" and run.best.name == "best.pt" and run.last.is_file()
    assert 0 < run.results["tiny"]["mAP"] <= 1
    assert "EVAL_PERIOD: 1" in (run.folder / "config.yml").read_text()


def test_an_existing_run_is_not_overwritten(run, tiny_recipe, csv_file):
    with pytest.raises(ValueError, match="already"):
        er.train(tiny_recipe, data=csv_file, out=run.folder)


def test_resume_trains_the_missing_epochs(run, tiny_recipe, csv_file, tmp_path):
    half = er.train(tiny_recipe, data=csv_file, out=tmp_path / "half", epochs=1)
    whole = er.train(tiny_recipe, data=csv_file, out=half.folder, epochs=2, resume=True)
    assert whole.results == run.results


def test_a_user_error_raises_a_one_line_exception(tiny_recipe, tmp_path):
    with pytest.raises(ValueError, match="MAX_EPOCHS .* must be a whole number, found 'many'"):
        er.train(tiny_recipe, out=tmp_path / "none", epochs="many")
    with pytest.raises(ValueError, match="unknown short name 'epoch'"):
        er.train(tiny_recipe, out=tmp_path / "none", epoch=3)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_is_tested_on_its_own_data_and_on_other_data(run, csv_file, tmp_path):
    out = tmp_path / "tested"
    own = er.test(run.best, out=out)["tiny"]
    other = er.test(run.best, data=csv_file, out=tmp_path / "again")["tiny"]
    assert own == other
    assert own["num_query"] == 4


def test_a_model_embeds_and_evaluates_as_the_test_does(run, rows, csv_file, tmp_path):
    model = er.load_model(run.best, device="cpu")
    embeddings = model.embed([row["path"] for row in rows[:3]])
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-5)
    tested = er.test(run.best, data=csv_file, out=tmp_path / "tested")["tiny"]
    evaluated = model.evaluate(csv_file, rerank=er.Rerank(k1=3, k2=2))["tiny"]
    assert evaluated["mAP"] == pytest.approx(tested["mAP"], abs=1e-6)
    assert 0 < evaluated["reranked"]["mAP"] <= 1


def test_an_exported_model_gives_the_same_embeddings(run, rows, tmp_path):
    pytest.importorskip("onnxruntime")
    model = er.load_model(run.best, device="cpu")
    images = tmp_path / "images"
    images.mkdir()
    for row in rows[:4]:
        (images / Path(row["path"]).name).symlink_to(row["path"])
    exported = er.load_model(model.export(tmp_path / "tiny.onnx", images=images), device="cpu")
    paths = [row["path"] for row in rows[:3]]
    assert torch.allclose(exported.embed(paths), model.embed(paths), atol=1e-4)


@pytest.mark.extras
def test_a_data_frame_is_data(run, rows, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows)
    scores = er.test(run.best, data=frame, out=tmp_path / "frame")
    assert scores["data"]["num_query"] == 4
    assert frame["path"][0] == rows[0]["path"]
