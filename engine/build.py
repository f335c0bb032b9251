"""From the configuration to engines with all their handlers attached."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.config import expand_overrides, load_config, parse_config
from ember_reid.data.build import build_normalization, build_test_loader
from ember_reid.data.records import JUNK, Splits
from ember_reid.engine.checkpoint import is_ours, load_checkpoint
from ember_reid.engine.criterion import Criterion, OverFeatures, OverMemory, Term, mean_over
from ember_reid.engine.distributed import gather_rows
from ember_reid.engine.evaluator import EmbeddingStore, create_evaluator
from ember_reid.engine.handlers.batch import Augment, Seeder, ToDevice
from ember_reid.engine.handlers.checkpoints import Checkpoints
from ember_reid.engine.handlers.ema import ModelAverage
from ember_reid.engine.handlers.evaluation import Benchmark, Evaluation, draw_random_queries
from ember_reid.engine.handlers.gradients import (
    ClipGradients,
    Freeze,
    RescaleCenters,
    ShareGradients,
)
from ember_reid.engine.handlers.logs import MetricsFile, Sink, TrainLog, create_tensorboard_sink
from ember_reid.engine.handlers.precise_bn import PreciseNorm
from ember_reid.engine.handlers.safety import StopOnNan, StopOnSignal
from ember_reid.engine.handlers.schedule import LearningRate
from ember_reid.engine.handlers.visdom import VisdomSink
from ember_reid.engine.scores import ScoreSettings
from ember_reid.engine.trainer import create_trainer
from ember_reid.evaluate import Rerank
from ember_reid.layers import (
    CenterLoss,
    MemoryBank,
    apply_margin,
    circle_loss,
    cosface_loss,
    focal_loss,
    smoothed_cross_entropy,
    triplet_loss,
)
from ember_reid.modeling import build_model, load_weights
from ember_reid.modeling.weights import read_checkpoint
from ignite.engine import Engine, Events
from torch import nn

logger = logging.getLogger("ember.train")


def build_device(cfg) -> torch.device:
    """The device of this process; says clearly when the one asked for is not there."""
    if cfg.DEVICE == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "DEVICE is cuda, but torch sees no CUDA device here; use DEVICE auto or cpu"
        )
    use_cuda = cfg.DEVICE == "cuda" or (cfg.DEVICE == "auto" and torch.cuda.is_available())
    return torch.device("cuda", idist.get_local_rank()) if use_cuda else torch.device("cpu")


def build_amp_dtype(cfg, device: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision, None where it is off. On a CPU it is bfloat16 or, where the processor lacks it, off."""
    if not cfg.SOLVER.FP16:
        return None
    if device.type == "cuda":
        return getattr(torch, cfg.SOLVER.AMP_DTYPE)
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None


