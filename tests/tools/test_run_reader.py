"""Reading the files of a run, and describing how it was made."""

import json

import pytest
from ember_reid.tools.report.run_reader import (
    describe_environment,
    fingerprint,
    flatten,
    hash_config,
    read_run,
)


def test_a_run_is_read(tiny_run):
    run = read_run(tiny_run)
    assert [row["epoch"] for row in run.tests["market1501"]] == [1, 2] and run.train[-1][
        "iteration"
    ] == 8
    assert run.results["market1501"]["num_query"] == 4 and len(run.weights_hash) == 64
    found = fingerprint(run)
    assert (
        found["Batch"] == "8 images = 4 identities x 2, 1 forward pass(es) per step, mining global"
    )
    assert (
        found["Weights (SHA-256)"] == f"{run.weights_hash[:16]}  best.pt" and found["Seed"] == "1"
    )
    assert found["Checkpoint chosen on"] == "the test set" and "1 process(es)" in found["Run"]
    assert (
        found["Scored by"] == "cosine, cross-camera, embedding after the neck"
        and found["Initial weights"] == "none"
    )
    (start,) = run.starts
    assert found["Commit"] == start["commit"] and f"torch {start['torch']}, " in found["Versions"]
    assert f"processor {start['processor']}, cores {start['cores']}, GPU none" in found["Machine"]
    assert found["Started"] == f"{start['time']} after iteration 0"


def test_changes_of_the_environment_between_starts_are_listed():
    starts = (
        {"time": "A", "iteration": 0, "commit": "abc", "torch": "2.14", "cores": "2"},
        {"time": "B", "iteration": 8, "commit": "abc", "torch": "2.15", "cores": "2", "CUDA": "13"},
    )
    assert describe_environment(starts) == {
        "Commit": "abc",
        "Versions": "torch 2.14, then 2.15",
        "Machine": "cores 2, CUDA none, then 13",
        "Started": "A after iteration 0; B after iteration 8",
    }
    assert "not recorded" in describe_environment(())["Versions"]


def test_the_hash_of_a_recipe_ignores_the_output_folder():
    recipe = {"OUTPUT_DIR": "a", "SOLVER": {"BASE_LR": 1.0}}
    assert hash_config(recipe) == hash_config(recipe | {"OUTPUT_DIR": "b"})
    assert hash_config(recipe) != hash_config({"SOLVER": {"BASE_LR": 2.0}})
    assert flatten(recipe) == {"OUTPUT_DIR": "a", "SOLVER.BASE_LR": 1.0}


def test_errors_of_damaged_run_files(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="is not the folder of a run: it has neither config.yml nor results.json",
    ):
        read_run(tmp_path)
    row = {"what": "train", "epoch": 1, "iteration": 1, "values": {"loss": 1.0}}
    (tmp_path / "config.yml").write_text("SEED: 1\n")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + '\n{"what": "tra')
    # The last line is incomplete.
    assert len(read_run(tmp_path).train) == 1
    (tmp_path / "metrics.jsonl").write_text("nonsense\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1 is not a row of metrics"):
        read_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"results.json is damaged: it must contain a dict"):
        read_run(tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "made_with.json").write_text("[{")
    with pytest.raises(ValueError, match=r"made_with.json is damaged: "):
        read_run(tmp_path)
