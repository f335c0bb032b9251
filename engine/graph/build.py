"""From the configuration to the way in which a training step is executed."""

import torch
from ember_reid.config import Config


def build_step_mode(cfg: Config, device: torch.device) -> str:
    """SOLVER.STEP with "auto" resolved: "graph" on a GPU, "eager" on a CPU.

    Raises:
        ValueError: SOLVER.STEP is graph, and the device is not a GPU.
    """
    if cfg.SOLVER.STEP == "graph" and device.type == "cpu":
        raise ValueError(
            "SOLVER.STEP is graph, which needs a GPU, but the device is cpu; "
            "use auto, compile or eager"
        )
    if cfg.SOLVER.STEP != "auto":
        return cfg.SOLVER.STEP
    return "graph" if device.type == "cuda" else "eager"
