"""Several processes give the results of one. They are forked, which avoids repeated imports."""

import functools
import json
import os
import signal
import time

import ignite.distributed as idist
import pytest
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.handlers.batch import Seeder
from ember_reid.engine.handlers.evaluation import Evaluation
from ember_reid.engine.run import launch as launching

from ember_reid import main
from tests.helpers.forking import fork_processes

PLAIN = (
    "MODEL.BACKBONE.NAME tiny_plain MODEL.HEAD.NECK none LOSS.CENTER.WEIGHT 0.1 "
    "INPUT.JITTER_PROB 0.5 SOLVER.OPTIMIZER sgd SOLVER.BASE_LR 0.05"
).split()
TWO = ("NUM_PROCESSES", "2")


@pytest.fixture(autouse=True)
def fork(monkeypatch):
    """Children see what the test has patched."""
    fork_processes(monkeypatch)


@pytest.fixture
def launch(tiny_recipe, tmp_path):
    """launch(name, words) -> (exit code, output folder)."""

    def run(name: str, *words: str):
        try:
            code = main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(tmp_path / name)])
        except SystemExit as error:
            code = error.code
        return code, tmp_path / name

    return run


@pytest.fixture
def at_iteration(monkeypatch):
    """at_iteration(i, rank, action): what a rank does at the start of iteration i."""

    seed = Seeder.__call__

    def patch(iteration, rank, action):
        def act_and_seed(self, engine):
            if engine.state.iteration == iteration and idist.get_rank() == rank:
                action()
            seed(self, engine)

        monkeypatch.setattr(Seeder, "__call__", act_and_seed)

    return patch


def weights_of(folder):
    return load_checkpoint(folder / "checkpoints" / "last.pt")["model"]


def difference(a, b) -> float:
    """The largest difference of two state dicts."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.fixture(scope="module")
def single(tmp_path_factory, train):
    """One process, no batch norm: what every number of processes must reproduce."""
    return train(tmp_path_factory.mktemp("single") / "run", *PLAIN)


def test_two_processes_train_and_score_like_one(launch, single, monkeypatch, tmp_path):
    finish = main.finish_output

    def write_on_every_rank(run, folder, results):
        (tmp_path / f"rank{idist.get_rank()}.json").write_text(json.dumps(results))
        finish(run, folder, results)

    monkeypatch.setattr(main, "finish_output", write_on_every_rank)
    code, folder = launch("two", *PLAIN, *TWO, "SOLVER.ACCUMULATION_STEPS", "2")
    assert code == 0
    assert difference(weights_of(folder), weights_of(single)) < 1e-5
    ours = json.loads((folder / "results.json").read_text())["market1501"]
    theirs = json.loads((single / "results.json").read_text())["market1501"]
    # Counts too: every image exactly once, 17 on 2 processes.
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert (tmp_path / "rank0.json").read_text() == (tmp_path / "rank1.json").read_text()


def test_four_processes_share_a_batch_like_one(launch, single):
    code, folder = launch("four", *PLAIN, "NUM_PROCESSES", "4")
    assert code == 0
    assert difference(weights_of(folder), weights_of(single)) < 1e-5


def test_two_rehearsed_graphs_around_an_all_reduce_are_one_plain_process(
    launch, single, monkeypatch
):
    build = functools.partial(main.build_training_run, rehearse=True)
    monkeypatch.setattr(main, "build_training_run", build)
    code, folder = launch("graphs", *PLAIN, *TWO)
    assert code == 0
    assert difference(weights_of(folder), weights_of(single)) < 1e-5


def test_mining_within_a_process_gives_other_gradients(launch, single):
    code, folder = launch("local", *PLAIN, *TWO, "SOLVER.MINING", "local")
    assert code == 0
    assert difference(weights_of(folder), weights_of(single)) > 1e-4


def test_several_processes_without_a_classification_loss(launch):
    assert launch("metric", *TWO, "LOSS.CE.WEIGHT", "0")[0] == 0
    assert (
        launch("metric_parts", *TWO, "LOSS.CE.WEIGHT", "0", "SOLVER.ACCUMULATION_STEPS", "2")[0]
        == 0
    )


def test_two_processes_continue_the_work_of_one(launch, single, at_iteration):
    at_iteration(3, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert launch("one", *PLAIN)[0] == 143
    at_iteration(3, 0, lambda: None)
    code, folder = launch("one", *PLAIN, *TWO, "--resume")
    assert code == 0
    assert difference(weights_of(folder), weights_of(single)) < 1e-5


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory, tiny_recipe):
    """Two processes with batch norm and dropout, never interrupted."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching.idist, "spawn", functools.partial(idist.spawn, start_method="fork"))
        assert main.main(["-c", str(tiny_recipe), *TWO, "OUTPUT_DIR", str(folder)]) == 0
    return folder


