"""Metric writers for the experiment trackers that ignite has loggers for.

Wrap them in a BackgroundWriter, which calls all methods except `load` in one thread. Ignite's own
handlers are not used: they read tensors on the device and call the tracker in the training thread.
"""

import importlib
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ember_reid.engine.handlers.writers import MetricWriter
from ignite import handlers as loggers

# MLflow accepts at most this many parameters in one request.
MAX_PARAMETERS = 100


@dataclass(frozen=True)
class TrackedRun:
    """What trackers need to know about a run.

    Attributes:
        folder: OUTPUT_DIR; its name is the name of the run.
        project: LOG.PROJECT.
        config: {full key: value}, the hyper-parameters.
    """

    folder: Path
    project: str
    config: Mapping[str, object]
    visdom_server: str = "http://localhost"
    visdom_port: int = 8097

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def best_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.pt"


class Tracker(MetricWriter):
    """Base class of the trackers that give each run an id.

    The id is kept in OUTPUT_DIR/trackers, so that --resume continues the same run. Subclasses
    implement `_start`, `write`, `write_image`, `_upload` and `_finish`.

    Attributes:
        name: as in LOG.TO.
        package: the module to import.
        requirement: what pip installs.
    """

    name = package = requirement = ""
    accepts_images = True

    def __init__(self, run: TrackedRun):
        self.run = run
        self.id_file = run.folder / "trackers" / f"{self.name}.id"
        # The logger of ignite, which passes unknown attributes on to the library.
        self._logger: Any = None

    def load(self) -> None:
        try:
            importlib.import_module(self.package)
        except ModuleNotFoundError as error:
            if error.name != self.package.partition(".")[0]:
                raise
            raise ModuleNotFoundError(
                f"it is not installed: pip install '{self.requirement}'"
            ) from error

    def open(self, *, resumed_iteration: int | None = None) -> None:
        is_resumed = resumed_iteration is not None and self.id_file.is_file()
        known = self.id_file.read_text(encoding="utf-8").strip() if is_resumed else ""
        run_id = self._start(known)
        if run_id != known:
            self.id_file.parent.mkdir(exist_ok=True)
            self.id_file.write_text(f"{run_id}\n", encoding="utf-8")

    def close(self) -> None:
        if self.run.best_checkpoint.is_file():
            self._upload(self.run.best_checkpoint)
        self._finish()

    @abstractmethod
    def _start(self, known: str) -> str:
        """Start a run, or continue the one with the id `known`.

        Returns:
            The id of the run.
        """

    def _upload(self, checkpoint: Path) -> None:
        """Store the best checkpoint."""

    def _finish(self) -> None:
        self._logger.close()


class WandBTracker(Tracker):
    """Weights & Biases. WANDB_MODE=offline writes into OUTPUT_DIR/wandb only."""

    name, package, requirement = "wandb", "wandb", "ember-reid[wandb]"

    def _start(self, known: str) -> str:
        self._logger = loggers.WandBLogger(
            project=self.run.project,
            name=self.run.name,
            dir=str(self.run.folder),
            config=dict(self.run.config),
            id=known or None,
            resume="allow" if known else None,
            # It must not capture the console or prompt for a key.
            settings={"console": "off", "init_timeout": 60, "login_timeout": 1},
        )
        # The steps of W&B cannot go back to the checkpoint from which a run is resumed.
        self._logger.define_metric("iteration")
        self._logger.define_metric("*", step_metric="iteration")
        return self._logger.run.id

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        named = {f"{source}/{name}": value for name, value in values.items()}
        self._logger.log({**named, "epoch": epoch, "iteration": iteration})

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        self._logger.log({title: self._logger.Image(image), "iteration": iteration})

    def _upload(self, checkpoint: Path) -> None:
        artifact = self._logger.Artifact(f"best-{self._logger.run.id}", type="model")
        artifact.add_file(str(checkpoint))
        self._logger.log_artifact(artifact)