def build_criterion(
    cfg, *, num_classes: int, feature_dim: int, extra: Mapping[str, Term] | None = None
) -> Criterion:
    """The terms whose weight is above 0, and the `extra` ones. Margins act on the logits here: models need no labels."""
    loss = cfg.LOSS

    def with_margin(logits, pids):
        if loss.CE.MARGIN_TYPE == "none":
            return logits
        scale, margin = cfg.MODEL.HEAD.SCALE, loss.CE.MARGIN
        return apply_margin(logits, pids, kind=loss.CE.MARGIN_TYPE, scale=scale, margin=margin)

    def cross_entropy(output, batch):
        term = partial(
            smoothed_cross_entropy, epsilon=loss.CE.EPSILON, smooth_over=loss.CE.SMOOTH_OVER
        )
        return mean_over(
            output.logits, lambda logits: term(with_margin(logits.float(), batch.pids), batch.pids)
        )

    def focal(output, batch):
        return mean_over(
            output.logits, lambda logits: focal_loss(logits, batch.pids, gamma=loss.FOCAL.GAMMA)
        )

    share = gather_rows if cfg.SOLVER.MINING == "global" else nn.Identity()

    def over_pairs(pair_loss):
        """The mean of a loss (features, pids) over the heads; SOLVER.MINING says whose features it compares."""

        def term(output, batch):
            pids = share(batch.pids)
            return mean_over(output.features, lambda features: pair_loss(share(features), pids))

        return term

    def triplet(features, pids, references=None):
        if loss.TRIPLET.NORMALIZE:
            features = nn.functional.normalize(features.float())
            references = references and references._replace(
                embeddings=nn.functional.normalize(references.embeddings)
            )
        return triplet_loss(
            features,
            pids,
            margin=loss.TRIPLET.MARGIN,
            mining=loss.TRIPLET.MINING,
            references=references,
        )

    pairwise = {
        "triplet": (loss.TRIPLET.WEIGHT, triplet),
        "circle": (
            loss.CIRCLE.WEIGHT,
            partial(circle_loss, margin=loss.CIRCLE.MARGIN, gamma=loss.CIRCLE.GAMMA),
        ),
        "cosface": (
            loss.COSFACE.WEIGHT,
            partial(cosface_loss, margin=loss.COSFACE.MARGIN, gamma=loss.COSFACE.GAMMA),
        ),
    }
    terms = {"ce": Term(loss.CE.WEIGHT, cross_entropy), "focal": Term(loss.FOCAL.WEIGHT, focal)}
    terms |= {
        name: Term(weight, over_pairs(pair_loss)) for name, (weight, pair_loss) in pairwise.items()
    }
    if loss.XBM.SIZE > 0:

        def weighted_pairs(features, pids, references):
            return sum(
                w * pair_loss(features, pids, references=references)
                for w, pair_loss in pairwise.values()
                if w > 0
            )

        bank = MemoryBank(
            loss.XBM.SIZE, feature_dim, start=loss.XBM.START * cfg.SOLVER.IMS_PER_BATCH
        )
        terms["xbm"] = Term(loss.XBM.WEIGHT, OverMemory(weighted_pairs, bank, share=share))
    if loss.CENTER.WEIGHT > 0:
        terms["center"] = Term(
            loss.CENTER.WEIGHT, OverFeatures(CenterLoss(num_classes, feature_dim))
        )
    terms = {name: term for name, term in terms.items() if term.weight > 0}
    return Criterion(terms | dict(extra or {}))


def build_score_settings(cfg, protocol: str) -> ScoreSettings:
    """How a dataset is scored; `protocol` is that of its splits, to which TEST.PROTOCOL was applied."""
    rerank = Rerank(
        k1=cfg.TEST.RE_RANK.K1, k2=cfg.TEST.RE_RANK.K2, lambda_value=cfg.TEST.RE_RANK.LAMBDA
    )
    return ScoreSettings(
        metric=cfg.TEST.METRIC,
        max_rank=cfg.TEST.MAX_RANK,
        protocol=protocol,
        rerank=rerank if cfg.TEST.RE_RANKING else None,
        memory_gib=cfg.TEST.MEMORY_GIB,
        average_precision=cfg.TEST.AVERAGE_PRECISION,
        expand_neighbors=cfg.TEST.AQE.K,
        expand_alpha=cfg.TEST.AQE.ALPHA,
        rates=tuple(cfg.TEST.FPRS),
    )


def build_benchmarks(
    cfg, tests: Mapping[str, Splits], model: nn.Module, device: torch.device
) -> dict[str, Benchmark]:
    """Each test set by name with its own evaluator; its loader yields the queries, then the gallery.

    Junk is left out before it costs anything: it counts neither as a match nor as a mistake.
    """
    return {name: _build_benchmark(cfg, splits, model, device) for name, splits in tests.items()}


def _build_benchmark(cfg, splits: Splits, model: nn.Module, device: torch.device) -> Benchmark:
    query, gallery = splits.query, tuple(record for record in splits.gallery if record.pid != JUNK)
    loader = build_test_loader(
        cfg,
        (*query, *gallery),
        rank=idist.get_rank(),
        world_size=idist.get_world_size(),
        device=device,
    )
    evaluator = create_evaluator(
        model,
        build_normalization(cfg),
        device=device,
        amp_dtype=build_amp_dtype(cfg, device),
        flip=cfg.TEST.FLIP,
    )
    store = EmbeddingStore()
    store.attach(evaluator)
    return Benchmark(
        evaluator, store, loader, query, gallery, build_score_settings(cfg, splits.protocol)
    )


