"""The experiment trackers of LOG.TO."""

from collections.abc import Callable, Iterable

from ember_reid.engine.handlers.background import BackgroundWriter
from ember_reid.engine.handlers.tracking import (
    ClearMLTracker,
    MLflowTracker,
    NeptuneTracker,
    PolyaxonTracker,
    TrackedRun,
    WandBTracker,
)
from ember_reid.engine.handlers.visdom import VisdomWriter
from ember_reid.engine.handlers.writers import MetricWriter, TensorBoardWriter

# Seconds that the end of a run waits for a tracker to upload the best checkpoint.
UPLOAD_TIMEOUT = 120.0

TRACKERS: dict[str, Callable[[TrackedRun], MetricWriter]] = {
    "tensorboard": lambda run: TensorBoardWriter(run.folder / "tensorboard", run.config),
    "visdom": lambda run: VisdomWriter(
        run.visdom_server,
        run.visdom_port,
        env=run.name,
        replay_file=run.folder / "visdom.jsonl",
    ),
    "wandb": WandBTracker,
    "mlflow": MLflowTracker,
    "clearml": ClearMLTracker,
    "neptune": NeptuneTracker,
    "polyaxon": PolyaxonTracker,
}


def create_trackers(names: Iterable[str], run: TrackedRun) -> list[MetricWriter]:
    """The writers of these trackers. None of them can stop the run or make it wait."""
    return [
        BackgroundWriter(TRACKERS[name](run), name, finish_timeout=UPLOAD_TIMEOUT) for name in names
    ]