class MLflowTracker(Tracker):
    """MLflow. MLFLOW_TRACKING_URI selects a server or a file store."""

    name, package, requirement = "mlflow", "mlflow", "ember-reid[mlflow]"

    def _start(self, known: str) -> str:
        import mlflow

        mlflow.set_experiment(self.run.project)
        started = mlflow.start_run(
            run_id=known or None, run_name=self.run.name, log_system_metrics=False
        )
        # The logger uses the active run of this thread.
        self._logger = loggers.MLflowLogger()
        if not known:
            # A value is at most 6000 characters long, and cannot be changed.
            items = [(key, str(value)[:6000]) for key, value in self.run.config.items()]
            for first in range(0, len(items), MAX_PARAMETERS):
                self._logger.log_params(dict(items[first : first + MAX_PARAMETERS]))
        return started.info.run_id

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        named = {_plain_path(f"{source}/{name}"): value for name, value in values.items()}
        self._logger.log_metrics({**named, "epoch": float(epoch)}, step=iteration)

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        self._logger.log_image(image, f"{_plain_path(title)}/{iteration:08d}.png")

    def _upload(self, checkpoint: Path) -> None:
        self._logger.log_artifact(str(checkpoint), "checkpoints")


def _plain_path(name: str) -> str:
    """A name of a metric or file that MLflow accepts: letters, digits and `_-. /`."""
    parts = (re.sub(r"[^\w\-. ]", "_", part).strip(".") for part in name.split("/"))
    return "/".join(part for part in parts if part)


class ClearMLTracker(Tracker):
    """ClearML. CLEARML_OFFLINE_MODE=1 writes into a local folder only."""

    name, package, requirement = "clearml", "clearml", "ember-reid[clearml]"

    def _start(self, known: str) -> str:
        self._logger = loggers.ClearMLLogger(
            project_name=self.run.project,
            task_name=self.run.name,
            continue_last_task=known or False,
            reuse_last_task_id=False,
            # Only what is written here is recorded, and torch is not patched.
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,
            auto_connect_streams=False,
            auto_resource_monitoring=False,
        )
        task = self._logger.get_task()
        # Otherwise, the iterations of a resumed run would be shifted by its last iteration.
        task.set_initial_iteration(0)
        task.set_parameters({key: str(value) for key, value in self.run.config.items()})
        return task.id

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._logger.report_scalar(source, name, value, iteration)

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        self._logger.report_image(title, "ranked", iteration=iteration, image=image)

    def _upload(self, checkpoint: Path) -> None:
        task = self._logger.get_task()
        task.upload_artifact("best", artifact_object=str(checkpoint), wait_on_upload=True)


class NeptuneTracker(Tracker):
    """Neptune, the client of version 1. NEPTUNE_MODE=offline writes into a local folder only."""

    name, package, requirement = "neptune", "neptune", "neptune>=1,<2"

    def _start(self, known: str) -> str:
        self._logger = loggers.NeptuneLogger(
            project=None if known else self.run.project,
            name=None if known else self.run.name,
            with_id=known or None,
            capture_stdout=False,
            capture_stderr=False,
            capture_hardware_metrics=False,
        )
        self._logger["config"] = {key: str(value) for key, value in self.run.config.items()}
        return str(self._logger["sys/id"].fetch())

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._logger[f"{source}/{name}"].append(value, step=iteration)

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        from neptune.types import File

        self._logger[title].append(File.as_image(image / 255.0), step=iteration)

    def _upload(self, checkpoint: Path) -> None:
        self._logger["checkpoints/best"].upload(str(checkpoint))


class PolyaxonTracker(Tracker):
    """Polyaxon, inside one of its jobs or with its own configuration."""

    name, package, requirement = "polyaxon", "polyaxon", "polyaxon>=2"

    def _start(self, known: str) -> str:
        self._logger = loggers.PolyaxonLogger(
            project=self.run.project, name=self.run.name, run_uuid=known or None
        )
        self._logger.log_inputs(**{key: str(value) for key, value in self.run.config.items()})
        return str(self._logger.run_uuid)

    def write(self, source: str, epoch: int, iteration: int, values: Mapping[str, float]) -> None:
        named = {f"{source}/{name}": value for name, value in values.items()}
        self._logger.log_metrics(step=iteration, **named)

    def write_image(self, title: str, iteration: int, image: np.ndarray) -> None:
        self._logger.log_image(data=image, name=title, step=iteration)

    def _upload(self, checkpoint: Path) -> None:
        self._logger.log_artifact(str(checkpoint), name="best")
