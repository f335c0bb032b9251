"""The checkpoints of a run: `last.pt`, `previous.pt` and `best.pt`."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ember_reid.engine.checkpoint import LAST, PREVIOUS, load_last
from ember_reid.engine.checkpoint_writer import CheckpointWriter
from ember_reid.engine.events import TrainingEvents, epoch_sampler
from ember_reid.engine.integrity import check_dtypes, check_optimizer_state
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader

logger = logging.getLogger("ember.train")


class Checkpoints:
    """Trainer, EPOCH_COMPLETED: rank 0 writes `last.pt` every `period` epochs and at the end.

    Trainer, NEW_BEST: writes `best.pt`. Unlike ignite's Checkpoint with DiskSaver, a file is
    replaced only after the new one is complete on disk, and the `last.pt` before the current one is
    kept as `previous.pt`, which --resume uses if `last.pt` cannot be read. Files are written by a
    thread; ITERATION_COMPLETED raises its errors, and COMPLETED waits for it.

    Args:
        folder: OUTPUT_DIR/checkpoints.
        description: what does not change during a run (configuration, classes); plain values.
        evaluated_model: saved as "model". If it is not `model` itself but a moving average of it,
            `model` is saved as "trained".
        parts: further objects with state_dict and load_state_dict, by name.
        period: epochs between two writes of `last.pt`.
        min_seconds: between two writes of `last.pt`. The first one and that of the last epoch are
            always written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        description: Mapping[str, object],
        model: nn.Module,
        evaluated_model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        parts: Mapping[str, Any],
        period: int = 1,
        min_seconds: float = 0.0,
    ):
        self.folder, self.description, self.period = folder, dict(description), period
        self.min_seconds, self._saved_at = min_seconds, -math.inf
        self.writer = CheckpointWriter()
        self.model, self.evaluated_model = model, evaluated_model
        self.optimizers, self.parts = list(optimizers), dict(parts)

    def attach(self, engine: Engine) -> None:
        def is_due(engine: Engine, epoch: int) -> bool:
            if epoch == engine.state.max_epochs:
                return True
            is_soon = time.monotonic() - self._saved_at < self.min_seconds
            return epoch % self.period == 0 and not is_soon

        engine.add_event_handler(TrainingEvents.NEW_BEST, self.save, "best")
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=is_due), self.save, "last")
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.writer.check)
        engine.add_event_handler(Events.COMPLETED, self.writer.wait)

    def save(self, engine: Engine, name: str = "last") -> None:
        """Start to write `<name>.pt` with the state after the last complete iteration."""
        engine.fire_event(TrainingEvents.BEFORE_SAVING)
        if name == "last":
            self._saved_at = time.monotonic()
        if idist.get_rank() == 0:
            path = self.folder / f"{name}.pt"
            previous = self.folder / PREVIOUS if path.name == LAST else None
            self.writer.save(path, self.content(engine), previous=previous)

    def save_and_wait(self, engine: Engine) -> None:
        """Write `last.pt` completely."""
        self.save(engine)
        self.writer.wait()

    def content(self, engine: Engine) -> dict[str, object]:
        """The content of a checkpoint file."""
        state = engine.state
        has_average = self.evaluated_model is not self.model
        return {
            **self.description,
            "model": self.evaluated_model.state_dict(),
            **({"trained": self.model.state_dict()} if has_average else {}),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            **{name: part.state_dict() for name, part in self.parts.items()},
            "progress": {"iteration": state.iteration, "epoch_length": state.epoch_length},
        }

    def load(self) -> dict[str, Any]:
        """Read and verify `last.pt`, or `previous.pt` if that is damaged or missing.

        Raises:
            FileNotFoundError, ValueError: there is no usable checkpoint.
        """
        path, content = load_last(self.folder)
        return {**content, "path": str(path)}

    def restore(self, content: Mapping[str, Any]) -> dict[str, int]:
        """Load the content of a checkpoint into all parts.

        Returns:
            Its progress: iteration and epoch_length.

        Raises:
            ValueError: it belongs to another model or other optimizers.
        """
        try:
            if len(content["optimizers"]) != len(self.optimizers):
                raise ValueError(
                    f"{len(content['optimizers'])} optimizers, this run has {len(self.optimizers)}"
                )
            for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
                check_optimizer_state(optimizer, state)
            trained = content.get("trained", content["model"])
            check_dtypes(self.evaluated_model, content["model"])
            check_dtypes(self.model, trained)
            # The model of a resumed run was built without pretrained weights.
            self.description["missing_weights"] = list(content.get("missing_weights", ()))
            self.evaluated_model.load_state_dict(content["model"])
            self.model.load_state_dict(trained)
            for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            for part_name, part in self.parts.items():
                if isinstance(part, nn.Module):
                    check_dtypes(part, content[part_name])
                part.load_state_dict(content[part_name])
            return _check_progress(content["progress"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:400]
            raise ValueError(
                f"--resume: {content.get('path')} was written with another configuration: {reason}"
            ) from error


def _check_progress(progress: Any) -> dict[str, int]:
    """The progress of a checkpoint.

    Raises:
        ValueError: it is not two integers in a sensible range.
    """
    iteration, length = progress["iteration"], progress["epoch_length"]
    is_valid = all(type(value) is int for value in (iteration, length))
    if not is_valid or iteration < 0 or length < 1:
        raise ValueError(f"the progress {str(progress)[:100]}")
    return {"iteration": iteration, "epoch_length": length}


def resume_engine(
    engine: Engine, progress: Mapping[str, int], loader: DataLoader, *, max_epochs: int
) -> None:
    """Continue after the last iteration of the checkpoint, with the next batch of its epoch.

    If the number of iterations per epoch has changed (another batch size or other data), an
    incomplete epoch is repeated from its start.

    Raises:
        ValueError: the checkpoint is beyond `max_epochs`.
    """
    epochs, batches = divmod(progress["iteration"], progress["epoch_length"])
    if epochs + (batches > 0) > max_epochs:
        raise ValueError(
            f"--resume: the checkpoint is in epoch {epochs + (batches > 0)}, "
            f"SOLVER.MAX_EPOCHS is {max_epochs}; raise it"
        )
    if progress["epoch_length"] != len(loader) and batches:
        logger.warning(
            "the number of iterations per epoch has changed: epoch %d is repeated from its start",
            epochs + 1,
        )
        batches = 0
    sampler = epoch_sampler(loader)
    sampler.set_epoch(epochs + 1)
    sampler.skip(batches)
    iteration = epochs * len(loader) + batches
    engine.load_state_dict(
        {"iteration": iteration, "epoch_length": len(loader), "max_epochs": max_epochs}
    )
