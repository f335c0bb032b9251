"""Create the handlers of a training run."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ignite.distributed as idist
from ember_reid.engine.events import epoch_sampler
from ember_reid.engine.handlers.batch import SamplerEpoch, ToDevice
from ember_reid.engine.handlers.checkpoints import Checkpoints
from ember_reid.engine.handlers.evaluation import Evaluation
from ember_reid.engine.handlers.gradients import (
    AllReduceGradients,
    ClipGradients,
    Freeze,
    RescaleCenterGradients,
)
from ember_reid.engine.handlers.logs import TrainLog
from ember_reid.engine.handlers.precise_bn import PreciseBN
from ember_reid.engine.handlers.resizing import ProgressiveResizing, resized_sizes
from ember_reid.engine.handlers.safety import StopOnSignal, TerminateOnNan
from ember_reid.engine.plugins import HANDLERS
from ember_reid.engine.run.build import TrainingRun


@dataclass(frozen=True)
class RunControl:
    """The handlers that `main` also uses directly, to resume, to evaluate and to stop a run."""

    evaluation: Evaluation
    checkpoints: Checkpoints
    stop_on_signal: StopOnSignal


def build_control(run: TrainingRun) -> RunControl:
    """Create the handlers that have a state; `build_handlers` inserts them in firing order."""
    evaluation = _build_evaluation(run)
    checkpoints = _build_checkpoints(run, evaluation)
    stop_on_signal = StopOnSignal(
        checkpoints.save_and_wait,
        evaluators=[benchmark.evaluator for benchmark in run.benchmarks.values()],
        period=_check_period(run),
    )
    return RunControl(evaluation, checkpoints, stop_on_signal)


def _build_evaluation(run: TrainingRun) -> Evaluation:
    """Scores the benchmarks during training."""
    cfg = run.cfg
    select = None
    if cfg.TEST.SELECT != "score" and run.pseudo_labels is not None:
        select = partial(run.pseudo_labels.quality, cfg.TEST.SELECT)
    return Evaluation(
        run.benchmarks,
        period=cfg.SOLVER.EVAL_PERIOD,
        held_out=cfg.TEST.VALIDATION > 0,
        writer=run.writers,
        before_last=PreciseBN(
            run.ema.model,
            run.train_loader,
            run.parts.augment.augmentation,
            num_batches=cfg.SOLVER.PRECISE_BN_ITERS,
            device=run.device,
            seed=cfg.SEED,
        ),
        seed=cfg.SEED,
        select=select,
        criterion="mAP" if select is None else cfg.TEST.SELECT,
    )


def _build_checkpoints(run: TrainingRun, evaluation: Evaluation) -> Checkpoints:
    """Saves and restores everything that has a state."""
    return Checkpoints(
        Path(run.cfg.OUTPUT_DIR) / "checkpoints",
        description={
            "config": run.cfg.dump(),
            "num_classes": run.data.num_classes,
            "classes": [list(identity) for identity in run.data.classes],
            "environment": run.environment,
            "missing_weights": list(getattr(run.model, "missing_weights", ())),
        },
        model=run.model,
        evaluated_model=run.ema.model,
        optimizers=run.optimizers,
        parts={
            "criterion": run.criterion,
            "scaler": run.parts.scaler,
            "evaluation": evaluation,
            **run.distillation.state,
            **({} if run.pseudo_labels is None else {"adaptation": run.pseudo_labels}),
        },
        period=run.cfg.SOLVER.CHECKPOINT_PERIOD,
        min_seconds=run.cfg.SOLVER.CHECKPOINT_MIN_SECONDS,
    )


def build_handlers(run: TrainingRun, control: RunControl) -> list:
    """All handlers in firing order; each has `attach(trainer)`."""
    cfg, rank, world_size = run.cfg, idist.get_rank(), idist.get_world_size()
    is_eager = run.captured is None
    centers = [p for name, p in run.criterion.named_parameters() if name.endswith("centers")]
    learned = [p for p in run.criterion.parameters() if p.requires_grad]
    return [
        *([] if run.pseudo_labels is None else [run.pseudo_labels]),
        SamplerEpoch(epoch_sampler(run.train_loader)),
        *_build_batch_handlers(run),
        *([AllReduceGradients(learned)] if is_eager else []),
        RescaleCenterGradients(centers, cfg.LOSS.CENTER.WEIGHT),
        Freeze(run.model, cfg.SOLVER.FREEZE, cfg.SOLVER.FREEZE_ITERS),
        ClipGradients(run.model.parameters(), cfg.SOLVER.CLIP_NORM),
        TerminateOnNan(
            lambda index: str(run.data.records[index].paths[0]), period=_check_period(run)
        ),
        *([run.ema] if is_eager else []),
        TrainLog(
            lambda iteration: run.parts.learning_rate.rates(iteration)[0],
            run.writers,
            period=cfg.SOLVER.LOG_PERIOD,
            show_bar=cfg.LOG.PROGRESS and rank == 0,
            world_size=world_size,
        ),
        *_build_plugin_handlers(run),
        control.evaluation,
        control.checkpoints,
        control.stop_on_signal,
    ]


def _build_batch_handlers(run: TrainingRun) -> list:
    """What prepares the batch and the learning rates; a captured step does this itself."""
    if run.captured is not None:
        return []
    parts = run.parts
    return [
        ToDevice(run.device),
        parts.seeder,
        parts.augment,
        *_build_resizing(run),
        *parts.transforms,
        parts.learning_rate,
    ]


def _build_resizing(run: TrainingRun) -> list[ProgressiveResizing]:
    """The sizes of the images of all iterations; empty if the size never changes."""
    settings, num_iterations = run.cfg.INPUT, len(run.parts.learning_rate.factors)
    if tuple(settings.SCALES) == (1.0,):
        return []
    sizes = resized_sizes(tuple(settings.SIZE_TRAIN), settings.SCALES)
    steps = [round(step * num_iterations) for step in settings.SCALE_STEPS]
    return [ProgressiveResizing(sizes, steps)]


def _build_plugin_handlers(run: TrainingRun) -> list:
    unknown = [name for name in run.cfg.HANDLERS if name not in HANDLERS]
    if unknown:
        raise ValueError(
            f"HANDLERS names {unknown[0][:60]!r}, choose from {', '.join(HANDLERS) or 'none'}: "
            "IMPORTS names the plug-ins that add handlers"
        )
    return [HANDLERS[name](run) for name in run.cfg.HANDLERS]


def _check_period(run: TrainingRun) -> int:
    """Iterations between checks of losses and signals. On a GPU, once per log."""
    return 1 if run.device.type == "cpu" else run.cfg.SOLVER.LOG_PERIOD
