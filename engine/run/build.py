"""Build a training run from the configuration."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import torch
from ember_reid.config import Config, flatten_config, parse_config
from ember_reid.data.augment import Augmentation
from ember_reid.data.build import (
    DataBundle,
    build_augmentation,
    build_splits,
    build_train_loader,
)
from ember_reid.data.images import num_cpus
from ember_reid.engine.build import build_amp_dtype, build_benchmarks
from ember_reid.engine.distill.build import Distillation, build_distillation
from ember_reid.engine.environment import collect_env_info
from ember_reid.engine.evaluator import Benchmark
from ember_reid.engine.grad_cache import create_backward
from ember_reid.engine.graph.build import build_step_mode
from ember_reid.engine.handlers.ema import EMA
from ember_reid.engine.handlers.trackers import create_trackers
from ember_reid.engine.handlers.tracking import TrackedRun
from ember_reid.engine.handlers.writers import CsvWriter, JsonLinesWriter, MetricWriters
from ember_reid.engine.losses.build import build_criterion
from ember_reid.engine.losses.criterion import Criterion
from ember_reid.engine.plugins import load_plugins
from ember_reid.engine.precision import choose_cpu_precision, describe_cpu_precision
from ember_reid.engine.run.resume import compare_classes, compare_configs
from ember_reid.engine.trainer import create_trainer
from ember_reid.modeling import build_model, check_model
from ember_reid.modeling.parameters import embedding_names, layer_depths
from ember_reid.solver import build_optimizers, build_schedule
from ignite.engine import Engine
from torch import nn
from torch.utils.data import DataLoader

logger = logging.getLogger("ember.train")


@dataclass(frozen=True)
class TrainingRun:
    """All objects of a training, on one of possibly several processes.

    Attributes:
        ema: its `model` is evaluated and saved; it is `model` itself if SOLVER.EMA_DECAY is 0.
        schedule: iteration, counted from 1 -> factor on the initial learning rates.
        trainer: without handlers; `engine.handlers.build.build_handlers` creates them.
        benchmarks: by name; the first one selects `best.pt`.
        writers: closed until the training starts.
        environment: versions, commit, machine and precision.
    """

    cfg: Config
    device: torch.device
    data: DataBundle
    train_loader: DataLoader
    augmentation: Augmentation
    model: nn.Module
    ema: EMA
    criterion: Criterion
    optimizers: list[torch.optim.Optimizer]
    schedule: Callable[[int], float]
    scaler: torch.amp.GradScaler
    trainer: Engine
    distillation: Distillation
    benchmarks: dict[str, Benchmark]
    writers: MetricWriters
    environment: dict[str, str]


def build_training_run(
    cfg: Config, device: torch.device, *, pretrained: bool = True, evaluate: bool = True
) -> TrainingRun:
    """Build and check everything that a training needs. Nothing is written.

    Args:
        pretrained: load the initial weights; not needed to resume.
        evaluate: build the benchmarks; without them, SOLVER.EVAL_PERIOD must never be reached.

    Raises:
        ValueError, OSError: the configuration, the data or the weights cannot be used.
    """
    load_plugins(cfg.IMPORTS)
    check_model(cfg)
    data = build_splits(cfg)
    model = build_model(cfg, num_classes=data.num_classes, pretrained=pretrained)
    model = model.to(device).to(memory_format=torch.channels_last)
    distillation = build_distillation(
        cfg,
        model,
        classes=data.classes,
        records=data.train,
        device=device,
        amp_dtype=build_amp_dtype(cfg, device),
    )
    criterion = build_criterion(
        cfg,
        num_classes=data.num_classes,
        feature_dim=cast(int, model.head.dim),
        extra=distillation.losses,
    ).to(device)
    optimizers = build_run_optimizers(cfg, model, criterion)
    train_loader = build_train_loader(
        cfg, data.train, rank=idist.get_rank(), world_size=idist.get_world_size(), device=device
    )
    augmentation = build_augmentation(cfg)
    ema = EMA(model, cfg.SOLVER.EMA_DECAY)
    tests = data.validation | data.tests if evaluate else {}
    benchmarks = build_benchmarks(cfg, tests, ema.model, device)
    schedule = build_schedule(cfg, len(train_loader))
    scaler = build_scaler(cfg, device)
    trainer = build_trainer(cfg, model, criterion, optimizers, scaler=scaler, device=device)
    return TrainingRun(
        cfg=cfg,
        device=device,
        data=data,
        train_loader=train_loader,
        augmentation=augmentation,
        model=model,
        ema=ema,
        criterion=criterion,
        optimizers=optimizers,
        schedule=schedule,
        scaler=scaler,
        trainer=trainer,
        distillation=distillation,
        benchmarks=benchmarks,
        writers=build_writers(cfg),
        environment=collect_env_info(device) | {"precision": _describe_precision(cfg, device)},
    )


def build_run_optimizers(
    cfg: Config, model: nn.Module, criterion: nn.Module
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model whose layers and embeddings are known.

    Raises:
        ValueError: SOLVER.LAYER_DECAY is below 1, and the order of the layers is unknown.
    """
    depths = layer_depths(model) if cfg.SOLVER.LAYER_DECAY < 1 else None
    return build_optimizers(cfg, model, criterion, depths=depths, embeddings=embedding_names(model))


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
    has_unused_parameters = cfg.LOSS.CE.WEIGHT == 0
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


