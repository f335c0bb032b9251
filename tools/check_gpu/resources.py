"""Part 7: peaks of memory, several processes, and a SLURM allocation."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from ember_reid.config import load_config
from ember_reid.engine.checkpoint import LAST, load_checkpoint
from ember_reid.engine.run.cluster import changed_environment
from ember_reid.main import train
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import (
    PLAIN_NETWORK,
    Setting,
    run_iterations,
    tiny_images,
    tiny_words,
    training,
)
from ember_reid.tools.check_gpu.speed import BOT

MIB = 2**20
# As in a batch script, which srun did not start.
SLURM = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
# Without batch norm statistics of a process, and a sum of gradients in another order.
TOLERANCE = 1e-3


def check(setting: Setting, result: Result) -> None:
    """Train in one and in two processes, and measure memory."""
    images = tiny_images(setting)
    processes = 1 if setting.rehearse else 2
    name = f"{processes} process(es) on the CPU in a SLURM allocation"
    words = [*tiny_words(setting, images, "cpu"), "NUM_PROCESSES", str(processes)]
    words += ["DEVICE", "cpu", "SOLVER.MAX_EPOCHS", "1"]
    try:
        weights = _weights_after_training(words, SLURM)
        result.check(name, bool(weights), f"{len(weights)} tensors")
    except Exception as error:
        result.check(name, False, f"{type(error).__name__}: {error}")
    if setting.device == "cuda":
        _measure_memory(setting, images, result)
        _compare_ranks(setting, images, result)


def _measure_memory(setting: Setting, images: Path, result: Result) -> None:
    network = [word for pair in BOT.items() for word in pair]
    for batch in (8, 32):
        for step in setting.steps:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            size = ["SOLVER.IMS_PER_BATCH", str(batch), "SOLVER.STEP", step]
            words = [*tiny_words(setting, images, "memory"), *network, *size]
            with training(words) as run:
                run_iterations(run, 6)
            allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved()
            result.record(
                f"memory, ResNet-50, batch {batch}, {step}",
                f"{allocated / MIB:,.0f} MiB allocated, {reserved / MIB:,.0f} MiB reserved",
            )


def _compare_ranks(setting: Setting, images: Path, result: Result) -> None:
    """Two ranks give the weights of one, where there are two GPUs."""
    if torch.cuda.device_count() < 2:
        result.record("two ranks", "not compared: there is one GPU")
        return
    weights = []
    for processes in (1, 2):
        words = [*tiny_words(setting, images, f"ranks{processes}"), "SOLVER.STEP", "auto"]
        words += ["MODEL.BACKBONE.NAME", PLAIN_NETWORK, "NUM_PROCESSES", str(processes)]
        weights.append(_weights_after_training(words, {}))
    gap = max(float((weights[0][n].double() - w).abs().max()) for n, w in weights[1].items())
    result.at_most("two ranks - one rank", gap, TOLERANCE)


def _weights_after_training(words: list[str], variables: Mapping[str, str]) -> dict:
    """The weights in the last checkpoint of a run with these environment variables."""
    cfg = load_config(None, words)
    with changed_environment({**variables, "PYTHONPATH": _import_path()}):
        train(cfg)
    return load_checkpoint(Path(cfg.OUTPUT_DIR) / "checkpoints" / LAST)["model"]


def _import_path() -> str:
    """The paths of this process, for new processes."""
    return os.pathsep.join(path for path in sys.path if path)