def read_test_config(recipe: str | None, overrides: Sequence[str]):
    """The configuration under which TEST.WEIGHT is tested: the recipe's, or without one that which the checkpoint carries.

    Raises:
        ValueError: no TEST.WEIGHT, or a file of somebody else without a recipe.
    """
    overrides = expand_overrides(overrides, testing=True)
    named = load_config(recipe, overrides)
    if not named.TEST.WEIGHT:
        raise ValueError("no checkpoint is named: TEST.WEIGHT runs/x/checkpoints/best.pt")
    if recipe:
        return named
    return parse_config(load_checkpoint(named.TEST.WEIGHT).get("config"), overrides)


def build_trained_model(cfg, device: torch.device) -> nn.Module:
    """The model of the configuration with the weights of TEST.WEIGHT, on the device, for evaluation.

    A checkpoint of ours brings its classifier; of a foreign file the classifier is left behind.
    """
    content = read_checkpoint(cfg.TEST.WEIGHT)
    num_classes = content.get("num_classes", 1) if is_ours(content) else 1
    model = build_model(cfg, num_classes=num_classes, pretrained=False)
    load_weights(model, cfg.TEST.WEIGHT)
    return model.to(device, memory_format=torch.channels_last).eval()


def build_average(cfg, model: nn.Module) -> ModelAverage:
    """The model that is evaluated and deployed: a running average of `model`, or with SOLVER.EMA_DECAY 0 `model` itself."""
    decay = cfg.SOLVER.EMA_DECAY
    return ModelAverage(model, 1.0 - decay if decay else 0.0)


def build_sinks(cfg, *, resumed_iteration: int | None = None) -> list[Sink]:
    """Where numbers go: metrics.jsonl, TensorBoard, Visdom; nowhere on ranks above 0.

    A resumed run says from which iteration, as later numbers of the old one are forgotten.
    """
    if idist.get_rank() > 0:
        return []
    folder = Path(cfg.OUTPUT_DIR)
    sinks: list[Sink] = [MetricsFile(folder / "metrics.jsonl", resumed_iteration=resumed_iteration)]
    if cfg.LOG.TENSORBOARD:
        sinks.append(
            create_tensorboard_sink(folder / "tensorboard", resumed_iteration=resumed_iteration)
        )
    if cfg.LOG.VISDOM:
        replay = folder / "visdom.jsonl"
        sinks.append(
            VisdomSink(
                cfg.LOG.VISDOM_SERVER, cfg.LOG.VISDOM_PORT, env=folder.name, replay_file=replay
            )
        )
    return sinks


def build_trainer(
    cfg,
    model: nn.Module,
    criterion: Criterion,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    device: torch.device,
) -> tuple[Engine, torch.amp.GradScaler]:
    """The bare trainer and its scaler; the model is wrapped for several processes here."""
    amp_dtype = build_amp_dtype(cfg, device)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype == torch.float16)
    trainer = create_trainer(
        _distribute(
            model, device, has_idle_parameters=cfg.LOSS.CE.WEIGHT == cfg.LOSS.FOCAL.WEIGHT == 0
        ),
        criterion,
        optimizers,
        scaler=scaler,
        device_type=device.type,
        amp_dtype=amp_dtype,
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        joint_loss=cfg.SOLVER.MINING == "global",
        compile_mode=build_compile_mode(cfg, device),
    )
    return trainer, scaler


def build_compile_mode(cfg, device: torch.device) -> str:
    """SOLVER.COMPILE; auto is CUDA graphs on one GPU, where a step waits for launches, and nothing elsewhere."""
    if cfg.SOLVER.COMPILE != "auto":
        return cfg.SOLVER.COMPILE
    return "reduce-overhead" if device.type == "cuda" and idist.get_world_size() == 1 else "none"


