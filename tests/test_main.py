"""End-to-end runs of main.py on a tiny dataset: files of a run, testing, resuming, stopping."""

import contextlib
import csv
import json
import os
import re
import resource
import shutil
import signal

import pytest
import torch
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.handlers.batch import Seeder
from ember_reid.engine.handlers.evaluation import Evaluation
from ember_reid.engine.run import build

from ember_reid import main

SCORES = {
    "mAP",
    "mINP",
    "Rank-1",
    "Rank-5",
    "Rank-10",
    "num_query",
    "num_gallery",
    "num_valid",
    "protocol",
}


def state_of(folder, name="last"):
    """What must be equal bit for bit: weights, optimizers, centers, progress."""
    content = load_checkpoint(folder / "checkpoints" / f"{name}.pt")
    keys = ("model", "trained", "optimizers", "criterion", "scaler", "evaluation", "progress")
    return {key: content[key] for key in keys if key in content}


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.fixture
def interrupt(monkeypatch):
    """A function that sends a signal, by default SIGTERM, during the next run.

    interrupt(i) sends it at the start of iteration i, interrupt(evaluation=e) in the evaluation of
    epoch e.
    """

    @contextlib.contextmanager
    def arrange(iteration=None, *, evaluation=None, number=signal.SIGTERM):
        with monkeypatch.context() as patch:
            seed, evaluate = Seeder.__call__, Evaluation.__call__

            def seed_and_kill(self, engine):
                if engine.state.iteration == iteration:
                    os.kill(os.getpid(), number)
                seed(self, engine)

            def evaluate_and_kill(self, engine, epoch=None):
                if (epoch or engine.state.epoch) == evaluation:
                    os.kill(os.getpid(), number)
                evaluate(self, engine, epoch)

            patch.setattr(Seeder, "__call__", seed_and_kill)
            patch.setattr(Evaluation, "__call__", evaluate_and_kill)
            yield

    return arrange


def run_again(recipe, folder, *words, resume=True):
    return main.main(
        ["-c", str(recipe), *(["--resume"] if resume else []), *words, "OUTPUT_DIR", str(folder)]
    )


# Files of a run


def test_files_of_a_run(tiny_run):
    assert sorted(path.name for path in tiny_run.iterdir()) == [
        "checkpoints",
        "config.yml",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "results.csv",
        "results.json",
    ]
    assert sorted(path.name for path in (tiny_run / "checkpoints").iterdir()) == [
        "best.pt",
        "last.pt",
        "previous.pt",
    ]
    results = json.loads((tiny_run / "results.json").read_text())
    assert set(results) == {"market1501"}
    assert set(results["market1501"]) == SCORES
    assert results["market1501"]["num_query"] == results["market1501"]["num_valid"] == 4
    # 12 of the four identities, a distractor, no junk.
    assert results["market1501"]["num_gallery"] == 13
    assert results["market1501"]["protocol"] == "cross-camera"
    assert all(0 <= results["market1501"][name] <= 1 for name in SCORES if name[0] in "mR")
    log = (tiny_run / "log.txt").read_text()
    assert f"mAP: {results['market1501']['mAP']:.2%}" in log and "CMC Rank-1: " in log
    clock = re.search(r"Epoch 2/2 done in 0:\d\d: .*; processor time of the process: (\d+):", log)
    assert clock is not None and int(clock[1]) < 60


def test_metrics_file_has_one_object_a_line(tiny_run):
    entries = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert all(set(entry) == {"what", "epoch", "iteration", "values"} for entry in entries)
    assert [entry["iteration"] for entry in entries if entry["what"] == "train"] == [2, 4, 6, 8]
    assert [entry["epoch"] for entry in entries if entry["what"] == "test/market1501"] == [1, 2]


