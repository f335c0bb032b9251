"""Build a training run from the configuration."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ignite.distributed as idist
import torch
from ember_reid.config import Config, flatten_config, parse_config
from ember_reid.data.build import (
    DataBundle,
    build_augmentation,
    build_splits,
    build_train_loader,
)
from ember_reid.data.records import Record
from ember_reid.engine.adapt.build import (
    build_adaptation_loss,
    build_adapted_criterion,
    build_domain_norms,
    build_pseudo_labels,
    connect_mutual,
)
from ember_reid.engine.adapt.losses import AdaptationLoss
from ember_reid.engine.adapt.pseudo_labels import PseudoLabels
from ember_reid.engine.build import (
    build_amp_dtype,
    build_benchmarks,
    build_scaler,
    build_writers,
)
from ember_reid.engine.cpu.build import describe_environment, speed_up_convolutions
from ember_reid.engine.distill.build import Distillation, build_distillation
from ember_reid.engine.evaluator import Benchmark
from ember_reid.engine.graph.build import build_step_mode, build_step_trainer
from ember_reid.engine.graph.capture import CapturedStep
from ember_reid.engine.graph.step import StepParts
from ember_reid.engine.handlers.batch import Augment, LearningRate, Seeder
from ember_reid.engine.handlers.ema import EMA
from ember_reid.engine.handlers.writers import MetricWriters
from ember_reid.engine.losses.build import build_criterion
from ember_reid.engine.losses.criterion import Criterion
from ember_reid.engine.machine import choose_num_threads
from ember_reid.engine.plugins import load_plugins
from ember_reid.engine.run.resume import compare_classes, compare_configs
from ember_reid.modeling import build_model, check_model, load_weights
from ember_reid.modeling.mixstyle import CAMERAS, DATASETS, RANDOM, set_domains
from ember_reid.modeling.model import ReidModel
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
        parts: what a step of the training consists of.
        trainer: without handlers; `engine.handlers.build.build_handlers` creates them.
        captured: the step of the trainer, if it is captured in a CUDA graph.
        benchmarks: by name; the first one selects `best.pt`.
        writers: closed until the training starts.
        environment: versions, commit, machine and precision.
        pseudo_labels: clusters the images of DATASETS.UNLABELED; None without them.
    """

    cfg: Config
    device: torch.device
    data: DataBundle
    train_loader: DataLoader
    model: nn.Module
    ema: EMA
    criterion: Criterion
    optimizers: list[torch.optim.Optimizer]
    parts: StepParts
    trainer: Engine
    captured: CapturedStep | None
    distillation: Distillation
    benchmarks: dict[str, Benchmark]
    writers: MetricWriters
    environment: dict[str, str]
    pseudo_labels: PseudoLabels | None = None


def build_training_run(
    cfg: Config,
    device: torch.device,
    *,
    pretrained: bool = True,
    evaluate: bool = True,
    rehearse: bool = False,
) -> TrainingRun:
    """Build and check everything that a training needs. Nothing is written.

    Args:
        pretrained: load the initial weights; not needed to resume.
        evaluate: build the benchmarks; without them, SOLVER.EVAL_PERIOD must never be reached.
        rehearse: structure the step as for a CUDA graph on any device; see `engine.graph`.

    Raises:
        ValueError, OSError: the configuration, the data or the weights cannot be used.
    """
    load_plugins(cfg.IMPORTS)
    check_model(cfg)
    mode = build_step_mode(cfg, device, rehearse=rehearse)
    data = build_splits(cfg)
    model = _build_network(cfg, data, device, pretrained=pretrained)
    convolutions = speed_up_convolutions(cfg, model, device, mode=mode)
    distillation, criterion, adaptation = _build_losses(cfg, model, data, device)
    optimizers, norms = _build_optimizers(cfg, model, criterion)
    train_loader = _build_loader(cfg, data, device)
    ema = EMA(model, cfg.SOLVER.EMA_DECAY)
    connect_mutual(cfg, data, adaptation, ema, optimizers[0])
    parts = _build_parts(
        cfg, ema, criterion, optimizers, distillation, len(train_loader), device=device
    )
    trainer, captured = build_step_trainer(cfg, parts, train_loader, mode=mode)
    writers = build_writers(cfg)
    return TrainingRun(
        cfg=cfg,
        device=device,
        data=data,
        train_loader=train_loader,
        model=model,
        ema=ema,
        criterion=criterion,
        optimizers=optimizers,
        parts=parts,
        trainer=trainer,
        captured=captured,
        distillation=distillation,
        benchmarks=_build_benchmarks(cfg, data, ema.model, device) if evaluate else {},
        writers=writers,
        environment=describe_environment(cfg, device, convolutions=convolutions),
        pseudo_labels=build_pseudo_labels(
            cfg,
            data,
            adaptation,
            average=ema,
            loader=train_loader,
            norms=norms,
            writer=writers,
        ),
    )


def _build_optimizers(
    cfg: Config, model: ReidModel, criterion: Criterion
) -> tuple[list[torch.optim.Optimizer], nn.ModuleList | None]:
    """The optimizers, and the batch norms of labeled images (ADAPT.DOMAIN_NORM)."""
    optimizers = build_run_optimizers(cfg, model, criterion)
    return optimizers, build_domain_norms(cfg, model, optimizers[0])


