"""Signals and lost processes at bad moments: one line, nothing lost, equal bits after --resume."""

import functools
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.handlers.batch import Seeder
from ember_reid.engine.run import launch

from ember_reid import main

TWO = ("NUM_PROCESSES", "2")
SLOW_STEP = 20.0


def run_in_child(arguments: list[str]) -> None:
    """main.py in a forked process, whose ranks are forked as well."""
    torch.set_num_threads(1)
    launch.idist.spawn = functools.partial(idist.spawn, start_method="fork")
    code = main.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def start(recipe: Path, folder: Path, *words: str) -> multiprocessing.Process:
    arguments = ["-c", str(recipe), *words, "OUTPUT_DIR", str(folder)]
    process = multiprocessing.get_context("fork").Process(target=run_in_child, args=(arguments,))
    process.start()
    return process


def finish(recipe: Path, folder: Path, *words: str) -> None:
    """Continue a run to its end, or repeat it if it has no checkpoint."""
    last = folder / "checkpoints" / "last.pt"
    if last.exists():
        load_checkpoint(last)
    process = start(
        recipe, folder, *words, *(["--resume"] if last.exists() else ["OVERWRITE", "True"])
    )
    process.join()
    assert process.exitcode == 0


def assert_same_run(ours: Path, theirs: Path) -> None:
    a, b = (load_checkpoint(run / "checkpoints" / "last.pt")["model"] for run in (ours, theirs))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in b)
    assert (ours / "results.json").read_text() == (theirs / "results.json").read_text()


def wait_for(condition, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(pid: int | None) -> list[int]:
    """The processes that a process has started."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


@pytest.fixture
def slow_step(monkeypatch, tmp_path):
    """Iteration 6, in the second epoch, takes `SLOW_STEP`. The file exists when it has begun."""
    seed, flag = Seeder.__call__, tmp_path / "slow step"

    def seed_slowly(self, engine):
        seed(self, engine)
        if engine.state.iteration == 6:
            flag.touch()
            deadline = time.monotonic() + SLOW_STEP
            while time.monotonic() < deadline:
                time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(Seeder, "__call__", seed_slowly)
        yield flag


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory, tiny_recipe):
    """A run of two processes."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    process = start(tiny_recipe, folder, *TWO)
    process.join()
    assert process.exitcode == 0
    return folder


def stop_immediately(process, flag: Path, capfd) -> None:
    """Send two signals during the slow step."""
    wait_for(flag.exists)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1.1)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(SLOW_STEP)
    assert process.exitcode == 130 and time.monotonic() - began < SLOW_STEP / 2
    out, err = capfd.readouterr()
    assert err == "main.py: stopped immediately\n"
    assert "SIGTERM: finishing this iteration and saving; send it again to stop" in out


def test_a_second_signal_during_a_slow_step(
    tiny_run, tiny_recipe, tmp_path, slow_step, monkeypatch, capfd
):
    folder = tmp_path / "run"
    stop_immediately(start(tiny_recipe, folder), slow_step, capfd)
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["iteration"] == 4
    monkeypatch.setattr(f"{__name__}.SLOW_STEP", 0.0)
    finish(tiny_recipe, folder)
    assert_same_run(folder, tiny_run)


@pytest.mark.faults
def test_a_second_signal_during_a_slow_step_of_two_processes(
    pair_run, tiny_recipe, tmp_path, slow_step, monkeypatch, capfd
):
    folder = tmp_path / "run"
    stop_immediately(start(tiny_recipe, folder, *TWO), slow_step, capfd)
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["iteration"] == 4
    monkeypatch.setattr(f"{__name__}.SLOW_STEP", 0.0)
    finish(tiny_recipe, folder, *TWO)
    assert_same_run(folder, pair_run)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_a_random_rank_is_killed_at_a_random_moment(seed, pair_run, tiny_recipe, tmp_path, capfd):
    drawn, folder = random.Random(seed), tmp_path / "run"
    process = start(tiny_recipe, folder, *TWO)
    wait_for(lambda: len(children_of(process.pid)) == 2 or not process.is_alive())
    ranks = children_of(process.pid)
    time.sleep(drawn.uniform(0, 2.5))
    if ranks and process.is_alive():
        try:
            os.kill(drawn.choice(ranks), signal.SIGKILL)
        except ProcessLookupError:
            pass
    began = time.monotonic()
    process.join(60)
    assert time.monotonic() - began < 60
    err = capfd.readouterr().err
    # 0: the run had finished.
    assert process.exitcode in (0, 137)
    assert "Traceback" not in err and err.count("\n") == (process.exitcode == 137)
    if process.exitcode:
        assert "was killed by SIGKILL; continue with --resume" in err
    finish(tiny_recipe, folder, *TWO, *(["OVERWRITE", "True"] if not process.exitcode else []))
    assert_same_run(folder, pair_run)
    assert not list(folder.rglob(".*"))