def _distribute(model: nn.Module, device: torch.device, *, has_idle_parameters: bool) -> nn.Module:
    """DistributedDataParallel over the processes; batch norms share their statistics where torch can do it, on GPUs.

    `has_idle_parameters`: no loss reaches some of them, the classifier's without a classification loss.
    """
    if idist.get_world_size() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index], find_unused_parameters=has_idle_parameters
        )
    logger.warning(
        "%d processes on CPUs: each batch norm sees the images of its own process, torch synchronizes them on GPUs only",
        idist.get_world_size(),
    )
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=has_idle_parameters)


def attach_handlers(
    cfg,
    trainer: Engine,
    *,
    device: torch.device,
    model: nn.Module,
    average: ModelAverage,
    criterion: Criterion,
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    schedule,
    augmentation,
    train_loader,
    train_records: Sequence,
    benchmarks: Mapping[str, Benchmark],
    sinks: list[Sink],
    description: Mapping[str, object],
    distillation=None,
) -> tuple[Checkpoints, Evaluation, StopOnSignal]:
    """Attach every handler, in the order in which they act; returns those that main needs for resuming and stopping."""
    rank = idist.get_rank()
    centers = [p for name, p in criterion.named_parameters() if name.endswith("centers")]

    def record(what, epoch, iteration, values):
        for sink in sinks:
            sink(what, epoch, iteration, values)

    def show(name, benchmark, embedded):
        for sink in sinks:
            if isinstance(sink, VisdomSink):
                sink.image(
                    f"ranked/{name}", draw_random_queries(benchmark, embedded, seed=cfg.SEED)
                )

    def name_image(index: int) -> str:
        return str(train_records[index].paths[0])

    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda e: train_loader.batch_sampler.set_epoch(e.state.epoch)
    )
    ToDevice(device).attach(trainer)
    Seeder(cfg.SEED, rank).attach(trainer)
    Augment(augmentation, seed=cfg.SEED, rank=rank, world_size=idist.get_world_size()).attach(
        trainer
    )
    if distillation is not None:
        distillation.attach(trainer)
    LearningRate(optimizers[:1], schedule).attach(trainer)
    ShareGradients(p for p in criterion.parameters() if p.requires_grad).attach(trainer)
    RescaleCenters(centers, cfg.LOSS.CENTER.WEIGHT).attach(trainer)
    Freeze(model, cfg.SOLVER.FREEZE, cfg.SOLVER.FREEZE_ITERS).attach(trainer)
    ClipGradients(model.parameters(), cfg.SOLVER.CLIP_NORM).attach(trainer)

    watch = StopOnNan(name_image, period=1 if device.type == "cpu" else cfg.SOLVER.LOG_PERIOD)
    watch.attach(trainer)
    average.attach(trainer)
    TrainLog(
        optimizers[0],
        sinks,
        period=cfg.SOLVER.LOG_PERIOD,
        bar=cfg.LOG.PROGRESS and rank == 0,
        images_factor=idist.get_world_size(),
    ).attach(trainer)

    evaluation = Evaluation(
        benchmarks,
        period=cfg.SOLVER.EVAL_PERIOD,
        held_out=cfg.TEST.VALIDATION > 0,
        save_best=lambda engine: checkpoints.save(engine, "best"),
        record=record,
        show=show,
        before_last=PreciseNorm(
            average.model,
            train_loader,
            augmentation,
            num_batches=cfg.SOLVER.PRECISE_BN_ITERS,
            device=device,
            seed=cfg.SEED,
        ),
    )
    checkpoints = Checkpoints(
        Path(cfg.OUTPUT_DIR) / "checkpoints",
        description=description,
        model=model,
        average=average.model,
        optimizers=optimizers,
        parts={
            "criterion": criterion,
            "scaler": scaler,
            "evaluation": evaluation,
            **(distillation.parts if distillation is not None else {}),
        },
        period=cfg.SOLVER.CHECKPOINT_PERIOD,
        before_saving=watch.check,
    )
    evaluation.attach(trainer)
    checkpoints.attach(trainer)
    stop = StopOnSignal(
        checkpoints.save, period=1 if device.type == "cpu" else cfg.SOLVER.LOG_PERIOD
    )
    stop.attach(trainer, [benchmark.evaluator for benchmark in benchmarks.values()])
    return checkpoints, evaluation, stop