def _build_parts(
    cfg: Config,
    ema: EMA,
    criterion: Criterion,
    optimizers: list[torch.optim.Optimizer],
    distillation: Distillation,
    iterations_per_epoch: int,
    *,
    device: torch.device,
) -> StepParts:
    """What a step of the training consists of."""
    return StepParts(
        model=ema.trained,
        criterion=criterion,
        optimizers=optimizers,
        scaler=build_scaler(cfg, device),
        amp_dtype=build_amp_dtype(cfg, device),
        seeder=Seeder(cfg.SEED, idist.get_rank()),
        augment=_build_augment(cfg),
        transforms=distillation.handlers,
        learning_rate=_build_learning_rate(cfg, optimizers, iterations_per_epoch, device),
        average=ema,
        device=device,
    )


def _build_network(
    cfg: Config, data: DataBundle, device: torch.device, *, pretrained: bool
) -> ReidModel:
    """The network with its initial weights, on the device."""
    model = build_model(cfg, num_classes=data.num_classes, pretrained=pretrained)
    if cfg.ADAPT.WEIGHTS and pretrained and data.unlabeled is not None:
        load_weights(model, cfg.ADAPT.WEIGHTS)
    _set_mixing_domains(cfg, model, data.train)
    return model.to(device).to(memory_format=torch.channels_last)


def _set_mixing_domains(cfg: Config, model: ReidModel, records: Sequence[Record]) -> None:
    """Tell MixStyle the dataset of each camera, if it mixes images of different datasets.

    Raises:
        ValueError: there is only one camera or dataset to mix.
    """
    mix = cfg.MODEL.MIXSTYLE.MIX
    if not cfg.MODEL.MIXSTYLE.STAGES or mix == RANDOM:
        return
    domains = {record.camid: record.domain for record in records}
    found = len(domains if mix == CAMERAS else set(domains.values()))
    if found < 2:
        raise ValueError(
            f"MODEL.MIXSTYLE.MIX {mix} mixes images of different {mix}, but the training data has "
            f"{found}: use random"
        )
    if mix == DATASETS:
        set_domains(model, domains)


def _build_losses(
    cfg: Config, model: ReidModel, data: DataBundle, device: torch.device
) -> tuple[Distillation, Criterion, AdaptationLoss | None]:
    """What distillation adds to the training, all losses, and that of unlabeled images."""
    distillation = build_distillation(
        cfg,
        model,
        classes=data.classes,
        records=data.train,
        device=device,
        amp_dtype=build_amp_dtype(cfg, device),
    )
    dim = cast(int, model.head.dim)
    if data.unlabeled is not None:
        loss = build_adaptation_loss(cfg, data, model, device)
        adapted = build_adapted_criterion(cfg, data, loss, feature_dim=dim)
        return distillation, adapted.to(device), loss
    criterion = build_criterion(
        cfg, num_classes=data.num_classes, feature_dim=dim, extra=distillation.losses
    )
    return distillation, criterion.to(device), None


def _build_benchmarks(
    cfg: Config, data: DataBundle, model: nn.Module, device: torch.device
) -> dict[str, Benchmark]:
    """The benchmarks of a training: held-out identities first."""
    return build_benchmarks(cfg, data.validation | data.tests, model, device)


def _build_loader(cfg: Config, data: DataBundle, device: torch.device) -> DataLoader:
    """The training batches of this process."""
    rank, world_size = idist.get_rank(), idist.get_world_size()
    return build_train_loader(cfg, data.records, rank=rank, world_size=world_size, device=device)


def _build_augment(cfg: Config) -> Augment:
    """The augmentation of the images of this process."""
    rank, world_size = idist.get_rank(), idist.get_world_size()
    return Augment(build_augmentation(cfg), seed=cfg.SEED, rank=rank, world_size=world_size)


def _build_learning_rate(
    cfg: Config,
    optimizers: Sequence[torch.optim.Optimizer],
    iterations_per_epoch: int,
    device: torch.device,
) -> LearningRate:
    """The schedule of all iterations."""
    schedule = build_schedule(cfg, iterations_per_epoch)
    num_iterations = cfg.SOLVER.MAX_EPOCHS * iterations_per_epoch
    factors = [schedule(iteration) for iteration in range(1, num_iterations + 1)]
    return LearningRate(optimizers, factors, is_single=device.type == "cuda")


def build_run_optimizers(
    cfg: Config, model: nn.Module, criterion: nn.Module
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model whose layers and embeddings are known.

    Raises:
        ValueError: SOLVER.LAYER_DECAY is below 1, and the order of the layers is unknown.
    """
    depths = layer_depths(model) if cfg.SOLVER.LAYER_DECAY < 1 else None
    return build_optimizers(cfg, model, criterion, depths=depths, embeddings=embedding_names(model))


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
    torch.set_num_threads(choose_num_threads(cfg.NUM_THREADS, idist.get_nproc_per_node()))
    if cfg.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not cfg.DETERMINISTIC
    # On GPUs, torch's default is float32 for matrix products but TF32 for convolutions.
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    # torch.export refuses a process in which these three differ.
    torch.backends.cudnn.allow_tf32 = False
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = "ieee"
    cudnn.rnn.fp32_precision = "ieee"


def describe_load(cfg: Config) -> str:
    """Describe what has to fit into memory, for messages."""
    height, width = cfg.INPUT.SIZE_TRAIN
    images = cfg.SOLVER.IMS_PER_BATCH // idist.get_world_size() // cfg.SOLVER.ACCUMULATION_STEPS
    clips = f" x {cfg.INPUT.NUM_FRAMES} frames" if cfg.INPUT.NUM_FRAMES > 1 else ""
    return f"{cfg.MODEL.BACKBONE.NAME} and {images} images{clips} of {height}x{width} at a time"
