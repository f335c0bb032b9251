"""Build the device, the benchmarks and a trained model from the configuration."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.config import (
    Config,
    expand_overrides,
    flatten_config,
    get_defaults,
    load_config,
    parse_config,
)
from ember_reid.data.build import build_normalization, build_test_loader
from ember_reid.data.records import JUNK, Splits
from ember_reid.engine.checkpoint import is_ours, load_checkpoint
from ember_reid.engine.deploy.network import check_finite
from ember_reid.engine.evaluator import Benchmark, EmbeddingAccumulator, create_evaluator
from ember_reid.engine.handlers.trackers import create_trackers
from ember_reid.engine.handlers.tracking import TrackedRun
from ember_reid.engine.handlers.writers import CsvWriter, JsonLinesWriter, MetricWriters
from ember_reid.engine.integrity import verify_content
from ember_reid.engine.machine import choose_cpu_precision
from ember_reid.engine.plugins import check_plugins, load_plugins
from ember_reid.engine.run.cluster import find_gpu_problem
from ember_reid.engine.scores import ScoreSettings
from ember_reid.evaluate import Rerank
from ember_reid.modeling import build_model, load_weights
from ember_reid.modeling.weight_files import read_checkpoint
from torch import nn

logger = logging.getLogger("ember.train")

# Keys and groups that concern the machine and the training, not the network, its preprocessing or
# its test. A checkpoint does not decide them.
MACHINE_KEYS = (
    *("DEVICE", "NUM_PROCESSES", "NUM_THREADS", "OVERWRITE", "HANDLERS", "LOG."),
    *("DATALOADER.NUM_WORKERS", "DATALOADER.CACHE", "SOLVER.CPU_PRECISION"),
    "SOLVER.CPU_CONVOLUTIONS",
)


def build_device(cfg: Config) -> torch.device:
    """The device of this process.

    Raises:
        ValueError: DEVICE is cuda, and no CUDA device is available.
    """
    if cfg.DEVICE == "cpu":
        return torch.device("cpu")
    problem = find_gpu_problem()
    if not problem:
        return torch.device("cuda", idist.get_local_rank())
    if cfg.DEVICE == "cuda":
        raise ValueError(f"DEVICE is cuda, but {problem}; use DEVICE auto or cpu")
    if "driver" in problem:
        logger.warning("this machine's GPU is not used: %s", problem)
    return torch.device("cpu")


def build_amp_dtype(cfg: Config, device: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision, or None if it is off.

    On a CPU, it is bfloat16 or off, see `engine.machine`.
    """
    if not cfg.SOLVER.FP16:
        return None
    if device.type == "cuda":
        return getattr(torch, cfg.SOLVER.AMP_DTYPE)
    chosen = choose_cpu_precision(cfg.SOLVER.CPU_PRECISION)
    return torch.bfloat16 if chosen == "bfloat16" else None


def build_scaler(cfg: Config, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling, enabled for float16 only."""
    is_float16 = build_amp_dtype(cfg, device) == torch.float16
    return torch.amp.GradScaler(device.type, enabled=is_float16)


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


def build_score_settings(cfg: Config, protocol: str) -> ScoreSettings:
    """The score settings of a dataset. `protocol` is that of its splits."""
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
    cfg: Config, tests: Mapping[str, Splits], model: nn.Module, device: torch.device
) -> dict[str, Benchmark]:
    """The benchmark of each test set, by name.

    Junk images are removed here, because they count neither as a match nor as an error.
    """
    return {name: _build_benchmark(cfg, splits, model, device) for name, splits in tests.items()}


def _build_benchmark(
    cfg: Config, splits: Splits, model: nn.Module, device: torch.device
) -> Benchmark:
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
    accumulator = EmbeddingAccumulator()
    accumulator.attach(evaluator)
    return Benchmark(
        evaluator=evaluator,
        accumulator=accumulator,
        loader=loader,
        query=query,
        gallery=gallery,
        settings=build_score_settings(cfg, splits.protocol),
    )


def read_test_config(recipe: str | None, overrides: Sequence[str]) -> Config:
    """The configuration for testing TEST.WEIGHT: the recipe, or else the one in the checkpoint.

    Unless OUTPUT_DIR is among the overrides, results are written to the folder `test/NAME` of the
    run that the checkpoint NAME.pt belongs to.

    Raises:
        ValueError: TEST.WEIGHT is empty, the file is not one of our checkpoints and no recipe is
            given, or it needs plug-ins that `overrides` do not name.
    """
    overrides = expand_overrides(overrides, testing=True)
    named = load_config(recipe, overrides)
    if not named.TEST.WEIGHT:
        raise ValueError("no checkpoint to test: set TEST.WEIGHT runs/x/checkpoints/best.pt")
    load_plugins(named.IMPORTS)
    weights = Path(named.TEST.WEIGHT)
    run_folder = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
    # A checkpoint does not determine where files are written, and the results of its training are
    # not overwritten.
    own = ["OUTPUT_DIR", str(run_folder / "test" / weights.stem)]
    if recipe:
        return load_config(recipe, [*own, *overrides])
    text = load_checkpoint(named.TEST.WEIGHT).get("config", "")
    check_plugins(parse_config(text).IMPORTS, source=named.TEST.WEIGHT)
    return parse_config(text, [*own, *_default_words(MACHINE_KEYS), *overrides])


def _default_words(keys: Sequence[str]) -> list[str]:
    """Keys and their default values; those of a group for its name."""
    flat = flatten_config(get_defaults())
    names = [name for name in flat if name.startswith(tuple(keys))]
    return [word for name in names for word in (name, str(flat[name]))]


def build_trained_model(cfg: Config, device: torch.device) -> nn.Module:
    """The model with the weights of TEST.WEIGHT, on the device, in evaluation mode.

    The classifier is loaded from our own checkpoints only.
    """
    check_plugins(cfg.IMPORTS, source=cfg.TEST.WEIGHT)
    content = read_checkpoint(cfg.TEST.WEIGHT)
    if is_ours(content):
        verify_content(content, cfg.TEST.WEIGHT)
    num_classes = content.get("num_classes", 1) if is_ours(content) else 1
    model = build_model(cfg, num_classes=num_classes, pretrained=False)
    load_weights(model, cfg.TEST.WEIGHT)
    check_finite(model.state_dict(), cfg.TEST.WEIGHT)
    return model.to(device).to(memory_format=torch.channels_last).eval()
