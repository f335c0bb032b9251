"""From the configuration to the trainer, and to the way in which it executes a step."""

import logging
from collections.abc import Sequence
from typing import cast

import ignite.distributed as idist
import torch
from ember_reid.config import Config
from ember_reid.data.dataset import ReidDataset
from ember_reid.engine.build import build_amp_dtype
from ember_reid.engine.events import TrainingEvents
from ember_reid.engine.grad_cache import create_backward
from ember_reid.engine.graph.capture import CapturedStep, CudaBackend, Rehearsal
from ember_reid.engine.graph.step import BatchShape, StaticStep, StepParts
from ember_reid.engine.losses.criterion import Criterion
from ember_reid.engine.trainer import create_trainer
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader

logger = logging.getLogger("ember.train")


def build_step_mode(cfg: Config, device: torch.device, *, rehearse: bool = False) -> str:
    """How a step is executed: "graph", "compile" or "eager". One log line gives the reason.

    Args:
        rehearse: "graph" on any device, with a stand-in for CUDA graphs.

    Raises:
        ValueError: SOLVER.STEP is graph, and the device is not a GPU.
    """
    requested = cfg.SOLVER.STEP
    if requested == "graph" and device.type == "cpu" and not rehearse:
        raise ValueError(
            "SOLVER.STEP is graph, which needs a GPU, but the device is cpu; "
            "use auto, compile or eager"
        )
    if requested in ("compile", "eager"):
        return requested
    if device.type != "cuda" and not rehearse:
        return "eager"
    obstacle = find_obstacle(cfg)
    if obstacle:
        logger.info("SOLVER.STEP %s: the step runs eagerly, because %s", requested, obstacle)
        return "eager"
    return "graph"


def find_obstacle(cfg: Config) -> str:
    """Why the steps of a recipe cannot be captured; "" if they can."""
    parts = cfg.SOLVER.ACCUMULATION_STEPS
    if parts > 1 and cfg.SOLVER.MINING == "global":
        return (
            f"SOLVER.ACCUMULATION_STEPS {parts} with SOLVER.MINING global sets the random seed "
            "between two forward passes"
        )
    if tuple(cfg.INPUT.SCALES) != (1.0,):
        return "INPUT.SCALES changes the size of the images"
    if cfg.DATASETS.UNLABELED:
        return "the clusters of DATASETS.UNLABELED change during training"
    if cfg.HANDLERS:
        return f"HANDLERS {cfg.HANDLERS[0]} may change a batch or gradients in each iteration"
    for name in ("PLUGIN", "PML"):
        section = cfg.LOSS[name]
        if section.NAME and section.WEIGHT > 0:
            return f"LOSS.{name} {section.NAME} may read values on the host"
    if cfg.SOLVER.OPTIMIZER == "muon":
        return "SOLVER.OPTIMIZER is muon, whose steps cannot be captured"
    if cfg.SOLVER.FUSED not in ("auto", "torch"):
        return f"SOLVER.FUSED is {cfg.SOLVER.FUSED}, and torch's fused optimizers are needed"
    return ""


def build_step_trainer(
    cfg: Config, parts: StepParts, loader: DataLoader, *, mode: str
) -> tuple[Engine, CapturedStep | None]:
    """The trainer without handlers, and its step if that is captured.

    Args:
        mode: of `build_step_mode`.
    """
    if mode == "graph":
        return _build_captured_trainer(cfg, parts, loader)
    trainer = build_trainer(
        cfg,
        parts.model,
        parts.criterion,
        parts.optimizers,
        scaler=parts.scaler,
        device=parts.device,
    )
    return trainer, None


def _build_captured_trainer(
    cfg: Config, parts: StepParts, loader: DataLoader
) -> tuple[Engine, CapturedStep]:
    """A trainer whose steps are captured. From now on, the loader only selects from its cache.

    With several processes, batch norms are synchronized on GPUs, and all processes start with the
    weights of rank 0.
    """
    device, world_size = parts.device, idist.get_world_size()
    if world_size > 1:
        for tensor in (*parts.model.parameters(), *parts.model.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(parts.model)
    dataset = cast(ReidDataset, loader.dataset)
    cache = dataset.cache.images if dataset.cache is not None else None
    dataset.selects_only = cache is not None and cache.device == device
    height, width = cfg.INPUT.SIZE_TRAIN
    static = StaticStep(
        parts,
        create_backward(cfg.SOLVER.ACCUMULATION_STEPS, joint_loss=False),
        BatchShape(cfg.SOLVER.IMS_PER_BATCH // world_size, cfg.INPUT.NUM_FRAMES, (height, width)),
        cache=cache if dataset.selects_only else None,
        num_outputs=2 * cfg.SOLVER.LOG_PERIOD + 2,
    )
    backend = CudaBackend(device) if device.type == "cuda" else Rehearsal()
    step = CapturedStep(static, backend, world_size=world_size)
    trainer = Engine(step)
    trainer.register_events(*TrainingEvents)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: parts.model.train())
    return trainer, step


def build_trainer(
    cfg: Config,
    model: nn.Module,
    criterion: Criterion,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> Engine:
    """The trainer without handlers. With several processes, the model is wrapped here."""
    # Without a classification loss, no gradient reaches the classifier.
    has_unused_parameters = cfg.LOSS.CE.WEIGHT == 0 or not cfg.DATASETS.NAMES
    return create_trainer(
        _distribute(model, device, has_unused_parameters=has_unused_parameters),
        criterion,
        optimizers,
        scaler=scaler,
        device_type="cuda" if device.type == "cuda" else "cpu",
        amp_dtype=build_amp_dtype(cfg, device),
        backward=create_backward(
            cfg.SOLVER.ACCUMULATION_STEPS, joint_loss=cfg.SOLVER.MINING == "global"
        ),
        compile_mode=build_compile_mode(cfg, device),
    )


def build_compile_mode(cfg: Config, device: torch.device) -> str:
    """The mode of torch.compile: with CUDA graphs on a single GPU; "none" without compilation."""
    if cfg.SOLVER.STEP != "compile":
        return "none"
    is_single_gpu = device.type == "cuda" and idist.get_world_size() == 1
    return "reduce-overhead" if is_single_gpu else "default"


def _distribute(
    model: nn.Module, device: torch.device, *, has_unused_parameters: bool
) -> nn.Module:
    """DistributedDataParallel, if there are several processes.

    Batch norms share their statistics on GPUs only, because torch cannot synchronize them on CPUs.
    """
    if idist.get_world_size() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        # Synchronized batch norms have the same statistics everywhere.
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device.index],
            find_unused_parameters=has_unused_parameters,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    logger.warning(
        "%d processes on CPUs: each batch norm uses the images of its own process only",
        idist.get_world_size(),
    )
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=has_unused_parameters)