def test_sigterm_to_the_parent_stops_all_and_resume_has_the_same_bits(
    launch, pair_run, at_iteration, capfd
):
    at_iteration(3, 1, lambda: os.kill(os.getppid(), signal.SIGTERM))
    code, folder = launch("stopped", *TWO)
    assert code == 143
    assert capfd.readouterr().err == "main.py: stopped by SIGTERM; continue with --resume\n"
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["iteration"] >= 3
    at_iteration(3, 1, lambda: None)
    code, folder = launch("stopped", *TWO, "--resume")
    assert code == 0
    assert difference(weights_of(folder), weights_of(pair_run)) == 0


def test_signal_during_an_evaluation_of_unequal_shares(launch, pair_run, monkeypatch):
    evaluate = Evaluation.__call__

    def evaluate_and_kill(self, engine, epoch=None):
        if idist.get_rank() == 1 and engine.state.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        evaluate(self, engine, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "__call__", evaluate_and_kill)
        code, folder = launch("stopped", *TWO)
    assert code == 130
    code, folder = launch("stopped", *TWO, "--resume")
    assert code == 0
    assert difference(weights_of(folder), weights_of(pair_run)) == 0


def test_batch_norm_statistics_are_those_of_the_saved_model_on_every_rank(pair_run, tmp_path):
    last = str(pair_run / "checkpoints" / "last.pt")
    assert (
        main.main(["-t", "TEST.WEIGHT", last, "NUM_PROCESSES", "1", "OUTPUT_DIR", str(tmp_path)])
        == 0
    )
    ours = json.loads((tmp_path / "results.json").read_text())["market1501"]
    assert ours == pytest.approx(
        json.loads((pair_run / "results.json").read_text())["market1501"], abs=1e-6
    )


def fail():
    raise ValueError("the disk of this node is on fire")


def test_a_rank_that_fails_ends_all_with_its_own_message(launch, at_iteration, capfd):
    at_iteration(3, 1, fail)
    started = time.monotonic()
    assert launch("failed", *TWO)[0] == 2
    assert time.monotonic() - started < 60
    err = capfd.readouterr().err
    assert "main.py: rank 1: the disk of this node is on fire\n" in err and "Traceback" not in err


def test_a_rank_that_is_killed_ends_all(launch, at_iteration, capfd):
    at_iteration(3, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
    started = time.monotonic()
    assert launch("killed", *TWO)[0] == 137
    assert time.monotonic() - started < 60
    err = capfd.readouterr().err
    assert "main.py: process 1 was killed by SIGKILL" in err and "Traceback" not in err


def test_an_error_on_all_ranks_is_reported_once(launch, capfd):
    code, folder = launch("mistake", *TWO, "SOLVER.IMS_PER_BATCH", "32")
    assert code == 2 and not folder.exists()
    err = capfd.readouterr().err
    assert err.startswith("main.py: a batch needs 16 identities") and err.count("\n") == 1


def test_processes_that_cannot_share_a_batch(launch, capfd):
    assert launch("odd", "NUM_PROCESSES", "3")[0] == 2
    assert "cannot be divided equally among 3 processes" in capfd.readouterr().err
