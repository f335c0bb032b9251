"""Processes on machines with GPUs and under SLURM, simulated by patches and variables."""

import functools
import multiprocessing
import os
import warnings

import ignite.distributed as idist
import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.build import build_device
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.run import launch as launching
from ember_reid.engine.run.cluster import (
    VISIBLE_GPUS,
    changed_environment,
    count_gpus,
    find_gpu_problem,
    first_host,
    process_variables,
)

from ember_reid import main
from tests.helpers.forking import fork_processes

SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "localhost",
    "SLURM_JOB_NUM_NODES": "1",
}
STEP = SLURM | {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "gpu[3-4]",
}


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine that shows one GPU, unless the environment hides it; nothing can use it."""

    def select(index):
        raise RuntimeError(f"CUDA error: invalid device ordinal {index}")

    is_visible = functools.partial(os.environ.get, VISIBLE_GPUS)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_visible() != "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(is_visible() != ""))
    monkeypatch.setattr(torch.cuda, "set_device", select)


@pytest.fixture
def slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


def test_processes_on_the_cpu_of_a_gpu_machine_in_a_slurm_allocation(
    one_gpu, slurm, tiny_recipe, tmp_path, monkeypatch
):
    """Without srun, main.py starts the processes; ignite would refuse, and select GPU 1."""
    fork_processes(monkeypatch)
    words = ["NUM_PROCESSES", "2", "SOLVER.MAX_EPOCHS", "1", "LOSS.CENTER.WEIGHT", "0.1"]
    words += ["SOLVER.PRECISE_BN_ITERS", "1", "OUTPUT_DIR", str(tmp_path)]
    assert main.main(["-c", str(tiny_recipe), *words]) == 0
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["progress"]["iteration"] == 4
    assert VISIBLE_GPUS not in os.environ and os.environ["SLURM_JOB_ID"] == "1"


def sum_of_ranks() -> list[int]:
    total = idist.all_reduce(torch.tensor([idist.get_rank() + 1.0]))
    return [idist.get_world_size(), idist.get_rank(), idist.get_local_rank(), int(total)]


def join_step(rank: int, port: str, results) -> None:
    torch.set_num_threads(1)
    os.environ.update(STEP, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    results.put(launching.launch(sum_of_ranks, num_processes=1, use_cuda=False))


def test_two_tasks_of_srun_are_one_run(one_gpu):
    context = multiprocessing.get_context("fork")
    results, port = context.Queue(), str(20_000 + os.getpid() % 10_000)
    tasks = [context.Process(target=join_step, args=(rank, port, results)) for rank in (0, 1)]
    for task in tasks:
        task.start()
    found = sorted(results.get(timeout=60) for _ in tasks)
    for task in tasks:
        task.join()
    assert found == [[2, 0, 0, 3], [2, 1, 1, 3]]


def variables_of(monkeypatch, environment, *, num_gpus):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    return process_variables(use_cuda=num_gpus > 0)


@pytest.mark.parametrize(
    "local_rank, num_gpus, expected", [("1", 1, "0"), ("1", 2, "1"), ("0", 8, "0")]
)
def test_a_task_of_srun_uses_the_gpu_that_it_sees(monkeypatch, local_rank, num_gpus, expected):
    environment = STEP | {"SLURM_PROCID": "1", "SLURM_LOCALID": local_rank}
    found = variables_of(monkeypatch, environment, num_gpus=num_gpus)
    assert found["LOCAL_RANK"] == expected
    assert (found["RANK"], found["WORLD_SIZE"]) == ("1", "2")
    assert found["MASTER_ADDR"] == "gpu3" and found["MASTER_PORT"] == str(20_000 + 7 + 3)
    assert all(found[name] is None for name in STEP) and VISIBLE_GPUS not in found


def test_torchrun_inside_slurm_keeps_its_own_variables(monkeypatch):
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    found = variables_of(monkeypatch, STEP | torchrun, num_gpus=4)
    assert found["LOCAL_RANK"] == "1" and "RANK" not in found and found["SLURM_PROCID"] is None


def test_a_process_without_a_gpu_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="process 2 of this machine has no GPU, 2 are visible"):
        variables_of(monkeypatch, STEP | {"SLURM_LOCALID": "2"}, num_gpus=2)


def test_incomplete_variables_of_slurm_are_an_error(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="variable 'SLURM_JOB_NODELIST' is missing"):
        process_variables(use_cuda=False)


@pytest.mark.parametrize(
    "nodes, host",
    [("gpu[03-07,12],login", "gpu03"), ("a,b", "a"), ("n[1,4]-x", "n1-x"), ("one", "one")],
)
def test_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


def test_more_processes_than_gpus_are_an_error(one_gpu, tiny_recipe, capfd):
    words = ["DEVICE", "cuda", "NUM_PROCESSES", "2"]
    assert main.main(["-c", str(tiny_recipe), *words]) == 2
    err = capfd.readouterr().err
    assert "two processes cannot share one" in err and err.count("\n") == 1


def test_an_old_driver_is_one_line(monkeypatch, caplog):
    def warn() -> bool:
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version "
            "12040). Please update your GPU driver by ...",
            stacklevel=1,
        )
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warn)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    expected = "the NVIDIA driver supports CUDA 12.4 and is older than torch's CUDA 13.0"
    assert find_gpu_problem().startswith(expected) and count_gpus() == 0
    with pytest.raises(ValueError, match=f"DEVICE is cuda, but {expected}"):
        build_device(load_config(None, ["DEVICE", "cuda"]))
    assert build_device(load_config(None, ["DEVICE", "auto"])) == torch.device("cpu")
    assert expected in caplog.text


def test_changes_of_the_environment_are_undone(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    with pytest.raises(KeyError), changed_environment({"KEPT": None, "ADDED": "2"}):
        assert os.environ.get("KEPT") is None and os.environ["ADDED"] == "2"
        raise KeyError
    assert os.environ["KEPT"] == "1" and "ADDED" not in os.environ