def test_the_table_of_results_has_the_entries_of_the_metrics_file(tiny_run):
    entries = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    with open(tiny_run / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["what", "epoch", "iteration", "loss"]
    assert [(row["what"], int(row["iteration"])) for row in rows] == [
        (entry["what"], entry["iteration"]) for entry in entries
    ]
    for row, entry in zip(rows, entries, strict=True):
        assert {key: float(row[key]) for key in entry["values"]} == entry["values"]


def test_the_written_configuration_is_a_recipe_that_gives_the_same_weights(tiny_run, tmp_path):
    assert (
        main.main(["-c", str(tiny_run / "config.yml"), "OUTPUT_DIR", str(tmp_path / "again")]) == 0
    )
    assert_same(state_of(tmp_path / "again"), state_of(tiny_run))


def test_a_checkpoint_alone_reproduces_its_results(tiny_run, tmp_path):
    # best.pt may be from the first epoch; results.json is from the last, which last.pt reproduces.
    last = tiny_run / "checkpoints" / "last.pt"
    assert main.main(["-t", "TEST.WEIGHT", str(last), "OUTPUT_DIR", str(tmp_path)]) == 0
    assert (tmp_path / "results.json").read_text() == (tiny_run / "results.json").read_text()


def test_best_is_the_checkpoint_with_the_best_score(tiny_run, tmp_path):
    best = tiny_run / "checkpoints" / "best.pt"
    assert main.main(["-t", "TEST.WEIGHT", str(best), "OUTPUT_DIR", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["market1501"]["mAP"] == load_checkpoint(best)["evaluation"]["best_score"]


def test_reranked_scores_and_flip(tiny_run, tmp_path):
    last = str(tiny_run / "checkpoints" / "last.pt")
    words = [
        "TEST.RE_RANKING",
        "True",
        "TEST.RE_RANK.K1",
        "4",
        "TEST.RE_RANK.K2",
        "2",
        "TEST.FLIP",
        "True",
    ]
    assert main.main(["-t", "TEST.WEIGHT", last, *words, "OUTPUT_DIR", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "results.json").read_text())["market1501"]
    assert set(scores) == SCORES | {"reranked"} and set(scores["reranked"]) == SCORES - {"protocol"}


# Resuming, bit for bit

FULL = (
    "LOSS.CENTER.WEIGHT 0.01 SOLVER.ACCUMULATION_STEPS 2 SOLVER.CLIP_NORM 5 "
    "SOLVER.EMA_DECAY 0.9 INPUT.JITTER_PROB 0.5 SOLVER.FREEZE ('backbone.stem',) "
    "SOLVER.FREEZE_ITERS 3 SOLVER.SCHEDULE cosine SOLVER.SCHEDULE_BY iteration "
    "MODEL.MIXSTYLE.STAGES (2,) MODEL.MIXSTYLE.MIX cameras "
    "LOG.TO tensorboard DETERMINISTIC True"
).split()


@pytest.fixture(scope="session")
def full_run(tmp_path_factory, train):
    """A run with all kinds of state: two optimizers, EMA, accumulation, dropout, frozen layers."""
    return train(tmp_path_factory.mktemp("run") / "full", *FULL)


@pytest.mark.parametrize(
    "moment, number",
    [
        ({"iteration": 2}, signal.SIGHUP),
        ({"iteration": 6}, signal.SIGTERM),
        ({"evaluation": 1}, signal.SIGINT),
        ({"evaluation": 2}, signal.SIGTERM),
    ],
)
def test_resumed_run_has_the_bits_of_the_uninterrupted_one(
    moment, number, full_run, tiny_recipe, tmp_path, interrupt, capfd
):
    with interrupt(**moment, number=number):
        assert run_again(tiny_recipe, tmp_path, *FULL, resume=False) == 128 + number
    assert capfd.readouterr().err == f"main.py: stopped by {number.name}; continue with --resume\n"
    assert run_again(tiny_recipe, tmp_path, *FULL) == 0
    assert_same(state_of(tmp_path), state_of(full_run))
    assert_same(state_of(tmp_path, "best"), state_of(full_run, "best"))
    assert (tmp_path / "results.json").read_text() == (full_run / "results.json").read_text()
    kept = [
        json.loads(line)["iteration"]
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert kept == sorted(kept)
    with open(tmp_path / "results.csv", newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == kept


def test_loader_processes_change_nothing_and_resume(tiny_run, tiny_recipe, tmp_path, interrupt):
    words = ["DATALOADER.CACHE", "none", "DATALOADER.NUM_WORKERS", "2"]
    with interrupt(3):
        assert run_again(tiny_recipe, tmp_path, *words, resume=False) == 143
    assert run_again(tiny_recipe, tmp_path, *words) == 0
    assert_same(state_of(tmp_path), state_of(tiny_run))


def test_a_finished_run_is_not_repeated_and_more_epochs_continue_it(
    tiny_run, tiny_recipe, tmp_path, train
):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder)
    (folder / "results.json").unlink()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_again(tiny_recipe, folder) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert_same(state_of(folder), state_of(tiny_run))
    assert (folder / "results.json").read_text() == (tiny_run / "results.json").read_text()
    assert run_again(tiny_recipe, folder, "SOLVER.MAX_EPOCHS", "3") == 0
    longer = train(tmp_path / "longer", "SOLVER.MAX_EPOCHS", "3")
    assert_same(state_of(folder)["model"], state_of(longer)["model"])


def test_torchrun_restarts_its_own_run_where_it_stopped(
    tiny_run, tiny_recipe, tmp_path, interrupt, monkeypatch, capfd
):
    with interrupt(6):
        assert run_again(tiny_recipe, tmp_path, resume=False) == 143
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    # The checkpoint of another run is not used.
    assert run_again(tiny_recipe, tmp_path, "SEED", "2", resume=False) == 2
    assert "already contains a run" in capfd.readouterr().err
    assert run_again(tiny_recipe, tmp_path, resume=False) == 0
    assert "resumed after epoch 1, iteration 6" in (tmp_path / "log.txt").read_text()
    assert_same(state_of(tmp_path), state_of(tiny_run))


def test_fewer_epochs_than_completed_is_an_error(tiny_run, tiny_recipe, tmp_path, capfd):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder)
    assert run_again(tiny_recipe, folder, "SOLVER.MAX_EPOCHS", "1") == 2
    assert "the checkpoint is in epoch 2, SOLVER.MAX_EPOCHS is 1" in capfd.readouterr().err


def test_resuming_with_another_network_changes_nothing(tiny_run, tiny_recipe, tmp_path, capfd):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run_again(tiny_recipe, folder, "MODEL.BACKBONE.NAME", "tiny_plain") == 2
    assert "was written with another configuration" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_average_of_weights_is_what_is_tested(full_run, tmp_path):
    content = load_checkpoint(full_run / "checkpoints" / "last.pt")
    name = "backbone.body.1.weight"
    assert not torch.equal(content["model"][name], content["trained"][name])
    last = str(full_run / "checkpoints" / "last.pt")
    assert main.main(["-t", "TEST.WEIGHT", last, "OUTPUT_DIR", str(tmp_path)]) == 0
    assert (tmp_path / "results.json").read_text() == (full_run / "results.json").read_text()


# Failures


def test_not_a_number_stops_with_terms_and_files(tiny_recipe, tmp_path, capfd):
    words = "SOLVER.OPTIMIZER sgd SOLVER.BASE_LR 1000 SOLVER.WARMUP_EPOCHS 0 SOLVER.EVAL_PERIOD 9"
    words = [*words.split(), "SOLVER.MAX_EPOCHS", "9", "LOSS.CIRCLE.WEIGHT", "1"]
    assert run_again(tiny_recipe, tmp_path, *words, resume=False) == 2
    out, err = capfd.readouterr()
    assert err.startswith("main.py: the loss is not finite at iteration ") and err.count("\n") == 1
    assert "ce " in err and "triplet " in err and "SOLVER.BASE_LR" in err
    # The log contains the files of the batch.
    assert "bounding_box_train/000" in out


def test_full_disk_leaves_the_last_good_checkpoint(tiny_run, tiny_recipe, tmp_path, capfd):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run, folder)
    before = state_of(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Writing a larger file fails, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        assert run_again(tiny_recipe, folder, "SOLVER.MAX_EPOCHS", "3") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "last.pt could not be written" in err or "best.pt could not be written" in err
    assert_same(state_of(folder), before)
    assert not list((folder / "checkpoints").glob(".*"))


def test_out_of_memory_is_one_line_that_names_keys(tiny_recipe, tmp_path, capfd, monkeypatch):
    def no_memory(self, images):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    from tests.helpers.tiny import TinyBackbone

    monkeypatch.setattr(TinyBackbone, "forward", no_memory)
    assert run_again(tiny_recipe, tmp_path, resume=False) == 2
    err = capfd.readouterr().err
    assert err.startswith(
        "main.py: out of memory with tiny and 8 images of 32x16 at a time (DefaultCPUAllocator: "
    )
    assert "SOLVER.ACCUMULATION_STEPS" in err and err.count("\n") == 1


def test_faults_of_the_program_are_not_hidden(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build_schedule", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_again(tiny_recipe, tmp_path / "x", resume=False)
    assert not (tmp_path / "x").exists()
