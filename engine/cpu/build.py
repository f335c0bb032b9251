"""Choose precision, threads and convolutions of a run on a CPU, and describe the choice."""

from contextlib import suppress
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.config import Config, parse_config
from ember_reid.engine.build import build_amp_dtype
from ember_reid.engine.environment import collect_env_info
from ember_reid.engine.machine import (
    choose_cpu_precision,
    choose_num_threads,
    describe_cpu_precision,
)
from ember_reid.layers.fast_convolutions import use_fast_convolutions
from torch import nn


def settle_machine(cfg: Config, device: torch.device, *, resume: bool) -> Config:
    """The configuration with the precision and the threads of this machine.

    Both affect the last bits of a sum. An explicit SOLVER.CPU_PRECISION or NUM_THREADS stays as it
    is, and so does the configuration for a GPU.

    Args:
        resume: use the choice in the `config.yml` of OUTPUT_DIR, if it can be read.
    """
    if device.type == "cuda":
        return cfg
    started = cfg
    if resume:
        path = Path(cfg.OUTPUT_DIR) / "config.yml"
        with suppress(OSError, ValueError):
            started = parse_config(path.read_text(encoding="utf-8"))
    precision = choose_cpu_precision(started.SOLVER.CPU_PRECISION)
    threads = choose_num_threads(started.NUM_THREADS, idist.get_nproc_per_node())
    words = ["NUM_THREADS", str(cfg.NUM_THREADS or threads)]
    if cfg.SOLVER.FP16 and cfg.SOLVER.CPU_PRECISION == "auto":
        words += ["SOLVER.CPU_PRECISION", precision]
    return parse_config(cfg.dump(), words)


def speed_up_convolutions(cfg: Config, model: nn.Module, device: torch.device, *, mode: str) -> str:
    """Change the convolutions that train faster in another way; see SOLVER.CPU_CONVOLUTIONS.

    Args:
        mode: of `build_step_mode`.

    Returns:
        How many are changed, for logs and environment.json.
    """
    is_float32 = build_amp_dtype(cfg, device) is None
    if device.type == "cuda" or mode == "compile" or not is_float32:
        return "torch"
    if cfg.SOLVER.CPU_CONVOLUTIONS == "torch":
        return "torch (SOLVER.CPU_CONVOLUTIONS)"
    return f"{use_fast_convolutions(model)} fast ones (float32 on a CPU)"


def describe_environment(cfg: Config, device: torch.device, *, convolutions: str) -> dict[str, str]:
    """Versions, commit, machine, precision and convolutions, for logs and environment.json.

    Args:
        convolutions: of `speed_up_convolutions`.
    """
    choice = {"precision": _describe_precision(cfg, device), "convolutions": convolutions}
    return collect_env_info(device) | choice


def _describe_precision(cfg: Config, device: torch.device) -> str:
    """The precision of a run and the reason for it."""
    if not cfg.SOLVER.FP16:
        return "float32 (SOLVER.FP16 is False)"
    if device.type == "cuda":
        return cfg.SOLVER.AMP_DTYPE
    return describe_cpu_precision(choose_cpu_precision(cfg.SOLVER.CPU_PRECISION))