def settle_precision(cfg: Config, device: torch.device, *, resume: bool) -> Config:
    """The configuration with the precision that this machine uses, or that the run started with.

    An explicit SOLVER.CPU_PRECISION stays as it is, and so does the configuration for a GPU.

    Args:
        resume: use the precision in the `config.yml` of OUTPUT_DIR, if it can be read.
    """
    requested = cfg.SOLVER.CPU_PRECISION
    if device.type == "cuda" or not cfg.SOLVER.FP16 or requested != "auto":
        return cfg
    if resume:
        path = Path(cfg.OUTPUT_DIR) / "config.yml"
        with suppress(OSError, ValueError):
            requested = parse_config(path.read_text(encoding="utf-8")).SOLVER.CPU_PRECISION
    return parse_config(cfg.dump(), ["SOLVER.CPU_PRECISION", choose_cpu_precision(requested)])


def _describe_precision(cfg: Config, device: torch.device) -> str:
    """The precision of a run and the reason for it."""
    if not cfg.SOLVER.FP16:
        return "float32 (SOLVER.FP16 is False)"
    if device.type == "cuda":
        return cfg.SOLVER.AMP_DTYPE
    return describe_cpu_precision(choose_cpu_precision(cfg.SOLVER.CPU_PRECISION))


def build_scaler(cfg: Config, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling, enabled for float16 only."""
    is_float16 = build_amp_dtype(cfg, device) == torch.float16
    return torch.amp.GradScaler(device.type, enabled=is_float16)


def build_compile_mode(cfg: Config, device: torch.device) -> str:
    """The mode of torch.compile: with CUDA graphs on a single GPU; "none" without compilation."""
    if build_step_mode(cfg, device) == "eager":
        return "none"
    is_single_gpu = device.type == "cuda" and idist.get_world_size() == 1
    if cfg.SOLVER.STEP == "compile":
        return "reduce-overhead" if is_single_gpu else "default"
    return "reduce-overhead" if is_single_gpu else "none"


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
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index], find_unused_parameters=has_unused_parameters
        )
    logger.warning(
        "%d processes on CPUs: each batch norm uses the images of its own process only",
        idist.get_world_size(),
    )
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=has_unused_parameters)


def build_writers(cfg: Config) -> MetricWriters:
    """metrics.jsonl, results.csv and the trackers of LOG.TO; none on ranks above 0."""
    if idist.get_rank() > 0:
        return MetricWriters()
    folder = Path(cfg.OUTPUT_DIR)
    run = TrackedRun(
        folder,
        project=cfg.LOG.PROJECT,
        config=flatten_config(cfg),
        visdom_server=cfg.LOG.VISDOM_SERVER,
        visdom_port=cfg.LOG.VISDOM_PORT,
    )
    files = JsonLinesWriter(folder / "metrics.jsonl"), CsvWriter(folder / "results.csv")
    return MetricWriters([*files, *create_trackers(cfg.LOG.TO, run)])


def check_resumable(run: TrainingRun, content: Mapping[str, Any]) -> None:
    """Compare the run with a checkpoint; log changes that do not affect what is learned.

    Raises:
        ValueError: the network, the losses, the optimizer or the training identities differ.
    """
    saved = parse_config(content.get("config", ""))
    forbidden, allowed = compare_configs(flatten_config(saved), flatten_config(run.cfg))
    identities = compare_classes(content.get("classes") or run.data.classes, run.data.classes)
    if forbidden or identities:
        raise ValueError(
            f"--resume: {content.get('path')} was written with another configuration: "
            f"{'; '.join([*forbidden, identities] if identities else forbidden)[:400]}"
        )
    if allowed:
        logger.info("resuming with changes: %s", "; ".join(allowed)[:1000])


def seed_everything(cfg: Config) -> None:
    """Seed torch and choose threads and kernels, which affect the last bits of a sum.

    Call it before anything is built. During training, `handlers.batch.Seeder` seeds each iteration.
    """
    torch.manual_seed(cfg.SEED)
    num_processes = idist.get_nproc_per_node()
    if cfg.NUM_THREADS or num_processes > 1:
        torch.set_num_threads(cfg.NUM_THREADS or max(1, num_cpus() // num_processes))
    if cfg.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not cfg.DETERMINISTIC


def describe_load(cfg: Config) -> str:
    """Describe what has to fit into memory, for messages."""
    height, width = cfg.INPUT.SIZE_TRAIN
    images = cfg.SOLVER.IMS_PER_BATCH // idist.get_world_size() // cfg.SOLVER.ACCUMULATION_STEPS
    clips = f" x {cfg.INPUT.NUM_FRAMES} frames" if cfg.INPUT.NUM_FRAMES > 1 else ""
    return f"{cfg.MODEL.BACKBONE.NAME} and {images} images{clips} of {height}x{width} at a time"
