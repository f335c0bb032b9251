"""The environment of a process: SLURM, torchrun, and the GPUs that it can see."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
# A driver that is older than torch's CUDA makes torch report no GPU, with this warning.
_OLD_DRIVER = re.compile(r"driver on your system is too old \(found version (\d+)\)")
_FIRST_PORT, _NUM_PORTS = 20_000, 10_000


def find_gpu_problem() -> str:
    """Why torch cannot use a GPU, in one clause; "" if it can."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    for warning in caught:
        found = _OLD_DRIVER.search(str(warning.message))
        if found:
            version = int(found[1])
            return (
                f"the NVIDIA driver supports CUDA {version // 1000}.{version % 1000 // 10} and is "
                f"older than torch's CUDA {torch.version.cuda}: update the driver, or install a "
                "torch for that CUDA version"
            )
    without = ", because it was built without CUDA" if torch.version.cuda is None else ""
    return f"torch finds no CUDA device{without}"


def count_gpus() -> int:
    """GPUs that torch can use in this process."""
    return 0 if find_gpu_problem() else torch.cuda.device_count()


@contextmanager
def changed_environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None: delete) inside the block only."""
    before = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def process_variables(*, use_cuda: bool) -> dict[str, str | None]:
    """Changes of the environment with which the processes of a run start; see `launch`.

    They hide the GPUs from processes that use the CPU: otherwise, ignite selects the GPU of each
    process even if there are fewer GPUs than processes. They describe the tasks that srun started
    in the variables of torchrun. And they hide the variables of SLURM, because ignite refuses to
    start processes itself where it finds them.

    Raises:
        ValueError: the variables of SLURM are incomplete, or two processes would share a GPU.
    """
    changes: dict[str, str | None] = {} if use_cuda else {VISIBLE_GPUS: ""}
    if "WORLD_SIZE" not in os.environ:
        changes |= _slurm_step(os.environ)
    hidden = [name for name in os.environ if name.startswith("SLURM_")]
    changes |= dict.fromkeys(hidden)
    local_rank = changes.get("LOCAL_RANK") or os.environ.get("LOCAL_RANK")
    if use_cuda and local_rank is not None:
        changes["LOCAL_RANK"] = str(_device_index(int(local_rank), torch.cuda.device_count()))
    return changes


def _slurm_step(environment: Mapping[str, str]) -> dict[str, str | None]:
    """torchrun's variables for a task of `srun` with several tasks; none for anything else.

    A process inside an allocation that srun did not start is a process like any other.
    """
    num_tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if num_tasks == "1":
        return {}
    try:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        job, step = int(environment["SLURM_JOB_ID"]), int(environment.get("SLURM_STEP_ID", "0"))
        return {
            "RANK": environment["SLURM_PROCID"],
            "WORLD_SIZE": num_tasks,
            "LOCAL_RANK": environment["SLURM_LOCALID"],
            "MASTER_ADDR": environment.get("MASTER_ADDR", first_host(nodes)),
            # Two steps of one machine need two ports.
            "MASTER_PORT": environment.get(
                "MASTER_PORT", str(_FIRST_PORT + (job * 7 + step) % _NUM_PORTS)
            ),
        }
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"srun started {num_tasks[:20]} tasks, but its variable {error} is missing or no "
            "number; start with torchrun instead"
        ) from None


def first_host(nodes: str) -> str:
    """The first host of SLURM's list: "gpu[03-07,12],login" -> "gpu03"."""
    # Ranges: "gpu[03-07,12],login" -> "gpu03,login"
    return re.sub(r"\[([^]\-,]*)[^]]*\]", r"\1", nodes).split(",")[0]


def _device_index(local_rank: int, num_gpus: int) -> int:
    """The GPU of a process: its local rank, or 0 if it sees one GPU of its own.

    Raises:
        ValueError: there are fewer GPUs than processes on this machine.
    """
    if num_gpus == 1:
        # The launcher gives one GPU to each task. If it is the same one, NCCL reports this.
        return 0
    if local_rank >= num_gpus:
        raise ValueError(
            f"process {local_rank} of this machine has no GPU, {num_gpus} are visible: start one "
            "process per GPU"
        )
    return local_rank
