"""One run per folder; only files that a run writes are deleted."""

import fcntl
import json
import shutil

import pytest
from ember_reid.engine.run.lock import LOCK_FILE, locked_folder
from ember_reid.engine.run.output_folder import check_output_folder, prepare_output_folder

from ember_reid import cli, main


def test_a_folder_in_use_is_refused_and_a_stale_lock_is_not(tmp_path):
    folder = tmp_path / "run"
    with locked_folder(folder):
        with pytest.raises(ValueError, match=r"is in use by another run \(process \d+\)"):
            with locked_folder(folder):
                pass
    assert not folder.exists()
    folder.mkdir()
    (folder / LOCK_FILE).write_text("1")
    with locked_folder(folder):
        pass
    assert list(folder.iterdir()) == []


def test_a_second_run_or_resume_ends_with_one_line(tiny_run, tiny_recipe, tmp_path, capfd):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    with open(folder / LOCK_FILE, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for words in (["--resume"], ["OVERWRITE", "True"]):
            assert main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(folder)]) == 2
            assert "is in use by another run" in capfd.readouterr().err
    assert (folder / "results.json").read_text() == (tiny_run / "results.json").read_text()


@pytest.mark.parametrize("name", ["log.txt", "report.html", "config.yml", "tensorboard"])
def test_files_that_are_not_ours_stay(tmp_path, name):
    (tmp_path / name).mkdir() if name == "tensorboard" else (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"contains {name}, which this run would replace"):
        check_output_folder(tmp_path, resume=False, overwrite=False)
    (tmp_path / "environment.json").write_text("[]")
    check_output_folder(tmp_path, resume=False, overwrite=False)


def test_overwriting_deletes_files_of_ours_only(tmp_path):
    ours = ("checkpoints/last.pt", "tensorboard/events.out.tfevents.1", "log.txt")
    theirs = ("checkpoints/mine.pt", "tensorboard/notes", "notes.txt")
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "config.yml").symlink_to(tmp_path / "elsewhere")
    prepare_output_folder(tmp_path, config="SEED: 1\n", resume=False)
    assert not any((tmp_path / name).exists() for name in ours)
    assert all((tmp_path / name).exists() for name in theirs)
    assert (tmp_path / "elsewhere").read_text() == "x"
    assert (tmp_path / "config.yml").read_text() == "SEED: 1\n"


def test_a_test_leaves_the_results_of_the_training(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    (folder / "results.json").write_text("{}")
    last = folder / "checkpoints" / "last.pt"
    assert main.main(["-t", "TEST.WEIGHT", str(last), "TEST.FLIP", "True"]) == 0
    assert (folder / "results.json").read_text() == "{}"
    assert "market1501" in json.loads((folder / "test" / "last" / "results.json").read_text())


@pytest.mark.parametrize("route", ["typed", "with a recipe", "config.yml", "installed"])
def test_a_test_does_not_write_into_a_training_folder(
    route, tiny_run, tiny_recipe, tmp_path, capfd
):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    (folder / "results.json").unlink()
    best, out = str(folder / "checkpoints" / "best.pt"), ["OUTPUT_DIR", str(folder)]
    recipe = tiny_recipe if route == "with a recipe" else folder / "config.yml"
    words = {
        "typed": ["-t", "TEST.WEIGHT", best, *out],
        "with a recipe": ["-t", "-c", str(recipe), "TEST.WEIGHT", best, *out],
        # The configuration of the run contains OUTPUT_DIR; a test does not use it.
        "config.yml": ["-t", "-c", str(recipe), "TEST.WEIGHT", best],
        "installed": ["test", best, f"out={folder}"],
    }[route]
    code = cli.main(words) if route == "installed" else main.main(words)
    assert not (folder / "results.json").exists()
    if route == "config.yml":
        assert code == 0 and (folder / "test" / "best" / "results.json").is_file()
    else:
        err = capfd.readouterr().err
        assert code == 2 and err.count("\n") == 1
        assert "contains a training run (metrics.jsonl), whose results.json a test would" in err


def test_a_test_of_a_copied_checkpoint_leaves_its_run_alone(tiny_run, tmp_path, capfd):
    """OUTPUT_DIR in the configuration of a checkpoint has no effect."""
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    copied = shutil.copy(tiny_run / "checkpoints" / "best.pt", tmp_path / "mine.pt")
    assert main.main(["-t", "TEST.WEIGHT", str(copied)]) == 0
    assert (tmp_path / "test" / "mine" / "results.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_a_run_that_is_shorter_than_its_warm_up(tiny_recipe, tmp_path, capfd):
    words = ["SOLVER.MAX_EPOCHS", "1", "SOLVER.WARMUP_EPOCHS", "5", "SOLVER.SCHEDULE", "cosine"]
    assert main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    assert "SOLVER.WARMUP_EPOCHS 5 -> 0.5" in capfd.readouterr().out
