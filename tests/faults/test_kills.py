"""Runs that are killed at any moment, and go on to the bits of a run that was never disturbed."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ember_reid.engine.checkpoint import load_checkpoint

from ember_reid import main

ROOT = Path(__file__).resolve().parents[2]


def run_in_child(arguments: list[str], sync=os.fsync) -> None:
    """main.py in a forked process; writing a checkpoint takes long enough to be hit."""

    def slow_sync(descriptor: int) -> None:
        time.sleep(0.05)
        sync(descriptor)

    torch.set_num_threads(1)
    os.fsync = slow_sync
    os._exit(main.main(arguments))


def start(arguments: list[str]) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=run_in_child, args=(arguments,))
    process.start()
    return process


def weights_of(folder: Path) -> dict:
    return load_checkpoint(folder / "checkpoints" / "last.pt")["model"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_recipe) -> tuple[Path, float]:
    """The output folder of a whole run, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("faults") / "undisturbed"
    began = time.monotonic()
    process = start(["-c", str(tiny_recipe), "OUTPUT_DIR", str(folder)])
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - began


def kill_and_resume(recipe: Path, folder: Path, expected: Path, seconds: float) -> None:
    """Kill a run with SIGKILL after `seconds`, repeatedly, until it finishes.

    Its checkpoint must equal that of `expected` bit for bit.
    """
    process = start(["-c", str(recipe), "OUTPUT_DIR", str(folder)])
    process.join(seconds)
    process.kill()
    process.join()
    if (folder / "checkpoints" / "last.pt").exists():
        # If the file exists, it is complete.
        load_checkpoint(folder / "checkpoints" / "last.pt")
        words = ["--resume"]
    else:
        words = ["OVERWRITE", "True"]
    process = start(["-c", str(recipe), *words, "OUTPUT_DIR", str(folder)])
    process.join()
    assert process.exitcode == 0
    ours, theirs = weights_of(folder), weights_of(expected)
    assert ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
    assert (folder / "results.json").read_text() == (expected / "results.json").read_text()
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("part", [0.4, 0.7, 0.95])
def test_three_kills(part, undisturbed, tiny_recipe, tmp_path):
    expected, seconds = undisturbed
    kill_and_resume(tiny_recipe, tmp_path / "run", expected, part * seconds)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(50))
def test_fifty_kills(seed, undisturbed, tiny_recipe, tmp_path):
    expected, seconds = undisturbed
    kill_and_resume(
        tiny_recipe, tmp_path / "run", expected, random.Random(seed).uniform(0, seconds)
    )


def test_ctrl_c_reaches_all_processes_of_a_run_and_loses_nothing(
    undisturbed, tiny_recipe, tmp_path
):
    """A real process with loader processes; like a terminal, SIGINT goes to the whole group."""
    words = [
        "-c",
        str(tiny_recipe),
        "DATALOADER.CACHE",
        "none",
        "DATALOADER.NUM_WORKERS",
        "1",
        "OUTPUT_DIR",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.tiny", *words],
        cwd=ROOT,
        env={**os.environ, "TINY_DELAY": "0.2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if "Iteration[2/4]" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "main.py: stopped by SIGINT; continue with --resume\n"
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["progress"]["iteration"] >= 2
    assert main.main(["--resume", *words]) == 0
    ours, theirs = weights_of(tmp_path), weights_of(undisturbed[0])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_killed_loader_process_is_one_line_and_the_last_checkpoint_stays(
    tiny_recipe, tiny_run, tmp_path, capfd
):
    folder = shutil.copytree(tiny_run, tmp_path / "copy")
    words = ["DATALOADER.CACHE", "none", "DATALOADER.NUM_WORKERS", "1", "SOLVER.MAX_EPOCHS", "4"]
    from ember_reid.engine.handlers.batch import Seeder

    seed = Seeder.__call__

    def kill_loader(self, engine):
        if engine.state.iteration == 11:
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
        seed(self, engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seeder, "__call__", kill_loader)
        code = main.main(["-c", str(tiny_recipe), "--resume", *words, "OUTPUT_DIR", str(folder)])
    err = capfd.readouterr().err
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("main.py: a process that loads images ended")
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["iteration"] == 8
